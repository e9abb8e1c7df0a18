"""The only bridge from a trainable to Ray.
Comes in: a job as plain values (what a Tune trial is given). Goes out: rows through `tune.report`, files in the run's folder.
Each run is a Ray Train `TorchTrainer`: in local mode (no process group) for one worker, which costs 0.03 s, or a worker group with
DistributedDataParallel. Checkpoints are the run's own files: a retried run, and a new driver, find them without Ray."""

import functools
import gc
import json
import os
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from search import registry
from search.ledger import STOP, now
from search.stages import Stages
from trainables.parts import code
from trainables.parts.data import Pack, load_pack
from trainables.parts.errors import Diverged, Interrupted, OtherCode, RequestError, StorageFault, WeightsUnreachable
from trainables.parts.execution import device_name, execute
from trainables.parts.procedure import config_from
from trainables.parts.workers import Workers

Report = Callable[[dict[str, Any]], None]

_packs: dict[str, Pack] = {}  # of this process, by folder: reused processes map the file once


def run_trial(job: dict[str, Any]) -> None:
    """A Tune function trainable. Every ending that is not the death of the process is reported as a row {"end": status, ...}."""
    _reset_peak_memory()
    started = now()
    origin: dict[str, Any] = {}  # of the worker, which in a group is another process than this one

    def send(row: dict[str, Any]) -> None:
        origin.update(row.get("origin", {}))
        tune.report({"row": json.dumps(row), "epoch": row.get("epoch", 0)})

    try:
        if job["workers"] == 1:
            _local(job, send)
        else:
            _group(job, send)
        ending: dict[str, Any] = {"end": "completed"}
    except Interrupted:
        ending = {"end": "stopped"}
    except StorageFault as fault:
        ending = {"end": "stopped", "message": str(fault)}
    except OtherCode as fault:
        ending = {"end": "misplaced", "kind": "other_code", "message": str(fault)}
    except Diverged as fault:
        ending = {"end": "diverged", "kind": "not_finite", "message": str(fault)}
    except WeightsUnreachable as fault:
        ending = {"end": "failed", "kind": "unreachable_weights", "message": str(fault)}
    except (MemoryError, torch.cuda.OutOfMemoryError) as fault:
        ending = {"end": "failed", "kind": "out_of_memory", "message": str(fault).splitlines()[0] if str(fault) else "out of memory"}
    except RequestError as fault:
        ending = {"end": "failed", "kind": "request", "message": "; ".join(fault.faults)}
    except _ProcessDied:
        raise  # Tune starts the run again, as it does where the trial's own process dies
    except Exception as fault:  # noqa: BLE001 (recorded with its reason, its traceback in the run's log; the study goes on)
        ending = {"end": "failed", "kind": "error", "message": f"{type(fault).__name__}: {fault}".splitlines()[0]}
        with suppress(OSError):
            (Path(job["study"]) / job["folder"]).mkdir(parents=True, exist_ok=True)
            (Path(job["study"]) / job["folder"] / "log.txt").write_text(traceback.format_exc())
    ending |= {
        "started": started, "ended": now(), "worker": f"{socket.gethostname()}:{os.getpid()}", "peak_memory_bytes": _peak_memory(),
        **(origin or code.origin(device_name(_device(job)))),
    }  # fmt: skip
    gc.collect()
    _freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    send(ending)


def _local(job: dict[str, Any], send: Report) -> None:
    TorchTrainer(
        lambda config: _work(config, send, Workers()), train_loop_config=job, scaling_config=train.ScalingConfig(num_workers=0)
    ).fit()


def _work(job: dict[str, Any], send: Report, workers: Workers) -> None:
    """One worker's part of a run."""
    if code.fingerprint() != job["code"]:
        own = ", ".join(f"{name} {code.versions().get(name, 'none')}" for name in code.LIBRARIES)
        raise OtherCode(
            f"{socket.gethostname()} has other code than the command: its trainables/ differs, or its {own}; "
            "give it what the command has, or begin the command again if files were changed meanwhile"
        )
    torch.set_num_threads(max(1, int(job["cpus"])))
    device = _device(job)
    study = Path(job["study"])
    entry = registry.load(job["procedure"])
    folders = {"": study / "data"} | {name: study / "external" / name for name in job["external"]}
    for known in set(_packs) - set(map(str, folders.values())):
        del _packs[known]
    packs = {name: _packs.get(str(folder)) or _packs.setdefault(str(folder), load_pack(folder)) for name, folder in folders.items()}
    execute(
        entry.procedure,
        config_from(entry.procedure.config, job["config"]),
        seed=job["seed"],
        pack=packs.pop(""),
        external=packs,
        folder=study / job["folder"],
        store=Stages(study),
        report=_signed(send, code.origin(device_name(device))),
        device=device,
        workers=workers,
        evaluate_test=job["evaluate_test"],
        checkpoint_seconds=job["checkpoint_seconds"],
        stopping=(study / STOP).exists,
        code=job["key_code"],
    )


def _signed(send: Report, origin: dict[str, Any]) -> Report:
    """`send`, with who trains in the first row: the run may be ended before this process says more."""
    words = [origin]

    def report(row: dict[str, Any]) -> None:
        send(row | ({"origin": words.pop()} if words else {}))

    return report


@functools.cache
def _freeze() -> None:
    """Once a process, after its first run: what the libraries have made by then, half of it at their first use, need not be looked through
    after each run (0.3 s). To ask Python whether that was done would count it all (0.1 s)."""
    gc.freeze()


class _Stopped(Exception):
    """The driver has stopped this run."""


class _ProcessDied(RuntimeError):
    """A worker of the group is gone, or what holds the group together."""


def _group(job: dict[str, Any], send: Report) -> None:
    """A real worker group, nested in this trial. Ray's own TuneReportCallback can hang (its queue is full when the trial ends), so the first
    worker puts rows on a queue of ours, and waits until this thread has passed each on to Tune: no report can be lost or overtaken."""
    rows = Queue(actor_options={"num_cpus": 0})
    taken = Queue(actor_options={"num_cpus": 0})
    resources = {"CPU": float(job["cpus"])} | ({"GPU": float(job["gpus"])} if job["gpus"] else {})
    trainer = TorchTrainer(
        _group_worker,
        train_loop_config=job | {"rows": rows, "taken": taken},
        scaling_config=train.ScalingConfig(num_workers=job["workers"], use_gpu=bool(job["gpus"]), resources_per_worker=resources),
        run_config=train.RunConfig(
            name=job["key"], storage_path=str(Path(job["study"]) / "ray"), failure_config=train.FailureConfig(max_failures=0)
        ),
    )
    fault: list[BaseException] = []
    raised: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as problem:  # noqa: BLE001 (raised again in the trial's own thread)
            fault.append(problem)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    try:
        while thread.is_alive() or not rows.empty():
            try:
                row = rows.get(timeout=0.2)
            except Empty:
                continue
            if "raised" in row:
                raised.append(_as_exception(row))
                continue
            send(row)  # raises SystemExit where Tune has stopped the trial
            taken.put(True)
    except BaseException:
        taken.put(False)  # the first worker raises _Stopped, and the group ends itself, so that its placement group is freed
        thread.join(timeout=60)
        raise
    finally:
        for queue in (rows, taken):
            queue.shutdown(force=True)
    if fault:
        lost = [failure for failure in getattr(fault[0], "worker_failures", {}).values() if hasattr(failure, "health_check_failure")]
        if lost or isinstance(fault[0], train.ControllerError):
            raise _ProcessDied(str((lost or fault)[0]))  # what the others raise is that they hear no more of it
        raise next((known for known in raised if type(known) in _KNOWN.values()), (raised or fault)[0])


_KNOWN: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (Diverged, OtherCode, WeightsUnreachable, RequestError, Interrupted, StorageFault, MemoryError, torch.cuda.OutOfMemoryError)
}


def _as_exception(row: dict[str, Any]) -> Exception:
    return _KNOWN[row["raised"]](row["message"]) if row["raised"] in _KNOWN else RuntimeError(f"{row['raised']}: {row['message']}")


def _group_worker(job: dict[str, Any]) -> None:
    context = train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    if torch.cuda.is_available() and job["gpus"]:
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())

    def send(row: dict[str, Any]) -> None:
        if workers.rank == 0:
            job["rows"].put(row)
            if not job["taken"].get():
                raise _Stopped

    try:
        _work({name: value for name, value in job.items() if name not in ("rows", "taken")}, send, workers)
    except _Stopped:
        raise
    except Exception as fault:
        job["rows"].put({"raised": type(fault).__name__, "message": str(fault)})
        raise


def _device(job: dict[str, Any]) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if job["gpus"] and torch.cuda.is_available() else torch.device("cpu")


def _reset_peak_memory() -> None:
    """Processes are reused: the peak is this run's, not that of one before."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not permitted in some containers; the peak is then the process's
        return


def _peak_memory() -> int:
    """Peak resident memory in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
