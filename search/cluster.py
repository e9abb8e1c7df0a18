"""The Ray cluster that a study runs on: one of its own on this machine, closed to others, or one that runs already.
Comes in: an address, or none. Goes out: its machines, for as long as the block lasts; then nothing of it is left. Sets what Ray reads as
it is imported: whatever imports Ray here imports this first."""

import functools
import logging
import os
import secrets
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, chdir, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from search.join import find_cluster, no_cluster
from search.machines import BOOTSTRAP, Machines, Resources, to_come
from search.path import FOLDER, ROOT
from search.signals import Signals
from trainables.parts.errors import ClusterLost, RequestError
from trainables.parts.machine import cpus

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # they write what the ledger holds, and import torch into the driver
os.environ.setdefault(
    "TUNE_DISABLE_SIGINT_HANDLER", "1"
)  # its own handler would end the study as if it were done; the command line says what is
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")  # for a stopped run to leave its process; else the next one fails
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # how often a worker group's reports are taken; 2 s by default
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1e9")  # no snapshots of Ray's own state: the ledger is what a study continues from
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # each run has a new thread; with an arena for each, a reused process grew by 45 MB a run


import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # C++
from ray.exceptions import AuthenticationError
from ray.util.placement_group import placement_group, remove_placement_group

SETTINGS = (
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "MALLOC_ARENA_MAX",
    FOLDER,
)
NODES_SECONDS = 3.0  # in which a head tells its nodes: it takes milliseconds
ROOM_SECONDS = 5
LONGEST_TMPDIR = 41  # characters: Ray's sockets below it must fit into 107 bytes


@contextmanager
def open_cluster(signals: Signals, address: str | None, groups: bool = False, gpus: int | None = None) -> Iterator[Machines]:
    """The cluster at `address` (auto, or HOST:PORT), or a new one on this machine for the time of the block, whose processes do not hear
    what is sent to all processes of a terminal or a job, and are gone afterwards, even where a signal cuts its end short. groups: runs
    have several workers; gpus: of this machine, None for all that Ray sees. RequestError, within
    seconds, if there is none at that address or it refuses us."""
    ours: list[Any] = []
    try:
        with ExitStack() as stack:
            with signals.kept_from_children():
                machines = stack.enter_context(_cluster(address, groups, gpus))
                ours += _own()
            for process in ours:  # ray.shutdown asks each with a SIGTERM that it does not hear, and would wait a second for it
                process.terminate = functools.partial(_kill_with_all_below, process)
            yield machines
    finally:
        end_own(ours)


def end_own(processes: "Sequence[subprocess.Popen[bytes]] | None" = None) -> None:
    """Kill Ray's processes that this command has started, at once."""
    for process in _own() if processes is None else processes:
        _kill_with_all_below(process)


def _own() -> "list[subprocess.Popen[bytes]]":
    node = ray._private.worker._global_node
    return [] if node is None else [info.process for infos in node.all_processes.values() for info in infos]


@contextmanager
def _cluster(address: str | None, groups: bool, gpus: int | None) -> Iterator[Machines]:
    os.environ.setdefault(FOLDER, os.getcwd())
    with _closed_to_others() if address is None else nullcontext():
        try:
            with chdir(ROOT):  # Ray puts the folder that it is started in first on its workers' path: a user's search.py, before ours
                _start(groups, gpus) if address is None else _join(address)
            here = tuple(dict(node["Resources"]) for node in alive())
            yield Machines(here, still_to_come(here) if address is not None else (), address is not None)
        finally:
            ray.shutdown()


def _start(groups: bool, gpus: int | None) -> None:
    try:
        ray.init(
            address="local",  # None would join whatever cluster this machine runs already
            num_cpus=cpus(),  # Ray counts the machine's
            num_gpus=gpus,
            log_to_driver=False,
            include_dashboard=groups,  # Ray frees what a killed worker group held through it; ten processes and 200 MB else for nothing
            logging_level=logging.ERROR,
            namespace="karyotune",
        )
    except Exception as fault:  # Ray's own errors, and a bare Exception where a process of it ends as it starts
        raise ClusterLost(f"Ray did not start ({' '.join(str(fault).split())[:200]})") from fault


@contextmanager
def _closed_to_others() -> Iterator[None]:
    """A cluster that starts in this block hears nobody but this command: whoever reaches a port of Ray's may else run anything as this
    user. Its ports are on the loopback, and behind a token of its own against other users of this machine (Ray's counts for Prometheus are
    not). The token is in the environment of this command's processes alone: not in a file, not on a command line. What the caller's
    environment says of either is for other clusters, and is there again afterwards. tests/test_doors.py tries every port, from another
    network and from here."""
    ours = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),  # comes before RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token
        # on Linux too: Ray then takes 127.0.0.1 for its own address; `_node_ip_address` does not do it
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo",  # the workers of one run among themselves
    }  # fmt: skip
    if len(tempfile.gettempdir()) > LONGEST_TMPDIR and "RAY_TMPDIR" not in os.environ:
        ours["RAY_TMPDIR"] = "/tmp"
    before, several = {name: os.environ.get(name) for name in ours}, ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(ours)
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when it was imported
    _read_authentication()
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in before:
            if before[name] is None:
                del os.environ[name]
        ray_constants.ENABLE_RAY_CLUSTER = several
        _read_authentication()


def _read_authentication() -> None:
    """Have Ray, which keeps mode and token, read them anew from the environment. In the order of Ray's own tests
    (`reset_auth_token_state`)."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _join(address: str) -> None:
    """ray.init at a running cluster, whose workers get this code (not what happens to be installed there) and the settings above."""
    code = [str(Path(ROOT) / name) for name in ("search", "search_spaces", "trainables", "analysis")]
    settings = {name: os.environ[name] for name in SETTINGS}
    found = find_cluster(address)
    try:
        ray.init(
            address=found, log_to_driver=False, logging_level=logging.ERROR, namespace="karyotune",
            runtime_env={"py_modules": code, "excludes": ["__pycache__"], "env_vars": settings},
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as fault:
        raise no_cluster(address, str(fault).split(". ")[0] or type(fault).__name__) from None


def _kill_with_all_below(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to a process of ours and to all that it has started: agents of a raylet that is gone live on for half a minute and more."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGSTOP)  # it starts no more of them
    below = _below(process.pid)
    process.kill()
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _below(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *_below(child)]
    return found


class Head:
    """A cluster's head, asked for its nodes. A question has a time limit, and a thread that nothing waits for: a head that hangs would hold
    whoever asks it for minutes, and the end of the process too. While it has not answered one question it is asked no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: Future[list[dict[str, Any]]] | None = None

    def nodes(self, seconds: float = NODES_SECONDS) -> list[dict[str, Any]]:
        """Those that are alive. ClusterLost if no answer comes in time."""
        with self._lock:
            asked = self._asked = self._asked or self._ask()
        try:
            return [node for node in asked.result(seconds) if node["Alive"]]
        except TimeoutError:
            raise ClusterLost(f"the cluster's head did not say within {seconds:g} s which machines it has") from None
        except (ray.exceptions.RayError, ConnectionError, RuntimeError) as fault:
            raise ClusterLost(
                f"the cluster's head does not answer ({str(fault).splitlines()[0] if str(fault) else type(fault).__name__})"
            ) from fault
        finally:
            if asked.done():
                self._asked = None

    @staticmethod
    def _ask() -> "Future[list[dict[str, Any]]]":
        found: Future[list[dict[str, Any]]] = Future()

        def ask() -> None:
            try:
                found.set_result(ray.nodes())  # type: ignore[no-untyped-call]
            except BaseException as fault:  # noqa: BLE001 (raised again where the answer is awaited)
                found.set_exception(fault)

        threading.Thread(target=ask, daemon=True).start()
        return found


HEAD = Head()


def addresses() -> tuple[str, str]:
    """Of the cluster's head, and of its dashboard ('' where it has none)."""
    dashboard = getattr(ray._private.worker._global_node, "webui_url", None)
    return str(ray.get_runtime_context().gcs_address), str(dashboard or "")


def alive() -> list[dict[str, Any]]:
    """The nodes that are there; ClusterLost within NODES_SECONDS where the head does not say."""
    return HEAD.nodes()


def lives(node: str) -> bool:
    """Whether a node is there; '' (not known) counts as there. Of a head that does not answer nothing is known that would be a run's
    fault."""
    try:
        return not node or any(one["NodeID"] == node for one in alive())
    except ClusterLost:
        return False


def elsewhere(avoid: Sequence[str]) -> dict[str, str] | None:
    """The label by which Ray places a run on none of these nodes; None where that asks for nothing, or would leave none: a run would wait
    for ever. A node that does not exist any more is none of them. Where the head does not answer, nothing is placed anyway."""
    try:
        there = {node["NodeID"] for node in alive()} if avoid else set()
    except ClusterLost:
        return None
    avoid = [node for node in avoid if node in there]
    return {"ray.io/node-id": f"!in({','.join(avoid)})"} if avoid and len(avoid) < len(there) else None


def still_to_come(here: tuple[dict[str, float], ...]) -> tuple[dict[str, float], ...]:
    return to_come(BOOTSTRAP, here)


def expect(slots: int) -> None:
    """Ask for all runs' places at once: else one node is asked for after another, minutes each."""
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots)


def check_room(resources: Resources) -> None:
    """RequestError if others use all that a run needs: it would only show as runs that wait."""
    if resources.machines.to_come:
        return
    group = resources.workers > 1
    room = placement_group(resources.bundles(group) + ([resources.worker] * resources.workers if group else []))
    found = room.wait(ROOM_SECONDS)
    remove_placement_group(room)
    if not found:
        wanted = ", ".join(f"{amount:g} {unit}" for unit, amount in resources.worker.items())
        free_now = ray.available_resources()  # type: ignore[no-untyped-call]
        left = ", ".join(f"{free_now.get(unit, 0.0):g} {unit}" for unit in resources.worker)
        raise RequestError(
            f"the cluster has no free resources: a worker takes {wanted}, and {left} are free in all; wait for the others, or ask for less"
        )
