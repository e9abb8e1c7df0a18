"""A run in a real worker group of Ray Train, nested in the run's trial; `machines.in_group` says which runs are.
Comes in: a job. Goes out: rows, in the trial's own thread, and the outcome. Exists because Ray's own way of passing reports on can hang."""

import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import ray
import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.util.queue import Empty, Queue
from torch.distributed import TCPStore, init_process_group  # type: ignore[attr-defined]  # documented

from search.cluster import elsewhere
from search.home import here
from search.kinds import KNOWN, Preempted
from search.memory import peak_memory
from search.place import crowd
from trainables.parts.errors import Interrupted
from trainables.parts.execution import Outcome
from trainables.parts.workers import Workers

Report = Callable[[dict[str, Any]], None]
Work = Callable[[dict[str, Any], Report, Workers, Callable[[], bool]], Outcome]


class Stopped(Exception):
    """The command has stopped this run."""


class ProcessDied(RuntimeError):
    """A worker of the group is gone, or what holds the group together."""


def train_group(job: dict[str, Any], work: Work, send: Report, who: Callable[[dict[str, Any]], dict[str, Any]], met: Report) -> Outcome:
    """A real worker group, nested in this trial. Ray's own TuneReportCallback can hang (its queue is full when the trial ends), so the
    first worker puts rows on a queue of ours, and waits until this thread has passed each on to Tune: no report can be lost or
    overtaken."""
    rows, taken = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
    fitting = _Fitting(_trainer(job, {"job": job, "work": work, "who": who, "rows": rows, "taken": taken}))
    raised: list[Exception] = []
    outcome: list[Outcome] = []
    try:
        while fitting.is_alive() or not rows.empty():
            try:
                row = rows.get(timeout=0.2)
            except Empty:
                continue
            if "raised" in row:
                raised.append(_as_exception(row))
                met(row["origin"])
            elif "outcome" in row:
                outcome.append(Outcome(**row["outcome"]))
                met({"peak_memory_bytes": row["peak_memory_bytes"]})
            else:
                send(row)  # raises SystemExit where Tune has stopped the trial
                taken.put(True)
    except BaseException:
        taken.put(False)  # the first worker raises Stopped, and the group ends itself, so that its placement group is freed
        fitting.join(timeout=60)
        raise
    finally:
        for queue in (rows, taken):
            queue.shutdown(force=True)
    if fitting.fault is not None:
        raise _reason(fitting.fault, raised)
    return outcome[0]


def _trainer(job: dict[str, Any], given: dict[str, Any]) -> TorchTrainer:
    """The group restarts nothing by itself, nor does it grow and shrink: what broke off is placed again by the Director, which alone knows
    whether it is still wanted, shows that it waits for a machine, and does not count the hours of that. docs/engine.md says why no group
    is elastic."""
    resources = {"CPU": float(job["cpus"])} | ({"GPU": float(job["gpus"])} if job["gpus"] else {})
    return TorchTrainer(
        _group_worker,
        train_loop_config=given,
        torch_config=_OwnAddress(),
        scaling_config=train.ScalingConfig(  # type: ignore[call-arg]  # at run time it is that of Train V2
            num_workers=job["workers"], use_gpu=bool(job["gpus"]), resources_per_worker=resources, label_selector=elsewhere(job["avoid"]),
        ),
        run_config=train.RunConfig(
            name=job["key"], storage_path=str(here(job["study"]) / "ray"),
            failure_config=train.FailureConfig(max_failures=0, max_preemption_failures=0),  # type: ignore[call-arg]
        ),
    )  # fmt: skip


class _Fitting(threading.Thread):
    """A trainer at work; fault: what ended it."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(daemon=True)
        self.trainer = trainer
        self.fault: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as problem:  # noqa: BLE001 (raised again in the trial's own thread)
            self.fault = problem


def _reason(fault: BaseException, raised: list[Exception]) -> BaseException:
    """What ended a group, of all that was heard of it. What a worker has said of itself, in words that are known, comes before the death of
    another: out of memory in one, and the others are killed for it. Any other error beside a death is what they hear of that."""
    known = next((one for one in raised if type(one) in KNOWN.values()), None)
    if known is not None:
        return known
    if isinstance(fault, train.PreemptionError):
        return Preempted(str(fault))
    lost = [failure for failure in getattr(fault, "worker_failures", {}).values() if hasattr(failure, "health_check_failure")]
    if any(getattr(failure.health_check_failure, "preempted", False) for failure in lost):
        return Preempted(str(lost[0]))
    if lost or isinstance(fault, train.ControllerError):
        return ProcessDied(str((lost or [fault])[0]))
    return next(iter(raised), fault)


def _as_exception(row: dict[str, Any]) -> Exception:
    return KNOWN[row["raised"]](row["message"]) if row["raised"] in KNOWN else RuntimeError(f"{row['raised']}: {row['message']}")


def _group_worker(given: dict[str, Any]) -> None:
    job, work, who, rows, taken = (given[name] for name in ("job", "work", "who", "rows", "taken"))
    context = train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    if torch.cuda.is_available() and job["gpus"]:
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    taken_away: list[str] = []  # machines of the group, as their provider says beforehand

    def send(row: dict[str, Any]) -> None:
        if workers.rank == 0:
            rows.put(row)
            if not taken.get():
                raise Stopped

    def leaving() -> bool:
        if told := train.get_preemption_info():  # the same for all workers: it waits until all have asked
            taken_away[:] = told.preempted_node_ids
        return bool(taken_away)

    try:
        outcome = work(job, send, workers, leaving)
        if workers.rank == 0:
            rows.put({"outcome": asdict(outcome), "peak_memory_bytes": peak_memory()})
    except Stopped:
        raise
    except Exception as fault:
        told = (
            Preempted(f"its machine is being taken away ({', '.join(taken_away)})")
            if taken_away and isinstance(fault, Interrupted)
            else fault
        )
        alone = crowd(fault) if workers.size == 1 else {}  # of several, each has a card of its own
        rows.put({"raised": type(told).__name__, "message": str(told), "origin": who(job) | alone})
        raise


class _OwnAddress(TorchConfig):
    """The store by which the workers of a group find each other obeys whoever reaches it. Ray has PyTorch open it on every interface; here
    it listens on the address that the node has in its cluster, and no other: on the loopback, in a cluster of this command's own."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _OwnAddressBackend


class _OwnAddressBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        host, port = worker_group.execute_single(0, _open_store)
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo"
        size, timeout = len(worker_group), timedelta(seconds=backend_config.timeout_s)
        group = (size, host, port, backend, timeout)
        ray.get([worker_group.execute_single_async(rank, _join_group, rank, *group) for rank in range(size)])


_opened: list[TCPStore] = []  # by the first worker, until it joins


def _open_store() -> tuple[str, int]:
    host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listener.getsockname()[1]
    _opened[:] = [TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())]
    return host, port


def _join_group(rank: int, size: int, host: str, port: int, backend: str, timeout: timedelta) -> None:
    store = _opened.pop() if rank == 0 else TCPStore(host, port, is_master=False)
    init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
