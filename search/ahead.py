"""Modules that will be needed, imported while something else is waited for: images that are read, runs that train.
Comes in: their names. Goes out: nothing; who needs one imports it as ever. Exists because imports are seconds of a command's start and
end."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_SECONDS = 20.0  # in which the first runs' own processes start: on few cores nothing should stand in their way


@contextmanager
def ahead(*names: str, after: float = 0.0) -> Iterator[None]:
    """In the block a thread imports these, in this order, not before so many seconds; those that it has not begun when the block ends are
    left. An import that fails is for who needs the module to say."""
    over = threading.Event()

    def work() -> None:
        over.wait(after)
        for name in names:
            if over.is_set():
                return
            try:
                importlib.import_module(name)
            except ImportError:
                return

    thread = threading.Thread(target=work, name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
