"""Every decision of a study: what runs next, when a run is stopped, what is recorded, what Optuna is told.
Comes in: a plan, a ledger, the study's folder, and rows as runs report them. Goes out: records, and an Optuna study that optuna-dashboard
opens. Knows no Ray (`tuner` hands Tune's events to it), so that all of it is tested without a cluster. A new Coordinator starts from the
ledger, tells Optuna what it missed, and queues what remains.

How points are proposed and runs are stopped early is `sampling`'s; which of the search's configurations is the best, `racing`'s."""

import bisect
import json
import math
import os
import shutil
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from safetensors import safe_open

from search.ledger import SCHEMA, STOP, Ledger, now
from search.plan import BASELINE, Plan, PlannedRun, applies, point_of, search_config
from search.racing import BROKEN, Race, race
from search.registry import Entry
from search.sampling import grid_order, make_pruner, make_sampler
from search.stages import Stages
from search.warm import Warm, import_trials
from trainables.parts import code
from trainables.parts.checkpoint import storage
from trainables.parts.execution import FLIGHT, MODEL, RESULT, config_hash, read_lives, read_outcome
from trainables.parts.failpoints import failpoint
from trainables.parts.procedure import config_from, config_values

JOURNAL = "optuna.journal"
STAGES_KEPT = 10  # results of stages that a later trial may share (the search draws nothing continuous for them), last used first
STARTS = 3  # how often a run whose process dies before it has begun is placed again


def open_journal(path: Path) -> JournalStorage:
    """The study's storage. A torn last line (a crash while it was written) is cut off first: Optuna would load it and fail at the next write."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            path.with_suffix(".torn").write_bytes(content[content.rfind(b"\n") + 1 :])
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(content[: content.rfind(b"\n") + 1])
            os.replace(temporary, path)
        for line in path.read_bytes().splitlines():
            json.loads(line)  # a flipped bit: ValueError
    return JournalStorage(JournalFileBackend(str(path)))


@dataclass
class Active:
    """A run that is queued or in flight."""

    run: PlannedRun
    trial: optuna.trial.Trial | None = None  # set where the search asked for it
    stoppable: bool = False  # only the search wants it, so early stopping may end it
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float = 0.0
    lives: int = 0  # processes that had worked on it when it was placed
    heard: float | None = None  # when it was last heard of
    losses: int = 0  # processes that died before they began with it
    again: bool = False  # it was trained before, and its model was not kept
    origin: dict[str, Any] = field(default_factory=dict)  # of the process that trains it, see `code.origin`
    steps: int = 0  # scores that early stopping could look at

    @property
    def folder(self) -> str:
        return f"checkpoints/{self.run.key}"

    @property
    def name(self) -> str:
        """As people call it."""
        what = f"trial {self.trial.number}" if self.trial else self.run.key[:12]
        return f"{next(iter(self.run.arms), what)}, seed {self.run.seed}"


@dataclass
class Progress:
    """What the live view shows."""

    done: int = 0
    running: int = 0
    waiting: int = 0
    reused: int = 0
    best: tuple[float, str] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    in_flight: list[str] = field(default_factory=list)
    seconds_left: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A configuration that may be the search's best. score: what the search had seen of it, None for one that it did not finish."""

    name: str
    config: Any
    hash: str
    trial: int | None
    score: float | None


class Coordinator:
    """Decides what runs next, takes rows, writes records, tells Optuna. `next`, `row`, `lost` and `progress` may be called by any thread:
    the live view looks while the study is at work."""

    def __init__(
        self,
        entry: Entry,
        plan: Plan,
        ledger: Ledger,
        folder: Path,
        *,
        name: str,
        data_hash: str,
        with_search: bool = True,
        with_tables: bool = True,
        slots: int = 1,
        deadline: float | None = None,
        retry_failed: bool = False,
        external: Sequence[str] = (),
        max_gpu_seconds: float | None = None,
        warm: Warm | None = None,
        retuned: tuple[str, tuple[tuple[str, str], ...]] | None = None,
        judged: int | None = None,
        kept: frozenset[str] = frozenset(),
        on_change: Callable[["Coordinator"], None] = lambda coordinator: None,
    ) -> None:
        self.entry, self.plan, self.ledger, self.folder = entry, plan, ledger, folder
        self.name, self.data_hash, self.slots, self.deadline = name, data_hash, slots, deadline
        self.on_change = on_change
        self.max_gpu_seconds, self.spent = max_gpu_seconds, spent_seconds(ledger.records)
        self.gpus = 1.0  # of one run, where it uses any
        self.on_record: Callable[[Mapping[str, Any]], None] = lambda record: None  # told of each ended run; must not raise
        self.warm = warm
        self.kept = kept  # configurations that stand in tables which searches made: their models stay until a race is decided
        self.judged = judged  # images of the validation part: what a score on the way is the mean over
        self.retuned = retuned  # the search of an arm of its own: its name, and each (table, arm)
        self.external = tuple(external)
        self.last_looks = tuple(f"{part}_{entry.procedure.headline[0]}" for part in ("test", *(f"external_{word}" for word in external)))
        self.lock = threading.RLock()
        self.stopping = False
        self.halt: str | None = None  # why nothing more can be written
        self.notes: list[str] = []  # what was found damaged, and what became of it
        self.stages = Stages(folder)
        self.seconds: list[float] = []
        self.with_search = with_search and plan.trials > 0
        self.broken: set[str] = set()  # failed in this session
        self.retried = {key for key, record in ledger.records.items() if retry_failed and record["status"] == "failed"}
        self.planned = {run.key: run for run in plan.runs}
        self.queue = {run.key: run for run in plan.runs if with_tables and not self._ended(run)}
        self.active: dict[str, Active] = {}
        self.resumed: deque[Active] = deque()
        self.listeners: dict[str, list[optuna.trial.Trial]] = {}
        self.new_records = 0
        (folder / STOP).unlink(missing_ok=True)  # of a driver that was killed while it stopped
        self.slowest = max((_epoch_seconds(record) for record in ledger.records.values()), default=0.0)
        self.searched: set[str] = set()  # ended runs that the search alone wanted and that have files
        self.table_stages = {value for run in plan.runs for value in run.stages.values()}
        self.idle: dict[str, bool] = {}  # stages of the search's ended runs, last used last; whether no other trial can share it
        self.candidates: list[Candidate] | None = None  # once the search has ended
        self.ranking: list[optuna.trial.FrozenTrial] = []  # as `best_trials` has it, kept up to date: one look at many takes milliseconds
        self.told = 0  # trials of this study that have ended; imported ones are not counted
        self.number = 0  # of the next trial
        self.waiting: deque[int] = deque()  # numbers of trials that are asked before new ones
        self.first = 0  # trials that were there, or were put in front, before the sampler was asked
        self.grid: list[dict[str, Any]] = []
        self.reported: dict[int, set[int]] = {}  # steps that Optuna knows, by trial
        self._survey()
        self.study = self._open_study() if self.with_search else None
        if lost := sum(run.key not in ledger.records and (folder / "checkpoints" / run.key / RESULT).exists() for run in plan.runs):
            self.notes.append(
                f"{lost} run(s) had ended and have no record (a command that died, or a damaged ledger); they are recorded anew"
            )
        taken = {active.run.key for active in self.resumed}
        for run in [run for run in self.queue.values() if (folder / "checkpoints" / run.key / FLIGHT).exists() and run.key not in taken]:
            self._unqueue(run)
            self.resumed.append(Active(run))  # first, before another one trains the stage that it was in the middle of
        if again := sum(self._gone(run) for run in plan.runs if with_tables and not self._ended(run)):
            self.notes.append(
                f"{again} run(s) of the search that a table now asks for are trained again: only the best one's model is kept"
            )
        self.free()

    # -- what is known already ------------------------------------------------------------------------------------------------------

    def _ended(self, run: PlannedRun) -> bool:
        """Whether the ledger holds all that is asked of a run, or as much as this session can get."""
        record = self.ledger.records.get(run.key)
        if record is None or run.key in self.retried:
            return False
        if run.key in self.broken:
            return True
        if run.arms and record["status"] == "pruned":
            return False  # the search gave it up; a table needs its end
        return not (run.arms and record["status"] == "completed" and not all(name in record["metrics"] for name in self.last_looks))

    def _open_study(self) -> optuna.Study:
        """Load or make the Optuna study, then bring it to the state of the ledger."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        study = self._whole_study()
        self._put_in_front(study)
        trials = study.get_trials(deepcopy=False)
        self.told = self._recorded(study)
        self.number = len(trials)
        self.waiting = deque(trial.number for trial in trials if trial.state == TrialState.WAITING)
        self.ranking = best_trials(study)
        for frozen in trials:
            if frozen.state == TrialState.RUNNING:
                self._take_up(study, frozen)
        return study

    def _load_study(self) -> optuna.Study:
        signs = [self.entry.study.direction.upper(), *(["MINIMIZE"] if self.plan.strategy.second else [])]
        with storage(self.folder / JOURNAL):
            study = optuna.create_study(
                storage=open_journal(self.folder / JOURNAL),
                study_name=self.name if self.retuned is None else f"{self.name} retuned {self.retuned[0]}",
                directions=[optuna.study.StudyDirection[sign] for sign in signs],
                pruner=make_pruner(self.plan.strategy, self.judged, self.entry.study.direction == "maximize"),
                load_if_exists=True,
            )
            if study.metric_names is None:  # as optuna-dashboard shows them
                study.set_metric_names(self._measures())
            return study

    def _own(self, record: Mapping[str, Any]) -> int | None:
        """The number of the trial of this search that a record is of; None where it is of none."""
        of = record.get("retuned")
        if self.retuned is None:
            return record.get("trial")
        return of.get("trial") if isinstance(of, Mapping) and of.get("search") == self.retuned[0] else None

    def _whole_study(self) -> optuna.Study:
        """The Optuna study if it agrees with the ledger; else it is set aside and made again from the ledger. A trial that has no record is
        then asked for again. The search of an arm shares the file with the study's own and with others: the file is set aside only where it
        cannot be read, and they are then made again when their turn comes."""
        path = self.folder / JOURNAL
        lost = not path.exists() or not path.stat().st_size
        study = None
        asked: dict[int, dict[str, Any]] = {}
        try:
            study = self._load_study()
            asked = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
            fault = self._contradiction(study)
        except OSError:
            raise
        except Exception as problem:  # noqa: BLE001 (a journal with a line damaged fails in Optuna in any of a dozen ways)
            fault = f"{type(problem).__name__}: {problem}".splitlines()[0]
        if study is not None and not fault:
            return study
        told = {number: record for record in self.ledger.records.values() if isinstance(number := self._own(record), int)}
        if study is not None and self.retuned is not None:
            optuna.delete_study(study_name=study.study_name, storage=study._storage)
            found = f"{JOURNAL} did not have what the records have of the search of {self.retuned[1][0][1]} ({fault})"
        else:
            if not lost:
                os.replace(path, path.with_suffix(".damaged"))
            path.unlink(missing_ok=True)
            for lock in self.folder.glob(f"{JOURNAL}.lock*"):
                lock.unlink()
            found = (
                f"{JOURNAL} was damaged ({fault}) and set aside as {path.with_suffix('.damaged').name}"
                if not lost
                else f"{JOURNAL} was lost"
            )
        study = self._load_study()
        if self.warm is not None:
            import_trials(study, self.warm)
        imported = len(study.get_trials(deepcopy=False))
        asked = dict(enumerate(self._in_front(), imported)) | {number: params for number, params in asked.items() if params}
        if told or any(self._known(params) for params in asked.values()):
            for number in range(imported, max([*told, *asked]) + 1):
                params = asked.get(number, {})
                study.add_trial(self._trial_of(told.get(number) or self._known(params), params))
        self.notes.append(f"{found}; the search goes on from the {self._recorded(study)} trial(s) in the records")
        return study

    @staticmethod
    def _recorded(study: optuna.Study) -> int:
        return sum(trial.state.is_finished() and "from" not in trial.user_attrs for trial in study.get_trials(deepcopy=False))

    def _known(self, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The record of the run that a point stands for, where it has ended; None for a point that lacks values too."""
        run = self._run_of(params)
        whole = bool(params) and set(point_of(run.config, self.plan.space) or ()) == set(params)
        return self.ledger.records[run.key] if whole and self._ended(run) else None

    def _contradiction(self, study: optuna.Study) -> str:
        """In what the Optuna study is not what the ledger says; '' if in nothing."""
        records = self.ledger.records
        trials = study.get_trials(deepcopy=False)
        for record in records.values():
            number = self._own(record)
            if number is None:
                continue
            if not (isinstance(number, int) and 0 <= number < len(trials)):
                return f"trial {number} has a record and is not there"
            if trials[number].state.is_finished() and trials[number].user_attrs.get("key") != record["key"]:
                return f"trial {number} is not its record's"
        for trial in trials:
            key = trial.user_attrs.get("key")
            if key is None or not trial.state.is_finished():
                continue  # in flight, or a point that the procedure refused
            known = records.get(key)
            if known is None:
                return f"trial {trial.number} was told, and its record is gone"
            value = known["metrics"].get(self.entry.study.objective)
            if (
                trial.state == TrialState.COMPLETE
                and known["status"] == "completed"
                and not known.get("again")
                and trial.values[0] != value
            ):
                return f"trial {trial.number} has the value {trial.values[0]}, its record {value}"
            if set(trial.params) <= set(self.plan.space) and self._run_of(trial.params).key != key:
                return f"trial {trial.number} has other parameters than its record"
        return ""

    def _trial_of(self, record: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
        """A trial as the ledger has it; one that waits to be asked (for the point that it had, where that is known) where it has none."""
        point = None if record is None else point_of(config_from(self.entry.procedure.config, record["params"]), self.plan.space)
        if record is None or point is None:
            return optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": dict(asked)} if asked else {})
        scores = self._scores(record["key"])
        completed, pruned = record["status"] == "completed", record["status"] == "pruned"
        return optuna.trial.create_trial(
            state=TrialState.COMPLETE if completed else TrialState.PRUNED if pruned else TrialState.FAIL,
            values=self._values(record) if completed else None,
            params=point,
            distributions={name: self.plan.space[name].distribution for name in point},
            intermediate_values=dict(enumerate(scores, 1)) if completed or pruned else {},
            user_attrs={"key": record["key"]} | ({} if completed or pruned else {"reason": _reason(record)}),
        )

    def _scores(self, key: str) -> list[float]:
        """What early stopping could see of a run."""
        return [row[self.entry.study.intermediate] for row in self.ledger.history(key) if self.entry.study.intermediate in row]

    def _in_front(self) -> list[dict[str, Any]]:
        """Points that are asked before anything is proposed: the baseline's (what is found must beat it), then another study's best."""
        point = point_of(self.plan.baseline, self.plan.space)
        found: list[dict[str, Any]] = []
        for known in (*([point] if point is not None else []), *(self.warm.first if self.warm is not None else ())):
            if dict(known) not in found:
                found.append(dict(known))
        return found

    def _put_in_front(self, study: optuna.Study) -> None:
        """What is known before anything is proposed, once: another study's trials, then `_in_front`. A driver may die in between; what is
        there already is not put there again."""
        if "in front" not in study.user_attrs and any(
            trial.state != TrialState.WAITING and "from" not in trial.user_attrs for trial in study.trials
        ):
            study.set_user_attr("in front", (len(self.warm.trials) if self.warm is not None else 0) + len(self._in_front()))  # made again
        if "in front" not in study.user_attrs:
            if self.warm is not None:
                import_trials(study, self.warm)
            for known in self._in_front():
                if known not in [trial.system_attrs.get("fixed_params") for trial in study.get_trials(deepcopy=False)]:
                    study.enqueue_trial(known)
            study.set_user_attr("in front", len(study.get_trials(deepcopy=False)))
        self.first = int(study.user_attrs["in front"])
        if self.plan.strategy.sampler == "grid":
            values = config_values(self.plan.baseline)
            self.grid = grid_order(self.plan.space, values, self.plan.strategy, self.plan.seeds[0], self._in_front())

    def _take_up(self, study: optuna.Study, frozen: optuna.trial.FrozenTrial) -> None:
        """A trial that was asked and never told: a driver died. Tell it from the ledger, or go on with its run."""
        study.sampler = self._sampler(frozen.number)
        trial = optuna.trial.Trial(study, frozen._trial_id)
        self.reported[trial.number] = set(frozen.intermediate_values)
        self._fill(trial)  # the driver may have died between ask and the last suggest; what was suggested stays
        run = self._run_of(trial.params)
        if self._refused(study, trial, run):
            return
        if self._ended(run):
            self._tell(study, trial, self.ledger.records[run.key])
        else:
            self.resumed.append(Active(run, trial))

    def _run_of(self, params: Mapping[str, Any]) -> PlannedRun:
        config = search_config(self.plan.baseline, self.plan.space, params)
        run = self.plan.run_of(config, self.plan.seeds[0])
        return self.planned.get(run.key, run)

    # -- what runs next -------------------------------------------------------------------------------------------------------------

    def next(self) -> Active | None:
        """The next run to place, or None: nothing to do now (see `finished`)."""
        with self.lock:
            if self._over():
                return None
            for take in (self._resumed, self._asked, self._queued, self._confirming):
                active = take()
                if active is not None:
                    active.began, active.heard = time.monotonic(), None
                    active.lives = len(read_lives(self.folder / active.folder))
                    active.again = self._gone(active.run)
                    self.active[active.run.key] = active
                    return active
            return None

    def finished(self) -> bool:
        """Nothing in flight and nothing that may be started."""
        return not self.active and (self._over() or self.complete())

    def complete(self) -> bool:
        """All that was asked for has ended."""
        return not (self.active or self.resumed or self.queue or self._trials_left() or self._to_confirm())

    def _over(self) -> bool:
        """Whether a limit of time is reached: nothing new is started, and what runs ends."""
        if self.stopping or (self.deadline is not None and time.monotonic() > self.deadline):
            return True
        if self.max_gpu_seconds is None:
            return False
        flying = sum(time.monotonic() - active.began for active in self.active.values()) * self.gpus
        return self.spent + flying >= self.max_gpu_seconds

    def stop(self, why: str | None = None) -> None:
        """Start nothing more, and have the runs in flight save a checkpoint and end. why: what keeps the study from being written."""
        self.stopping = True
        self.halt = self.halt or why
        with suppress(OSError):  # a full disk: the runs notice it themselves
            (self.folder / STOP).touch()

    def drop(self, key: str, why: str) -> None:
        """What came of a run could not be written. It stays as its process left it, and is taken up by the next command."""
        self.stop(why)
        with self.lock:
            self.active.pop(key, None)

    def _free(self, run: PlannedRun) -> bool:
        """Whether no stage of the run is being trained by another one at this moment: it would be trained twice."""
        shared = {stage.name for stage in self.entry.procedure.stages if stage.shared}
        wanted = {key for name, key in run.stages.items() if name in shared and not self.stages.has(key)}
        return not any(wanted & set(active.run.stages.values()) for active in self.active.values())

    def _resumed(self) -> Active | None:
        for active in list(self.resumed):
            if active.run.key in self.active:
                self.resumed.remove(active)
                if active.trial is not None:
                    self.listeners.setdefault(active.run.key, []).append(active.trial)
            elif self._free(active.run):
                self.resumed.remove(active)
                self._unqueue(active.run)
                active.stoppable = not active.run.arms
                return active
        return None

    def _unqueue(self, run: PlannedRun) -> None:
        self.queue.pop(run.key, None)

    def _trials_left(self) -> int:
        if self.study is None:
            return 0
        return max(
            0,
            self.plan.trials
            - self.told
            - sum(active.trial is not None for active in self.resumed)
            - sum(active.trial is not None for active in self.active.values())
            - sum(map(len, self.listeners.values())),
        )

    def _asked(self) -> Active | None:
        """Ask Optuna; a point that is in the ledger, or in flight, costs nothing."""
        while self.study is not None and self._trials_left() > 0:
            trial = self._ask()
            run = self._run_of(trial.params)
            if self._refused(self.study, trial, run):
                continue
            if self._ended(run):
                self._tell(self.study, trial, self.ledger.records[run.key])
            elif run.key in self.active or not self._free(run):
                self.listeners.setdefault(run.key, []).append(trial) if run.key in self.active else self.resumed.append(Active(run, trial))
            else:
                self._unqueue(run)
                return Active(run, trial, stoppable=not run.arms)
        return None

    def _ask(self) -> optuna.trial.Trial:
        """A new trial with a value for each dimension that applies."""
        assert self.study is not None
        self.study.sampler = self._sampler(self.waiting.popleft() if self.waiting else self.number)
        failpoint("optuna.ask")
        trial = self.study.ask()
        failpoint("optuna.asked")
        self.number = max(self.number, trial.number + 1)
        self._fill(trial)
        failpoint("optuna.filled")
        return trial

    def _sampler(self, number: int) -> Any:
        """That of the trial with this number."""
        points = self.grid[number - self.first : number - self.first + 1] if number >= self.first else []
        return make_sampler(self.plan.strategy, number, seed=self.plan.seeds[0], slots=self.slots, points=points)

    def _fill(self, trial: optuna.trial.Trial) -> None:
        """Suggest what applies and is not yet suggested."""
        values = config_values(self.plan.baseline)
        for name, dimension in self.plan.space.items():
            if applies(dimension, values):
                values[dimension.field] = _suggest(trial, name, dimension.distribution)

    def _refused(self, study: optuna.Study, trial: optuna.trial.Trial, run: PlannedRun) -> bool:
        """A point that the procedure cannot train (a setting of the baseline may contradict a part of the space) is a FAIL with its reason;
        it counts as a trial, so that a space of which nothing can be trained ends too."""
        faults = self.entry.procedure.faults(run.config, None, None)
        if faults:
            trial.set_user_attr("reason", "; ".join(faults))
            study.tell(trial, state=TrialState.FAIL)
            self.told += 1
        return bool(faults)

    def _queued(self) -> Active | None:
        for run in self.queue.values():
            if self._free(run):
                self._unqueue(run)
                return Active(run)
        return None

    def _search_ended(self) -> bool:
        return self.study is not None and not (
            self._trials_left() or self.resumed or self.listeners or any(active.trial for active in self.active.values())
        )

    def _finalists(self) -> list[Candidate]:
        """The search's best configurations by its own score, the earliest of equals, and the baseline; once it has ended."""
        if self.candidates is None:
            assert self.study is not None
            found: dict[str, Candidate] = {}
            baseline = self.plan.run_of(self.plan.baseline, self.plan.seeds[0])
            for trial in self.ranking:
                config = search_config(self.plan.baseline, self.plan.space, trial.params)
                hashed = self.plan.run_of(config, self.plan.seeds[0]).config_hash
                name = self._baseline_name() if hashed == baseline.config_hash else f"trial {trial.number}"
                found.setdefault(hashed, Candidate(name, config, hashed, trial.number, trial.values[0]))
                if len(found) == self.plan.strategy.finalists:
                    break
            if found and baseline.config_hash not in found and not self.entry.procedure.faults(self.plan.baseline, None, None):
                found[baseline.config_hash] = Candidate(
                    self._baseline_name(), self.plan.baseline, baseline.config_hash, None, self._score(baseline)
                )
            self.candidates = list(found.values())
        return self.candidates

    def _baseline_name(self) -> str:
        return BASELINE if self.retuned is None else "as it stands in its table"

    def _score(self, run: PlannedRun) -> float | None:
        """A run's validation score; BROKEN where it ended without one, None where it has not ended."""
        record = self.ledger.records.get(run.key)
        if record is None or run.key in self.retried or record["status"] == "pruned":
            return None
        return float(record["metrics"][self.entry.study.objective]) if record["status"] == "completed" else BROKEN

    def race(self) -> Race | None:
        """How the search's best configurations do on fresh seeds; None while the search goes on, or where it found nothing."""
        if not self._search_ended() or not self._finalists():
            return None
        of = {one.hash: one for one in self._finalists()}
        kept = next((one.hash for one in of.values() if one.name == BASELINE), None)

        def score(hashed: str, seed: int) -> float | None:
            return self._score(self.plan.run_of(of[hashed].config, seed))

        sign = 1 if self.entry.study.direction == "maximize" else -1
        return race(list(of), kept, self.plan.seeds[1:], score, sign, stop=self.plan.strategy.second is None)

    def _to_confirm(self) -> list[PlannedRun]:
        """Once every trial has ended: the next seeds of the race, on validation data; then the winner and the baseline on every
        seed, which alone are evaluated on the test part."""
        state = self.race()
        if state is None:
            return []
        of = {one.hash: one for one in self._finalists()}
        if state.winner is None:
            runs = [self.plan.run_of(of[hashed].config, seed) for hashed, seed in state.missing]
            return [self.planned.get(run.key, run) for run in runs if run.key not in self.active]
        last = []
        for one in of.values():
            if one.hash == state.winner or one.name == BASELINE:
                names = [f"search/{one.name}"] if self.retuned is None else [f"{table}-retuned/{arm}" for table, arm in self.retuned[1]]
                for seed in self.plan.seeds:
                    run = self.plan.run_of(one.config, seed)
                    last.append(replace(run, arms=(*(self.planned[run.key].arms if run.key in self.planned else ()), *names)))
        return [run for run in last if not self._ended(run) and run.key not in self.active]

    def outcome(self) -> dict[str, Any] | None:
        """The race as study.json keeps it, plain values; None while the search goes on."""
        state = self.race()
        if state is None:
            return None
        return {
            "winner": state.winner, "seeds": list(self.plan.seeds[1:]), "trials": self.plan.trials,
            "finalists": [
                {
                    "name": one.name, "config_hash": one.hash, "trial": one.trial, "score": one.score,
                    "out": None if one.hash not in state.out else {"after": state.out[one.hash][0], "why": state.out[one.hash][1]},
                }
                for one in self._finalists()
            ],
        }  # fmt: skip

    def _confirming(self) -> Active | None:
        run = next((run for run in self._to_confirm() if self._free(run)), None)
        if run is None:
            return None
        self._unqueue(run)
        return Active(run)

    def job(self, active: Active) -> dict[str, Any]:
        """What a worker is given: plain values."""
        return {
            "procedure": self.entry.procedure.name, "study": str(self.folder), "folder": active.folder, "key": active.run.key,
            "config": config_values(active.run.config), "seed": active.run.seed, "evaluate_test": bool(active.run.arms),
            "external": list(self.external), "code": code.fingerprint(), "key_code": self.plan.code,
        }  # fmt: skip

    # -- what comes back ------------------------------------------------------------------------------------------------------------

    def row(self, key: str, row: Mapping[str, Any]) -> bool:
        """Take a row of a run; True if the run is to be stopped. Rows of a resumed run come again and change nothing."""
        with self.lock:
            return self._row(key, row)

    def _row(self, key: str, row: Mapping[str, Any]) -> bool:
        active = self.active.get(key)
        if active is None:
            return False
        clock = time.monotonic()
        if active.heard is not None:
            self.slowest = max(self.slowest, clock - active.heard)
        active.heard = clock
        if "origin" in row:  # in the first of a process
            active.origin = dict(row["origin"])
            row = {name: value for name, value in row.items() if name != "origin"}
        if row.get("end") in ("stopped", "misplaced"):
            del self.active[key]  # its trial stays asked and not told, as after the death of a driver
            if "message" in row:
                self.stop(str(row["message"]))
            return False
        if "end" in row:
            self._end(active, row)
            return False
        known = {(old["stage"], old["epoch"]) for old in active.rows}
        if (row["stage"], row["epoch"]) in known:
            return False
        active.rows.append(dict(row))
        score = row.get(self.entry.study.intermediate)
        if active.trial is None or score is None or self.plan.strategy.second:  # Optuna stops nothing where there are two objectives
            return False
        active.steps += 1
        known_steps = self.reported.setdefault(active.trial.number, set())
        if active.steps not in known_steps:
            known_steps.add(active.steps)
            active.trial.report(score, active.steps)
        if active.stoppable and key not in self.listeners and active.trial.should_prune():
            self._end(active, {"end": "pruned", "started": now(), "ended": now(), "worker": "", "peak_memory_bytes": None})
            return True
        return False

    def lost(self, key: str) -> None:
        """Tune has given the run up: its process died more often than a run is retried. One that died before it began with the run (as it
        started, or between two runs) is no fault of the run's, and Tune does not retry it: it is placed again here."""
        with self.lock:
            active = self.active.get(key)
            if active is not None and not self.has_begun(active) and active.losses < STARTS:
                del self.active[key]
                self.resumed.append(replace(active, losses=active.losses + 1, heard=None))
                return
        ending = {"end": "failed", "kind": "worker_killed", "message": "the worker process died repeatedly (killed, or out of host memory)"}
        with self.lock:
            if key in self.active:
                self._end(self.active[key], ending | {"started": now(), "ended": now(), "worker": "", "peak_memory_bytes": None})

    def stalled(self, patience: float) -> list[tuple[Active, float]]:
        """Runs in flight of which nothing was heard for longer than any epoch of this study can explain, and for how long (s): ten times the
        slowest so far, and at least `patience` seconds; four times that as long as no epoch is known. Each is named once, then waited for anew.
        A run that waits for a machine is not among them: its clock starts with its process."""
        limit, clock = max(patience, 10 * self.slowest) if self.slowest else 4 * patience, time.monotonic()
        found = []
        with self.lock:
            for active in self.active.values():
                if active.heard is None and self.has_begun(active):
                    active.heard = clock
                if active.heard is not None and clock - active.heard > limit:
                    found.append((active, clock - active.heard))
                    active.heard = clock
        return found

    def has_begun(self, active: Active) -> bool:
        """Whether a process has begun with the run since it was placed."""
        return active.heard is not None or len(read_lives(self.folder / active.folder)) > active.lives

    def _end(self, active: Active, ending: Mapping[str, Any]) -> None:
        """Record first, tell Optuna second: what is told is never more than what is recorded."""
        key, record = active.run.key, self._record(active, ending)
        before = self.ledger.records.get(key)
        self.new_records += before is None or before["status"] != "completed"  # not where test metrics alone were missing
        self.ledger.append(record)
        self.spent += (record["gpu_seconds"] or record["seconds"]) if before is None or before["status"] != "completed" else 0.0
        del self.active[key]
        self.retried.discard(key)
        if record["status"] in ("failed", "diverged"):
            self.broken.add(key)
        record = self.ledger.records[key]
        if record["status"] == "completed":
            self.seconds.append(time.monotonic() - active.began)
        if "micro_batches" in record:
            self.notes.append(
                f"{active.name}: too large for the memory; each step was computed in {record['micro_batches']} slices, which is the same training"
            )
        if self.study is not None:
            for trial in [*([active.trial] if active.trial else []), *self.listeners.pop(key, [])]:
                self._tell(self.study, trial, record)
        for name in (FLIGHT, *(() if record["checkpoint"] else (RESULT,))):
            (self.folder / active.folder / name).unlink(missing_ok=True)
        self._notice(record)
        self.free()
        self.on_record(self.ledger.whole(key))
        self.on_change(self)

    # -- what is kept on the disk ---------------------------------------------------------------------------------------------------

    def _gone(self, run: PlannedRun) -> bool:
        """Whether a run has completed and its model was not kept."""
        record = self.ledger.records.get(run.key)
        folder = self.folder / "checkpoints" / run.key
        return bool(record and record["status"] == "completed" and not all((folder / name).exists() for name in (MODEL, RESULT)))

    def _wanted(self) -> list[PlannedRun]:
        """Runs that are asked for or in flight."""
        return [*self._to_confirm(), *(active.run for active in (*self.resumed, *self.active.values()))]

    def _best_keys(self) -> set[str]:
        """The runs of those that may still win, on every seed; once the race is decided, those of its winner and of the baseline."""
        if self.study is None:
            return set()
        state = self.race()
        if state is not None and state.winner is not None:
            configs = [one.config for one in self._finalists() if one.hash == state.winner or one.name == BASELINE]
        elif state is not None:
            configs = [one.config for one in self._finalists()]
        else:
            found: dict[str, Any] = {}
            for trial in self.ranking:
                config = search_config(self.plan.baseline, self.plan.space, trial.params)
                found.setdefault(config_hash(self.entry.procedure, config), config)
                if len(found) == self.plan.strategy.finalists:
                    break
            configs = [self.plan.baseline, *found.values()]
        return {self.plan.run_of(config, seed).key for config in configs for seed in self.plan.seeds}

    def _notice(self, record: Mapping[str, Any], stages: Collection[str] | None = None) -> None:
        """Remember what a record needs on the disk. stages: those that are there, where that is known."""
        hashes = record.get("stage_hashes", {})
        if any(not arm.startswith("search/") for arm in record.get("arms", ())):
            self.table_stages |= set(hashes.values())
        elif record["status"] != "failed" and self._alone(record):  # the words of a failed one stay
            self.searched.add(record["key"])
            for name, value in hashes.items():
                if stages is None or value in stages:
                    self.idle.pop(value, None)
                    self.idle[value] = self._once(name, record["params"])

    def _alone(self, record: Mapping[str, Any]) -> bool:
        """Whether this search, the study's own or that of an arm, is the one that wanted a record."""
        return (record.get("retuned") or {}).get("search") == (None if self.retuned is None else self.retuned[0])

    def _survey(self) -> None:
        """What an earlier driver left; files that it was writing when it was killed are deleted."""
        for place in (".", "splits", "checkpoints/*", "stages/*"):
            for path in self.folder.glob(f"{place}/.*.tmp"):
                if path.is_file():
                    path.unlink(missing_ok=True)
        there = {path.name for path in self.stages.folder.glob("*")}
        for record in self.ledger.records.values():
            self._notice(record, there)
        self.searched &= {path.name for path in (self.folder / "checkpoints").glob("*")}

    def free(self) -> None:
        """Delete the models of ended runs that only this search wanted and that are not its best, and the stages that none but they used and
        none will share. Their records stay, and so does all that stands in a table of this command or an earlier one. Without a search
        nothing is deleted: which trial is the best is then not known."""
        if self.study is None:
            return
        best = self._best_keys()
        if (state := self.race()) is None or state.winner is None:
            best |= {key for key in self.searched if self.ledger.records[key]["config_hash"] in self.kept}
        wanted = self._wanted()
        for key in sorted(self.searched - best - set(self.planned) - {run.key for run in wanted}):
            folder = self.folder / "checkpoints" / key
            (folder / RESULT).unlink(missing_ok=True)  # first: a result without its model would be taken for a run that has ended
            failpoint("files.freed")
            shutil.rmtree(folder, ignore_errors=True)
            self.searched.discard(key)
        needed = self.table_stages | {value for run in wanted for value in run.stages.values()}
        needed |= {value for key in best for value in self.ledger.records.get(key, {}).get("stage_hashes", {}).values()}
        spare = [value for value in self.idle if value not in needed]
        lasting = [value for value in spare if not self.idle[value]][-STAGES_KEPT:]
        for value in spare:
            if value not in lasting:
                shutil.rmtree(self.stages.path(value).parent, ignore_errors=True)
                del self.idle[value]

    def _once(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether the search draws a real number for a field of this stage or of one before it: no other trial will share its result."""
        fields: set[str] = set()
        for stage in self.entry.procedure.stages:
            fields |= set(stage.fields)
            if stage.name == name:
                break
        return any(
            isinstance(dimension.distribution, FloatDistribution) and dimension.distribution.step is None and dimension.field in fields
            for dimension in self.plan.space.values()
            if applies(dimension, params)
        )

    def _record(self, active: Active, ending: Mapping[str, Any]) -> dict[str, Any]:
        run, status = active.run, ending["end"]
        outcome = read_outcome(self.folder / active.folder) if status == "completed" else None
        if status == "completed" and outcome is None:
            status = "failed"
            ending = dict(ending) | {"kind": "error", "message": "the run said that it had ended, and left no readable result"}
        history = outcome.history if outcome else active.rows
        seconds = outcome.stage_seconds if outcome else _stage_seconds(active.rows)
        on_the_way = {name: row[name] for row in history for name in (self.entry.study.intermediate,) if name in row}
        metrics = on_the_way | (outcome.metrics if outcome else {})  # one that is judged at the end under the same name stands
        if outcome and self.plan.strategy.second:
            metrics[self.plan.strategy.second] = float(parameters_of(self.folder / active.folder / MODEL))
        origin = code.origin("") | {"host": ""}  # of the command, where no worker has spoken
        origin |= {name: ending[name] for name in origin if name in ending} | active.origin | (outcome.origin if outcome else {})
        others = {name: codes for name, codes in (outcome.stage_codes if outcome else {}).items() if codes != [origin["code"]]}
        on_gpu = origin["device"] not in ("", "cpu")
        old = self.ledger.records.get(run.key, {})
        number = active.trial.number if active.trial else self._own(old)
        if self.retuned is None:
            own = {"trial": number} | ({"retuned": old["retuned"]} if "retuned" in old else {})
        else:
            own = {"trial": old.get("trial"), "retuned": {"search": self.retuned[0], "trial": number}}
        return {
            "schema": SCHEMA, "study": self.name, "procedure": self.entry.procedure.name, "key": run.key, "arms": list(run.arms),
            **own, "seed": run.seed, "status": status, "params": config_values(run.config),
            "config_hash": run.config_hash, "stage_hashes": dict(run.stages), "stages_reused": outcome.stages_reused if outcome else [],
            "epochs": outcome.epochs if outcome else {row["stage"]: row["epoch"] for row in active.rows},
            "seconds": sum(seconds.values()), "gpu_seconds": self.gpus * sum(seconds.values()) if on_gpu else 0.0, "stage_seconds": seconds,
            "metrics": metrics, "confusion": outcome.confusion if outcome else {}, "history": history, "data_hash": self.data_hash, **origin,
            **({"stage_codes": others} if others else {}),
            "started": outcome.started if outcome else ending["started"], "ended": ending["ended"], "worker": ending["worker"],
            "interruptions": outcome.interruptions if outcome else 0, "lives": read_lives(self.folder / active.folder),
            **({"again": True} if active.again else {}),
            **({"micro_batches": outcome.micro_batches} if outcome and outcome.micro_batches > 1 else {}),
            "checkpoint": f"{active.folder}/model.safetensors" if outcome else None,
            "error": {"kind": ending["kind"], "message": ending["message"]} if "kind" in ending else None,
            "peak_memory_bytes": ending["peak_memory_bytes"],
        }  # fmt: skip

    def _values(self, record: Mapping[str, Any]) -> list[float]:
        """What Optuna is told of a completed run."""
        return [float(record["metrics"][name]) for name in self._measures()]

    def _measures(self) -> list[str]:
        """The metrics that the search goes by."""
        return [self.entry.study.objective, *([self.plan.strategy.second] if self.plan.strategy.second else [])]

    def _tell(self, study: optuna.Study, trial: optuna.trial.Trial, record: Mapping[str, Any]) -> None:
        """PRUNED with its intermediate values, FAIL for diverged and failed, COMPLETE with the validation score alone."""
        failpoint("optuna.tell")
        trial.set_user_attr("key", record["key"])
        self.told += 1
        if record["status"] == "completed":
            study.tell(trial, self._values(record))
            self._rank(study, trial.number)
        elif record["status"] == "pruned":
            scores = self._scores(record["key"])
            for step in set(range(1, len(scores) + 1)) - self.reported.get(trial.number, set()):  # an equal point, told from the ledger
                trial.report(scores[step - 1], step)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("reason", _reason(record))
            study.tell(trial, state=TrialState.FAIL)
        failpoint("optuna.told")
        self.reported.pop(trial.number, None)

    def _rank(self, study: optuna.Study, number: int) -> None:
        """Take a completed trial into the ranking."""
        if self.plan.strategy.second:
            self.ranking = best_trials(study)
        else:
            bisect.insort(self.ranking, study.get_trials(deepcopy=False)[number], key=_rank_of(study))

    # -- what is shown --------------------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        with self.lock:
            return self._progress()

    def _progress(self) -> Progress:
        records = self.ledger.records
        wanted = [run.key for run in self.plan.runs]
        trials = self._trials_left()
        waiting = len(self.queue) + trials + len(self.resumed) + self._confirm_waiting()
        counts: dict[str, int] = {}
        for record in records.values():
            counts[record["status"]] = counts.get(record["status"], 0) + 1
        objective, best = self.entry.study.objective, None
        sign = 1 if self.entry.study.direction == "maximize" else -1
        for record in records.values():
            value = record["metrics"].get(objective)
            if record["status"] == "completed" and value is not None and (best is None or sign * value > sign * best[0]):
                name = next(iter(record["arms"]), f"trial {record['trial']}")
                best = (value, f"{name}, seed {record['seed']}")
        left = None
        if self.seconds:
            left = (waiting + 0.5 * len(self.active)) * sum(self.seconds) / len(self.seconds) / self.slots
        flights = [
            f"{next(iter(active.run.arms), f'trial {active.trial.number}' if active.trial else 'run')} · seed {active.run.seed} · {_where(active.rows)}"
            for active in self.active.values()
        ]
        return Progress(len(records), len(self.active), waiting, len(wanted) - len(self.queue), best, counts, flights, left)

    def _confirm_waiting(self) -> int:
        """Runs to come after the search, at most."""
        if self.study is None:
            return 0
        if (state := self.race()) is None:
            return (min(self.plan.strategy.finalists, self.plan.trials) + 1) * (len(self.plan.seeds) - 1) if not self._search_ended() else 0
        if state.winner is not None:
            return len(self._to_confirm())
        ran = {seed for _, seed in state.missing}
        return len(self._to_confirm()) + (len(self._finalists()) - len(state.out)) * (len(self.plan.seeds) - 1 - len(ran)) if ran else 0


def _epoch_seconds(record: Mapping[str, Any]) -> float:
    """The slowest stage's mean epoch."""
    epochs = record.get("epochs", {})
    return max((seconds / epochs[name] for name, seconds in record.get("stage_seconds", {}).items() if epochs.get(name)), default=0.0)


def _reason(record: Mapping[str, Any]) -> str:
    return str((record["error"] or {}).get("message", record["status"]))


def _where(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{rows[-1]['stage']} epoch {rows[-1]['epoch']}" if rows else "starting"


def _stage_seconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row["stage"]] = seconds.get(row["stage"], 0.0) + row["seconds"]
    return seconds


def _suggest(trial: optuna.trial.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    """Optuna's public suggest of the distribution's kind, with its bounds, step and scale unchanged."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    raise TypeError(f"a space holds Optuna's float, int and categorical distributions, got {type(distribution).__name__}")


def _worth(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> list[float]:
    """A trial's values, more being better."""
    signs = (1 if direction == optuna.study.StudyDirection.MAXIMIZE else -1 for direction in study.directions)
    return [sign * value for sign, value in zip(signs, trial.values or (), strict=True)]


def _rank_of(study: optuna.Study) -> Callable[[optuna.trial.FrozenTrial], tuple[float, int]]:
    return lambda trial: (-_worth(study, trial)[0], trial.number)


def best_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The study's own completed trials, the best validation score first, the earliest of equals; of two objectives, those on the front."""
    completed = [one for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if "from" not in one.user_attrs]
    if len(study.directions) > 1:
        every = [_worth(study, trial) for trial in completed]
        completed = [
            trial
            for trial, mine in zip(completed, every, strict=True)
            if not any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in every)
        ]
    return sorted(completed, key=_rank_of(study))


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """The first of `best_trials`."""
    return next(iter(best_trials(study)), None)


def spent_seconds(records: Mapping[str, Mapping[str, Any]]) -> float:
    """What the ledger says was spent: GPU seconds, and for runs without a GPU those of their worker."""
    return float(sum(record.get("gpu_seconds") or record.get("seconds") or 0.0 for record in records.values()))


def parameters_of(path: Path) -> int:
    """Numbers in a model's weights, from the header of its file."""
    with safe_open(path, framework="np") as file:
        slices = [file.get_slice(name) for name in file.offset_keys()]
        return sum(math.prod(one.get_shape()) for one in slices if one.get_dtype().startswith(("F", "BF")))
