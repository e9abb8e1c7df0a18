"""A run's first steps on a GPU of each kind, before a study's runs: how many of them are to share one.
Comes in: a study at work on its cluster. Goes out: GPUs of a run, or None where the machines decide; study.json keeps what was measured, so
that the same command, and `resume`, share as before. Nothing that goes wrong here ends a study: its runs have a GPU each then, and say so
themselves where they cannot use it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from search import cluster, place, registry  # the first sets what Ray reads as it is imported
from search.home import here, home
from search.machines import Machines
from search.sharing import Trial, by_trial, divide, first_steps, measured, part
from search.study import write_study
from trainables.data.pack import load_pack
from trainables.parts.errors import RequestError
from trainables.parts.procedure import config_from, config_values

import ray  # isort: skip
from ray.exceptions import RayError, RayTaskError  # isort: skip
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # isort: skip

if TYPE_CHECKING:
    from search.director import Director
    from search.work import Work

ANSWER_SECONDS = 60.0  # to start a process, take the steps and answer; ten are usual. A cluster whose GPUs others use may have none free
LOOK_SECONDS = 0.1
KIND = "accelerator_type:"  # how Ray marks a node's GPUs


@dataclass(frozen=True)
class Shared:
    """gpus: of a run, None where the machines decide; run_bytes: of a machine's memory, for a run."""

    gpus: float | None
    run_bytes: float


def share(
    work: "Work",
    director: "Director",
    machines: Machines,
    gpus: float | None,
    run_bytes: float,
    say: Callable[[str], None],
    try_out: "Callable[[dict[str, Any]], dict[str, Any]] | None" = None,
) -> Shared:
    """By what the command says; else by what an earlier one has measured; else as runs of before had it; else by a trial. gpus: of a run by
    the first and the third of these, see `gpus_of`; run_bytes: see `run_bytes`; try_out: what each kind of GPU is tried with."""
    request = work.prepared.request
    nodes = kinds(cluster.alive(), director.nodes.aside)
    known = measured(work.study)
    if not nodes or not by_trial(request.gpus_per_run, request.workers_per_run, gpus, known):
        return Shared(gpus, run_bytes)
    new = {kind: node for kind, node in nodes.items() if kind not in known}
    if new:
        director.machines = "taking a run's first steps, to see how many share a GPU"
        found, faults = ask(new, _job(work), director.finished, try_out or tried)
        director.machines = ""
        if faults:
            say(f"each run has a GPU to itself, for it could not be measured how many share one: {'; '.join(dict.fromkeys(faults))}")
        if not new.keys() <= found.keys():
            return Shared(gpus, run_bytes)
        known |= found
        work.study = work.study | {"sharing": {kind: trial.json() for kind, trial in known.items()}}
        write_study(work.folder, work.study)
    trials = {kind: known[kind] for kind in nodes}
    wanted = len(director.queue.tabled) + len(director.queue.resumed) + sum(search.left for search in director.searches)
    runs, words = divide(trials, machines, max(1, min(wanted, request.slots or wanted)), run_bytes)
    say(words + (" (--gpus-per-run 1: each has its own)" if runs > 1 else "") + ("" if new else ", as was measured before"))
    return Shared(part(runs), max([run_bytes, *(trial.host for trial in trials.values())]))


def kinds(nodes: Sequence[Mapping[str, Any]], aside: Mapping[str, str]) -> dict[str, str]:
    """One node of each kind of GPU."""
    found: dict[str, str] = {}
    for node in nodes:
        if node["Resources"].get("GPU", 0.0) >= 1 and node["NodeID"] not in aside:
            found.setdefault(next((name for name in sorted(node["Resources"]) if name.startswith(KIND)), ""), node["NodeID"])
    return found


def _job(work: "Work") -> dict[str, Any]:
    plan = work.prepared.plan
    return {
        "procedure": work.prepared.entry.procedure.name, "study": str(home(work.folder)), "config": config_values(plan.baseline),
        "seed": plan.seeds[0], "gpus": 1,
    }  # fmt: skip


def ask(
    nodes: Mapping[str, str], job: dict[str, Any], over: Callable[[], bool], try_out: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[dict[str, Trial], list[str]]:
    """What each node says, and why some say nothing. Ends early once nothing is to be started any more."""
    tasks = {}
    for kind, node in nodes.items():
        # One call a process: it has filled a part of the GPU, which is free again when it has ended.
        alone = ray.remote(num_cpus=1, num_gpus=1, max_calls=1, max_retries=0)(try_out)
        tasks[alone.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(job)] = kind
    end, waiting = time.monotonic() + ANSWER_SECONDS, list(tasks)
    while waiting and time.monotonic() < end and not over():
        time.sleep(LOOK_SECONDS)  # where a signal finds the main thread, not in Ray's C++
        waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0)[1]
    found, faults = {}, []
    for task, kind in tasks.items():
        if task in waiting:
            ray.cancel(task, force=True)
            faults += [] if over() else [f"no GPU has answered within {ANSWER_SECONDS:g} s"]
            continue
        try:
            found[kind] = Trial(**ray.get(task))
        except RayError as fault:
            cause = fault.cause if isinstance(fault, RayTaskError) else fault
            lines = str(cause).splitlines() or [type(cause).__name__]
            faults.append(lines[0] if isinstance(cause, RequestError) else f"{type(cause).__name__}: {lines[0]}")
    return found, faults


def tried(job: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own on a GPU. Whatever it raises is a reason."""
    if why := place.unusable(job):
        raise RequestError(why)
    study = here(job["study"])
    home(study).take_up(study / "checkpoints" / "trial", ["data"], first=False)
    procedure = registry.load(job["procedure"]).procedure
    torch.set_num_threads(1)
    try:
        return first_steps(
            procedure, config_from(procedure.config, job["config"]), load_pack(study / "data"), job["seed"], place.device(job)
        ).json()
    except torch.cuda.OutOfMemoryError:
        raise RequestError("its memory is not enough for one run of the baseline") from None
