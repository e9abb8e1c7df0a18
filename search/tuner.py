"""Hands a Coordinator's runs to Ray Tune, and Tune's events back to the Coordinator.
Comes in: a Coordinator and what a run may use. Goes out: nothing but the Coordinator's records. Three thin classes: a Searcher that asks for
the next run, a Scheduler that passes rows on and stops runs, and the call of the Tuner. Ray's own experiment state is deleted at the end:
it loses trials in a crash, and the ledger does not."""

import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # this and yaml come with Ray
import yaml  # type: ignore[import-untyped]

from search.coordinator import Coordinator
from search.path import FOLDER, ROOT
from search.retune import Relay
from search.show import beside, duration
from trainables.parts.errors import ClusterLost, RequestError
from trainables.parts.execution import read_processes

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # they write what the ledger holds, and import torch into the driver
os.environ.setdefault(
    "TUNE_DISABLE_SIGINT_HANDLER", "1"
)  # its own handler would end the study as if it were done; the command line says what is
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")  # for a stopped run to leave its process; else the next one fails
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # how often a worker group's reports are taken; 2 s by default
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1e9")  # no snapshots of Ray's own state: the ledger is what a study continues from
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a local cluster on loopback; --address takes the caller's own setting
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # each run has a new thread; with an arena for each, a reused process grew by 45 MB a run

import ray
from ray import tune
from ray._private.grpc_utils import init_grpc_channel  # with the cluster's token and TLS settings
from ray._private.services import canonicalize_bootstrap_address  # what ray.init does with an address
from ray.exceptions import AuthenticationError
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SETTINGS = (
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "MALLOC_ARENA_MAX",
    FOLDER,
)
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()
ANSWER_SECONDS = 5  # a head answers in milliseconds
ROOM_SECONDS = 5
LOOK_SECONDS, LOOKS = 2.0, 4  # how often Ray's own processes are looked for, and how often in a row they must be gone
ANSWER_OF_NODE_SECONDS = 180  # to start a process: seconds on a free machine, a minute on a busy one


@dataclass(frozen=True)
class Machines:
    """A cluster's nodes, each as Ray counts it ({"CPU": 8.0, "GPU": 1.0, ...}). here: at work now; to_come: the autoscaler may add them.
    running: the cluster is not ours alone, and its nodes may be other machines."""

    here: tuple[dict[str, float], ...]
    to_come: tuple[dict[str, float], ...] = ()
    running: bool = False


@dataclass(frozen=True)
class Resources:
    """What runs may use. cpus, gpus: of one worker; workers: of one run; slots: runs at once."""

    cpus: int
    gpus: float
    workers: int
    slots: int
    machines: Machines

    @property
    def worker(self) -> dict[str, float]:
        """What one worker takes."""
        return {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What Tune reserves for a run: its worker, or a trial process that only starts a group, whose workers Ray Train places. The latter
        stands on the head and takes no CPU: a hundredth of one would already keep a two-worker run off two CPUs, for ever."""
        return [self.worker] if self.workers == 1 else [{"node:__internal_head__": 0.001}]


def share_out(machines: Machines, gpus_per_run: float | None, workers: int) -> Resources:
    """Divide a cluster's CPUs and GPUs into runs; each worker must fit on one node. gpus_per_run None: one GPU a worker where there are GPUs,
    else none. RequestError if the cluster could never place a run: it would wait for ever."""
    nodes = [*machines.here, *machines.to_come]
    some_gpu = any(node.get("GPU", 0.0) for node in nodes)
    gpus = (1.0 if some_gpu else 0.0) if gpus_per_run is None else gpus_per_run / workers
    unit, amount = ("GPU", gpus) if gpus else ("CPU", 1.0)
    fits = [(int(node.get("CPU", 0.0)), int(node.get(unit, 0.0) / amount + 1e-9)) for node in nodes]
    fits = [(cpus, places) for cpus, places in fits if cpus and places]
    places = sum(places for _, places in fits)
    if places < workers:
        largest = max((node.get(unit, 0.0) for node in nodes), default=0.0)
        raise RequestError(
            f"a run takes {workers} worker(s) of {amount:g} {unit} and a CPU each, and the cluster has room for {places} "
            f"({len(nodes)} node(s), the largest with {largest:g} {unit}); lower "
            + ("--gpus-per-run or --workers-per-run" if gpus else "--workers-per-run")
        )
    return Resources(max(1, min(cpus // places for cpus, places in fits)), gpus, workers, places // workers, machines)


class _Searcher(Searcher):
    """Asks the Coordinator for the next run, and tells it of one that Tune has given up. Saves no state."""

    def __init__(self, coordinator: Coordinator | Relay, common: dict[str, Any]) -> None:
        super().__init__(metric="epoch", mode="max")
        self.coordinator, self.common = coordinator, common
        self.trials: dict[str, Any] = {}  # Tune's, of which it has not said that they ended

    def suggest(self, trial_id: str) -> Any:
        coordinator = self.coordinator
        for name in [name for name, trial in self.trials.items() if trial.status == "ERROR"]:
            self.on_trial_complete(name, error=True)  # its process could not take it up after another run: Tune says so to nobody
        if len(coordinator.active) >= coordinator.slots:
            return None
        try:
            active = coordinator.next()
        except OSError as fault:  # what Optuna was asked could not be written
            coordinator.stop(str(fault))
            active = None
        if active is None:
            if coordinator.finished():
                return Searcher.FINISHED
            time.sleep(0.02)  # a run waits for a stage of another; Tune asks again at once
            return None
        return coordinator.job(active) | self.common

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.trials.pop(trial_id, None)
        if error and trial is not None:  # only here: a scheduler's on_trial_error is called before each retry too
            key = trial.config["key"]
            try:
                self.coordinator.lost(key)
            except OSError as fault:
                self.coordinator.drop(key, str(fault))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the Tuner pickles what it is given for its own restore, which is never used

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a study continues from its ledger, not from Ray's state")


class _Scheduler(FIFOScheduler):
    """Passes each row on; stops what the Coordinator stops. trials: where the Searcher looks for those that Tune has given up."""

    def __init__(self, coordinator: Coordinator | Relay, trials: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coordinator, self.trials = coordinator, trials

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.trials[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        key, row = trial.config["key"], json.loads(result["row"])
        # At the last row at once: waiting for the function to return as well would cost its process a turn, and a reservation for nothing.
        stop = "end" in row
        try:
            stop |= self.coordinator.row(key, row)
        except OSError as fault:
            self.coordinator.drop(key, str(fault))
        if self.coordinator.halt is not None and not stop:
            self.coordinator.drop(key, self.coordinator.halt)
            stop = True
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return {}


@contextmanager
def cluster(address: str | None, groups: bool = False) -> Iterator[Machines]:
    """A Ray cluster: the one at `address` (auto, or HOST:PORT), or a new one on this machine for the time of the call. groups: runs have
    several workers. RequestError, within seconds, if there is none at that address or it refuses us."""
    os.environ.setdefault(FOLDER, os.getcwd())
    if address is None:  # "local": None would join whatever cluster this machine runs already
        try:
            with chdir(ROOT):  # Ray puts the folder that it is started in first on its workers' path: a user's search.py, before ours
                ray.init(
                    address="local",
                    log_to_driver=False,
                    include_dashboard=groups,  # Ray frees what a killed worker group held through it; ten processes and 200 MB else for nothing
                    logging_level=logging.ERROR,
                    namespace="karyotune",
                )
        except Exception as fault:  # Ray's own errors, and a bare Exception where a process of it ends as it starts
            ray.shutdown()
            raise ClusterLost(f"Ray did not start ({' '.join(str(fault).split())[:200]})") from fault
    else:
        _join(address)
    try:
        here = tuple(dict(node["Resources"]) for node in _alive())
        yield Machines(here, _to_come(BOOTSTRAP, here) if address is not None else (), address is not None)
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    """ray.init at a running cluster, whose workers get this code (not what happens to be installed there) and the settings above."""
    code = [str(Path(ROOT) / name) for name in ("search", "search_spaces", "trainables", "analysis")]
    settings = {name: os.environ[name] for name in SETTINGS}
    found = find_cluster(address)
    try:
        with chdir(ROOT):  # as above
            ray.init(
                address=found, log_to_driver=False, logging_level=logging.ERROR, namespace="karyotune",
                runtime_env={"py_modules": code, "excludes": ["__pycache__"], "env_vars": settings},
            )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as fault:
        raise _no_cluster(address, str(fault).split(". ")[0] or type(fault).__name__) from None


def find_cluster(address: str) -> str:
    """The address of a running cluster as HOST:PORT, once something that speaks gRPC answers there: ray.init itself would try for minutes.
    RequestError if nothing does within ANSWER_SECONDS."""
    if "://" in address:
        raise _no_cluster(address, "an address has no scheme")
    try:
        found = canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError) as fault:
        raise _no_cluster(address, str(fault).split(". ")[0]) from None
    if found is None:
        raise _no_cluster(address, "no Ray cluster runs on this machine")
    channel = init_grpc_channel(found, options=[("grpc.enable_http_proxy", 0)])  # as Ray itself connects
    try:
        grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        raise _no_cluster(address, f"no Ray cluster answers there within {ANSWER_SECONDS} s") from None
    finally:
        channel.close()
    return str(found)


def _no_cluster(address: str, reason: str) -> RequestError:
    return RequestError(
        f"--address {address}: {' '.join(reason.split()).rstrip('.')}; give auto on a node of a running cluster, or the HOST:PORT that `ray start --head` printed, "
        "and set RAY_AUTH_MODE as the cluster has it"
    )


def _to_come(bootstrap: Path, here: Sequence[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """Nodes that the autoscaler may still add, from the configuration that `ray up` leaves on the head; none elsewhere. A cluster that starts
    with no worker would otherwise look as if it had no GPU. Workers that are here count against the limit."""
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


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _check_running(resources: Resources, study: Path) -> None:
    """RequestError if a node of a running cluster does not see the study's folder, or if others use all that a run needs. Both would only show
    as runs that fail, or wait."""

    def sees(study: str) -> bool:  # sent as it is, so that a node need not import torch to answer
        return os.access(study, os.W_OK) and os.path.exists(os.path.join(study, "study.json"))

    looks = {}
    for node in _alive():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        looks[ray.remote(sees).options(num_cpus=0, scheduling_strategy=there).remote(str(study))] = node["NodeManagerHostname"]
    done, late = ray.wait(list(looks), num_returns=len(looks), timeout=ANSWER_OF_NODE_SECONDS)
    if late:
        raise RequestError(
            f"of the cluster's nodes, {', '.join(sorted({looks[look] for look in late}))} did not start a process within "
            f"{ANSWER_OF_NODE_SECONDS} s; is it overloaded, or does its environment differ?"
        )
    blind = sorted({looks[look] for look in done if not ray.get(look)})
    if blind:
        raise RequestError(
            f"--storage must be a folder that every node can see and write, got {study.parent}; not so on {', '.join(blind)}"
        )
    if resources.machines.to_come:
        return
    room = placement_group(resources.bundles + ([resources.worker] * resources.workers if resources.workers > 1 else []))
    found = room.wait(ROOM_SECONDS)
    remove_placement_group(room)
    if not found:
        wanted = ", ".join(f"{amount:g} {unit}" for unit, amount in resources.worker.items())
        free_now = ray.available_resources()  # type: ignore[no-untyped-call]
        left = ", ".join(f"{free_now.get(unit, 0.0):g} {unit}" for unit in resources.worker)
        raise RequestError(
            f"the cluster has no free resources: a worker takes {wanted}, and {left} are free in all; wait for the others, or ask for less"
        )


class _Gone(BaseException):
    """Ray's own processes have ended; Tune would wait for them for ever."""


@contextmanager
def _watched(coordinator: Coordinator | Relay, workers: int, patience: float) -> Iterator[None]:
    """Kill processes of runs that hang (see `Coordinator.stalled`): Tune then starts the run again from its last checkpoint. And end Tune
    where it waits though the cluster is gone: a killed raylet leaves it asking for ever."""
    ended, main = threading.Event(), threading.get_ident()

    def watch() -> None:
        looked, lost = time.monotonic(), 0
        while not ended.wait(LOOK_SECONDS):
            lost = lost + 1 if _gone() else 0
            if lost == LOOKS:  # until then, Tune may notice by itself
                signal.pthread_kill(main, signal.SIGUSR2)
            if time.monotonic() - looked < min(30.0, patience / 5):
                continue
            looked = time.monotonic()
            for active, silence in coordinator.stalled(patience):
                with suppress(OSError, ray.exceptions.RayError):
                    _kill(coordinator.folder / active.folder, workers)
                coordinator.notes.append(
                    f"{active.name}: no sign of life for {duration(silence)}; its process was killed to start it again"
                )

    def leave(number: int, frame: object) -> None:
        raise _Gone

    before = signal.signal(signal.SIGUSR2, leave)  # SIGUSR1 is Tune's own
    try:
        with beside(watch, ended):
            yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _kill(folder: Path, workers: int) -> None:
    """SIGKILL to the processes that work on a run, wherever they are."""
    for host, pid in read_processes(folder)[-workers:]:
        if host == socket.gethostname():
            _kill_here(pid)
            continue
        for node in _alive():
            if node["NodeManagerHostname"] == host:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ray.remote(_kill_here).options(num_cpus=0, scheduling_strategy=there).remote(pid)
                break


def _kill_here(pid: int) -> None:
    with suppress(OSError):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):  # and not another's, which has the number by now
            os.kill(pid, signal.SIGKILL)


def _gone() -> list[str]:
    """Processes of the cluster that `cluster` started and that are not there any more."""
    node = ray._private.worker._global_node
    return [] if node is None else sorted({str(name) for name, _ in node.dead_processes()} & {"gcs_server", "raylet"})


def carry_out(
    coordinator: Coordinator | Relay, resources: Resources, *, checkpoint_seconds: float, retries: int = 3, patience: float = 1800.0
) -> None:
    """Run all that the Coordinator asks for; returns when it is finished. A run whose process dies is started again up to `retries` times,
    from its last checkpoint; so is one that hangs (patience: seconds)."""
    from search.trial import run_trial

    if resources.machines.running:
        _check_running(resources, coordinator.folder)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.slots)  # else one node is asked for after another, minutes each
    common = {"cpus": resources.cpus, "gpus": resources.gpus, "workers": resources.workers, "checkpoint_seconds": checkpoint_seconds}
    state = coordinator.folder / "ray"
    searcher = _Searcher(coordinator, common)
    trainable = tune.with_resources(run_trial, PlacementGroupFactory(resources.bundles))
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_Scheduler(coordinator, searcher.trials),
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
        with _watched(coordinator, resources.workers, patience):
            tuner.fit()
    except (Exception, _Gone) as fault:
        gone = _gone()
        if not gone:
            raise
        raise ClusterLost(f"Ray's own processes have ended under the study ({', '.join(gone)}: killed, or out of memory)") from fault
    finally:
        shutil.rmtree(state, ignore_errors=True)
