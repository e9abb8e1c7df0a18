"""A table in which every arm is searched for: `--retune`.
Comes in: a plan. Goes out: one small search for each arm, carried out side by side over the same ledger, and tables of their winners.
Exists because a comparison at settings that were tuned for one arm favours that arm. Every arm gets as many trials as the others (of a
grid: what is left of it), over the space without what the arm itself fixes; then its best is chosen and run on all seeds as that of the
main search is. Such rows stand in tables of their own (`2-retuned`): they answer another question than rows at fixed settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import CategoricalDistribution

from search.director import Director
from search.final import Final
from search.plan import Plan, PlannedArm, PlannedTable, grid_trials
from search.registry import Entry
from search.search import Search
from search.warm import Warm
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
            if space and plan.strategy.sampler == "grid":  # less is left of it where the arm fixes a dimension
                trials = grid_trials(arm.config, space, plan.strategy, plan.trials)
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


def retuned_table(table: PlannedTable, shape: Mapping[str, Any], winners: Mapping[tuple[str, str], Any], plan: Plan) -> dict[str, Any]:
    """A table of the winners of its arms' searches; shape: the table at fixed settings, as study.json has it; winners: (config_hash,
    configuration) by (table, arm). An arm whose search has not ended is not in it yet."""
    arms = []
    for arm in table.arms:
        if (table.number, arm.name) in winners:
            hashed, config = winners[table.number, arm.name]
            fixed = config_values(plan.baseline)
            overrides = {name: value for name, value in config_values(config).items() if value != fixed[name]}
            arms.append({"name": arm.name, "published": None, "config_hash": hashed, "overrides": overrides} | arm.marks)
    most = f"{plan.trials} trials of its own" if plan.strategy.sampler != "grid" else "its own grid"
    title = f"{table.title}; each arm at the best of {most}"
    return dict(shape) | {"number": f"{table.number}-retuned", "title": title, "dataset": "", "external_dataset": "", "arms": arms}


def best_of(finals: Sequence[Final]) -> dict[tuple[str, str], Any]:
    """(config_hash, configuration) by (table, arm), of each arm whose race is decided."""
    winners = {final: final.winner() for final in finals if final.search.name}
    return {arm: (winner.hash, winner.config) for final, winner in winners.items() if winner is not None for arm in final.search.arms}


def make_searches(
    director: Director, arms: Sequence[Retuning], *, own: bool = True, warm: Warm | None = None, judged: int | None = None
) -> list[Search]:
    """The study's own search (own: whether it is asked for), then that of each arm. judged: images of the validation part."""
    plan = director.plan
    common: dict[str, Any] = {"entry": director.entry, "ledger": director.ledger, "ended": director.ended, "judged": judged}
    main = [Search(plan=plan, title=director.name, warm=warm, **common)] if own and plan.trials else []
    return main + [
        Search(plan=one.plan, title=f"{director.name} retuned {one.name}", name=one.name, arms=one.arms, **common) for one in arms
    ]
