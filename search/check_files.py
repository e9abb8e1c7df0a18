"""Whether tables, models and the export are what the records say: see `history`."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

from search.evidence import Facts, name_of
from search.exported import exported_key
from search.plan import run_key
from trainables.parts.checkpoint import load_state
from trainables.parts.errors import RequestError
from trainables.parts.execution import FLIGHT, MODEL


@dataclass(frozen=True)
class _Cell:
    arm: str
    metric: str
    mean: float  # in percent; nan where there is none
    n: int


def _read_cells(path: Path) -> list[_Cell]:
    """ValueError, KeyError or TypeError where it is not as it was written."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            _Cell(row["arm"], row["metric"], float(row["mean"]) if row["mean"] else math.nan, int(row["n"])) for row in csv.DictReader(file)
        ]


def cells(facts: Facts) -> None:
    """Each number of a table's csv is the mean over its arm's records, computed here once more."""
    for table in facts.study["tables"]:
        path = facts.folder / "tables" / f"table-{table['number']}.csv"
        if not path.exists():
            facts.violations.append(f"{path.relative_to(facts.folder)} is missing; python -m search PROCEDURE report writes it")
            continue
        hashes = {arm["name"]: arm["config_hash"] for arm in table["arms"]}
        try:
            cells = _read_cells(path)
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            facts.violations.append(
                f"{path.relative_to(facts.folder)} is damaged, or was saved by another program; python -m search PROCEDURE report writes "
                "it again"
            )
            continue
        for name in sorted(set(hashes) - {cell.arm for cell in cells}):
            facts.violations.append(f"table {table['number']} has no row {name}")
        for cell in cells:
            found = [
                facts.records.get(run_key(facts.entry.procedure, hashes[cell.arm], seed, facts.data_hash, facts.code), {})
                for seed in facts.study["seeds"]
                if cell.arm in hashes
            ]
            values = [
                record["metrics"][cell.metric]
                for record in found
                if record and record["status"] == "completed" and cell.metric in record["metrics"]
            ]
            facts.cells += 1
            mean = 100 * math.fsum(values) / len(values) if values else math.nan
            if cell.n != len(values) or (values and not abs(mean - cell.mean) <= 0.005 + 1e-9):
                says = "nothing" if math.isnan(cell.mean) else f"{cell.mean:.2f}"
                facts.violations.append(
                    f"table {table['number']}, {cell.arm}, {cell.metric}: the table says {says} of {cell.n}, "
                    f"the records {mean:.2f} of {len(values)}; python -m search PROCEDURE report writes it again"
                )


def files(facts: Facts) -> None:
    """Each kept file belongs to a record, and each model that a table stands on is there."""
    for folder in sorted((facts.folder / "checkpoints").glob("*")):
        record = facts.records.get(folder.name)
        if record is None and (folder / MODEL).exists():
            facts.violations.append(f"checkpoints/{folder.name[:12]} holds a model and belongs to no record")
        elif record is None:
            facts.notes.append(f"checkpoints/{folder.name[:12]} is of a run that has not ended")
        elif (folder / FLIGHT).exists():
            facts.notes.append(f"checkpoints/{folder.name[:12]} holds a checkpoint of {name_of(record)}, which has ended")
    for _, _, hashed, seed in facts.arms():
        key = run_key(facts.entry.procedure, hashed, seed, facts.data_hash, facts.code)
        record = facts.records.get(key)
        if record is None or record["status"] != "completed":
            continue
        try:
            load_state(facts.folder / "checkpoints" / key / MODEL)
        except FileNotFoundError:
            facts.violations.append(f"{name_of(record)}: its model is gone, and it stands in a table")
        except OSError as fault:
            facts.notes.append(f"{name_of(record)}: its model cannot be read here ({fault.strerror})")
        except RequestError:
            facts.notes.append(f"{name_of(record)}: its model is damaged and cannot be used; its numbers stand in its record")
    stages = {value for record in facts.records.values() for value in record["stage_hashes"].values()}
    for folder in sorted((facts.folder / "stages").glob("*")):
        if folder.name not in stages:
            facts.notes.append(f"stages/{folder.name[:12]} is of a run that has not ended")
    for path in sorted([*facts.folder.glob("*/*/*.damaged"), *facts.folder.glob("*.damaged"), *facts.folder.glob("*.torn")]):
        facts.notes.append(f"{path.relative_to(facts.folder)}: was damaged, and is set aside")


def export(facts: Facts) -> None:
    """The exported model is that of a completed run, with its record's metrics."""
    best = facts.folder / "best"
    if not best.exists():
        if any(record["status"] == "completed" for record in facts.records.values()):
            facts.violations.append("runs have completed, and best/ is missing; python -m search PROCEDURE export writes it")
        return
    key = exported_key(best)
    record = facts.records.get(key or "")
    if record is None:
        facts.violations.append("best/ is damaged, or belongs to no record; python -m search PROCEDURE export writes it again")
        return
    try:
        told = json.loads((best / "metrics.json").read_text())["metrics"]
    except (ValueError, KeyError, TypeError, OSError):
        told = {}
    if not isinstance(told, dict) or not told or any(record["metrics"].get(name) != value for name, value in told.items()):
        facts.violations.append(f"best/metrics.json is not what the record of {name_of(record)} says")
