"""How a study at work stands, for whoever is not its command: `watch` on another machine, and Prometheus.
Comes in: a Director. Goes out: `status.json` in the study's folder, every few seconds. Exists because what is in flight, which machines are
there and what it costs stand in no record."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.home import home

if TYPE_CHECKING:
    from search.director import Director

STATUS = "status.json"
SECONDS = 5.0


def status_of(director: "Director", price: float | None) -> dict[str, Any]:
    """price: of one hour of a GPU, or of a worker where runs have none."""
    progress = director.progress()
    with director.lock:
        machines: dict[str, dict[str, Any]] = {}
        for record in director.ledger.records.values():
            _count(machines, record, "ended")
        for active in director.queue.active.values():
            if active.began is not None:
                _count(machines, active.facts, "running")
        failures: dict[str, int] = {}
        for record in director.ledger.records.values():
            if record["error"] and record["status"] == "failed":
                failures[record["error"]["message"]] = failures.get(record["error"]["message"], 0) + 1
        spent = director.budget.taken(director.queue.begun()) / 3600
    return {
        "at": time.time(), "done": progress.done, "running": progress.running, "placed": progress.placed, "waiting": progress.waiting,
        "counts": progress.counts, "in_flight": progress.in_flight, "seconds_left": progress.seconds_left, "best": progress.best,
        "machines": machines, "aside": progress.aside, "words": progress.machines, "failures": failures, "slots": director.slots,
        "spent_hours": spent, "price_per_hour": price, "cost": None if price is None else price * spent,
    }  # fmt: skip


def _count(machines: dict[str, dict[str, Any]], facts: Mapping[str, Any], what: str) -> None:
    host = str(facts.get("host") or "")
    if host:
        one = machines.setdefault(host, {"device": "", "running": 0, "ended": 0})
        one["device"] = facts.get("device") or one["device"]
        one[what] += 1


@contextmanager
def telling(director: "Director", price: float | None, also: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Write it while the study is at work. also: given the same. That a file could not be written is no news: what it stands beside says
    so."""
    from search.live import beside

    over, path = threading.Event(), director.folder / STATUS

    def tell() -> None:
        status = status_of(director, price)
        also(status)
        with suppress(OSError):
            _write(path, status)
            home(director.folder).put(path)

    def work() -> None:
        tell()
        while not over.wait(SECONDS):
            tell()

    with beside(work, over):
        yield
    tell()


def _write(path: Path, status: Mapping[str, Any]) -> None:
    from trainables.parts.checkpoint import write_atomically

    text = json.dumps(status)
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_status(folder: Path) -> dict[str, Any]:
    """{} where no command has written one that can be read."""
    try:
        found = json.loads((folder / STATUS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def lines_of(status: Mapping[str, Any], at_work: bool) -> list[str]:
    """What a watcher sees below the study's own line. Machines and runs in flight are those of the command at work."""
    from search.show import duration

    lines = []
    if at_work and status:
        lines.append(
            f"  {status['running']} running, {status['placed']} waiting for a machine, {status['waiting']} to come; about "
            f"{duration(status['seconds_left'])} left"
        )
        lines += [f"  {words}" for words in ([status["words"]] if status["words"] else [])]
    for host, one in sorted(status.get("machines", {}).items()):
        running = f"{one['running']} running, " if at_work else ""
        lines.append(f"  machine  {host}{f' ({device})' if (device := one['device']) else ''}: {running}{one['ended']} ended")
    lines += [f"  aside    {words}" for words in status.get("aside", [])]
    lines += [f"  failed   {count} x {message}" for message, count in list(status.get("failures", {}).items())[:5]]
    if status:
        cost = f", {status['cost']:.2f} at {status['price_per_hour']:g} an hour" if status["cost"] is not None else ""
        lines.append(f"  spent    {status['spent_hours']:.2f} hours of GPUs (of workers, where there is none){cost}")
    if at_work and status:
        lines += [f"  at work  {words}" for words in status["in_flight"]]
    return lines
