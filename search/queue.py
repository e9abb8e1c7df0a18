"""Runs that wait and runs in flight, and which of them may start now.
Comes in: runs that tables ask for, runs to be placed again. Goes out: the next one of each kind that waits for nobody. Exists so that no
stage is trained by two runs at once, and so that "waits for a machine" and "runs" are two things."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.plan import PlannedRun
from search.search import Asked
from search.stages import Stages
from search.verdict import Breaks
from trainables.parts.execution import read_lives
from trainables.parts.procedure import Procedure


@dataclass
class Active:
    """A run that waits to be placed, or is placed. trials: those that its end answers, the asker first."""

    run: PlannedRun
    trials: list[Asked] = field(default_factory=list)
    retuned: str = ""  # the arm's search whose race wants it
    placement: int = 0  # counts: what is heard of an earlier process of the run is not of this one
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float | None = None  # when a process took it up; None: it waits for a machine
    heard: float | None = None  # when it was last heard of
    earlier: float = 0.0  # seconds of processes that it was taken from
    lives: int = 0  # processes that had worked on it when it was placed
    again: bool = False  # it was trained before, and its model was not kept
    steps: int = 0  # scores that early stopping could look at
    facts: dict[str, Any] = field(default_factory=dict)  # of the worker that works on it
    beside: bool = False  # another run of the study has been on its card since it was placed
    breaks: Breaks = field(default_factory=Breaks)
    shunned: set[str] = field(default_factory=set)  # cards that its process is told not to work on
    handed_back: bool = False  # by a process on such a card
    yields: bool = False  # to one other run, which may take that card

    def worked(self, clock: float) -> float:
        """Seconds of its processes so far, in this session."""
        return self.earlier + (clock - self.began if self.began is not None else 0.0)

    @property
    def trial(self) -> Asked | None:
        return next(iter(self.trials), None)

    @property
    def stoppable(self) -> bool:
        """Whether early stopping may end it: one search wants it, and nobody else."""
        return not self.run.arms and len(self.trials) == 1

    @property
    def folder(self) -> str:
        return f"checkpoints/{self.run.key}"

    @property
    def name(self) -> str:
        """As people call it."""
        what = f"trial {self.trial.number}" if self.trial else self.run.key[:12]
        return f"{next(iter(self.run.arms), what)}, seed {self.run.seed}"


class Queue:
    """tabled: runs of tables that wait, by key; resumed: runs that were begun, and trials that wait for another run's stage; active:
    placed."""

    def __init__(self, procedure: Procedure, stages: Stages, folder: Path, tabled: Iterable[PlannedRun]) -> None:
        self.stages, self.folder = stages, folder
        self.shared = {stage.name for stage in procedure.stages if stage.shared}
        self.tabled = {run.key: run for run in tabled}
        self.resumed: deque[Active] = deque()
        self.active: dict[str, Active] = {}
        self.placements = 0

    def free(self, run: PlannedRun) -> bool:
        """Whether no stage of the run is being trained by another one at this moment: it would be trained twice."""
        wanted = {key for name, key in run.stages.items() if name in self.shared and not self.stages.has(key)}
        return run.key not in self.active and not any(wanted & set(active.run.stages.values()) for active in self.active.values())

    def has(self, key: str) -> bool:
        """Whether a run is placed, or is to be placed again."""
        return key in self.active or any(active.run.key == key for active in self.resumed)

    def begun(self) -> list[Active]:
        """Runs that may have cost something and have no record yet."""
        return [*self.active.values(), *self.resumed]

    def place(self, active: Active) -> Active:
        """It is handed to a machine."""
        self.tabled.pop(active.run.key, None)
        self.placements += 1
        active.placement, active.began, active.heard, active.facts, active.beside = self.placements, None, None, {}, False
        active.lives = len(read_lives(self.folder / active.folder))
        self.active[active.run.key] = active
        for other in self.resumed:
            other.yields = False
        return active

    def take_resumed(self, yielding: bool = False) -> Active | None:
        """The first of those that were begun. One that must run alone waits until nothing else runs. yielding: of those too that yield."""
        for active in list(self.resumed):
            other = self.active.get(active.run.key)
            if other is not None:  # two trials of one run
                other.trials += active.trials
                self.resumed.remove(active)
            elif self.free(active.run) and not (active.breaks.alone and self.active) and (yielding or not active.yields):
                self.resumed.remove(active)
                return active
        return None

    def take_tabled(self) -> Active | None:
        return next((Active(run) for run in self.tabled.values() if self.free(run)), None)

    def hold(self, run: PlannedRun, asked: Asked) -> bool:
        """A trial whose run is in flight, waits already, or needs a stage that another trains: kept until then. False if it may start
        now."""
        for other in (*self.active.values(), *self.resumed):
            if other.run.key == run.key:
                other.trials.append(asked)
                return True
        if self.free(run):
            return False
        self.resumed.append(Active(run, [asked]))
        return True

    def holding(self) -> int:
        """Trials that wait for another one's run, or for its stage."""
        return sum(len(active.trials) for active in self.resumed) + sum(max(0, len(active.trials) - 1) for active in self.active.values())

    def exclusive(self) -> bool:
        """Whether a run that must run alone runs, or waits for the others to end."""
        return any(active.breaks.alone for active in (*self.active.values(), *self.resumed))

    def again(self, active: Active, last: bool = False) -> None:
        """A placed run is to be placed once more; it comes first. last: its process was on a card that it is kept from, and another run may
        go before it, unless it must run alone."""
        self.active.pop(active.run.key, None)
        self.has_begun(active)  # though nothing was heard of its process
        active.earlier, active.began = active.worked(time.monotonic()), None
        active.handed_back, active.yields = last, last and not active.breaks.alone
        self.resumed.appendleft(active)

    def handed_back(self) -> int:
        """Runs that a process on a card which they are kept from has handed back: others may take their places meanwhile."""
        return sum(one.handed_back and one.began is None for one in (*self.resumed, *self.active.values()))

    def has_begun(self, active: Active) -> bool:
        """Whether a process has begun with the run since it was placed."""
        if active.began is None and len(read_lives(self.folder / active.folder)) > active.lives:
            active.began = time.monotonic()
        return active.began is not None

    def hear(self, active: Active, facts: Mapping[str, Any]) -> float:
        """A sign of life; seconds since the one before, 0 for the first."""
        clock = time.monotonic()
        silence = clock - active.heard if active.heard is not None else 0.0
        active.heard = clock
        active.began = active.began if active.began is not None else clock
        active.facts |= facts
        for other in self.active.values() if facts.get("card") else ():
            if other is not active and other.facts.get("card") == facts["card"]:
                active.beside = other.beside = True
        return silence

    def silent(self, limit: float) -> list[tuple[Active, float]]:
        """Runs that a process works on and of which nothing was heard for `limit` seconds; each is named once, then waited for anew."""
        clock, found = time.monotonic(), []
        for active in self.active.values():
            if active.heard is None and self.has_begun(active):
                active.heard = clock
            if active.heard is not None and clock - active.heard > limit:
                found.append((active, clock - active.heard))
                active.heard = clock
        return found

    def node_of(self, key: str) -> str:
        """Where a run in flight is at work; '' where no process has begun with it."""
        active = self.active.get(key)
        return str(active.facts.get("node", "")) if active is not None else ""
