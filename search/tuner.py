"""Hands a Coordinator's runs to Ray Tune, and Tune's events back to the Coordinator.
Comes in: a Coordinator and what a run may use. Goes out: nothing but the Coordinator's records. Three thin classes: a Searcher that asks for
the next run, a Scheduler that passes rows on and stops runs, and the call of the Tuner. Ray's own experiment state is deleted at the end:
it loses trials in a crash, and the ledger does not."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.coordinator import Coordinator

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # they write what the ledger holds, and import torch into the driver
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # how often a worker group's reports are taken; 2 s by default
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a local cluster on loopback; --address takes the caller's own setting
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher


@dataclass(frozen=True)
class Resources:
    """What runs may use. cpus, gpus: of one worker; workers: of one run; slots: runs at once."""

    cpus: int
    gpus: float
    workers: int
    slots: int

    @property
    def bundles(self) -> list[dict[str, float]]:
        """A trial's own process first. The workers of a group are placed by Ray Train beside it."""
        if self.workers > 1:
            return [{"CPU": 0.01}]
        return [{"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})]


def share_out(cluster: dict[str, float], gpus_per_run: float | None, workers: int) -> Resources:
    """Divide a cluster's CPUs and GPUs into runs. gpus_per_run None: one GPU a worker where there are GPUs, else none."""
    cpus, gpus = int(cluster.get("CPU", 1)), cluster.get("GPU", 0.0)
    per_worker = (1.0 if gpus else 0.0) if gpus_per_run is None else gpus_per_run / workers
    slots = max(1, int(gpus / (per_worker * workers) + 1e-9)) if per_worker else max(1, cpus // workers)
    return Resources(max(1, cpus // (slots * workers)), per_worker, workers, slots)


class _Searcher(Searcher):
    """Asks the Coordinator for the next run. Keeps no state of its own, and saves none."""

    def __init__(self, coordinator: Coordinator, common: dict[str, Any]) -> None:
        super().__init__(metric="epoch", mode="max")
        self.coordinator, self.common = coordinator, common

    def suggest(self, trial_id: str) -> Any:
        coordinator = self.coordinator
        if len(coordinator.active) >= coordinator.slots:
            return None
        active = coordinator.next()
        if active is None:
            if coordinator.finished():
                return Searcher.FINISHED
            time.sleep(0.02)  # a run waits for a stage of another; Tune asks again at once
            return None
        return coordinator.job(active) | self.common

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the Tuner pickles what it is given for its own restore, which is never used

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a study continues from its ledger, not from Ray's state")


class _Scheduler(FIFOScheduler):
    """Passes each row on; stops what the Coordinator stops."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()
        self.coordinator = coordinator

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stop = self.coordinator.row(trial.config["key"], json.loads(result["row"]))
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self.coordinator.lost(trial.config["key"])

    def __getstate__(self) -> dict[str, Any]:
        return {}


@contextmanager
def cluster(address: str | None, cpus: int | None = None) -> Iterator[dict[str, float]]:
    """A Ray cluster: the one at `address`, or one on this machine for the time of the call. Yields its resources."""
    environment: dict[str, Any] = {}
    if address is not None:
        root = Path(__file__).parent.parent
        environment = {"working_dir": str(root), "excludes": ["runs", ".venv", ".git", "*.png"]}
    ray.init(
        address=address, num_cpus=cpus if address is None else None, log_to_driver=False, include_dashboard=True if address is None else None,
        logging_level="error", runtime_env=environment or None, namespace="karyotune",
    )  # fmt: skip
    try:
        yield dict(ray.cluster_resources())
    finally:
        ray.shutdown()


def carry_out(coordinator: Coordinator, resources: Resources, *, checkpoint_seconds: float, retries: int = 3) -> None:
    """Run all that the Coordinator asks for; returns when it is finished. A run whose process dies is started again up to `retries` times,
    from its last checkpoint."""
    from search.trial import run_trial

    common = {"cpus": resources.cpus, "gpus": resources.gpus, "workers": resources.workers, "checkpoint_seconds": checkpoint_seconds}
    state = coordinator.folder / "ray"
    trainable = tune.with_resources(run_trial, PlacementGroupFactory(resources.bundles))
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(coordinator, common),
            scheduler=_Scheduler(coordinator),
            num_samples=sys.maxsize,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["key"][:12],
            trial_dirname_creator=lambda trial: trial.config["key"][:12] + "-" + trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(state.resolve()), verbose=0, failure_config=tune.FailureConfig(max_failures=retries)
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(state, ignore_errors=True)
