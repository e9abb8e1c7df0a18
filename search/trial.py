"""The only bridge from a trainable to Ray.
Comes in: a job as plain values (what a Tune trial is given). Goes out: rows through `tune.report`; the result travels with the last one.
Each run is a Ray Train `TorchTrainer`: in local mode (in the trial's own process), or in a worker group (`group`); `machines.in_group`
chooses. Checkpoints are the run's own files: a run that is placed again, and a new command, find them without Ray. A process that may be
spoilt (an error of the device, one that nobody knows) is not used again: it raises after its last row."""

import functools
import gc
import json
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch
from ray import train, tune
from ray.train.torch import TorchTrainer

from search import place, registry
from search.group import ProcessDied, train_group
from search.home import here, home
from search.kinds import KINDS
from search.ledger import now
from search.memory import peak_memory, reset_peak_memory
from search.stages import Stages
from search.study import STUDY
from search.takeup import complete_log
from trainables.data.pack import Pack, load_pack
from trainables.parts import code
from trainables.parts.errors import CardHidden, Interrupted, Misplaced, OtherCode, RequestError
from trainables.parts.execution import MODEL, Outcome, execute, parameters_of
from trainables.parts.procedure import config_from
from trainables.parts.workers import Workers

Report = Callable[[dict[str, Any]], None]

LEAVES = ("out_of_memory", "error", "device", "misplaced", "card_hidden", "other_code")  # after which a process is not used again

_packs: dict[str, Pack] = {}  # of this process, by folder: reused processes map the file once


class _Leaves(Exception):
    """This process is not to be used again."""


def run_trial(job: dict[str, Any]) -> None:
    """A Tune function trainable. Every ending that is not the death of the process is reported as a row {"end": status, ...}."""
    reset_peak_memory()
    started = now()
    origin: dict[str, Any] = {}  # of the worker, which in a group is another process than this one

    def send(row: dict[str, Any]) -> None:
        origin.update(row.get("origin", {}))
        tune.report({"row": json.dumps(row), "epoch": row.get("epoch", 0)})

    try:
        if home(here(job["study"])).stopped():
            raise Interrupted  # it waited for a machine, and got that of a run which has just been stopped
        if not job.get("group"):
            send({"origin": place.origin(job)})  # before anything can end the process: whose fault that is depends on where it was
            place.hold(job, origin.get("card", ""), send)
        outcome = train_group(job, _work, send, place.origin, origin.update) if job.get("group") else _local(job, send)
        model = here(job["study"]) / job["folder"] / MODEL
        home(here(job["study"])).fetch(model)  # a group's first worker may be elsewhere
        parameters = parameters_of(model)
        ending: dict[str, Any] = {"end": "completed", "outcome": asdict(outcome), "parameters": parameters}
    except ProcessDied:
        raise  # as where the trial's own process dies
    except Exception as fault:  # noqa: BLE001 (told as it is; its traceback stands in the run's log; the study goes on)
        ending = _ending(job, fault)
    ending |= {"started": started, "ended": now(), "peak_memory_bytes": peak_memory()} | (origin or place.origin(job))
    home(here(job["study"])).leave(here(job["study"]) / job["folder"])
    leaves = ending.get("kind") in LEAVES
    gc.collect()
    _freeze()
    if torch.cuda.is_available() and not leaves:
        torch.cuda.empty_cache()
    send(ending | {"leaves": leaves})
    if leaves:
        raise _Leaves(ending.get("message"))


def _ending(job: dict[str, Any], fault: Exception) -> dict[str, Any]:
    end, kind = next((end, kind) for known, end, kind in KINDS if isinstance(fault, known))
    if kind == "error" and place.is_full(fault):
        kind = "out_of_memory"
    elif kind == "error" and _of_device(fault):
        kind = "device"
    words = "; ".join(fault.faults) if isinstance(fault, RequestError) else str(fault)
    if kind == "out_of_memory":
        words = words.splitlines()[0] if words else "out of memory"
    elif kind in ("error", "device"):
        words = f"{type(fault).__name__}: {fault}".splitlines()[0]
        with suppress(OSError):
            run = here(job["study"]) / job["folder"]
            run.mkdir(parents=True, exist_ok=True)
            (run / "log.txt").write_text("".join(traceback.format_exception(fault)))
            home(here(job["study"])).put_run(run)
    ending = {"end": end} | ({"kind": kind} if kind else {}) | ({"message": words} if kind or words else {})
    return ending | ({} if job.get("group") else place.crowd(fault))  # whose worker has said it


def _of_device(fault: Exception) -> bool:
    """An error of the device sticks to its process: whatever it runs next fails too."""
    return isinstance(fault, torch.AcceleratorError) or "CUDA error" in str(fault)


def _local(job: dict[str, Any], send: Report) -> Outcome:
    found: list[Outcome] = []
    TorchTrainer(
        lambda config: found.append(_work(config, send, Workers(), lambda: False)),
        train_loop_config=job,
        scaling_config=train.ScalingConfig(num_workers=0),
    ).fit()
    return found[0]


def _work(job: dict[str, Any], send: Report, workers: Workers, leaving: Callable[[], bool]) -> Outcome:
    """One worker's part of a run. leaving: asked by every worker after each epoch; whether their machines are being taken away."""
    study = here(job["study"])
    there, run = home(study), study / job["folder"]
    if there.url:
        needs = [name for name in ("data", *(f"external/{name}" for name in job["external"])) if str(study / name) not in _packs]
        there.take_up(run, needs, first=workers.rank == 0)
        if workers.rank == 0:
            complete_log(run)
    _examine(job)
    torch.set_num_threads(max(1, int(job["cpus"])))
    entry = registry.load(job["procedure"])
    folders = {"": study / "data"} | {name: study / "external" / name for name in job["external"]}
    for known in set(_packs) - set(map(str, folders.values())):
        del _packs[known]
    try:
        packs = {name: _packs.get(str(folder)) or _packs.setdefault(str(folder), load_pack(folder)) for name, folder in folders.items()}
    except RequestError as fault:  # the command has read them
        raise Misplaced(f"{socket.gethostname()} cannot read the study's images: {'; '.join(fault.faults)}") from None
    say = _signed(send, place.origin(job)) if job.get("group") else send

    def report(row: dict[str, Any]) -> None:
        if workers.rank == 0:
            there.put_run(run)  # first: what is told has happened
        say(row)

    try:
        return execute(
            entry.procedure,
            config_from(entry.procedure.config, job["config"]),
            seed=job["seed"],
            pack=packs.pop(""),
            external=packs,
            folder=run,
            store=Stages(study),
            report=report,
            device=place.device(job),
            workers=workers,
            evaluate_test=job["evaluate_test"],
            checkpoint_seconds=job["checkpoint_seconds"],
            stopping=lambda: leaving() or there.stopped(),
            code=job["key_code"],
        )
    finally:
        if workers.rank == 0:
            there.put_run(run)
            if job.get("group"):
                there.leave(run)


def _examine(job: dict[str, Any]) -> None:
    """Misplaced, or OtherCode, where the run cannot be done here as it was asked for, whatever its configuration."""
    host = socket.gethostname()
    if not (here(job["study"]) / STUDY).exists():
        raise Misplaced(f"{host} does not see {job['study']}; every machine must see the folder of --storage")
    if why := place.unusable(job):
        raise CardHidden(f"Ray promised a GPU on {host}, and {why}")
    if code.fingerprint() != job["code"]:
        own = ", ".join(f"{name} {code.versions().get(name, 'none')}" for name in code.LIBRARIES)
        raise OtherCode(
            f"{host} has other code than the command: its trainables/ differs, or its {own}; "
            "give it what the command has, or begin the command again if files were changed meanwhile"
        )


def _signed(send: Report, origin: dict[str, Any]) -> Report:
    """`send`, with who trains in the first row of a group's worker: the run may be ended before it says more."""
    words = [origin]

    def report(row: dict[str, Any]) -> None:
        send(row | ({"origin": words.pop()} if words else {}))

    return report


@functools.cache
def _freeze() -> None:
    """Once a process, after its first run: what the libraries have made by then, half of it at their first use, need not be looked through
    after each run (0.3 s). To ask Python whether that was done would count it all (0.1 s)."""
    gc.freeze()
