"""The signals that ask a command to end: SIGINT (Ctrl-C), SIGTERM (`timeout`, Slurm, a service manager), SIGHUP (the terminal is gone).
Comes in: what an orderly end is, for as long as there is one. Goes out: that end at the first signal, KeyboardInterrupt in the main thread
at the next, or at the first where nothing has to be saved. Exists because Ray takes SIGTERM as it starts, and its processes die of what is
sent to all processes of a terminal or of a job: the runs would end before their checkpoint."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Protocol

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Of the process; one command at a time listens. last: the signal that came last, None as long as none has come."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.again = False  # whether a second one has come, which waits for nothing
        self._end: Callable[[], bool] | None = None
        self._listened: tuple[signal.Signals, ...] = ()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to them, in the main thread alone. What is ignored as the command starts stays so: `nohup`, a shell's background."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.last, self.again = None, False
        before = {number: signal.getsignal(number) for number in ASKED}
        self._listened = tuple(number for number, handler in before.items() if handler != signal.SIG_IGN)
        self._listen()
        try:
            yield
        finally:
            for number in self._listened:
                signal.signal(number, before[number])
            self._listened = ()

    @contextmanager
    def kept_from_children(self) -> Iterator[None]:
        """Processes that are started in the block, and theirs, never see SIGTERM and SIGHUP, whoever sends them to a whole group: a mask
        outlives exec, and Ray's processes and workers keep it (so Ray itself masks SIGINT). A SIGTERM to this process waits for the end of
        the block, which takes the signals back: `ray.init` sets a handler of SIGTERM that exits with status 15, and a second one, in C++,
        that aborts. A thread of a library, which has no such mask, may still take one to the first of these; to the second in the instant
        before the block ends."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
        try:
            yield
        except SystemExit as fault:
            if fault.code != signal.SIGTERM or signal.SIGTERM not in self._listened:
                raise
            self.last = signal.SIGTERM
            raise KeyboardInterrupt from None
        finally:
            self._listen()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def orderly(self, end: Callable[[], bool]) -> Iterator[None]:
        """In the block the first signal calls `end`, which returns whether there is something to wait for."""
        self._end = end
        try:
            yield
        finally:
            self._end = None

    def _listen(self) -> None:
        for number in self._listened:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.last = self.last is None, number
        self.again = not first
        if not (first and self._end is not None and self._end()):
            raise KeyboardInterrupt  # and nothing of our own: Ray, in whose C++ the main thread may wait, makes another one of it


SIGNALS = Signals()


class AtWork(Protocol):
    """A study at work."""

    def stop(self, why: str | None = None) -> None: ...
    def at_work(self) -> bool: ...


def first_saves(study: AtWork, say: Callable[[str], None]) -> AbstractContextManager[None]:
    """While `study` is at work: the first signal has its runs save a checkpoint and end; where none has a process, it ends all at once, as
    the second one does."""

    def end() -> bool:
        study.stop()
        if not study.at_work():
            return False
        say("stopping; what runs saves its checkpoint after this epoch. Once more stops at once")
        return True

    return SIGNALS.orderly(end)
