"""What a study's machines have, and how it is divided into runs.
Comes in: Ray's count of each node, what a run may use. Goes out: slots, and the CPUs and GPUs of a worker. Pure but for a file that `ray
up` leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # comes with Ray

from trainables.parts.errors import RequestError

RUN_BYTES = 1.3e9  # memory of a worker of which nothing is known yet: preset quick takes so much, PyTorch most of it
LONG_SECONDS = 600.0  # a run of which is worth a worker group on a running cluster: 2 % of it at most
GROUP_BYTES = 1.7e9  # of the head's memory for each group: the run's trial and the group's controller
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()


@dataclass(frozen=True)
class Machines:
    """A cluster's nodes, each as Ray counts it ({"CPU": 8.0, "GPU": 1.0, "memory": bytes, ...}). here: at work now; to_come: the autoscaler
    may add them. running: the cluster is not ours alone, and its nodes may be other machines."""

    here: tuple[dict[str, float], ...]
    to_come: tuple[dict[str, float], ...] = ()
    running: bool = False


@dataclass(frozen=True)
class Resources:
    """What runs may use. cpus, gpus: of one worker; workers: of one run; slots: runs at once."""

    cpus: float
    gpus: float
    workers: int
    slots: int
    machines: Machines
    run_bytes: float = RUN_BYTES
    most: int | None = None  # runs at once that were asked for, where fewer than there is room for

    @property
    def worker(self) -> dict[str, float]:
        """What one worker takes."""
        return {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})

    @property
    def held(self) -> float:
        """GPUs of a run, or its workers where it has none: what its seconds are counted by."""
        return self.gpus * self.workers or float(self.workers)

    def bundles(self, group: bool) -> list[dict[str, float]]:
        """What Tune reserves for a run: its worker, or a trial process that only starts a group, whose workers Ray Train places. The latter
        stands on the head and takes no CPU: a hundredth of one would already keep a two-worker run off two CPUs, for ever."""
        return [{"node:__internal_head__": 0.001}] if group else [self.worker]

    def in_group(self, seconds: float) -> bool:
        """Whether a run trains in a worker group of Ray Train, or in local mode, in its trial's own process. seconds: how long it is
        expected to take; 0 where that is not known yet. Several workers are a group. One worker is where it gains by it: Ray Train hears
        beforehand that a machine is taken away, which happens on a running cluster, and what is saved then is a minute's work and an
        epoch, which a run must be long to be worth the start; as many at once must find room on the head, where their trials and
        controllers stand."""
        if self.workers > 1 or not self.machines.running or seconds < LONG_SECONDS:
            return self.workers > 1
        head = next((node for node in self.machines.here if "node:__internal_head__" in node), {})
        return head.get("memory", 0.0) >= GROUP_BYTES * self.slots


def share_out(
    machines: Machines, gpus_per_run: float | None, workers: int, run_bytes: float = RUN_BYTES, most: int | None = None
) -> Resources:
    """Divide a cluster's CPUs and GPUs into runs; each worker must fit on one node. gpus_per_run None: one GPU a worker where there are
    GPUs, else none. run_bytes: memory of a worker; most: runs at once, where fewer are wanted. RequestError if the cluster could never
    place a run: it would wait for ever."""
    nodes = [*machines.here, *machines.to_come]
    some_gpu = any(node.get("GPU", 0.0) for node in nodes)
    gpus = (1.0 if some_gpu else 0.0) if gpus_per_run is None else gpus_per_run / workers
    unit, amount = ("GPU", gpus) if gpus else ("CPU", 1.0)
    fits = [(node.get("CPU", 0.0), _places(node.get(unit, 0.0), amount), node) for node in nodes]
    fits = [(cpus, min(places, by_memory(node, run_bytes)), node) for cpus, places, node in fits if cpus >= 1 and places]
    places = sum(places for _, places, _ in fits)
    if places < workers:
        largest = max((node.get(unit, 0.0) for node in nodes), default=0.0)
        raise RequestError(
            f"a run takes {workers} worker(s) of {amount:g} {unit} and a CPU each, and the cluster has room for {places} "
            f"({len(nodes)} node(s), the largest with {largest:g} {unit}); lower "
            + ("--gpus-per-run or --workers-per-run" if gpus else "--workers-per-run")
            + (", or wait for machines with --wait-for N" if machines.running else "")
        )
    share = min(cpus / places for cpus, places, _ in fits)  # below 1 where more runs share a GPU than there are CPUs
    cpus = float(int(share)) if share >= 1 else int(100 * share) / 100
    found = Resources(cpus, gpus, workers, places // workers, machines, run_bytes)
    return replace(found, slots=max(1, min(found.slots, most)), most=most) if most else found


def _places(there: float, amount: float) -> int:
    """How many times there is so much of a unit. A part of a GPU is of one GPU: 0.4 of each of two is room for four, not five."""
    if amount >= 1:
        return int(there / amount + 1e-9)
    return int(there) * int(1 / amount + 1e-9) + int(there % 1 / amount + 1e-9)


def gpus_of(records: Mapping[str, Mapping[str, Any]], asked: float | None, workers: int) -> float | None:
    """GPUs of a run: as asked for; else none or some as the study's runs had so far, for a table must not mix both; None: none has run yet,
    and it is as the machines are."""
    devices = {record["device"] for record in records.values() if record["status"] == "completed" and record.get("device")}
    if asked is not None or not devices:
        return asked
    return 0.0 if devices == {"cpu"} else float(workers)


def idle(gpus: float, nodes: Sequence[Mapping[str, float]]) -> str:
    """Words on GPUs that no run uses. gpus: of a worker."""
    there = sum(node.get("GPU", 0.0) for node in nodes)
    if gpus or not there:
        return ""
    return f"{there:g} GPU(s) stay idle: the runs of this study have none, and stay comparable; --gpus-per-run 1 or a new --name uses them"


def run_bytes(records: Mapping[str, Mapping[str, Any]]) -> float:
    """Memory of a worker: the most that a run of the study took, and a fifth more; RUN_BYTES where none has run."""
    return 1.2 * max((record.get("peak_memory_bytes") or 0 for record in records.values()), default=0) or RUN_BYTES


def by_memory(node: dict[str, float], run_bytes: float) -> int:
    """Workers that fit into a node's memory; at least one, for what a worker takes is a guess."""
    return max(1, int(node["memory"] / run_bytes)) if node.get("memory") else 1 << 30


def to_come(bootstrap: Path, here: Sequence[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """Nodes that the autoscaler may still add, from the configuration that `ray up` leaves on the head; none elsewhere. A cluster that
    starts with no worker would otherwise look as if it had no GPU. Workers that are here count against the limit."""
    if not bootstrap.exists():
        return ()
    config = yaml.safe_load(bootstrap.read_text())
    types = {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}
    nodes = [
        {unit: float(amount) for unit, amount in kind["resources"].items() if isinstance(amount, int | float)}
        for kind in types.values()
        for _ in range(kind.get("max_workers", config["max_workers"]))
    ]
    workers = sum("node:__internal_head__" not in node for node in here)
    return tuple(nodes[: max(0, config["max_workers"] - workers)])
