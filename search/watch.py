"""Looks after a study while Tune is at work: runs that hang, a cluster that has ended, machines that came or went.
Comes in: a Director. Goes out: processes killed, notes, and `Left` in the main thread where Tune would wait for ever."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search import cluster
from search.admission import Admission
from search.director import Director
from search.live import beside
from search.machines import Machines, Resources, idle, share_out
from search.show import duration
from trainables.parts.errors import ClusterLost, RequestError
from trainables.parts.execution import read_processes

LOOK_SECONDS, LOOKS = 2.0, 4  # how often Ray's own processes are looked for, and how often in a row they must be gone
NODES_SECONDS = 30.0  # how often machines are counted


class Left(BaseException):
    """Tune would wait for ever: the cluster has ended, or its runs wait for machines and are not wanted any more."""


def has_left(fault: BaseException | None) -> bool:
    """Whether an exception is Left, or what Ray's C++ made of it where the main thread stood in there (a SystemError)."""
    while fault is not None:
        if isinstance(fault, Left):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def _look() -> list[dict[str, Any]] | None:
    """The cluster's nodes; None where nothing answers in time, or the node of this process is gone."""
    try:
        nodes = cluster.alive()
    except ClusterLost:
        return None
    own = ray.get_runtime_context().get_node_id()
    return nodes if any(node["NodeID"] == own for node in nodes) else None


_lost: list[str] = []  # words on a cluster that has ended though no process of it is ours


def gone() -> list[str]:
    """Processes of the cluster that this command started and that are not there any more; of another's, what does not answer."""
    node = ray._private.worker._global_node
    own: list[str] = [] if node is None else sorted({str(name) for name, _ in node.dead_processes()} & {"gcs_server", "raylet"})
    return own or list(_lost)


def lost() -> ClusterLost | None:
    """The same in words."""
    ended = gone()
    return ClusterLost(f"Ray's own processes have ended under the study ({', '.join(ended)}: killed, or out of memory)") if ended else None


@contextmanager
def watched(
    director: Director, resources: Resources, patience: float, on_loss: Callable[[], None], opened: Admission | None = None
) -> Iterator[None]:
    """Kill processes of runs that hang (see `Director.stalled`), follow the machines, and leave Tune where it waits in vain. on_loss is
    called once, where the cluster has ended. opened: examines machines that join."""
    ended, main = threading.Event(), threading.get_ident()
    running = resources.machines.running
    _lost.clear()

    def watch() -> None:
        looked = counted = time.monotonic()
        missed = 0
        while not ended.wait(LOOK_SECONDS):
            there = _look() if running else None
            missed = missed + 1 if gone() or (running and there is None) else 0
            if missed == LOOKS:
                if running and not gone():
                    _lost.append("the cluster's head, or the node that this command works on, does not answer")
                # What still runs on other nodes saves its checkpoint: it must not train beside the next command's.
                director.stop(str(lost()))
                on_loss()
            if missed >= LOOKS or director.waits_in_vain():  # until then, Tune may notice by itself
                signal.pthread_kill(main, signal.SIGUSR2)
            if not missed and time.monotonic() - looked >= min(30.0, patience / 5):
                looked = time.monotonic()
                _end_stalled(director, resources.workers, patience)
            if there is not None:
                director.nodes.count(there, resources.worker)
            if there is not None and opened is not None:
                opened.follow(director, there)  # as soon as they are seen: a run that waits may be placed there
                if time.monotonic() - counted >= NODES_SECONDS:
                    counted = time.monotonic()
                    _follow(director, resources, opened.sound(director, there), there)
            if not running or there is not None:
                _all_aside(director, resources, there)

    def leave(number: int, frame: object) -> None:
        raise Left

    before = signal.signal(signal.SIGUSR2, leave)  # SIGUSR1 is Tune's own
    try:
        with beside(watch, ended):
            yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _end_stalled(director: Director, workers: int, patience: float) -> None:
    for active, silence in director.stalled(patience):
        with suppress(OSError, ray.exceptions.RayError, ClusterLost):
            _kill(director.folder / active.folder, workers, str(active.facts.get("worker", "")))
        director.notes.append(f"{active.name}: no sign of life for {duration(silence)}; its process was killed to start it again")


def _follow(director: Director, resources: Resources, here: tuple[dict[str, float], ...], there: list[dict[str, Any]]) -> None:
    """Runs at once by the machines that are there now. here: what those of them have that may take runs. Whether runs use GPUs stays as it
    was."""
    machines = Machines(here, cluster.still_to_come(tuple(dict(node["Resources"]) for node in there)), True)
    if not idle(resources.gpus, resources.machines.here) and (words := idle(resources.gpus, here)) and words != director.machines:
        director.machines = words
        director.notes.append(words)
    with suppress(RequestError):  # none of them is there at this moment: what waits, waits
        gpus = resources.gpus * resources.workers
        director.slots = share_out(machines, gpus, resources.workers, resources.run_bytes, resources.most).slots


def _all_aside(director: Director, resources: Resources, there: list[dict[str, Any]] | None) -> None:
    """A study of which every machine that could take a run was set aside ends, and says why. there: None on this machine alone."""
    aside = director.nodes.aside
    if aside and director.halt is None:
        needed = resources.worker
        able = [node for node in there or () if all(node["Resources"].get(unit, 0.0) >= amount for unit, amount in needed.items())]
        alive = {node["NodeID"] for node in able} if there is not None else set(director.nodes.names) - {""}
        if alive and alive <= set(aside):  # with none there, runs wait for the next
            director.stop("every machine was set aside: " + "; ".join(sorted(set(aside.values()))))


def _kill(folder: Path, workers: int, said: str) -> None:
    """SIGKILL to the processes that work on a run, wherever they are. said: by the one that there is, where it is, before its log was seen
    here."""
    where, _, number = said.rpartition(":")
    for host, pid in [(where, int(number))] if said and workers == 1 else read_processes(folder)[-workers:]:
        if host == socket.gethostname():
            _kill_here(pid)
            continue
        for node in cluster.alive():
            if node["NodeManagerHostname"] == host:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ray.remote(_kill_here).options(num_cpus=0, scheduling_strategy=there).remote(pid)
                break


def _kill_here(pid: int) -> None:
    with suppress(OSError):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):  # and not another's, which has the number by now
            os.kill(pid, signal.SIGKILL)
