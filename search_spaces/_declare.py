"""The words in which a study is declared: spaces, tables, arms, presets.
Comes in: values. Goes out: frozen data, with no function in it. Exists so that what is varied can be read, compared and printed.
Distributions are Optuna's own and reach Optuna unchanged (Ray's translation would change bounds and drop steps)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Dimension:
    """One searched parameter. `field` of the configuration takes its value; it is asked for only where every field in `when` has one of
    the values named there. Two dimensions may feed one field under different conditions, each with a range of its own."""

    field: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One row of a table: the baseline with overrides. `published`: the row's key in the published tables; None: the paper has no such row.
    `times`: fields that are the baseline's, whatever the preset, times so much. `plus`: fields that are the baseline's and another field of it in
    addition; `along`: epochs of a schedule that are stretched as such a field is. `described`: of another's method, fields with the values of its
    description; where a preset or a command has others, the table says so below."""

    name: str
    overrides: Overrides
    published: str | None = None
    yardstick: bool = False  # what can be had without the method: a row of the table, never a study's best
    times: Mapping[str, int] = dataclasses.field(default_factory=dict)
    plus: Mapping[str, str] = dataclasses.field(default_factory=dict)
    along: Mapping[str, str] = dataclasses.field(default_factory=dict)
    described: Overrides = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A published or own ablation. `dataset` narrows the published rows; `compare_with` names the arm that the others are compared with."""

    number: str
    title: str
    dataset: str
    compare_with: str
    arms: tuple[Arm, ...]
    external_dataset: str = ""  # the published rows that external test sets stand beside
    published_number: str = ""  # of the paper's table, where one of the paper's is two here


@dataclass(frozen=True)
class Preset:
    """How much is spent: overrides of the published settings, and budgets."""

    title: str
    overrides: Overrides
    trials: int  # runs that the search proposes
    repeats: int  # seeds of each arm
    tables: tuple[str, ...]
    synthetic_images: int = 400  # size of the built-in set
    space: Mapping[str, Dimension | None] = dataclasses.field(default_factory=dict)  # dimensions to replace, or to leave out (None)


@dataclass(frozen=True)
class Study:
    """All that can be asked of a procedure. A search sees `objective` at a run's end and `intermediate` on the way; both are `val_` metrics."""

    procedure: str
    objective: str
    intermediate: str
    metrics: tuple[str, ...]  # of the tables, in the paper's order, without the part's prefix
    space: Mapping[str, Dimension]
    tables: tuple[Table, ...]
    presets: Mapping[str, Preset]
    direction: str = "maximize"
    objectives: Mapping[str, str] = dataclasses.field(default_factory=dict)  # others by name (`--objective`), each seen on the way too
