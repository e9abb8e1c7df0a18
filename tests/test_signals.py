"""SIGTERM, SIGINT and SIGHUP to the real command with a real Ray: to it alone, to all of its processes, and from a terminal that is closed."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from driving import Shell

from search import api
from search.signals import ASKED, Signals

WORDS = ("toy", "--repeats", "1", "--trials", "0", "--tables", "1", "--set", "warm_epochs=20", "--storage", "s")
SLOWLY = ("--set", "pause=0.5")
STOPPED = "search: stopped; the same command continues: python -m search toy"
SAVES = "stopping; what runs saves its checkpoint after this epoch. Once more stops at once"


# -- without Ray ----------------------------------------------------------------------------------------------------------------------


def test_handlers_are_as_before_afterwards_and_what_was_ignored_stays_so() -> None:
    before = {number: signal.getsignal(number) for number in ASKED}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with Signals().heard():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and callable(signal.getsignal(signal.SIGTERM))
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_that_comes_while_children_are_started_is_heard_at_the_end_of_it_whatever_took_its_handler() -> None:
    signals, heard = Signals(), []

    def start() -> None:
        with signals.kept_from_children():
            signal.signal(signal.SIGTERM, lambda number, frame: heard.append("another"))
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # one to the process may come to a library's thread
            heard.append("started")
        heard.append("never")

    with signals.heard(), pytest.raises(KeyboardInterrupt):
        start()
    assert heard == ["started"] and signals.last == signal.SIGTERM and not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_exit_that_ray_makes_of_a_signal_as_it_starts_is_that_signal_s_end() -> None:
    signals = Signals()

    def start() -> None:
        with signals.kept_from_children():
            sys.exit(signal.SIGTERM)

    with signals.heard(), pytest.raises(KeyboardInterrupt):
        start()
    assert signals.last == signal.SIGTERM


def test_the_second_signal_does_not_wait_for_the_orderly_end_of_the_first() -> None:
    signals, asked = Signals(), []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests run under nohup it is ignored, and stays so
    try:
        with signals.heard(), signals.orderly(lambda: not asked.append("end")):
            signal.raise_signal(signal.SIGTERM)  # to this thread: another of the process may take what is sent to it
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert asked == ["end"] and signals.last == signal.SIGHUP and signals.again


@pytest.mark.parametrize("again", [False, True])
def test_a_study_that_a_signal_ends_leaves_a_report_of_all_its_runs_and_a_second_signal_waits_for_none(monkeypatch, again) -> None:
    written: list[str] = []
    held = SimpleNamespace(records={"a": {}}, __enter__=None)
    monkeypatch.setattr("analysis.write_report", written.append)
    for name in ("prepare", "check_writable", "home", "settle", "with_signatures", "_compose", "set_aside"):
        monkeypatch.setattr(api, name, lambda *_: MagicMock(old=None, folder="the folder"))
    for name in ("held", "Ledger"):
        monkeypatch.setattr(api, name, lambda _: nullcontext(held))
    monkeypatch.setattr(api, "Work", lambda *_, **__: SimpleNamespace(ledger=held, folder="the folder"))
    monkeypatch.setattr(api, "read_study", lambda _: None)
    monkeypatch.setattr(api.SIGNALS, "again", again)

    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "_conduct", stopped)
    with pytest.raises(KeyboardInterrupt):
        api.run(MagicMock())
    assert written == ([] if again else ["the folder"])


# -- the real command -----------------------------------------------------------------------------------------------------------------


class Command:
    """`python -m search toy ...` in a terminal of its own, or in a process group of its own with a pipe."""

    def __init__(self, shell: Shell, words: tuple[str, ...], terminal: bool = False) -> None:
        self.study = shell.home / "s" / "toy-quick-synthetic"
        self.mark = f"KARYOTUNE_TEST={shell.home}"
        environment = shell.environment | dict([self.mark.split("=")])
        words = (sys.executable, "-m", "search", *words)
        self.said = shell.home / "said.txt"
        self.said.write_bytes(b"")
        self.terminal: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        if terminal:
            self.pid, self.terminal = pty.fork()
            if self.pid == 0:
                try:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    os.chdir(shell.home)
                    os.execve(words[0], words, environment)
                finally:
                    os._exit(127)
            os.set_blocking(self.terminal, False)
            return
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                words, cwd=shell.home, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
        self.pid = self.process.pid

    def wait_for(self, look: Callable[[], object], seconds: float = 240) -> None:
        limit = time.monotonic() + seconds
        while not look():
            assert time.monotonic() < limit, f"nothing happened; it said:\n{self.read()}"
            time.sleep(0.05)

    def read(self) -> str:
        if self.terminal is not None:
            with suppress(OSError), self.said.open("ab") as said:  # nothing new, or closed at the other end
                while part := os.read(self.terminal, 1 << 16):
                    said.write(part)
        return self.said.read_text(errors="replace")

    def processes(self) -> dict[int, str]:
        """Of the study, whoever their parents are by now, with what they are."""
        found = {}
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
            with suppress(OSError):
                if self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    def at_work(self) -> bool:
        """Both slots train, and Tune has heard of it."""
        self.read()
        return sum("epoch warm 2" in path.read_text() for path in self.study.glob("checkpoints/*/epochs.log")) >= min(
            2, os.cpu_count() or 1
        )

    def close_terminal(self) -> None:
        assert self.terminal is not None
        self.read()
        os.close(self.terminal)
        self.terminal = None

    def status(self, seconds: float = 60) -> int:
        """At its end, which must not be far."""
        ended: list[int | None] = []

        def look() -> bool:
            self.read()
            if self.process is not None:
                ended[:] = [self.process.poll()]
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                ended[:] = [os.waitstatus_to_exitcode(status) if pid else None]
            return ended != [None]

        self.wait_for(look, seconds)
        return ended[0] or 0

    def end(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        if self.terminal is not None:
            os.close(self.terminal)


@pytest.fixture
def start(shell: Shell) -> Iterator[Callable[..., Command]]:
    made: list[Command] = []

    def make(*words: str, terminal: bool = False) -> Command:
        made.append(Command(shell, words, terminal))
        return made[-1]

    yield make
    for command in made:
        command.end()


def to_it(number: int) -> Callable[[Command], None]:
    return lambda command: os.kill(command.pid, number)


def to_all(number: int) -> Callable[[Command], None]:
    """As `timeout` does with a process group, and a service manager or Slurm with all processes of a job."""

    def send(command: Command) -> None:
        for pid in command.processes():
            os.kill(pid, number)

    return send


def ctrl_c(command: Command) -> None:
    assert command.terminal is not None
    os.write(command.terminal, b"\x03")


def slow(test: Callable[..., None]) -> Callable[..., None]:
    for mark in (pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)):
        test = mark(test)
    return test


WAYS = {
    "SIGTERM": (to_it(signal.SIGTERM), 143, False), "SIGTERM to all": (to_all(signal.SIGTERM), 143, False), "Ctrl-C": (ctrl_c, 130, True),
    "a terminal that is closed": (Command.close_terminal, 129, True),  # SIGHUP to all
}  # fmt: skip


@slow
@pytest.mark.parametrize("way", WAYS)
def test_the_first_signal_saves_a_checkpoint_of_what_runs_and_leaves_no_process(start, way) -> None:
    send, status, terminal = WAYS[way]
    command = start(*WORDS, *SLOWLY, terminal=terminal)
    command.wait_for(command.at_work)
    send(command)
    assert command.status() == status and not command.processes()
    logs = [path.read_text().split() for path in command.study.glob("checkpoints/*/epochs.log")]
    assert logs and all(words[-3] == "saved" and words[-1] == words[-4] for words in logs), "the last epoch of each is saved"
    assert len(list(command.study.glob("checkpoints/*/flight.safetensors"))) == len(logs)
    said = (command.study / "log.txt").read_text() if send is Command.close_terminal else command.read()
    assert STOPPED in said and "Traceback" not in said
    assert terminal or SAVES in said  # on a terminal it stands in the live view, which is wiped away
    assert not (command.study / "ray").exists()


@slow
def test_the_second_signal_ends_all_at_once_and_the_same_command_goes_on_to_the_end(start) -> None:
    words = (*WORDS, "--set", "warm_epochs=4", "--set", "pause=2")
    command = start(*words)
    command.wait_for(command.at_work)
    os.kill(command.pid, signal.SIGTERM)
    command.wait_for(lambda: SAVES in command.read(), 20)
    os.kill(command.pid, signal.SIGHUP)
    assert command.status() == 129 and not command.processes()
    assert STOPPED in command.read() and "Traceback" not in command.read()
    command = start(*words)
    assert command.status(240) == 0 and not command.processes()
    assert "3 runs (3 completed)" in command.read()
    command = start("toy", "check", "--storage", "s")
    assert command.status() == 0, command.read()


@slow
@pytest.mark.parametrize(
    ("moment", "number", "status"), [("gcs_server", signal.SIGINT, 130), ("raylet", signal.SIGTERM, 143), ("tune", signal.SIGHUP, 129)]
)
def test_a_signal_while_ray_starts_ends_the_command_and_all_that_was_started(start, moment, number, status) -> None:
    command = start(*WORDS, *SLOWLY)
    begun = {"tune": lambda: (command.study / "ray").exists()}
    command.wait_for(begun.get(moment, lambda: any(f"/{moment} " in words for words in command.processes().values())))
    os.kill(command.pid, number)
    assert command.status() == status
    command.wait_for(lambda: not command.processes(), 20)
    assert STOPPED in command.read() and "Traceback" not in command.read()
