"""`stop STUDY`: another command, on any machine that sees the folder, asks the one at work to end.
Comes in: the file STOP in a study's folder, which its runs obey too. Goes out: a study that ends in order."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search.home import home
from search.live import beside

LOOK_SECONDS = 1.0


class Stoppable(Protocol):
    """A study at work."""

    @property
    def folder(self) -> Path: ...
    @property
    def halt(self) -> str | None: ...
    def stop(self, why: str | None = None) -> None: ...


@dataclass
class Asked:
    """Whether it was."""

    by_another: bool = False


@contextmanager
def heed(study: Stoppable, say: Callable[[str], None], ours: Callable[[], bool]) -> Iterator[Asked]:
    """While `study` is at work, look for the file. ours: whether this command has been told to stop, and has left the file itself."""
    asked, over = Asked(), threading.Event()

    asked_for = home(study.folder).stopped

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if asked_for() and not ours() and study.halt is None:
                asked.by_another = True
                study.stop()
                say("stopping, as another command asked; what runs saves its checkpoint after this epoch")
                return

    with beside(look, over):
        yield asked
    if asked_for() and not ours() and study.halt is None:
        asked.by_another = True  # its runs saw the word first, and ended before the next look
