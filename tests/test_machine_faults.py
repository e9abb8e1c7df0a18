"""A machine's fault is never a configuration's: machines come, go, see other files and spoil processes under the real command on a real Ray."""

import ctypes
import gc
import json
import os
import pty
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from driving import Shell

from search.examine import PRETEND
from trainables.parts.execution import FLIGHT, MODEL

pytestmark = [
    pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # Ray leaves those with which it looks for free ports
]  # fmt: skip

NAMESPACES = 0x00020000 | 0x04000000  # CLONE_NEWNS, CLONE_NEWUTS: mounts and a host name of its own


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clusters of these tests are behind a token, as cluster.yaml has it; the commands inherit it."""
    from search.cluster import _read_authentication

    with monkeypatch.context() as settings:
        settings.setenv("RAY_AUTH_MODE", "token")
        settings.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        _read_authentication()
        yield
    _read_authentication()


def records(study: Path) -> list[dict[str, Any]]:
    path = study / "records.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Machines:
    """A Ray cluster on this machine, each node a machine of its own as far as a test asks for."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.threads: list[ThreadPoolExecutor] = []

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str = "", empty: Path | None = None, size: str = "100%", **more: Any) -> Any:
        """A node with one CPU. With a host name, and with an empty folder of a size at `empty`, which only it sees. The test is skipped where
        this user may not do that."""
        if not name:
            return self.cluster.add_node(num_cpus=1, **more)
        thread = ThreadPoolExecutor(1)  # namespaces are a thread's, and its children's
        self.threads.append(thread)
        number = thread.submit(_apart, name, empty, size).result()
        self.cluster._shutdown_at_exit = False  # for that it would set a signal's handler, which only the main thread may
        node = thread.submit(self.cluster.add_node, num_cpus=1, **more).result()
        self.cluster._shutdown_at_exit = True
        node.root = Path(f"/proc/self/task/{number}/root")  # its files, also when it is gone
        return node

    def remove(self, node: Any) -> None:
        """As where a machine loses its power."""
        self.cluster.remove_node(node, allow_graceful=False)

    def process(self, kind: str, node: Any = None) -> int:
        return int((node or self.cluster.head_node).all_processes[kind][0].process.pid)

    def stop(self) -> None:
        from ray._private.utils import get_ray_address_file

        self.cluster.shutdown()
        for thread in self.threads:
            thread.shutdown()
        Path(get_ray_address_file(None)).unlink(missing_ok=True)  # left behind, it would be taken for a running cluster
        gc.collect()


def _apart(name: str, empty: Path | None, size: str) -> int:
    """Give this thread namespaces of its own; its number."""
    if ctypes.CDLL(None, use_errno=True).unshare(NAMESPACES):
        pytest.skip(f"no namespaces here: {os.strerror(ctypes.get_errno())}")
    socket.sethostname(name)
    mounts = [["--make-rprivate", "/"]] + ([["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(empty)]] if empty else [])
    for words in mounts:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
    return threading.get_native_id()


@pytest.fixture
def start(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Machines]]:
    """Starts clusters; each is gone at the end."""
    for name, value in shell.environment.items():  # a node's runs have those of the process that starts it
        monkeypatch.setenv(name, value)
    made: list[Machines] = []

    def begin() -> Machines:
        made.append(Machines())
        return made[-1]

    yield begin
    for machines in made:
        machines.stop()


class Command:
    """The command in a terminal wide enough for all words."""

    def __init__(self, shell: Shell, *words: str) -> None:
        self.own, other = pty.openpty()
        environment = shell.environment | {"COLUMNS": "1000", "TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "search", *words], cwd=shell.home, env=environment, stdin=other, stdout=other, stderr=other, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        os.set_blocking(self.own, False)
        self.said = ""

    def read(self) -> str:
        with suppress(OSError):  # nothing new, or closed at the other end
            while part := os.read(self.own, 1 << 16):
                self.said += part.decode(errors="replace")
        return self.said

    def wait_for(self, look: Callable[[], object], seconds: float = 240) -> None:
        limit = time.monotonic() + seconds
        while not look():
            self.read()
            assert time.monotonic() < limit and self.process.poll() is None, f"it did not come about; the last words:\n{self.said[-3000:]}"
            time.sleep(0.1)

    def status(self, seconds: float = 240) -> int:
        limit = time.monotonic() + seconds
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < limit, f"it did not end; the last words:\n{self.said[-3000:]}"
            time.sleep(0.1)
        self.read()
        assert "Traceback" not in self.said and "*** SIG" not in self.said, self.said[-5000:]
        return int(self.process.returncode)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.own)


@pytest.fixture
def command(shell: Shell) -> Iterator[Callable[..., Command]]:
    made: list[Command] = []

    def begin(*words: str) -> Command:
        made.append(Command(shell, *words))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def sound(shell: Shell, study: Path) -> None:
    """`check` has nothing to say against the study."""
    done = shell("toy", "check", "--storage", str(study.parent))
    assert done.returncode == 0, done.stdout + done.stderr


def hurry(shell: Shell) -> None:
    """All has been seen: let runs end at once."""
    (shell.home / "hurry").touch()


def ends(study: Path) -> set[str]:
    return {record["status"] for record in records(study)}


def test_machines_that_see_no_storage_or_see_files_late_and_machines_that_go_cost_no_run_its_result(
    shell: Shell, start: Callable[[], Machines], command: Callable[..., Command]
) -> None:
    """One machine is lost, one joins without the shared folder, one joins whose files the head does not see yet and is lost, one joins."""
    storage = shell.home / "s"
    study = storage / "toy-quick-synthetic"
    machines = start()
    first = machines.add("first")
    driver = command(
        "toy", "--repeats", "5", "--trials", "0", "--tables", "1", "--set", "pause=2", "--storage", "s", "--address", machines.address
    )
    driver.wait_for(lambda: {pid for pid, stage, *_ in shell.epochs()} and len({pid for pid, *_ in shell.epochs()}) == 2)

    machines.remove(first)
    machines.add("blind", empty=storage)
    driver.wait_for(lambda: "set aside: blind: blind does not see" in driver.said)  # in the live view

    late = machines.add("late", empty=study / "checkpoints")
    driver.wait_for(lambda: any(record["host"] == "late" for record in records(study)))
    far = late.root / (study / "checkpoints").relative_to("/")
    (known, *_) = [record for record in records(study) if record["host"] == "late"]
    assert not (study / "checkpoints" / known["key"] / MODEL).exists() and (far / known["key"] / MODEL).exists()
    assert known["status"] == "completed" and known["history"] and {"val_accuracy", "test_accuracy"} <= known["metrics"].keys()
    machines.remove(late)
    for record in records(study):
        if record["host"] == "late":
            shutil.copytree(far / record["key"], study / "checkpoints" / record["key"], dirs_exist_ok=True)  # they are seen at last

    machines.add("second")
    hurry(shell)
    assert driver.status() == 0, driver.said
    assert ends(study) == {"completed"} and len(records(study)) == 15
    assert {record["host"] for record in records(study)} <= {socket.gethostname(), "first", "late", "second"}
    assert "blind does not see" in driver.said.partition("note: machine blind was set aside")[2].partition("note: ")[0]
    assert driver.said.count("placed again, no fault of its own (blind: ") <= 2, "a run may be placed there before it was examined"
    sound(shell, study)


def test_a_spoilt_process_an_error_that_nobody_knows_and_five_preemptions_cost_no_other_run_its_result(
    shell: Shell, command: Callable[..., Command]
) -> None:
    words = ("toy", "--repeats", "1", "--trials", "0", "--tables", "M", "--set", "pause=0.5", "--storage", "s")
    study = shell.home / "s" / "toy-quick-synthetic"
    driver = command(*words)
    log: list[Path] = []

    def lives() -> list[list[str]]:
        """What each process did for the run that is preempted, as lines of its log."""
        log[:] = log or [path for path in study.glob("checkpoints/*/epochs.log") if "epoch warm 4\n" in path.read_text()]
        return [part.splitlines() for part in log[0].read_text().split("\nlife ")[1:]] if log else []

    killed: list[int] = []
    while len(killed) < 5:
        driver.wait_for(lambda: len(lives()) == len(killed) + 1 and any(line.startswith("saved") for line in lives()[-1]))
        killed.append(int(lives()[-1][0].split()[1]))
        os.kill(killed[-1], signal.SIGKILL)
    driver.wait_for(lambda: any(record["arms"] == ["M/late"] for record in records(study)))
    hurry(shell)
    assert driver.status() == 4, driver.said

    found = {record["arms"][0].removeprefix("M/"): record for record in records(study)}
    assert {arm: record["status"] for arm, record in found.items()} == {
        "preempted": "completed", "device": "failed", "late": "failed", "fine": "completed", "bent": "completed"
    }  # fmt: skip
    pids = {arm: [int(life["worker"].rpartition(":")[2]) for life in record["lives"]] for arm, record in found.items()}
    assert pids["preempted"][:5] == killed and len(pids["preempted"]) == 6 and found["preempted"]["interruptions"] == 5
    assert found["device"]["error"] == {"kind": "device", "message": "RuntimeError: CUDA error: device-side assert triggered"}
    assert found["late"]["error"] == {"kind": "error", "message": "KeyError: 'toy box'"}
    for arm in ("device", "late"):
        assert len(set(pids[arm])) == 2, "once more, in a fresh process"
        assert not set(pids[arm][1:]) & {pid for other in pids if other != arm for pid in pids[other]}, "which is not used again"
    assert not set(pids["device"]) & {pid for other in pids if other != "device" for pid in pids[other][1:]}
    assert (study / "checkpoints" / found["late"]["key"] / FLIGHT).exists()

    (shell.home / "toy box").touch()
    again = shell(*words, "--retry-failed")
    assert again.returncode == 4, again.stdout + again.stderr
    late = {record["arms"][0]: record for record in records(study)}["M/late"]
    assert late["status"] == "completed" and late["lives"][-1]["epochs"]["tune"][0] > 1, "it went on from its checkpoint"
    sound(shell, study)


def test_a_cluster_whose_node_under_the_command_or_whose_head_dies_ends_the_command_with_words_and_another_goes_on(
    shell: Shell, start: Callable[[], Machines], command: Callable[..., Command]
) -> None:
    words = ("toy", "--repeats", "1", "--trials", "0", "--tables", "1", "--set", "pause=0.5", "--set", "epochs=15", "--storage", "s")
    study = shell.home / "s" / "toy-quick-synthetic"
    for kind in ("raylet", "gcs_server"):
        machines, before = start(), len(shell.epochs())
        driver = command(*words, "--address", machines.address)
        driver.wait_for(lambda before=before: len(shell.epochs()) > before + 1)
        os.kill(machines.process(kind), signal.SIGKILL)
        assert driver.status(120) == 1, driver.said
        assert "Ray's own processes have ended under the study" in driver.said and "the same command continues" in driver.said
        assert "failed" not in ends(study)
        machines.stop()
    hurry(shell)
    driver = command(*words, "--address", start().address)
    assert driver.status() == 0, driver.said
    assert ends(study) == {"completed"} and len(records(study)) == 3
    sound(shell, study)


def test_a_command_on_a_machine_that_is_no_node_of_the_cluster_is_refused_in_one_sentence(
    shell: Shell, start: Callable[[], Machines]
) -> None:
    address = start().address
    for namespace, words in (
        ("--pid", "a Ray cluster answers there, and this machine is no node of it"),  # no process of the cluster is to be seen
        ("--net", "no Ray cluster answers there within 5 s"),
    ):
        apart = ["unshare", "--fork", namespace, "--mount-proc"]
        tried = subprocess.run([*apart, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
        asked = ("toy", "--repeats", "1", "--trials", "0", "--tables", "1", "--storage", "s", "--address", address)
        done = subprocess.run(
            [*apart, sys.executable, "-m", "search", *asked],
            cwd=shell.home, env=shell.environment, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith(f"search: --address {address}: ") and words in line


def test_a_group_whose_machine_is_taken_away_saves_a_checkpoint_and_goes_on_elsewhere(
    shell: Shell,
    start: Callable[[], Machines],
    command: Callable[..., Command],
) -> None:
    """As a spot machine is: its provider says so, Ray drains the node. The toy saves every ten seconds otherwise."""
    made = start()
    going = made.cluster.add_node(num_cpus=2)
    driver = command(
        "toy", "--repeats", "1", "--trials", "0", "--tables", "1", "--arms", "plain", "--workers-per-run", "2", "--set", "pause=0.5",
        "--set", "warm_epochs=200", "--storage", "s", "--address", made.address,
    )  # fmt: skip
    driver.wait_for(lambda: len(shell.epochs()) > 2)
    before = {pid for pid, *_ in shell.epochs()}
    made.cluster.add_node(num_cpus=2)
    drained = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", made.address, "--node-id", going.node_id,
         "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "60"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert drained.returncode == 0, drained.stdout + drained.stderr
    driver.wait_for(lambda: {pid for pid, *_ in shell.epochs()} - before)
    hurry(shell)
    assert driver.status() == 0, driver.said
    assert "placed again, no fault of its own" in driver.said and "its machine is being taken away" in driver.said
    (record,) = records(shell.home / "s" / "toy-quick-synthetic")
    assert record["status"] == "completed" and record["interruptions"] == 1
    first, second = record["lives"]
    assert second["epochs"]["warm"][0] == first["epochs"]["warm"][1] + 1, "nothing was trained twice"
    sound(shell, shell.home / "s" / "toy-quick-synthetic")


def test_a_head_that_hangs_ends_a_command_at_work_and_refuses_a_new_one_in_one_sentence(
    shell: Shell,
    start: Callable[[], Machines],
    command: Callable[..., Command],
) -> None:
    made = start()
    made.add()
    words = ("toy", "--repeats", "1", "--trials", "0", "--tables", "1", "--set", "pause=0.5", "--set", "epochs=60", "--storage", "s")
    driver = command(*words, "--address", made.address)
    driver.wait_for(lambda: len(shell.epochs()) > 1)
    head = made.process("gcs_server")
    os.kill(head, signal.SIGSTOP)
    try:
        assert driver.status(60) == 1, driver.said
        assert "does not answer" in driver.said and "the same command continues" in driver.said
        new = shell(*words[:-1], "other", "--address", made.address, timeout=60)
        assert new.returncode == 2
        (line,) = new.stderr.strip().splitlines()
        assert "no Ray cluster answers there within 5 s" in line
    finally:
        os.kill(head, signal.SIGCONT)


def test_a_broken_card_of_a_machine_of_two_is_set_aside_by_name_and_the_other_ends_the_study(
    shell: Shell, start: Callable[[], Machines], command: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRETEND, "1")
    made = start()
    box = made.cluster.add_node(num_cpus=2, num_gpus=2)
    (shell.home / "broken card 0").touch()
    study = shell.home / "s" / "toy-quick-synthetic"
    driver = command(
        "toy", "--repeats", "2", "--trials", "0", "--tables", "1", "--set", "trouble=card", "--set", "pause=3", "--storage", "s",
        "--address", made.address,
    )  # fmt: skip
    card = f"card 0 ({box.node_id[:12]}-0)"
    driver.wait_for(lambda: f"set aside: {socket.gethostname()}, {card}: RuntimeError: CUDA error" in driver.said)
    hurry(shell)
    assert driver.status() == 0, driver.said
    assert ends(study) == {"completed"} and len(records(study)) == 6
    assert f"{card} of machine {socket.gethostname()} was set aside after 2 faults in a row: RuntimeError: CUDA error" in driver.said
    sound(shell, study)


def test_a_machine_on_which_every_process_dies_as_it_starts_is_set_aside_by_name_and_the_others_end_the_study(
    shell: Shell, start: Callable[[], Machines], command: Callable[..., Command]
) -> None:
    made = start()
    made.cluster.add_node(num_cpus=1)
    torch = shell.home / "dead" / "torch" / "__init__.py"  # a library that crashes
    torch.parent.mkdir(parents=True)
    torch.write_text("import os\nos._exit(1)\n")
    study = shell.home / "s" / "toy-quick-synthetic"
    path = os.pathsep.join([str(torch.parent.parent), shell.environment["PYTHONPATH"]])
    made.cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path})
    words = ("toy", "--repeats", "2", "--trials", "0", "--tables", "1", "--set", "pause=2", "--storage", "s", "--address", made.address)
    driver = command(*words)
    driver.wait_for(lambda: f"processes die on {socket.gethostname()} as they start" in driver.said)
    hurry(shell)
    assert driver.status() == 0, driver.said
    assert ends(study) == {"completed"} and len(records(study)) == 6
    assert f"machine {socket.gethostname()} was set aside after" in driver.said
    sound(shell, study)
