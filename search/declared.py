"""What of a request can be judged by the procedure's declaration alone: objective, preset, tables, arms, a narrower space.
Comes in: words and a Study. Goes out: what they name, or faults. Exists so that a misspelt word is answered in half a second: nothing here
imports PyTorch."""

import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.registry import unknown
from search_spaces._declare import Study, Table
from trainables.parts.errors import RequestError


def budget_faults(trials: int, repeats: int, seed: int) -> list[str]:
    """What is wrong with the numbers of a request."""
    bounds = (("--trials", trials, 0, 100_000), ("--repeats", repeats, 1, 1_000), ("--seed", seed, 0, 2**31 - 1))
    return [
        f"{name} must be at least {low}, got {value}" if value < low else f"{name} must be at most {high}, got {value}"
        for name, value, low, high in bounds
        if not low <= value <= high
    ]


def with_objective(study: Study, name: str | None) -> Study:
    """The study with another aim of its search; that aim is what early stopping sees too. RequestError if it has none of that name."""
    name = (name or "score").partition(",")[0]
    if name == "score":
        return study
    if name not in study.objectives:
        raise RequestError(
            unknown("objective", name, sorted(study.objectives))
            if study.objectives
            else f"{study.procedure} has one objective alone ({study.objective}); leave --objective out"
        )
    metric = study.objectives[name]
    return replace(study, objective=metric, intermediate=metric)


def choose_tables(study: Study, numbers: Sequence[str], patterns: Sequence[str]) -> tuple[list[Table], list[str]]:
    """The tables by number (`all`, `none`), their arms narrowed to the patterns; and what is wrong with the request."""
    known = [table.number for table in study.tables]
    if list(numbers) == ["all"]:
        numbers = known
    if list(numbers) == ["none"]:
        numbers = []
    faults = [unknown("table", number, known) for number in numbers if number not in known]
    tables = [table for table in study.tables if table.number in numbers]
    if not patterns:
        return tables, faults
    every = [(table, arm, f"{table.number}/{arm.name}") for table in tables for arm in table.arms]
    wanted: set[str] = set()
    for pattern in _rejoined(patterns, {arm.name for _, arm, _ in every} | {full for _, _, full in every}):
        found = [
            full
            for _, arm, full in every
            if pattern in (arm.name, full) or fnmatch.fnmatchcase(arm.name, pattern) or fnmatch.fnmatchcase(full, pattern)
        ]
        if not found:
            faults.append(unknown("arm", pattern, [full for _, _, full in every]))
        wanted.update(found)
    narrowed = [replace(table, arms=tuple(arm for arm in table.arms if f"{table.number}/{arm.name}" in wanted)) for table in tables]
    return [table for table in narrowed if table.arms], faults


def _rejoined(words: Sequence[str], names: Collection[str]) -> list[str]:
    """Words that a comma stood between, with those put together again that are one name: `SupCAM`, `ResNet-101` -> `SupCAM, ResNet-101`."""
    found: list[str] = []
    first = 0
    while first < len(words):
        ends = (end for end in range(len(words), first + 1, -1) if ", ".join(words[first:end]) in names)
        end = next(ends, first + 1)
        found.append(", ".join(words[first:end]))
        first = end
    return found


# -- a narrower space --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Narrowed:
    """A study whose search looks at less. overrides: fields that are fixed. space, fixed: what was asked, spelled for study.json."""

    study: Study
    overrides: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


def narrow(study: Study, preset: str, ranges: Sequence[str], values: Sequence[str]) -> Narrowed:
    """ranges: `name=low:high` or `name=one,other`; values: `name=value`, by a dimension's name or by that of the field that it sets.
    RequestError with every word that the declared space does not hold."""
    if preset not in study.presets or not (ranges or values):
        return Narrowed(study)
    chosen = study.presets[preset]
    space = {name: dimension for name, dimension in (dict(study.space) | dict(chosen.space)).items() if dimension is not None}
    faults: list[str] = []
    narrower: dict[str, str] = {}
    fixed: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for word, option in (*((word, "--space") for word in ranges), *((word, "--fix") for word in values)):
        name, equals, text = (part.strip() for part in word.partition("="))
        found = [name] if name in space else [key for key, dimension in space.items() if dimension.field == name]
        try:
            if not equals or not text:
                raise ValueError(
                    f"{option} takes {'name=low:high or name=one,other' if option == '--space' else 'name=value'}, got {word!r}"
                )
            if not found:
                raise ValueError(f"{option}: " + unknown("dimension", name, list(space)))
            if name in narrower or name in fixed:
                raise ValueError(f"{option} {name}: it is narrowed twice; say it once")
            if option == "--fix":
                fixed[name] = overrides[space[found[0]].field] = _value(name, [space[key].distribution for key in found], text)
                space = {key: dimension for key, dimension in space.items() if key not in found}
                continue
            if found != [name]:
                raise ValueError(f"--space {name} is several dimensions; name one of {', '.join(found)}")
            distribution = _narrower(name, space[name].distribution, text)
            space[name] = replace(space[name], distribution=distribution)
            narrower[name] = spelled(distribution)
        except ValueError as fault:
            faults.append(str(fault))
    if faults:
        raise RequestError(*faults)
    less = replace(study, space=space, presets=dict(study.presets) | {preset: replace(chosen, space={})})
    return Narrowed(less, overrides, dict(sorted(narrower.items())), dict(sorted(fixed.items())))


def spelled(distribution: BaseDistribution) -> str:
    """`0.001:0.1`, or `plain,bent`: as --space takes it."""
    if isinstance(distribution, CategoricalDistribution):
        return ",".join(_word(choice) for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return f"{distribution.low}:{distribution.high}"


def _word(choice: Any) -> str:
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _narrower(name: str, distribution: BaseDistribution, text: str) -> BaseDistribution:
    """The declared distribution between other ends, or of fewer choices; its scale and step stay. ValueError with the rule."""
    if isinstance(distribution, CategoricalDistribution):
        known = {_word(choice): choice for choice in distribution.choices}
        asked = [word.strip() for word in text.split(",") if word.strip()]
        if wrong := [word for word in asked if word not in known]:
            raise ValueError(f"--space {name} takes some of {', '.join(known)}, got {', '.join(wrong)}")
        return CategoricalDistribution([choice for word, choice in known.items() if word in asked])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError(f"--space {name} takes low:high within {spelled(distribution)}, got {text!r}; one value is --fix {name}={text}")
    ends = [
        _number(name, distribution, end.strip()) if end.strip() else default
        for end, default in ((low, distribution.low), (high, distribution.high))
    ]
    if ends[0] > ends[1]:
        raise ValueError(f"--space {name} must go from low to high, got {text!r}")
    if isinstance(distribution, IntDistribution):
        return IntDistribution(int(ends[0]), int(ends[1]), log=distribution.log, step=distribution.step)
    return FloatDistribution(ends[0], ends[1], log=distribution.log, step=distribution.step)


def _number(name: str, distribution: FloatDistribution | IntDistribution, text: str) -> float | int:
    """A value of the declared range. ValueError with the rule."""
    kind = int if isinstance(distribution, IntDistribution) else float
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name} must be {'a whole number' if kind is int else 'a number'}, got {text!r}") from None
    if not (math.isfinite(value) and distribution._contains(value)):
        step = f" in steps of {distribution.step}" if distribution.step not in (None, 1) else ""
        raise ValueError(f"{name} must lie within the declared {spelled(distribution)}{step}, got {text}")
    return value


def _value(name: str, distributions: Sequence[BaseDistribution], text: str) -> Any:
    """A value that one of the distributions holds. ValueError with the rule of the last."""
    fault: ValueError | None = None
    for distribution in distributions:
        try:
            if not isinstance(distribution, CategoricalDistribution):
                assert isinstance(distribution, FloatDistribution | IntDistribution)
                return _number(name, distribution, text)
            known = {_word(choice): choice for choice in distribution.choices}
            if text not in known:
                raise ValueError(f"--fix {name} takes one of {', '.join(known)}, got {text!r}")
            return known[text]
        except ValueError as found:
            fault = found
    raise fault or ValueError(f"{name} has no values")
