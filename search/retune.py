"""A table in which every arm is searched for: `--retune`.
Comes in: a plan. Goes out: one small study for each arm, carried out one after the other over the same ledger, and tables of their winners.
Exists because a comparison at settings that were tuned for one arm favours that arm. Every arm gets as many trials as the others, over the
space without what the arm itself fixes; then its best is chosen and run on all seeds as that of the main search is. Such rows stand in
tables of their own (`2-retuned`): they answer another question than rows at fixed settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import CategoricalDistribution

from search.coordinator import Active, Coordinator, Progress, spent_seconds
from search.plan import Plan, PlannedArm, PlannedTable
from search.registry import Entry
from search.stages import Stages
from search_spaces._declare import Dimension
from trainables.parts.execution import config_hash, digest
from trainables.parts.procedure import config_values


@dataclass(frozen=True)
class Retuning:
    """The search of one arm, or of equal arms of several tables. name: of its Optuna study, the same whatever tables are asked for."""

    name: str
    arms: tuple[tuple[str, str], ...]  # (table, arm)
    plan: Plan


def retunings(entry: Entry, plan: Plan) -> tuple[Retuning, ...]:
    """One for each arm of the plan's tables; arms with equal configurations and equal spaces are one."""
    found: dict[str, Retuning] = {}
    for table in plan.tables:
        for arm in table.arms:
            space = space_of(entry, plan, arm)
            name = digest([arm.config_hash, sorted(space)])[:12]
            trials = plan.trials if space else 1
            own = replace(
                plan, baseline=arm.config, tables=(), runs=(), space=space, trials=trials, strategy=replace(plan.strategy, source=None)
            )
            before = found.get(name, Retuning(name, (), own))
            found[name] = replace(before, arms=(*before.arms, (table.number, arm.name)))
    return tuple(found.values())


def space_of(entry: Entry, plan: Plan, arm: PlannedArm) -> dict[str, Dimension]:
    """The plan's space without the fields that the arm fixes, and without those that change nothing beside them (the temperature of a
    pre-training that does not take place): trials over those would be spent on one configuration."""
    free = {name: dimension for name, dimension in plan.space.items() if dimension.field not in arm.overrides}
    kept: dict[str, Dimension] = {}
    for name, dimension in free.items():
        values = config_values(arm.config)
        searched = {other.field for other in free.values()}
        if any(field not in searched and values[field] not in allowed for field, allowed in dimension.when.items()):
            continue
        context = replace(arm.config, **{field: allowed[0] for field, allowed in dimension.when.items() if field in searched})
        hashes = {config_hash(entry.procedure, replace(context, **{dimension.field: value})) for value in _ends(dimension)}
        if len(hashes) > 1:
            kept[name] = dimension
    return kept


def _ends(dimension: Dimension) -> tuple[Any, ...]:
    distribution = dimension.distribution
    return tuple(distribution.choices) if isinstance(distribution, CategoricalDistribution) else (distribution.low, distribution.high)  # type: ignore[attr-defined]


class Relay:
    """Coordinators one after the other, as one: the next is made when all that the one before was asked for has ended."""

    def __init__(self, makers: Sequence[Callable[[], Coordinator]]) -> None:
        self.makers = list(makers)
        self.all = [self.makers.pop(0)()]
        self._slots, self._gpus = 1, 1.0
        self._on_change: Callable[[Any], None] = lambda coordinator: None
        self._on_record = self.now.on_record

    @property
    def now(self) -> Coordinator:
        return self.all[-1]

    def _move(self) -> Coordinator:
        while self.makers and self.now.complete():
            before = self.now
            self.all.append(self.makers.pop(0)())
            self.now.slots, self.now.gpus, self.now.on_change, self.now.on_record = (
                self._slots,
                self._gpus,
                self._on_change,
                self._on_record,
            )
            self.now.spent = spent_seconds(before.ledger.records)
        return self.now

    @property
    def active(self) -> Mapping[str, Active]:
        return self.now.active

    @property
    def folder(self) -> Any:
        return self.now.folder

    @property
    def stages(self) -> Stages:
        return self.now.stages

    @property
    def new_records(self) -> int:
        return sum(one.new_records for one in self.all)

    @property
    def slots(self) -> int:
        return self._slots

    @slots.setter
    def slots(self, value: int) -> None:
        self._slots = self.now.slots = value

    @property
    def gpus(self) -> float:
        return self._gpus

    @gpus.setter
    def gpus(self, value: float) -> None:
        self._gpus = self.now.gpus = value

    @property
    def on_change(self) -> Callable[[Any], None]:
        return self._on_change

    @on_change.setter
    def on_change(self, value: Callable[[Any], None]) -> None:
        self._on_change = self.now.on_change = value

    @property
    def on_record(self) -> Callable[[Mapping[str, Any]], None]:
        return self._on_record

    @on_record.setter
    def on_record(self, value: Callable[[Mapping[str, Any]], None]) -> None:
        self._on_record = self.now.on_record = value

    def next(self) -> Active | None:
        while True:
            active = self._move().next()
            if active is not None or not (self.makers and self.now.complete()):  # all of an arm's trials may stand in the ledger already
                return active

    def row(self, key: str, row: Mapping[str, Any]) -> bool:
        return self.now.row(key, row)

    def lost(self, key: str) -> None:
        self.now.lost(key)

    def job(self, active: Active) -> dict[str, Any]:
        return self.now.job(active)

    def finished(self) -> bool:
        return self._move().finished()

    @property
    def notes(self) -> list[str]:
        """Of all; what is added is the one's at work."""
        return self.now.notes

    @property
    def halt(self) -> str | None:
        return self.now.halt

    def stop(self, why: str | None = None) -> None:
        self.makers.clear()  # an arm whose search has not begun is not begun
        self.now.stop(why)

    def drop(self, key: str, why: str) -> None:
        self.makers.clear()
        self.now.drop(key, why)

    def at_work(self) -> bool:
        return self.now.at_work()

    def waits_in_vain(self) -> bool:
        return self.now.waits_in_vain()

    def abandon(self) -> None:
        self.now.abandon()

    def waits_again(self, key: str) -> None:
        self.now.waits_again(key)

    def stalled(self, patience: float) -> list[tuple[Active, float]]:
        return self.now.stalled(patience)

    def complete(self) -> bool:
        return self._move().complete() and not self.makers

    def progress(self) -> Progress:
        """Of what is at work now; of arms to come, their trials are waiting."""
        own = self.now.progress()
        return replace(own, waiting=own.waiting + len(self.makers) * self.now.plan.trials)


def retuned_table(table: PlannedTable, shape: Mapping[str, Any], winners: Mapping[tuple[str, str], Any], plan: Plan) -> dict[str, Any]:
    """A table of the winners of its arms' searches; shape: the table at fixed settings, as study.json has it; winners: (config_hash,
    configuration) by (table, arm). An arm whose search has not ended is not in it yet."""
    arms = []
    for arm in table.arms:
        if (table.number, arm.name) in winners:
            hashed, config = winners[table.number, arm.name]
            fixed = config_values(plan.baseline)
            overrides = {name: value for name, value in config_values(config).items() if value != fixed[name]}
            arms.append({"name": arm.name, "published": None, "config_hash": hashed, "overrides": overrides})
    title = f"{table.title}; each arm at the best of {plan.trials} trials of its own"
    return dict(shape) | {"number": f"{table.number}-retuned", "title": title, "dataset": "", "external_dataset": "", "arms": arms}


def best_of(relay: Relay, plan: Plan, several: Sequence[Retuning]) -> dict[tuple[str, str], Any]:
    """(config_hash, configuration) of the winner of each arm whose race is decided."""
    found: dict[tuple[str, str], Any] = {}
    for one, retuning in zip(relay.all[1:], several, strict=False):
        race = one.race()
        if race is not None and race.winner is not None:
            config = next(candidate.config for candidate in one._finalists() if candidate.hash == race.winner)
            found |= {arm: (race.winner, config) for arm in retuning.arms}
    return found
