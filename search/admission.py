"""Which machines of a running cluster may take runs: those that were examined and found sound.
The others are set aside, by name and reason. Comes in: nodes as Ray names them. Goes out: Findings of each; Machines that may be used.
Exists because a machine that joins may lack the storage, have other code or hide its GPU, and would be found out by the runs that are
spoilt on it."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search import cluster
from search.examine import Expected, Fault, Findings, Folder, clock_fault, examine, sees
from search.home import place_of
from search.machines import Machines
from trainables.parts import code
from trainables.parts.errors import ClusterLost, RequestError

if TYPE_CHECKING:
    from search.director import Director
    from search.request import Request

ANSWER_SECONDS = 180.0  # to start a process: seconds on a free machine, a minute on a busy one
START_SECONDS = 60.0  # after which a study begins with those that have answered
LOOK_SECONDS = 0.5
MISSED = 4  # questions in a row that the head may leave open


class Admission:
    """Examines each node once. folder: in the storage; group: whether runs have several workers; probe: see Expected; say: to the user of
    a study, by any thread; gpus: whether runs may have any, so that it matters what becomes of them."""

    def __init__(
        self,
        folder: Folder,
        *,
        group: bool = False,
        gpus: bool = True,
        probe: bool = False,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.folder, self.group, self.gpus, self.probe, self.say = folder, group, gpus, probe, say
        self.found: dict[str, Findings] = {}
        self._asked: dict[str, tuple[Any, dict[str, Any], float, float]] = {}  # node -> task, what Ray says of it, when by both clocks

    def begin(self, nodes: Iterable[dict[str, Any]]) -> None:
        """Examine those that have not been. Does not wait."""
        for node in nodes:
            name = node["NodeID"]
            if name in self.found or name in self._asked:
                continue
            expected = Expected(
                place_of(self.folder.path), self.folder.token, code.known(), node["Resources"].get("GPU", 0.0) * self.gpus, time.time(),
                self.group, self.probe,
            )  # fmt: skip
            there = NodeAffinitySchedulingStrategy(name, soft=False)
            # One call a process: it has looked at GPUs, and would keep their memory.
            looks = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(examine)
            task = looks.options(scheduling_strategy=there).remote(expected)
            self._asked[name] = (task, node, time.monotonic(), expected.sent)

    def look(self, seconds: float = 0.0) -> list[Findings]:
        """What has come since, within so many seconds."""
        tasks = {asked[0]: name for name, asked in self._asked.items()}
        done = ray.wait(list(tasks), num_returns=len(tasks), timeout=seconds)[0] if tasks else []
        heard = time.time()
        new = [self._take(tasks[task], heard) for task in done]
        for name, (_, node, began, _) in list(self._asked.items()):
            if time.monotonic() - began > ANSWER_SECONDS:
                host = node["NodeManagerHostname"]
                words = f"{host} did not start a process within {ANSWER_SECONDS:g} s; is it overloaded, or does its Python differ?"
                new.append(self._keep(name, Findings(host, [Fault("silent", words)])))
        return new

    def _take(self, name: str, heard: float) -> Findings:
        task, node, _, sent = self._asked[name]
        host = node["NodeManagerHostname"]
        try:
            found: Findings = ray.get(task)
        except RayError as fault:
            why = " ".join(str(fault).split())[:200]
            words = f"{host} could not be examined ({why}); look at Ray's logs there (/tmp/ray/session_latest/logs)"
            return self._keep(name, Findings(host, [Fault("silent", words)]))
        more = [clock_fault(found, sent, heard), sees(found, self.folder.path, self.folder.token)]
        found.faults += [fault for fault in more if fault is not None]
        return self._keep(name, found)

    def _keep(self, name: str, found: Findings) -> Findings:
        _, node, _, _ = self._asked.pop(name)
        found.node, found.resources = name, dict(node["Resources"])
        self.found[name] = found
        return found

    def pending(self) -> list[str]:
        """Hosts that have not answered yet."""
        return sorted(node["NodeManagerHostname"] for _, node, _, _ in self._asked.values())

    # -- for a study ----------------------------------------------------------------------------------------------------------------

    def follow(self, director: "Director", there: list[dict[str, Any]]) -> None:
        """Examine what is new; what is found wanting is set aside."""
        self.begin(there)
        for found in self.look():
            director.nodes.names[found.node] = found.host
            if found.bars and found.node not in director.nodes.aside:
                director.nodes.aside[found.node] = found.bars
                self.say(f"machine {found.host} was set aside: {found.bars}")
            for fault in found.faults:
                if not fault.bars:
                    self.say(fault.words)

    def sound(self, director: "Director", there: list[dict[str, Any]]) -> tuple[dict[str, float], ...]:
        """What those have that may take runs."""
        able = [node for node in there if node["NodeID"] in self.found and node["NodeID"] not in director.nodes.aside]
        return tuple(dict(node["Resources"]) for node in able)


@contextmanager
def admission(study: Path, group: bool, gpus: bool, say: Callable[[str], None]) -> Iterator[Admission]:
    with closing(Folder(study)) as folder:
        yield Admission(folder, group=group, gpus=gpus, say=say)


def gather(opened: Admission, director: "Director", request: "Request", gpus: float | None) -> Machines:
    """Wait until so many machines were examined and found sound as --wait-for says, or as are there. gpus: of a run; None: where there are
    some. Ends, with those that are there, once nothing is to be started any more. RequestError if none is sound."""
    wanted, unit = request.wait_for or 0, "" if gpus == 0 else " with a GPU"
    began, missed = time.monotonic(), 0
    with _asked_for() as ask:
        while True:
            try:
                there, missed = cluster.alive(), 0
            except ClusterLost:
                missed += 1
                if missed == MISSED:
                    raise
                time.sleep(4 * LOOK_SECONDS)
                continue
            opened.follow(director, there)
            here = opened.sound(director, there)
            machines = Machines(here, cluster.still_to_come(tuple(dict(node["Resources"]) for node in there)), True)
            able, coming = ([node for node in some if takes(node, gpus, request.workers_per_run)] for some in (here, machines.to_come))
            late = opened.pending()
            if director.finished():
                break
            if len(able) >= wanted and (not late or (here and time.monotonic() - began > START_SECONDS)):
                break
            if late and not wanted:
                words = f"examining {len(late)} machine(s) before they take runs"
            else:
                words = f"waiting for machines: {len(able)} of {wanted}{unit} are here"
                if len(here) > len(able):
                    words += f" ({len(here) - len(able)} without; --gpus-per-run 0 would use them)"
            if words != director.machines:
                director.machines = words
                ask(coming[: max(0, wanted - len(able))])
                if wanted:
                    opened.say(words)
            time.sleep(LOOK_SECONDS)  # where a signal finds the main thread, not in Ray's C++
    director.machines = ""
    if not here and not machines.to_come and not director.finished():
        raise RequestError(*[found.bars for found in opened.found.values() if found.bars])
    return machines


@contextmanager
def _asked_for() -> Iterator[Callable[[list[dict[str, float]]], None]]:
    """What asks the autoscaler for whole machines, which it brings for work alone; and takes the question back at the end, so that they go
    again when they are idle."""
    asked: list[Any] = []

    def ask(nodes: list[dict[str, float]]) -> None:
        if nodes:
            asked[:] = nodes
            request_resources(bundles=nodes)

    try:
        yield ask
    finally:
        if asked:
            request_resources(bundles=[])


def takes(node: dict[str, float], gpus: float | None, workers: int) -> bool:
    """Whether a worker of a run could work there. gpus: of a run; None: as where there are GPUs."""
    needed = 1.0 if gpus is None else gpus / workers
    return node.get("CPU", 0.0) >= 1 and (not needed or node.get("GPU", 0.0) >= needed)
