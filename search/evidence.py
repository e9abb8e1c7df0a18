"""What a check of a study goes by: its files, read once.
Comes in: a study folder. Goes out: facts, and a place for what is found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.ledger import Ledger
from search.registry import Entry


@dataclass(frozen=True)
class Told:
    """What Optuna may have been told of a run by one of its records."""

    status: str
    metrics: Mapping[str, float]
    scores: Sequence[float]  # on its way
    epochs: bool  # whether any were recorded


@dataclass
class Facts:
    folder: Path
    entry: Entry
    study: Mapping[str, Any]
    ledger: Ledger
    violations: list[str]
    notes: list[str]
    cells: int = 0
    told: dict[str, list[Told]] = field(default_factory=dict)  # by key

    @property
    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.ledger.records

    @property
    def data_hash(self) -> str:
        return str(self.study["data"]["hash"])

    @property
    def code(self) -> str:
        """That keys are made with."""
        return str(self.study.get("code", ""))

    def arms(self) -> Iterator[tuple[str, str, str, int]]:
        """(table, arm, configuration's hash, seed) of all that is planned. The search's own table compares with the baseline, which
        it does not train by itself."""
        for table in self.study["tables"]:
            for arm in table["arms"]:
                if table["number"] != "search" or arm["name"] != table["baseline_arm"]:
                    for seed in self.study["seeds"]:
                        yield table["number"], arm["name"], arm["config_hash"], seed


def name_of(record: Mapping[str, Any]) -> str:
    """A run in words."""
    of = next(iter(record["arms"]), None) or (f"trial {record['trial']}" if record["trial"] is not None else record["key"][:12])
    return f"{of}, seed {record['seed']}"
