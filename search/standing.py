"""How a study stands at this moment, for whoever shows it.
Comes in: a Director, its lock held. Goes out: counts and words. "Running" is what a process works on; what waits for a machine is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.director import Director
    from search.queue import Active


@dataclass
class Progress:
    """What the live view shows. placed: handed to Ray, and no process has begun with it yet."""

    done: int = 0
    running: int = 0
    placed: int = 0
    waiting: int = 0
    best: tuple[float, str] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    in_flight: list[str] = field(default_factory=list)
    seconds_left: float | None = None
    aside: list[str] = field(default_factory=list)
    machines: str = ""  # words on those that are awaited, or stay idle


def progress_of(director: "Director") -> Progress:
    queue, records = director.queue, director.ledger.records
    flying = list(queue.active.values())
    running = sum(queue.has_begun(active) for active in flying)
    waiting = len(queue.tabled) + len(queue.resumed) + sum(search.left for search in director.searches)
    waiting += sum(_still(final.waiting(), queue.active, final) for final in director.finals)
    counts: dict[str, int] = {}
    for record in records.values():
        counts[record["status"]] = counts.get(record["status"], 0) + 1
    left = None
    if director.seconds:
        left = (waiting + 0.5 * len(flying)) * sum(director.seconds) / len(director.seconds) / director.slots
    return Progress(
        len(records), running, len(flying) - running, waiting, _best(director), counts,
        [_words(active) for active in flying], left, director.nodes.lines(), director.machines,
    )  # fmt: skip


def _still(waiting: int, active: Mapping[str, "Active"], final: Any) -> int:
    """Runs to come of a race, without those in flight."""
    return max(0, waiting - sum(run.key in active for run in final.needed()))


def _best(director: "Director") -> tuple[float, str] | None:
    objective, best = director.entry.study.objective, None
    sign = 1 if director.entry.study.direction == "maximize" else -1
    for record in director.ledger.records.values():
        value = record["metrics"].get(objective)
        if record["status"] == "completed" and value is not None and (best is None or sign * value > sign * best[0]):
            name = next(iter(record["arms"]), f"trial {record['trial']}")
            best = (value, f"{name}, seed {record['seed']}")
    return best


def _words(active: "Active") -> str:
    what = f"trial {active.trial.number}" if active.trial else "run"
    return f"{next(iter(active.run.arms), what)} · seed {active.run.seed} · {_where(active)}"


def _where(active: "Active") -> str:
    if active.began is None:
        return "waiting for a machine"
    rows: Sequence[Mapping[str, Any]] = active.rows
    return f"{rows[-1]['stage']} epoch {rows[-1]['epoch']}" if rows else "starting"
