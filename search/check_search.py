"""Whether the searches are what the records say, and have ended: see `history`."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.compose import race_decided
from search.evidence import Facts
from search.mirror import JOURNAL

STATES = {"completed": TrialState.COMPLETE} | dict.fromkeys(("pruned", "diverged", "collapsed", "failed"), TrialState.PRUNED)


def trials(facts: Facts) -> None:
    """The copy of the searches that was written as they went says what the ledger says: a record that was changed since differs from it."""
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
            for line in path.read_bytes().splitlines():
                json.loads(line)  # Optuna passes over a last line that is none
            journal = JournalStorage(JournalFileBackend(str(Path(copy) / JOURNAL)))
            known = {
                one.study_name: optuna.load_study(study_name=one.study_name, storage=journal).trials
                for one in optuna.get_all_study_summaries(journal)
            }
        except Exception as fault:  # noqa: BLE001 (a damaged journal fails in Optuna in any of a dozen ways)
            facts.violations.append(
                f"{JOURNAL} cannot be read ({type(fault).__name__}); the study's command makes it again from the records"
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


def _raced(facts: Facts, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
    """The race of the search's best is that of all its trials and seeds, and is decided."""
    if not any(trial.state == TrialState.COMPLETE and "from" not in trial.user_attrs for trial in trials):
        return
    if not race_decided(facts.study):
        facts.violations.append("the search's best configurations have not raced on all seeds: the study has not ended")


def _search(
    facts: Facts, of: str, asked: int, trials: Sequence[optuna.trial.FrozenTrial], recorded: Mapping[int, Mapping[str, Any]]
) -> None:
    """of: words before each violation; recorded: its records by trial."""
    own = [trial for trial in trials if "from" not in trial.user_attrs]
    ended = sum(trial.state.is_finished() and trial.state != TrialState.FAIL for trial in own)  # FAIL: left out, fewer were asked for
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
