"""What a plan, an ended command and a study look like.
Comes in: an Outlook, a Result, an Overview. Goes out: a few lines on a terminal, redrawn in place; plain lines where there is no
terminal. While the live view is up, whatever Ray, its processes or a library print goes to the study's log file."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.home import home
from search.status import lines_of

if TYPE_CHECKING:
    from search.api import Result
    from search.folders import Overview
    from search.outlook import Outlook


def console(errors: bool = False) -> Console:
    """Where a command's words go. errors: beside standard output, which a program reads."""
    stream = sys.stderr if errors else sys.stdout
    return Console(stderr=errors, highlight=False, soft_wrap=not stream.isatty())


class Lasting(Console):
    """A study's words: on standard output, and in a file once nobody reads that any more (`| head`). A study does not end for want of a
    reader."""

    def __init__(self, rest: Path) -> None:
        super().__init__(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.rest = rest

    def on_broken_pipe(self) -> None:
        handle = os.open(self.rest if self.rest.parent.is_dir() else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, sys.stdout.fileno())  # what could not be written is still in its buffer
        os.close(handle)


def short(path: Path) -> str:
    """Relative to here where that is shorter."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("../../..") else relative


def duration(seconds: float | None) -> str:
    """`1 h 05 min`, `3 min 20 s`, `12 s`, or an ellipsis when unknown."""
    if seconds is None:
        return "…"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def plan_table(outlook: "Outlook") -> Table:
    """What is asked for, a row for each table and search."""
    table = Table("table", "arms", "runs asked for", title=f"{outlook.name}: {outlook.images:,} images, {outlook.seeds} seeds")
    for row in outlook.rows:
        table.add_row(*row)
    return table


def plan(outlook: "Outlook", out: Console) -> None:
    """The plan, its runs and its price."""
    for note in outlook.notes:
        out.print(f"note: {note}", markup=False)
    out.print(plan_table(outlook))
    out.print(f"{outlook.asked} runs stand in tables, {outlook.different} of them are different; {outlook.done} are done.")
    guess = outlook.guess
    for words in guess.skipped:
        out.print(f"not counted: {words}", markup=False)
    total = guess.tables + guess.search
    out.print(
        f"to train: {guess.stages} stages ({guess.asked_stages - guess.stages} shared), about {duration(guess.tables)} for tables and at "
        f"most {duration(guess.search)} "
        f"for the search on one {outlook.device.upper()}; about {duration(total / outlook.speed)} on {outlook.slots}"
        + (f" at once, which do {outlook.gain:.1f} times what one would on a GPU" if outlook.gain > 1 else "")
        + (f", {total / outlook.gain / 3600:.1f} GPU-hours" if outlook.device == "cuda" else "; no GPU here, 0 GPU-hours")
    )
    out.print("nothing was trained.")


def summary(result: "Result", out: Console) -> None:
    """What came of a command, in a few lines."""

    def say(words: str) -> None:
        out.print(words, markup=False)

    if not result.runs:
        say(f"{WHY[result.why]} the same command{MORE[result.why]} goes on")
        return
    count = sum(result.runs.values())
    if not result.runs.get("completed"):
        print(
            f"search: none of {count} runs completed:",
            *result.reasons,
            f"see {short(result.folder / 'log.txt')}",
            sep="\n  ",
            file=sys.stderr,
        )
        return
    ends = ", ".join(f"{number} {status}" for status, number in sorted(result.runs.items()))
    say(f"\n{result.name}: {count} runs ({ends}), {result.new} of them now, in {duration(result.seconds)}")
    for reason in result.reasons[:5]:
        say(f"  not completed: {reason}")
    if not result.complete:
        say(f"  {LEFT[result.why]}; the same command{MORE[result.why]} goes on")
    for line in result.exported:
        say(f"  {line}")
    say(f"  tables   {short(result.folder / 'tables')}")
    say(f"  report   {short(result.folder / 'report.html')}")
    if (result.folder / "best").exists():
        say(f"  model    {short(result.folder / 'best')}")
    if url := home(result.folder).url:
        say(f"  kept at  {url}; the files named here are this machine's copy")
    for warning in result.warnings[:5]:
        say(f"  note: {warning}")


def line_of(found: "Overview") -> str:
    """A study in one line."""
    ends = ", ".join(f"{count} {status}" for status, count in found.runs.items()) or "nothing has run"
    best = f", best {100 * found.best[0]:.2f} % {found.metric} ({found.best[1]})" if found.best else ""
    left = f", {found.begun} begun, {found.waiting} waiting" if found.state != "finished" else ""
    return f"{found.name}: {found.state}, {ends}{left}{best}"


def study(found: "Overview", out: Console) -> None:
    """How a study stands, in a few lines."""
    for line in (
        line_of(found),
        f"  {found.procedure}, preset {found.preset}, {found.images:,} images, begun {found.created}",
        f"  {found.command}",
        *lines_of(found.status, found.state == "at work"),
        *((f"  the last command was ended: {found.halted}",) if found.halted else ()),
        f"  folder   {home(found.folder).url or short(found.folder)}",
        *(f"  {word:<9}{short(found.folder / name)}" for word, name in PRODUCTS.items() if (found.folder / name).exists()),
    ):
        out.print(line, markup=False)


@contextmanager
def watching(out: Console) -> Iterator[Callable[["Overview"], None]]:
    """Shows what it is given: in one place on a terminal, else a line for each change."""
    if out.is_terminal:
        with Live(console=out, auto_refresh=False, transient=True) as view:
            yield lambda found: view.update(Text("\n".join(_watched(found))), refresh=True)
        return
    shown: list[str] = []

    def line(found: "Overview") -> None:
        if [line_of(found)] != shown[:1]:
            shown[:] = _watched(found)
            out.print("\n".join(shown), markup=False)

    yield line


def _watched(found: "Overview") -> list[str]:
    """A study at work: progress, machines, failures, cost."""
    return [line_of(found), *lines_of(found.status, found.state == "at work")]


PRODUCTS = {"tables": "tables", "report": "report.html", "model": "best"}
WHY = {
    "limit": "the limit of hours was too short for a run;", "cost": "what --max-cost pays for is spent;",
    "stop": "it was stopped before a run had ended;", "": "nothing has run yet;",
}  # fmt: skip
LEFT = {
    "limit": "the limit of hours was reached", "cost": "what --max-cost pays for is spent", "stop": "it was stopped",
    "": "not all has run",
}  # fmt: skip
MORE = {"limit": " without it, or with more,", "cost": " with more", "stop": "", "": ""}


def as_json(value: Any) -> None:
    """For a program, on standard output."""
    print(json.dumps(value, indent=1, default=str))
