"""How much a study may spend, and has spent.
Comes in: limits, records, runs in flight. Goes out: whether anything may still be started. Pure, but for the clock."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.queue import Active


@dataclass
class Budget:
    """Limits after which nothing is started. spent: seconds of GPUs, or of workers where there is none; held: GPUs of one run, or its
    workers where it has none."""

    deadline: float | None = None  # on the monotonic clock
    seconds: float | None = None
    spent: float = 0.0
    held: float = 1.0
    paid: float | None = None  # seconds that --max-cost pays for

    def over(self, begun: Sequence[Active]) -> bool:
        """begun: runs that have no record yet, in flight or to be placed again."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            return True
        least = min((limit for limit in (self.seconds, self.paid) if limit is not None), default=None)
        return least is not None and self.taken(begun) >= least

    def taken(self, begun: Sequence[Active]) -> float:
        """Seconds so far."""
        clock = time.monotonic()
        return self.spent + self.held * sum(active.worked(clock) for active in begun)  # not while they wait for a machine

    def all_paid(self, begun: Sequence[Active]) -> bool:
        """Whether it is the cost that lets nothing more start; begun: as for `over`."""
        return self.paid is not None and self.taken(begun) >= self.paid and (self.seconds is None or self.paid <= self.seconds)


def epoch_seconds(record: Mapping[str, Any]) -> float:
    """The slowest stage's mean epoch."""
    epochs = record.get("epochs", {})
    return max((seconds / epochs[name] for name, seconds in record.get("stage_seconds", {}).items() if epochs.get(name)), default=0.0)


def spent_seconds(record: Mapping[str, Any]) -> float:
    """What a run took: GPU seconds, and for one without a GPU those of its workers; with what machines' faults cost."""
    return _own(record) + float(record.get("lost_seconds", 0.0))


def spent_ever(every: Iterable[Mapping[str, Any]]) -> float:
    """The same of all that a ledger says was trained: a run that was tried again, or again for a table, has several records. What a second
    try took over from the first's checkpoint counts twice: a limit may be met early, never late."""
    lives: dict[tuple[str, str], float] = {}
    for record in every:
        life = (record["key"], str(record.get("started", "")))  # one that was only tested afterwards keeps its time
        lives[life] = max(lives.get(life, 0.0), spent_seconds(record))
    return sum(lives.values())


def lost_seconds(record: Mapping[str, Any], worked: float) -> float:
    """What a run that was placed again has cost beside what its record has. worked: by its processes, all together (s)."""
    return max(0.0, worked - _own(record))


def _own(record: Mapping[str, Any]) -> float:
    return float(record.get("gpu_seconds") or record.get("worker_seconds") or record.get("seconds") or 0.0)
