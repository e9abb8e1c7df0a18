"""What is asked for, turned into unique runs and unique stages.
Comes in: a declaration, a preset, tables, arms, seeds, overrides. Goes out: a Plan, or all faults of the request at once. Pure: nothing is
read, written or trained. Exists so that a configuration that stands in five tables is trained once per seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from search import sampling
from search.declared import budget_faults, choose_tables
from search.registry import Entry, unknown
from search.sampling import Strategy
from search_spaces._declare import Arm, Dimension
from trainables.parts.errors import RequestError
from trainables.parts.execution import config_hash, digest, stage_hashes
from trainables.parts.procedure import Procedure, config_from, config_values

BASELINE = "baseline settings"  # what every arm and trial changes, as a row of the search's own table


@dataclass(frozen=True)
class PlannedRun:
    """One training: a configuration and a seed. Equal keys are one run, whoever asked for it."""

    config: Any
    config_hash: str
    seed: int
    key: str
    stages: Mapping[str, str]  # stage -> content address
    arms: tuple[str, ...] = ()  # "2/Scratch", ...


@dataclass(frozen=True)
class PlannedArm:
    name: str
    published: str | None
    overrides: Mapping[str, Any]
    config: Any
    config_hash: str
    yardstick: bool = False
    described: Mapping[str, Any] = field(default_factory=dict)

    @property
    def marks(self) -> dict[str, Any]:
        """What study.json says of an arm beside its configuration, where there is something to say."""
        return ({"yardstick": True} if self.yardstick else {}) | ({"described": dict(self.described)} if self.described else {})


@dataclass(frozen=True)
class PlannedTable:
    number: str
    title: str
    dataset: str
    compare_with: str
    arms: tuple[PlannedArm, ...]
    external_dataset: str = ""
    published_number: str = ""


@dataclass(frozen=True)
class Plan:
    """baseline: the configuration that arms override; runs: unique, all arms of the first seed first."""

    baseline: Any
    tables: tuple[PlannedTable, ...]
    runs: tuple[PlannedRun, ...]
    space: Mapping[str, Dimension]
    seeds: tuple[int, ...]
    trials: int
    procedure: Procedure
    data_hash: str
    code: str  # fingerprint that keys are made with; '' in studies of before it was kept
    strategy: Strategy = field(default_factory=Strategy)

    def run_of(self, config: Any, seed: int, arms: Sequence[str] = ()) -> PlannedRun:
        """A run with its key and the content addresses of its stages."""
        return planned_run(self.procedure, config, seed, self.data_hash, self.code, arms)

    @property
    def asked(self) -> int:
        """Runs that the tables name, before equal ones are merged."""
        return sum(len(table.arms) for table in self.tables) * len(self.seeds)


def run_key(procedure: Procedure, hash_of_config: str, seed: int, data_hash: str, code: str) -> str:
    """The key of a record."""
    return digest([procedure.name, hash_of_config, seed, data_hash, *([code] if code else [])])


def planned_run(procedure: Procedure, config: Any, seed: int, data_hash: str, code: str, arms: Sequence[str] = ()) -> PlannedRun:
    """See `Plan.run_of`."""
    hashed = config_hash(procedure, config)
    key = run_key(procedure, hashed, seed, data_hash, code)
    return PlannedRun(procedure.canonical(config), hashed, seed, key, stage_hashes(procedure, config, seed, data_hash, code), tuple(arms))


def parse_value(text: str, example: Any, name: str) -> Any:
    """A value from the command line, of the type of the field's default. ValueError with the rule."""
    if isinstance(example, bool):
        if text.lower() in ("true", "yes", "1", "false", "no", "0"):
            return text.lower() in ("true", "yes", "1")
        raise ValueError(f"{name} must be true or false, got {text!r}")
    if isinstance(example, tuple):
        return tuple(parse_value(entry.strip(), example[0], name) for entry in text.strip("()[]").split(",") if entry.strip())
    kind = type(example)
    try:
        value = kind(text)
    except ValueError:
        word = {int: "a whole number", float: "a number"}.get(kind, "a word")
        raise ValueError(f"{name} must be {word}, got {text!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {text!r}")
    return value


def parse_settings(procedure: Procedure, settings: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as overrides. RequestError with all faults."""
    defaults = {entry.name: getattr(procedure.config(), entry.name) for entry in fields(procedure.config)}
    overrides: dict[str, Any] = {}
    faults = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            faults.append(f"--set takes key=value, got {setting!r}")
        elif name not in defaults:
            faults.append(unknown("setting", name, sorted(defaults)))
        else:
            try:
                overrides[name] = parse_value(text, defaults[name], name)
            except ValueError as fault:
                faults.append(str(fault))
    if faults:
        raise RequestError(*faults)
    return overrides


def make_plan(
    entry: Entry,
    *,
    preset: str,
    data_hash: str,
    code: str,
    seed: int = 0,
    trials: int | None = None,
    repeats: int | None = None,
    tables: Sequence[str] | None = None,
    arms: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    strategy: Strategy | None = None,
) -> Plan:
    """RequestError with every fault of the request. None takes the preset's value. code: see `Plan`."""
    study, procedure = entry.study, entry.procedure
    if preset not in study.presets:
        raise RequestError(unknown("preset", preset, list(study.presets)))
    chosen, strategy = study.presets[preset], strategy or Strategy()
    asked_trials = trials
    trials = chosen.trials if trials is None else trials
    repeats = chosen.repeats if repeats is None else repeats
    faults = budget_faults(trials, repeats, seed)
    repeats = min(max(repeats, 0), 1_000)
    baseline = config_from(procedure.config, dict(chosen.overrides) | dict(overrides or {}))
    baseline_faults = procedure.faults(baseline, None, None)
    faults += baseline_faults
    named, table_faults = choose_tables(study, chosen.tables if tables is None else tables, arms)
    faults += table_faults
    space = {name: dimension for name, dimension in (dict(study.space) | dict(chosen.space)).items() if dimension is not None}
    grid_faults = sampling.faults(strategy, space, config_values(baseline), asked_trials) if trials else []
    faults += grid_faults
    if strategy.sampler == "grid" and not grid_faults:
        trials = grid_trials(baseline, space, strategy, asked_trials)
    if not named and not table_faults and trials == 0:
        faults.append("nothing is asked for: no tables and --trials 0; name --tables, or at least one trial")
    planned = [] if baseline_faults else [_planned(table, baseline, procedure, faults) for table in named]
    if faults:
        raise RequestError(*dict.fromkeys(faults))
    seeds = tuple(range(seed, seed + repeats))
    runs = _runs(planned, seeds, procedure, data_hash, code)
    return Plan(baseline, tuple(planned), runs, space, seeds, trials, procedure, data_hash, code, strategy)


def _planned(table: Any, baseline: Any, procedure: Any, faults: list[str]) -> PlannedTable:
    """A table with the configuration of each arm; what is wrong with one goes into `faults`."""
    arms = []
    for arm in table.arms:
        config = arm_config(procedure, baseline, arm)
        faults += [f"table {table.number}, arm {arm.name}: {fault}" for fault in procedure.faults(config, None, None)]
        more = (config, config_hash(procedure, config), arm.yardstick, arm.described)
        arms.append(PlannedArm(arm.name, arm.published, arm_overrides(procedure, baseline, arm), *more))
    return PlannedTable(
        table.number, table.title, table.dataset, table.compare_with, tuple(arms), table.external_dataset, table.published_number
    )


def _runs(planned: Sequence[PlannedTable], seeds: Sequence[int], procedure: Any, data_hash: str, code: str) -> tuple[PlannedRun, ...]:
    """The runs of all tables, a seed after the other; a run that several arms ask for is one."""
    runs: dict[str, PlannedRun] = {}
    for seed in seeds:
        for table in planned:
            for arm in table.arms:
                run = planned_run(procedure, arm.config, seed, data_hash, code, [f"{table.number}/{arm.name}"])
                runs[run.key] = replace(runs[run.key], arms=runs[run.key].arms + run.arms) if run.key in runs else run
    return tuple(runs.values())


def grid_trials(baseline: Any, space: Mapping[str, Dimension], strategy: Strategy, asked: int | None) -> int:
    """All points of a grid and the published one, or as many of them as are asked for."""
    published = point_of(baseline, space)
    count = len(sampling.grid_order(space, config_values(baseline), strategy, 0, [published] if published else [])) + bool(published)
    return count if asked is None else min(asked, count)


def arm_overrides(procedure: Any, baseline: Any, arm: Arm) -> dict[str, Any]:
    """What an arm changes of this baseline. A field that nothing in the baseline asks for, such as the epochs of a pre-training that its
    method does not have, adds nothing."""
    longer = {name: factor * getattr(baseline, name) for name, factor in arm.times.items()}
    longer |= {name: getattr(baseline, name) + getattr(procedure.canonical(baseline), more) for name, more in arm.plus.items()}
    stretched = {
        name: tuple(round(epoch * longer[field] / getattr(baseline, field)) for epoch in getattr(baseline, name))
        for name, field in arm.along.items()
        if getattr(baseline, field)
    }
    return dict(arm.overrides) | longer | stretched


def arm_config(procedure: Any, baseline: Any, arm: Arm) -> Any:
    """The baseline with what an arm changes."""
    same = {entry.name: getattr(baseline, entry.name) for entry in fields(baseline)}
    return config_from(type(baseline), same | arm_overrides(procedure, baseline, arm))


def search_config(baseline: Any, space: Mapping[str, Dimension], point: Mapping[str, Any]) -> Any:
    """The baseline with the fields that a point of the space names."""
    return replace(baseline, **{space[name].field: value for name, value in point.items()})


def applies(dimension: Dimension, values: Mapping[str, Any]) -> bool:
    """Whether a dimension is asked for, given the fields so far."""
    return all(values[name] in allowed for name, allowed in dimension.when.items())


def point_of(config: Any, space: Mapping[str, Dimension]) -> dict[str, Any] | None:
    """The point of the space that a configuration is, or None if it lies outside."""
    values = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    point: dict[str, Any] = {}
    for name, dimension in space.items():
        if applies(dimension, values):
            value = values[dimension.field]
            if not contains(dimension.distribution, value):
                return None
            point[name] = value
    return point


def contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution._contains(value))
