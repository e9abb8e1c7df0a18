"""Proves from a study's folder alone that it is what it says: every planned run once, nothing trained twice, every number traceable.
Comes in: a study folder; nothing in it is changed. Goes out: violations and notes, in words. Exists so that a promise about crashes can be
checked after the fact, by whoever has the folder (`python -m search PROCEDURE check`), and not only believed."""

from dataclasses import dataclass
from pathlib import Path

from search import check_files, check_runs, check_search
from search.evidence import Facts
from search.ledger import Ledger
from search.registry import Entry
from search.study import read_study
from trainables.parts.errors import RequestError


@dataclass(frozen=True)
class History:
    """violations: what contradicts a promise. notes: what is worth knowing and contradicts none."""

    violations: tuple[str, ...]
    notes: tuple[str, ...]
    summary: str


def check(folder: Path, entry: Entry) -> History:
    """RequestError where there is no study, or its study.json cannot be read."""
    study = read_study(folder)
    if study is None:
        raise RequestError(f"no study in {folder}; give the folder of one")
    ledger = Ledger(folder)
    ledger.read()
    facts = Facts(folder, entry, study, ledger, [*ledger.warnings], [])
    looks = (check_runs.code, check_runs.planned, check_runs.keys, check_runs.trainings, check_runs.shared_stages, check_search.trials)
    for look in (*looks, check_files.cells, check_files.files, check_files.export):
        look(facts)
    done = sum(record["status"] == "completed" for record in ledger.records.values())
    words = (
        f"{folder.name}: {len(ledger.records)} runs ({done} completed) in {sum(map(len, facts.told.values()))} records, {facts.cells} "
        "numbers in tables; " + ("no violation" if not facts.violations else f"{len(facts.violations)} violation(s)")
    )
    return History(tuple(facts.violations), tuple(facts.notes), words)
