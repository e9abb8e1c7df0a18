"""Proves from a study's folder alone that it is what it says: every planned run once, nothing trained twice, every number traceable.
Comes in: a study folder; nothing in it is changed. Goes out: violations and notes, in words. Exists so that a promise about crashes can be
checked after the fact, by whoever has the folder (`python -m search PROCEDURE check`), and not only believed."""

import csv
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from analysis.mixture import codes_of, mixture, versions_of
from search.compose import race_decided
from search.coordinator import JOURNAL, open_journal
from search.export import exported_key
from search.ledger import Ledger
from search.plan import run_key
from search.registry import Entry
from search.study import read_study
from trainables.parts.checkpoint import load_state
from trainables.parts.errors import RequestError
from trainables.parts.execution import FLIGHT, MODEL, config_hash, stage_hashes
from trainables.parts.procedure import config_from, stages_shared

STATES = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.FAIL, "failed": TrialState.FAIL}


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
    facts = _Facts(folder, entry, study, ledger, [*ledger.warnings], [])
    for look in (_code, _planned, _keys, _trainings, _shared_stages, _trials, _cells, _files, _export):
        look(facts)
    done = sum(record["status"] == "completed" for record in ledger.records.values())
    words = (
        f"{folder.name}: {len(ledger.records)} runs ({done} completed) in {sum(map(len, facts.told.values()))} records, {facts.cells} numbers in tables; "
        + ("no violation" if not facts.violations else f"{len(facts.violations)} violation(s)")
    )
    return History(tuple(facts.violations), tuple(facts.notes), words)


@dataclass(frozen=True)
class _Told:
    """What Optuna may have been told of a run by one of its records."""

    status: str
    metrics: Mapping[str, float]
    scores: Sequence[float]  # on its way
    epochs: bool  # whether any were recorded


@dataclass
class _Facts:
    folder: Path
    entry: Entry
    study: Mapping[str, Any]
    ledger: Ledger
    violations: list[str]
    notes: list[str]
    cells: int = 0
    told: dict[str, list[_Told]] = field(default_factory=dict)  # by key

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


def _code(facts: _Facts) -> None:
    """Each run was trained by code that the study accepted. Where that is more than one, it is worth knowing."""
    accepted = {one.get("fingerprint") for one in facts.study.get("codes", [])}
    for record in facts.records.values():
        trained = {record.get("code", ""), *(code for codes in record.get("stage_codes", {}).values() for code in codes)} - {""}
        for fingerprint in sorted(trained - accepted):
            facts.violations.append(f"{_name(record)}: it was trained by code {fingerprint[:8]}, which the study does not know")
    facts.notes.extend(mixture((codes_of(record), versions_of(record)) for record in facts.records.values()))


def _name(record: Mapping[str, Any]) -> str:
    """A run in words."""
    of = next(iter(record["arms"]), None) or (f"trial {record['trial']}" if record["trial"] is not None else record["key"][:12])
    return f"{of}, seed {record['seed']}"


def _planned(facts: _Facts) -> None:
    """Each planned (configuration, seed, data) has a record, and it is completed."""
    for table, arm, hashed, seed in facts.arms():
        record = facts.records.get(run_key(facts.entry.procedure, hashed, seed, facts.data_hash, facts.code))
        if record is None:
            facts.violations.append(f"table {table}, {arm}, seed {seed} has no record: the study has not ended")
        elif record["status"] != "completed":
            reason = (record["error"] or {}).get("message", "no reason recorded")
            facts.notes.append(f"table {table}, {arm}, seed {seed} did not complete ({record['status']}: {reason})")


def _keys(facts: _Facts) -> None:
    """A record's key and hashes are those of its settings, so that no two runs can hide behind one name or one run behind two."""
    procedure = facts.entry.procedure
    for record in facts.records.values():
        try:
            config = config_from(procedure.config, record["params"])
        except TypeError as fault:
            facts.violations.append(f"{_name(record)}: its settings are not those of this version ({fault})")
            continue
        hashed = config_hash(procedure, config)
        if (hashed, run_key(procedure, hashed, record["seed"], record["data_hash"], facts.code)) != (record["config_hash"], record["key"]):
            facts.violations.append(f"{_name(record)}: its key is not that of its settings, seed and data")
        elif record["stage_hashes"] != stage_hashes(procedure, config, record["seed"], record["data_hash"], facts.code):
            facts.violations.append(f"{_name(record)}: its stages are not those of its settings, seed and data")
        if record["data_hash"] != facts.data_hash:
            facts.violations.append(f"{_name(record)}: it was trained on other data than the study's")


def _trainings(facts: _Facts) -> None:
    """No epoch was trained again behind a saved checkpoint, and no completed run once more."""
    seen: dict[str, Mapping[str, Any]] = {}
    intermediate = facts.study["objective"]["intermediate"]
    for record in facts.ledger.every():
        scores = [row[intermediate] for row in record["history"] if intermediate in row]
        facts.told.setdefault(record["key"], []).append(_Told(record["status"], record["metrics"], scores, bool(record["history"])))
        before = seen.get(record["key"])
        seen[record["key"]] = {name: value for name, value in record.items() if name != "history"}
        lives = record.get("lives", [])
        for words in _epochs(lives, record):
            facts.violations.append(f"{_name(record)}: {words}")
        if before is None or before["status"] != "completed" or record["status"] != "completed":
            continue
        if record.get("again"):
            facts.notes.append(f"{_name(record)} was trained again for a table: the search had not kept its model")
            continue
        further = lives[len(before.get("lives", [])) :]
        if before.get("lives", []) != lives[: len(before.get("lives", []))] or any(
            life["epochs"] and not life.get("anew") for life in further
        ):
            facts.violations.append(f"{_name(record)} was trained a second time after it had completed")


def _epochs(lives: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the order in which a run's processes trained its epochs."""
    done: dict[str, int] = {}
    saved: dict[str, int] = {}
    for life in lives:
        if life.get("anew"):  # a damaged file was set aside
            done, saved = {}, {}
        for stage, (first, last) in life["epochs"].items():
            if first <= saved.get(stage, 0):
                yield f"epoch {first} of {stage} was trained again, though a checkpoint after epoch {saved[stage]} had been saved"
            if first > done.get(stage, 0) + 1:
                yield f"epoch {first} of {stage} was trained without the one before it"
            done[stage] = last
        saved |= life["saved"]
    if record["status"] == "completed":
        for stage, epochs in record.get("epochs", {}).items():
            if lives and stage in done and stage not in record.get("stages_reused", []) and done[stage] != epochs:
                yield f"{done[stage]} epochs of {stage} were trained, and {epochs} are recorded"


def _shared_stages(facts: _Facts) -> None:
    """A stage that runs share was trained by one of them. The search deletes stages of its own runs: a table may train such a one again."""
    shared = stages_shared(facts.entry.procedure)
    trained: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in facts.ledger.every():
        done = {stage: span[1] for life in record.get("lives", []) for stage, span in life["epochs"].items()}
        for stage, value in record["stage_hashes"].items():
            if stage in shared and done.get(stage) == getattr(config_from(facts.entry.procedure.config, record["params"]), shared[stage]):
                trained.setdefault(value, {}).setdefault(record["key"], {name: record[name] for name in ("key", "arms", "trial", "seed")})
    for value, runs in trained.items():
        of_tables = [record for record in runs.values() if any(not arm.startswith("search/") for arm in record["arms"])]  # as it trained
        damaged = any((facts.folder / "stages" / value).glob("*.damaged"))
        if len(of_tables) > 1 and not damaged:
            facts.violations.append(f"stage {value[:12]} was trained by {len(of_tables)} runs: {'; '.join(map(_name, of_tables))}")
        elif len(runs) > 1:
            facts.notes.append(
                f"stage {value[:12]} was trained by {len(runs)} runs: " + ("it was damaged" if damaged else "it had been deleted")
            )


def _trials(facts: _Facts) -> None:
    """Optuna's studies say what the ledger says: the search's own, and those of arms. They are looked at in a copy: opening may mend them."""
    path = facts.folder / JOURNAL
    recorded = {record["trial"]: record for record in facts.records.values() if record["trial"] is not None}
    searches = facts.study.get("retuned", [])
    if not path.exists():
        if recorded or searches:
            facts.violations.append(f"{JOURNAL} is missing, and {len(recorded)} trial(s) have records; the study's command makes it again")
        return
    with tempfile.TemporaryDirectory() as copy:
        shutil.copyfile(path, Path(copy) / JOURNAL)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            journal = open_journal(Path(copy) / JOURNAL)
            known = {
                one.study_name: optuna.load_study(study_name=one.study_name, storage=journal).trials
                for one in optuna.get_all_study_summaries(journal)
            }
        except Exception as fault:  # noqa: BLE001 (a damaged journal fails in Optuna in any of a dozen ways)
            facts.violations.append(
                f"{JOURNAL} cannot be read ({type(fault).__name__}); the study's command sets it aside and goes on from the records"
            )
            return
    name = facts.study["study"]
    _search(facts, "", facts.study["trials"], known.get(name, []), recorded)
    _raced(facts, known.get(name, []))
    for search in searches:
        table, arm = search["arms"][0]
        own = [record for record in facts.records.values() if (record.get("retuned") or {}).get("search") == search["search"]]
        numbers = {record["retuned"]["trial"]: record for record in own if record["retuned"]["trial"] is not None}
        _search(
            facts, f"the search of {arm} (table {table}): ", search["trials"], known.get(f"{name} retuned {search['search']}", []), numbers
        )
        for table, arm in search["arms"]:
            rows = [one["arms"] for one in facts.study["tables"] if one["number"] == f"{table}-retuned"]
            if not any(row["name"] == arm for row in (rows[0] if rows else [])):
                facts.violations.append(f"table {table}-retuned has no row {arm}: its search has not ended")


def _raced(facts: _Facts, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
    """The race of the search's best is that of all its trials and seeds, and is decided."""
    if not any(trial.state == TrialState.COMPLETE and "from" not in trial.user_attrs for trial in trials):
        return
    if not race_decided(facts.study):
        facts.violations.append("the search's best configurations have not raced on all seeds: the study has not ended")


def _search(
    facts: _Facts, of: str, asked: int, trials: Sequence[optuna.trial.FrozenTrial], recorded: Mapping[int, Mapping[str, Any]]
) -> None:
    """of: words before each violation; recorded: its records by trial."""
    own = [trial for trial in trials if "from" not in trial.user_attrs]
    ended = sum(trial.state.is_finished() for trial in own)
    if ended < asked:
        facts.violations.append(f"{of}{asked} trials were asked for, and {ended} have ended: the study has not")
    for number in sorted(set(recorded) - {trial.number for trial in own}):
        facts.violations.append(f"{of}trial {number} has a record, and Optuna does not know it")
    names = [facts.study["objective"]["metric"]]
    if "second" in facts.study["objective"]:
        names.append(facts.study["objective"]["second"]["metric"])
    for trial in own:
        if not trial.state.is_finished() or "key" not in trial.user_attrs:
            continue  # said above, or a point that the procedure refused
        record = facts.records.get(trial.user_attrs["key"])
        if record is None:
            facts.violations.append(f"{of}trial {trial.number} was told, and has no record")
            continue
        told = [one for one in facts.told[record["key"]] if STATES[one.status] == trial.state]
        metrics = [[one.metrics.get(name) for name in names] for one in told]
        if not told:
            facts.violations.append(f"{of}trial {trial.number} was told as {trial.state.name.lower()}, its record is {record['status']}")
        elif trial.state == TrialState.COMPLETE and list(trial.values or ()) not in metrics:
            words = ", ".join(map(str, trial.values or ()))
            facts.violations.append(f"{of}trial {trial.number} was told {words}, its record says {', '.join(map(str, metrics[-1]))}")
        elif (
            trial.intermediate_values
            and list(dict(sorted(trial.intermediate_values.items())).values()) not in [one.scores for one in told]
            and told[-1].epochs
        ):
            facts.violations.append(f"{of}trial {trial.number} was told other values on its way than its record has")


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


def _cells(facts: _Facts) -> None:
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
                f"{path.relative_to(facts.folder)} is damaged, or was saved by another program; python -m search PROCEDURE report writes it again"
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


def _files(facts: _Facts) -> None:
    """Each kept file belongs to a record, and each model that a table stands on is there."""
    for folder in sorted((facts.folder / "checkpoints").glob("*")):
        record = facts.records.get(folder.name)
        if record is None and (folder / MODEL).exists():
            facts.violations.append(f"checkpoints/{folder.name[:12]} holds a model and belongs to no record")
        elif record is None:
            facts.notes.append(f"checkpoints/{folder.name[:12]} is of a run that has not ended")
        elif (folder / FLIGHT).exists():
            facts.notes.append(f"checkpoints/{folder.name[:12]} holds a checkpoint of {_name(record)}, which has ended")
    for _, _, hashed, seed in facts.arms():
        key = run_key(facts.entry.procedure, hashed, seed, facts.data_hash, facts.code)
        record = facts.records.get(key)
        if record is None or record["status"] != "completed":
            continue
        try:
            load_state(facts.folder / "checkpoints" / key / MODEL)
        except FileNotFoundError:
            facts.violations.append(f"{_name(record)}: its model is gone, and it stands in a table")
        except RequestError:
            facts.notes.append(f"{_name(record)}: its model is damaged and cannot be used; its numbers stand in its record")
    stages = {value for record in facts.records.values() for value in record["stage_hashes"].values()}
    for folder in sorted((facts.folder / "stages").glob("*")):
        if folder.name not in stages:
            facts.notes.append(f"stages/{folder.name[:12]} is of a run that has not ended")
    for path in sorted([*facts.folder.glob("*/*/*.damaged"), *facts.folder.glob("*.damaged"), *facts.folder.glob("*.torn")]):
        facts.notes.append(f"{path.relative_to(facts.folder)}: was damaged, and is set aside")


def _export(facts: _Facts) -> None:
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
        facts.violations.append(f"best/metrics.json is not what the record of {_name(record)} says")
