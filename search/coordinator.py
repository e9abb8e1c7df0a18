"""Every decision of a study: what runs next, when a run is stopped, what is recorded, what Optuna is told.
Comes in: a plan, a ledger, the study's folder, and rows as runs report them. Goes out: records, and an Optuna study that optuna-dashboard
opens. Knows no Ray (`tuner` hands Tune's events to it), so that all of it is tested without a cluster. A new Coordinator starts from the
ledger, tells Optuna what it missed, and queues what remains.

Sampler: TPE, multivariate with groups (it models the conditional space's branches apart) and constant liar (parallel workers do not
propose one point twice). It is seeded anew for each trial from (seed, number), so that a proposal depends on the history alone and not on
which process asks. Pruner: successive halving on the cheap validation score during pre-training."""

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.plan import Plan, PlannedRun, applies, planned_run, point_of, search_config
from search.recorder import SCHEMA, Ledger, commit, now, versions
from search.registry import Entry
from search.stages import Stages
from trainables.parts.execution import FLIGHT, RESULT, read_outcome
from trainables.parts.procedure import config_values
from trainables.parts.randomness import derive_seed

JOURNAL = "optuna.journal"


def open_journal(path: Path) -> JournalStorage:
    """The study's storage. A torn last line (a crash while it was written) is cut off first: Optuna would load it and fail at the next write."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            path.with_suffix(".torn").write_bytes(content[content.rfind(b"\n") + 1 :])
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(content[: content.rfind(b"\n") + 1])
            os.replace(temporary, path)
    return JournalStorage(JournalFileBackend(str(path)))


@dataclass
class Active:
    """A run that is queued or in flight."""

    run: PlannedRun
    trial: optuna.trial.Trial | None = None  # set where the search asked for it
    stoppable: bool = False  # only the search wants it, so early stopping may end it
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float = 0.0

    @property
    def folder(self) -> str:
        return f"checkpoints/{self.run.key}"


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
        on_change: Callable[["Coordinator"], None] = lambda coordinator: None,
    ) -> None:
        self.entry, self.plan, self.ledger, self.folder = entry, plan, ledger, folder
        self.name, self.data_hash, self.slots, self.deadline = name, data_hash, slots, deadline
        self.on_change = on_change
        self.external = tuple(external)
        self.last_looks = tuple(f"{part}_{entry.procedure.headline[0]}" for part in ("test", *(f"external_{word}" for word in external)))
        self.lock = threading.RLock()
        self.stages = Stages(folder)
        self.versions, (self.commit, self.dirty) = versions(), commit()
        self.seconds: list[float] = []
        self.with_search = with_search and plan.trials > 0
        self.broken: set[str] = set()  # failed in this session
        self.retried = {key for key, record in ledger.records.items() if retry_failed and record["status"] == "failed"}
        self.queue: deque[PlannedRun] = deque(run for run in plan.runs if with_tables and not self._ended(run))
        self.active: dict[str, Active] = {}
        self.resumed: deque[Active] = deque()
        self.listeners: dict[str, list[optuna.trial.Trial]] = {}
        self.new_records = 0
        self.confirmation: list[PlannedRun] | None = None
        self.study = self._open_study() if self.with_search else None

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
        study = optuna.create_study(
            storage=open_journal(self.folder / JOURNAL),
            study_name=self.name,
            direction=optuna.study.StudyDirection[self.entry.study.direction.upper()],
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3, bootstrap_count=0),
            load_if_exists=True,
        )
        if not study.trials:
            point = point_of(self.plan.baseline, self.plan.space)
            if point is not None:
                study.enqueue_trial(point)  # the published point first: what is found must beat it
        for frozen in study.trials:
            if frozen.state == TrialState.RUNNING:
                self._take_up(study, frozen)
        return study

    def _take_up(self, study: optuna.Study, frozen: optuna.trial.FrozenTrial) -> None:
        """A trial that was asked and never told: a driver died. Tell it from the ledger, or go on with its run."""
        study.sampler = self._sampler(frozen.number)
        trial = optuna.trial.Trial(study, frozen._trial_id)
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
        run = planned_run(self.entry.procedure, config, self.plan.seeds[0], self.data_hash)
        return next((planned for planned in self.plan.runs if planned.key == run.key), run)

    # -- what runs next -------------------------------------------------------------------------------------------------------------

    def next(self) -> Active | None:
        """The next run to place, or None: nothing to do now (see `finished`)."""
        with self.lock:
            if self._over():
                return None
            for take in (self._resumed, self._asked, self._queued, self._confirming):
                active = take()
                if active is not None:
                    active.began = time.monotonic()
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
        return self.deadline is not None and time.monotonic() > self.deadline

    def _free(self, run: PlannedRun) -> bool:
        """Whether no stage of the run is being trained by another one at this moment: it would be trained twice."""
        shared = {stage.name for stage in self.entry.procedure.stages if stage.shared}
        wanted = {key for name, key in run.stages.items() if name in shared and not self.stages.has(key)}
        return not any(wanted & set(active.run.stages.values()) for active in self.active.values())

    def _resumed(self) -> Active | None:
        for active in list(self.resumed):
            if active.run.key in self.active:
                self.resumed.remove(active)
                assert active.trial is not None
                self.listeners.setdefault(active.run.key, []).append(active.trial)
            elif self._free(active.run):
                self.resumed.remove(active)
                self._unqueue(active.run)
                active.stoppable = not active.run.arms
                return active
        return None

    def _unqueue(self, run: PlannedRun) -> None:
        self.queue = deque(queued for queued in self.queue if queued.key != run.key)

    def _trials_left(self) -> int:
        if self.study is None:
            return 0
        told = sum(
            trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL) for trial in self.study.get_trials(deepcopy=False)
        )
        return max(
            0,
            self.plan.trials
            - told
            - len(self.resumed)
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
        self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
        trial = self.study.ask()
        self._fill(trial)
        return trial

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """That of the trial with this number."""
        return optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=max(5, self.slots),
            seed=derive_seed("sampler", self.plan.seeds[0], number) % 2**32,
        )

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
        return bool(faults)

    def _queued(self) -> Active | None:
        for run in self.queue:
            if self._free(run):
                self._unqueue(run)
                return Active(run)
        return None

    def _to_confirm(self) -> list[PlannedRun]:
        """The search's best point on the other seeds, once every trial has ended: one seed flatters, and a choice needs equal terms."""
        if (
            self.study is None
            or self._trials_left()
            or self.resumed
            or self.listeners
            or any(active.trial for active in self.active.values())
        ):
            return []
        if self.confirmation is None:
            best = best_trial(self.study)
            if best is None:
                return []
            config = search_config(self.plan.baseline, self.plan.space, best.params)
            planned = {run.key: run for run in self.plan.runs}
            name = f"search/trial {best.number}"
            runs = [planned_run(self.entry.procedure, config, seed, self.data_hash) for seed in self.plan.seeds]
            self.confirmation = [replace(run, arms=(*(planned[run.key].arms if run.key in planned else ()), name)) for run in runs]
        return [run for run in self.confirmation if not self._ended(run) and run.key not in self.active]

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
            "external": list(self.external),
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
        if "end" in row:
            self._end(active, row)
            return False
        known = {(old["stage"], old["epoch"]) for old in active.rows}
        if (row["stage"], row["epoch"]) in known:
            return False
        active.rows.append(dict(row))
        score = row.get(self.entry.study.intermediate)
        if active.trial is None or score is None:
            return False
        step = sum(self.entry.study.intermediate in old for old in active.rows)
        assert self.study is not None
        if step not in self._reported(self.study, active.trial):
            active.trial.report(score, step)
        if active.stoppable and key not in self.listeners and active.trial.should_prune():
            self._end(active, {"end": "pruned", "started": now(), "ended": now(), "worker": "", "device": "", "peak_memory_bytes": None})
            return True
        return False

    @staticmethod
    def _reported(study: optuna.Study, trial: optuna.trial.Trial) -> set[int]:
        return set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def lost(self, key: str) -> None:
        """The run's process died more often than a run is retried."""
        ending = {"end": "failed", "kind": "worker_killed", "message": "the worker process died repeatedly (killed, or out of host memory)"}
        with self.lock:
            if key in self.active:
                self._end(
                    self.active[key], ending | {"started": now(), "ended": now(), "worker": "", "device": "", "peak_memory_bytes": None}
                )

    def _end(self, active: Active, ending: Mapping[str, Any]) -> None:
        """Record first, tell Optuna second: what is told is never more than what is recorded."""
        key, record = active.run.key, self._record(active, ending)
        before = self.ledger.records.get(key)
        self.new_records += before is None or before["status"] != "completed"  # not where test metrics alone were missing
        self.ledger.append(record)
        del self.active[key]
        self.retried.discard(key)
        if record["status"] in ("failed", "diverged"):
            self.broken.add(key)
        record = self.ledger.records[key]
        if record["status"] == "completed":
            self.seconds.append(time.monotonic() - active.began)
        if self.study is not None:
            for trial in [*([active.trial] if active.trial else []), *self.listeners.pop(key, [])]:
                self._tell(self.study, trial, record)
        for name in (FLIGHT, *(() if record["checkpoint"] else (RESULT,))):
            (self.folder / active.folder / name).unlink(missing_ok=True)
        self.on_change(self)

    def _record(self, active: Active, ending: Mapping[str, Any]) -> dict[str, Any]:
        run, status = active.run, ending["end"]
        outcome = read_outcome(self.folder / active.folder) if status == "completed" else None
        if status == "completed" and outcome is None:
            raise RuntimeError(f"{active.folder}: the run says that it has ended, but left no result")
        history = outcome.history if outcome else active.rows
        seconds = outcome.stage_seconds if outcome else _stage_seconds(active.rows)
        on_the_way = {name: row[name] for row in history for name in (self.entry.study.intermediate,) if name in row}
        metrics = on_the_way | (outcome.metrics if outcome else {})  # one that is judged at the end under the same name stands
        on_gpu = ending["device"] not in ("", "cpu")
        return {
            "schema": SCHEMA, "study": self.name, "procedure": self.entry.procedure.name, "key": run.key, "arms": list(run.arms),
            "trial": active.trial.number if active.trial else self.ledger.records.get(run.key, {}).get("trial"), "seed": run.seed, "status": status, "params": config_values(run.config),
            "config_hash": run.config_hash, "stage_hashes": dict(run.stages), "stages_reused": outcome.stages_reused if outcome else [],
            "epochs": outcome.epochs if outcome else {row["stage"]: row["epoch"] for row in active.rows},
            "seconds": sum(seconds.values()), "gpu_seconds": sum(seconds.values()) if on_gpu else 0.0, "stage_seconds": seconds,
            "metrics": metrics, "confusion": outcome.confusion if outcome else {}, "history": history, "commit": self.commit, "dirty": self.dirty,
            "data_hash": self.data_hash, "versions": self.versions, "device": ending["device"],
            "started": outcome.started if outcome else ending["started"], "ended": ending["ended"], "worker": ending["worker"],
            "interruptions": outcome.interruptions if outcome else 0,
            "checkpoint": f"{active.folder}/model.safetensors" if outcome else None,
            "error": {"kind": ending["kind"], "message": ending["message"]} if "kind" in ending else None,
            "peak_memory_bytes": ending["peak_memory_bytes"],
        }  # fmt: skip

    def _tell(self, study: optuna.Study, trial: optuna.trial.Trial, record: Mapping[str, Any]) -> None:
        """PRUNED with its intermediate values, FAIL for diverged and failed, COMPLETE with the validation score alone."""
        trial.set_user_attr("key", record["key"])
        if record["status"] == "completed":
            study.tell(trial, float(record["metrics"][self.entry.study.objective]))
        elif record["status"] == "pruned":
            scores = [row[self.entry.study.intermediate] for row in record["history"] if self.entry.study.intermediate in row]
            for step in set(range(1, len(scores) + 1)) - self._reported(study, trial):  # an equal point, told from the ledger
                trial.report(scores[step - 1], step)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("reason", (record["error"] or {}).get("message", record["status"]))
            study.tell(trial, state=TrialState.FAIL)

    # -- what is shown --------------------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        with self.lock:
            return self._progress()

    def _progress(self) -> Progress:
        records = self.ledger.records
        wanted = [run.key for run in self.plan.runs]
        trials = self._trials_left()
        waiting = len(self.queue) + trials + len(self.resumed) + len(self._confirm_waiting())
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

    def _confirm_waiting(self) -> list[int]:
        if self.study is None:
            return []
        if self.confirmation is None:
            return list(range(len(self.plan.seeds) - 1))
        return [run.seed for run in self.confirmation if not self._ended(run) and run.key not in self.active]


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


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """The completed trial with the best validation score, the earliest of equals."""
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not completed:
        return None
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    return max(completed, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))
