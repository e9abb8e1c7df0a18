"""What a signal does to a command: the first one has the runs in flight save a checkpoint, the second one ends all at once.
Comes in: SIGINT, SIGTERM. Goes out: Stopped, with the signal's number. All of the project's signal handling of the command is here."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from search.stopping import Stoppable


class Stopped(KeyboardInterrupt):
    """A signal has ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass
class Ending:
    """The signal that asked for an end."""

    signal: int | None = None


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, unless whoever called us has a handler of its own."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def first_saves(study: Stoppable, say: Callable[[str], None]) -> Iterator[Ending]:
    """While `study` is at work: the first SIGINT or SIGTERM has it end in order."""
    ending = Ending()

    def stop(number: int, frame: FrameType | None) -> None:
        if ending.signal is not None:
            raise Stopped(number)
        ending.signal = number
        study.stop()
        say("stopping; what runs saves its checkpoint after this epoch. Once more stops at once")

    main = threading.current_thread() is threading.main_thread()
    listened = [number for number in (signal.SIGINT, signal.SIGTERM) if main and signal.getsignal(number) != signal.SIG_IGN]  # nohup
    kept = {number: signal.signal(number, stop) for number in listened}
    try:
        yield ending
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
