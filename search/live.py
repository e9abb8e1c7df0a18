"""The live view of a study at work, and the place where everybody else's words go.
Comes in: a Director's Progress. Goes out: a few lines on a terminal, redrawn in place; plain lines where there is no terminal. While the
view is up, whatever Ray, its processes or a library print goes to the study's log file."""

import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.show import duration
from search.signals import ASKED
from search.standing import Progress


def render(name: str, progress: Progress, elapsed: float) -> RenderableType:
    """Three lines and one for each run in flight."""
    total = progress.done + progress.running + progress.placed + progress.waiting
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(name, style="bold"),
        ProgressBar(total=max(1, total), completed=progress.done, width=30),
        Text(f"{progress.done} of {total} runs"),
    )
    ends = ", ".join(f"{count} {status}" for status, count in sorted(progress.counts.items()))
    words = f"done {progress.done}{f' ({ends})' if ends else ''} · running {progress.running} · waiting {progress.waiting}"
    if progress.placed:
        words += f" · waiting for a machine {progress.placed}"
    best = f"best so far {100 * progress.best[0]:.2f} % validation accuracy ({progress.best[1]})" if progress.best else "best so far …"
    times = f"{duration(elapsed)} gone, about {duration(progress.seconds_left)} left"
    return Group(
        head,
        Text(words),
        Text(f"{best} · {times}"),
        *(Text(f"  set aside: {line}", style="yellow", overflow="ellipsis", no_wrap=True) for line in progress.aside),
        *([Text(f"  {progress.machines}", style="yellow")] if progress.machines else []),
        *(
            Text(f"  {line}", style="dim", overflow="ellipsis", no_wrap=True)
            for line in progress.in_flight or ([] if progress.machines else ["starting workers …"])
        ),
    )


def _dead(handle: int) -> bool:
    """Whether what is written there fails: the terminal is gone (ssh dropped), or whoever read the pipe."""
    look = select.poll()
    look.register(handle, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in look.poll(0))


class _Screen(io.TextIOWrapper):
    """The real output, as long as it is there; the log where it is gone: a study does not end for want of a reader."""

    def __init__(self, handle: int, log: int) -> None:
        super().__init__(io.FileIO(handle, "w"), encoding="utf-8", errors="replace", write_through=True)
        self.log, self.gone = log, False
        self.error = -1  # the real standard error

    def write(self, text: str) -> int:
        if not self.gone and _dead(self.fileno()):
            self.gone = True
            os.dup2(self.log, self.fileno())
        return super().write(text)


@contextmanager
def words_to(log: Path) -> Iterator[Console]:
    """Send this process's and its children's standard output and error to `log`; yields a console on the real output. Where that is gone
    meanwhile, all words after it go to the log too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    screen = _Screen(os.dup(kept[0]), file)
    screen.error = kept[1]
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield Console(file=screen, force_terminal=os.isatty(kept[0]) or None, highlight=False, soft_wrap=not os.isatty(kept[0]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, handle in enumerate(kept, 1):
            os.dup2(file if _dead(handle) else handle, number)
        for handle in (*kept, file):
            os.close(handle)
        screen.close()


def leave(console: Console, words: str, status: int) -> NoReturn:
    """End the process with a last word, from any thread: the main one stands in a call that will not return. console: of `words_to`."""
    console.show_cursor()
    assert isinstance(console.file, _Screen)
    with suppress(OSError):  # nobody listens any more
        os.write(console.file.error, f"\nsearch: {words}\n".encode())
    os._exit(status)


@contextmanager
def beside(work: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """`work` in a thread of its own, which must end soon after `stop` is set: at the end of the block."""

    def quietly() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)  # they are the main thread's
        work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _gone(console: Console) -> bool:
    return isinstance(console.file, _Screen) and console.file.gone


@contextmanager
def live(console: Console, name: str, look: Callable[[], Progress]) -> Iterator[None]:
    """Show `look()` once a second on a terminal, or as a line when something has ended (at most every 15 s) elsewhere."""
    started, stop = time.monotonic(), threading.Event()

    def elapsed() -> float:
        return time.monotonic() - started

    if console.is_terminal:
        with Live(
            render(name, look(), 0), console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        ) as view:

            def redraw() -> None:
                while not stop.wait(1.0) and not _gone(console):
                    view.update(render(name, look(), elapsed()), refresh=True)

            with beside(redraw, stop):
                yield
        return

    def lines() -> None:
        shown = -1
        while not stop.wait(15.0):
            progress = look()
            if progress.done != shown:
                shown = progress.done
                best = f", best {100 * progress.best[0]:.2f} %" if progress.best else ""
                placed = f", {progress.placed} waiting for a machine" if progress.placed else ""
                text = (
                    f"{name}: {progress.done} done, {progress.running} running{placed}, {progress.waiting} waiting{best}, "
                    f"{duration(elapsed())} gone, about {duration(progress.seconds_left)} left"
                )
                console.print(text, markup=False)

    with beside(lines, stop):
        yield
