"""`optuna.journal`: a copy of the searches that optuna-dashboard opens.
Comes in: what the searches were asked and told. Goes out: Optuna's journal file. Nothing is ever read from it: it is made anew when it is
not what the searches are, and a disk that refuses it costs a note, not the study."""

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from search.search import Search

JOURNAL = "optuna.journal"


class Mirror:
    """notes: where it says that it cannot be written."""

    def __init__(self, folder: Path, searches: Sequence[Search], notes: list[str]) -> None:
        self.path, self.searches, self.notes = folder / JOURNAL, searches, notes
        self.copies: dict[str, optuna.Study] = {}
        self.broken = not searches
        if searches and not self._equal():
            self._write()

    def _equal(self) -> bool:
        """Whether the file holds these searches and these trials, as they are."""
        if not self.path.exists():
            return False
        try:
            storage = JournalStorage(JournalFileBackend(str(self.path)))
            self.copies = {one.name: optuna.load_study(study_name=one.title, storage=storage) for one in self.searches}
            return all(_shape(self.copies[one.name]) == _shape(one.study) for one in self.searches)
        except Exception:  # noqa: BLE001 (a damaged journal fails in Optuna in any of a dozen ways; it is made anew)
            return False

    def _write(self) -> None:
        try:
            for path in self.path.parent.glob(f"{JOURNAL}*"):
                path.unlink()
            storage = JournalStorage(JournalFileBackend(str(self.path)))
            for search in self.searches:
                copy = optuna.create_study(storage=storage, study_name=search.title, directions=search.study.directions)
                copy.set_metric_names(search.measures)
                copy.add_trials(search.study.get_trials(deepcopy=False))
                self.copies[search.name] = copy
        except Exception as fault:  # noqa: BLE001 (see the head: whatever it is, the study does not need this file)
            self._cannot(fault)

    def asked(self, search: Search, number: int) -> None:
        self._add(search, search.trial(number))

    def ended(self, search: Search, trial: FrozenTrial) -> None:
        """The trial as it was told."""
        self._add(search, trial)

    def _add(self, search: Search, trial: FrozenTrial) -> None:
        if self.broken:
            return
        try:
            copy = self.copies[search.name]
            storage, there = copy._storage, copy.get_trials(deepcopy=False)
            if trial.number >= len(there):
                copy.add_trial(trial)
                return
            number = there[trial.number]._trial_id
            if there[trial.number].state == TrialState.WAITING:
                for name, value in trial.params.items():
                    one = trial.distributions[name]
                    storage.set_trial_param(number, name, one.to_internal_repr(value), one)
                storage.set_trial_state_values(number, TrialState.RUNNING)
            for step, value in trial.intermediate_values.items():
                storage.set_trial_intermediate_value(number, step, value)
            for name, value in trial.user_attrs.items():
                storage.set_trial_user_attr(number, name, value)
            if trial.state.is_finished():
                storage.set_trial_state_values(number, trial.state, trial.values)
        except Exception as fault:  # noqa: BLE001 (as above)
            self._cannot(fault)

    def _cannot(self, fault: Exception) -> None:
        self.broken = True
        self.notes.append(
            f"{JOURNAL} could not be written ({getattr(fault, 'strerror', None) or fault}); the search goes on, optuna-dashboard will "
            "not show all of it"
        )


def _shape(study: optuna.Study) -> list[tuple[object, ...]]:
    return [(one.state, one.values, one.params) for one in study.get_trials(deepcopy=False)]
