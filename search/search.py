"""One search: an Optuna study in memory, made again from the ledger at each start.
Comes in: a plan with a space, the ledger's records and asked points, what another study knows. Goes out: points to run, and whether early
stopping would end one. Several may be at work at once: the study's own and one for each retuned arm. Exists so that the ledger alone is the
truth: whatever was told, crashed or damaged, the same records and points give the same Optuna study.

How points are proposed and runs are stopped early is `sampling`'s; what an asked point is recorded as, `ledger`'s."""

import bisect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.ledger import Ledger
from search.plan import Plan, PlannedRun, applies, contains, point_of, search_config
from search.ranking import best_trials, rank_of, reason_of, suggest
from search.registry import Entry
from search.sampling import grid_order, make_pruner, make_sampler
from search.warm import Warm, imported_trials
from trainables.parts.failpoints import failpoint
from trainables.parts.procedure import config_from, config_values

KEY, REASON = "key", "reason"  # user attributes of trials: a run's key, why there is no score
RUNG = "completed_rung_"  # Optuna's system attributes of a trial that halving has looked at


@dataclass(frozen=True)
class Asked:
    """A trial that waits for its run."""

    search: "Search"
    number: int

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.search.trial(self.number).params)


class Search:
    """`ended(key)`: the record of a run that is not trained again in this session, or None."""

    def __init__(
        self,
        entry: Entry,
        plan: Plan,
        ledger: Ledger,
        ended: Callable[[PlannedRun], Mapping[str, Any] | None],
        *,
        title: str,
        name: str = "",
        arms: tuple[tuple[str, str], ...] = (),
        warm: Warm | None = None,
        judged: int | None = None,
    ) -> None:
        self.entry, self.plan, self.ledger, self.ended_run = entry, plan, ledger, ended
        self.name, self.arms, self.title = name, arms, title
        self.warm = warm
        self.pruner = make_pruner(plan.strategy, judged, entry.study.direction == "maximize")
        self.running: dict[int, Trial] = {}  # asked and not told
        self.told = 0  # trials of this study that have ended
        self.ranking: list[FrozenTrial] = []  # as `best_trials` has it, kept up to date: one look at many takes milliseconds
        self.study: optuna.Study
        self._rebuild()

    # -- from the ledger ------------------------------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        """What is known before anything is proposed (another study's trials, then points in front), then each trial that was asked."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        before = list(imported_trials(self.warm)) if self.warm is not None else []
        front = self._in_front()
        points = self._asked_points()
        known = [self._as_recorded(len(before) + n, points.get(len(before) + n), point) for n, point in enumerate(front)]
        last = max(points, default=-1)
        known += [self._as_recorded(number, points.get(number), None) for number in range(len(before) + len(front), last + 1)]
        self.told = sum(one.state.is_finished() for one in known)
        left, kept = self.plan.trials - self.told, list[FrozenTrial]()
        for one in known:  # fewer trials are asked for than before: those without a result are left out, the latest first
            if one.state == TrialState.RUNNING:
                left -= 1
                if left < 0:
                    one = create_trial(state=TrialState.FAIL, user_attrs={REASON: "fewer trials are asked for than were begun"})
            kept.append(one)
        self._load([*before, *kept])
        self.ranking = best_trials(self.study)

    def _load(self, trials: Sequence[FrozenTrial]) -> None:
        """An Optuna study of these trials, in memory."""
        signs = [self.entry.study.direction.upper(), *(["MINIMIZE"] if self.plan.strategy.second else [])]
        self.study = optuna.create_study(
            study_name=self.title, directions=[optuna.study.StudyDirection[sign] for sign in signs], pruner=self.pruner,
            sampler=optuna.samplers.RandomSampler(seed=0),
        )  # fmt: skip
        self.study.set_metric_names(self.measures)
        self.study.add_trials(trials)
        there = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self.running = {one.number: Trial(self.study, one._trial_id) for one in there}

    def _in_front(self) -> list[dict[str, Any]]:
        """Points that are asked before anything is proposed: the baseline's (what is found must beat it), then another study's best, then
        a grid's, as many as are asked for."""
        point = point_of(self.plan.baseline, self.plan.space)
        found: list[dict[str, Any]] = []
        for known in (*([point] if point is not None else []), *(self.warm.first if self.warm is not None else ())):
            if dict(known) not in found:
                found.append(dict(known))
        if self.plan.strategy.sampler == "grid":
            values = config_values(self.plan.baseline)
            points = grid_order(self.plan.space, values, self.plan.strategy, self.plan.seeds[0], found)
            found += points[: max(0, self.plan.trials - len(found))]
        return found

    def _asked_points(self) -> dict[int, Mapping[str, Any]]:
        """Points by number: as they were asked, else (that file is lost) as the records of their runs have them."""
        points: dict[int, Mapping[str, Any]] = {}
        points |= {number: point for (search, number), point in self.ledger.asked.items() if search == self.name}
        for record in self.ledger.records.values():
            number = self.number_of(record)
            if isinstance(number, int) and number >= 0 and number not in points:
                point = point_of(config_from(self.entry.procedure.config, record["params"]), self.plan.space)
                if point is not None:
                    points[number] = point
        return points

    def number_of(self, record: Mapping[str, Any]) -> int | None:
        """The trial of this search that a record is of; None where it is of none."""
        of = record.get("retuned")
        if not self.name:
            return record.get("trial")
        return of.get("trial") if isinstance(of, Mapping) and of.get("search") == self.name else None

    def _as_recorded(self, number: int, point: Mapping[str, Any] | None, first: Mapping[str, Any] | None) -> FrozenTrial:
        """A trial as the ledger has it: ended, in flight, or (never asked) waiting; first: the point that it is to have then."""
        if point is None or not all(
            name in self.plan.space and contains(self.plan.space[name].distribution, value) for name, value in point.items()
        ):
            return create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": dict(first)} if first else {})
        run = self.run_of(point)
        facts: dict[str, Any] = {"params": dict(point), "distributions": {name: self.plan.space[name].distribution for name in point}}
        faults = self.entry.procedure.faults(run.config, None, None)
        if faults:
            return create_trial(state=TrialState.PRUNED, user_attrs={REASON: "; ".join(faults)}, **facts)
        if seen := self.ledger.pruned.get((self.name, number)):
            return _stopped(run.key, seen["scores"], seen["rungs"], facts)  # whatever a table has made of its run since
        record = self.recorded(run)
        if record is None:
            return create_trial(state=TrialState.RUNNING, **facts)
        if record["status"] == "pruned":  # of a command that died here, or that is older than these rows
            self.ledger.prune(self.name, number, point, self._scores(record), record.get("rungs") or {})
        return self._frozen(record, facts)

    def recorded(self, run: PlannedRun) -> Mapping[str, Any] | None:
        """The record of a run that has ended and was measured by all that this search goes by."""
        record = self.ended_run(run)
        if record is not None and record["status"] == "completed" and any(name not in record["metrics"] for name in self.measures):
            return None
        return record

    def _frozen(self, record: Mapping[str, Any], facts: Mapping[str, Any]) -> FrozenTrial:
        """A run that did not end by itself is PRUNED with its scores on the way; one that broke (not finite, out of memory, failed) PRUNED
        without any: a sampler leaves a FAIL out of its model and goes there again."""
        attrs, status = {KEY: record["key"]}, record["status"]
        if status not in ("completed", "pruned"):
            return create_trial(state=TrialState.PRUNED, user_attrs=attrs | {REASON: reason_of(record)}, **facts)
        scores, rungs = self._scores(record), dict(record.get("rungs") or {})
        if status == "pruned":
            return _stopped(record["key"], scores, rungs, facts)
        return create_trial(
            state=TrialState.COMPLETE, values=self.values(record), intermediate_values=dict(enumerate(scores, 1)), user_attrs=attrs,
            system_attrs=rungs, **facts,
        )  # fmt: skip

    def _scores(self, record: Mapping[str, Any]) -> list[float]:
        """Those on the way; records of before have them in their history alone."""
        if "scores" in record:
            return list(record["scores"])
        name = self.entry.study.intermediate
        return [row[name] for row in self.ledger.history(record["key"]) if name in row]

    # -- asking ---------------------------------------------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Trials that may still be asked."""
        return max(0, self.plan.trials - self.told - len(self.running))

    @property
    def over(self) -> bool:
        """Whether all trials have ended."""
        return not self.left and not self.running

    def ask(self, slots: int = 1) -> tuple[Asked, PlannedRun]:
        """A new trial with a value for each dimension that applies; written down before anything is done for it. slots: runs at once."""
        number = self._next_number()
        self.study.sampler = make_sampler(self.plan.strategy, number, seed=self.plan.seeds[0], slots=slots)
        failpoint("optuna.ask")
        trial = self.study.ask()
        failpoint("optuna.asked")
        values = config_values(self.plan.baseline)
        for name, dimension in self.plan.space.items():
            if applies(dimension, values):
                values[dimension.field] = suggest(trial, name, dimension.distribution)
        self.running[trial.number] = trial
        self.ledger.ask(self.name, trial.number, trial.params)
        failpoint("optuna.filled")
        return Asked(self, trial.number), self.run_of(trial.params)

    def _next_number(self) -> int:
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return waiting[0].number if waiting else len(self.study.get_trials(deepcopy=False))

    def run_of(self, point: Mapping[str, Any]) -> PlannedRun:
        return self.plan.run_of(search_config(self.plan.baseline, self.plan.space, point), self.plan.seeds[0])

    def trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    # -- telling --------------------------------------------------------------------------------------------------------------------

    def report(self, number: int, step: int, score: float) -> bool:
        """A score on the way; whether early stopping would end the run. It is asked for every run, for it notes the rungs that a run has
        reached, those too of runs that must not be stopped."""
        trial = self.running.get(number)
        if trial is None or self.plan.strategy.second:  # Optuna stops nothing where there are two objectives
            return False
        if step not in self.trial(number).intermediate_values:
            trial.report(score, step)
        return bool(trial.should_prune())

    def rungs(self, number: int) -> dict[str, float]:
        """What early stopping noted of a trial, for its record."""
        return {name: value for name, value in self.trial(number).system_attrs.items() if name.startswith(RUNG)}

    def tell(self, number: int, record: Mapping[str, Any]) -> FrozenTrial:
        """The trial as its record has it."""
        failpoint("optuna.tell")
        trial = self.running.pop(number)
        self.told += 1
        trial.set_user_attr(KEY, record["key"])
        if record["status"] in ("completed", "pruned"):
            scores = self._scores(record)
            known = self.trial(number).intermediate_values
            for step in sorted(set(range(1, len(scores) + 1)) - set(known)) if not self.plan.strategy.second else ():
                trial.report(scores[step - 1], step)  # an equal point, told from the ledger
                trial.should_prune()  # for the rungs that it notes, as of a run on its way
        if record["status"] == "completed":
            self.study.tell(trial, self.values(record))
            self._rank(number)
        elif record["status"] == "pruned":
            self.ledger.prune(self.name, number, trial.params, self._scores(record), record.get("rungs") or {})
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self._broke(number, trial, reason_of(record))
        failpoint("optuna.told")
        return self.trial(number)

    def refuse(self, number: int, why: str) -> FrozenTrial:
        """A point that the procedure cannot train; it counts as a trial, so that a space of which nothing can be trained ends too."""
        self.told += 1
        self._broke(number, self.running.pop(number), why)
        return self.trial(number)

    def _broke(self, number: int, trial: Trial, why: str) -> None:
        trial.set_user_attr(REASON, why)
        if not self.trial(number).intermediate_values:
            self.study.tell(trial, state=TrialState.PRUNED)
            return
        trials = list(self.study.get_trials(deepcopy=False))  # Optuna takes no score back: the study is made again without those
        old = trials[number]
        trials[number] = create_trial(
            state=TrialState.PRUNED, params=old.params, distributions=old.distributions, user_attrs=old.user_attrs,
        )  # fmt: skip
        self._load(trials)

    def _rank(self, number: int) -> None:
        """Take a completed trial into the ranking."""
        if self.plan.strategy.second:
            self.ranking = best_trials(self.study)
        else:
            bisect.insort(self.ranking, self.trial(number), key=rank_of(self.study))

    @property
    def measures(self) -> list[str]:
        """The metrics that the search goes by."""
        return [self.entry.study.objective, *([self.plan.strategy.second] if self.plan.strategy.second else [])]

    def values(self, record: Mapping[str, Any]) -> list[float]:
        """What Optuna is told of a completed run."""
        return [float(record["metrics"][name]) for name in self.measures]


def _stopped(key: str, scores: Sequence[float], rungs: Mapping[str, float], facts: Mapping[str, Any]) -> FrozenTrial:
    """A trial that early stopping has ended."""
    return create_trial(
        state=TrialState.PRUNED, intermediate_values=dict(enumerate(scores, 1)), user_attrs={KEY: key}, system_attrs=dict(rungs), **facts
    )
