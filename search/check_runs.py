"""Whether each planned run was done once, and nothing trained twice: see `history`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.mixture import mixture, origin_of
from search.evidence import Facts, Told, name_of
from search.plan import run_key
from trainables.parts.execution import config_hash, stage_hashes
from trainables.parts.procedure import config_from, stages_shared


def code(facts: Facts) -> None:
    """Each run was trained by code that the study accepted. Where that is more than one, it is worth knowing."""
    accepted = {one.get("fingerprint") for one in facts.study.get("codes", [])}
    for record in facts.records.values():
        trained = {record.get("code", ""), *(code for codes in record.get("stage_codes", {}).values() for code in codes)} - {""}
        for fingerprint in sorted(trained - accepted):
            facts.violations.append(f"{name_of(record)}: it was trained by code {fingerprint[:8]}, which the study does not know")
    facts.notes.extend(mixture(origin_of(record) for record in facts.records.values()))


def planned(facts: Facts) -> None:
    """Each planned (configuration, seed, data) has a record, and it is completed."""
    for table, arm, hashed, seed in facts.arms():
        record = facts.records.get(run_key(facts.entry.procedure, hashed, seed, facts.data_hash, facts.code))
        if record is None:
            facts.violations.append(f"table {table}, {arm}, seed {seed} has no record: the study has not ended")
        elif record["status"] != "completed":
            reason = (record["error"] or {}).get("message", "no reason recorded")
            facts.notes.append(f"table {table}, {arm}, seed {seed} did not complete ({record['status']}: {reason})")


def keys(facts: Facts) -> None:
    """A record's key and hashes are those of its settings, so that no two runs can hide behind one name or one run behind two."""
    procedure = facts.entry.procedure
    for record in facts.records.values():
        try:
            config = config_from(procedure.config, record["params"])
        except TypeError as fault:
            facts.violations.append(f"{name_of(record)}: its settings are not those of this version ({fault})")
            continue
        hashed = config_hash(procedure, config)
        if (hashed, run_key(procedure, hashed, record["seed"], record["data_hash"], facts.code)) != (record["config_hash"], record["key"]):
            facts.violations.append(f"{name_of(record)}: its key is not that of its settings, seed and data")
        elif record["stage_hashes"] != stage_hashes(procedure, config, record["seed"], record["data_hash"], facts.code):
            facts.violations.append(f"{name_of(record)}: its stages are not those of its settings, seed and data")
        if record["data_hash"] != facts.data_hash:
            facts.violations.append(f"{name_of(record)}: it was trained on other data than the study's")


def trainings(facts: Facts) -> None:
    """No epoch was trained again behind a saved checkpoint, and no completed run once more."""
    seen: dict[str, Mapping[str, Any]] = {}
    intermediate = facts.study["objective"]["intermediate"]
    for record in facts.ledger.every():
        scores = [row[intermediate] for row in record["history"] if intermediate in row]
        facts.told.setdefault(record["key"], []).append(Told(record["status"], record["metrics"], scores, bool(record["history"])))
        before = seen.get(record["key"])
        seen[record["key"]] = {name: value for name, value in record.items() if name != "history"}
        lives = record.get("lives", [])
        for words in _epochs(lives, record):
            facts.violations.append(f"{name_of(record)}: {words}")
        if before is None or before["status"] != "completed" or record["status"] != "completed":
            continue
        if record.get("again"):
            facts.notes.append(f"{name_of(record)} was trained again for a table: the search had not kept its model")
            continue
        further = lives[len(before.get("lives", [])) :]
        if before.get("lives", []) != lives[: len(before.get("lives", []))] or any(
            life["epochs"] and not life.get("anew") for life in further
        ):
            facts.violations.append(f"{name_of(record)} was trained a second time after it had completed")


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


def shared_stages(facts: Facts) -> None:
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
            facts.violations.append(f"stage {value[:12]} was trained by {len(of_tables)} runs: {'; '.join(map(name_of, of_tables))}")
        elif len(runs) > 1:
            facts.notes.append(
                f"stage {value[:12]} was trained by {len(runs)} runs: " + ("it was damaged" if damaged else "it had been deleted")
            )
