"""What a signal does to a command: the first one has the runs in flight save a checkpoint, the second one ends all at once.
Comes in: SIGINT, SIGTERM. Goes out: Stopped, with the signal's number. All of the project's signal handling of the command is here."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from search.show import beside

LOOK_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """A signal has ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stoppable(Protocol):
    """A study at work."""

    @property
    def folder(self) -> Path: ...
    def stop(self, why: str | None = None) -> None: ...


@dataclass
class Ending:
    """Who asked for an end: a signal, or another command (`stop STUDY`)."""

    signal: int | None = None
    asked: bool = False


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
    """While `study` is at work: SIGINT, SIGTERM and the file that `stop STUDY` leaves have it end in order."""
    from search.recorder import STOP  # which imports PyTorch

    ending, over = Ending(), threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if ending.signal is not None:
            raise Stopped(number)
        ending.signal = number
        study.stop()
        say("stopping; what runs saves its checkpoint after this epoch. Once more stops at once")

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if ending.signal is None and not ending.asked and (study.folder / STOP).exists():
                ending.asked = True
                study.stop()
                say("stopping, as another command asked; what runs saves its checkpoint after this epoch")

    main = threading.current_thread() is threading.main_thread()
    listened = [number for number in (signal.SIGINT, signal.SIGTERM) if main and signal.getsignal(number) != signal.SIG_IGN]  # nohup
    kept = {number: signal.signal(number, stop) for number in listened}
    try:
        with beside(look, over):
            yield ending
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
