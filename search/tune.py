"""Hands a Director's runs to Ray Tune, and Tune's events back to the Director.
Comes in: a Director and what a run may use. Goes out: nothing but the Director's records. Three thin classes: a Searcher that asks for the
next run, a Scheduler that passes rows on and stops runs, and the call of the Tuner. Tune retries nothing: whose fault an ending was, and
whether the run is placed again, is the Director's to say. Ray's own experiment state is deleted at the end: it loses trials in a crash,
the ledger does not."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search import cluster, place
from search.admission import Admission
from search.director import Director
from search.machines import Resources
from search.queue import Active
from search.watch import Left, has_left, lost, watched

KEPT = ("_live_trials", "_stopped_trials", "_failed_trials", "_trials_to_cache")  # where Tune has trials that ended, beside its list of all


class _Searcher(Searcher):
    """Asks the Director for the next run, and tells it of one whose process has died. Saves no state."""

    def __init__(self, director: Director, common: dict[str, Any], resources: Resources | None = None) -> None:
        super().__init__(metric="epoch", mode="max")
        self.director, self.common, self.resources = director, common, resources
        self.trials: dict[str, Any] = {}  # Tune's, of which it has not said that they ended

    def suggest(self, trial_id: str) -> Any:
        director = self.director
        for name in [name for name, trial in self.trials.items() if trial.status == "ERROR"]:
            self.on_trial_complete(name, error=True)  # its process could not take it up after another run: Tune says so to nobody
        if len(director.queue.active) >= director.slots + director.queue.handed_back():
            return None
        try:
            active = director.next()
        except OSError as fault:  # what was asked could not be written
            director.stop(str(fault))
            active = None
        if active is None:
            if director.finished():
                return Searcher.FINISHED
            time.sleep(0.02)  # a run waits for a stage of another; Tune asks again at once
            return None
        return director.job(active) | self.common | ({"group": True} if self._in_group(active) else {})

    def _in_group(self, active: Active) -> bool:
        """By the slowest epoch of the study so far."""
        if self.resources is None:
            return False
        config = active.run.config
        epochs = sum(getattr(config, stage.epochs) for stage in self.director.entry.procedure.stages)
        return self.resources.in_group(self.director.slowest * epochs)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.trials.pop(trial_id, None)
        if not error or trial is None:
            return
        key = trial.config["key"]
        try:
            lives = cluster.lives(self.director.queue.node_of(key))
            self.director.lost(key, trial.config["placement"], node_lives=lives, placed=lambda: place.placed_on(trial))
        except OSError as fault:
            self.director.drop(key, str(fault))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the Tuner pickles what it is given for its own restore, which is never used

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a study continues from its ledger, not from Ray's state")


class _Scheduler(FIFOScheduler):
    """Passes each row on; stops what the Director stops; has Tune forget what has ended. trials: where the Searcher looks for those that
    Tune has given up."""

    def __init__(self, director: Director, trials: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.director, self.trials = director, trials
        self.ended: list[Any] = []  # Tune's trials, which it is not done with as it says so

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.trials[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        key, row = trial.config["key"], json.loads(result["row"])
        # At the last row at once: waiting for the function to return as well would cost its process a turn, and a reservation for nothing.
        # A process that is not to be used again raises after its last row, and Tune replaces it.
        stop = "end" in row and not row.get("leaves")
        try:
            stop |= self.director.row(key, row, trial.config["placement"])
        except OSError as fault:
            self.director.drop(key, str(fault))
        if self.director.halt is not None and not stop:
            self.director.drop(key, self.director.halt)
            stop = True
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._forget(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._forget(tune_controller, trial)

    def _forget(self, tune_controller: Any, trial: Any) -> None:
        """Those that ended before this one: Tune keeps each to the end of a study, 40 kB, and looks at all of them at each of its steps."""
        over = [one for one in self.ended if one.is_finished()]
        self.ended = [one for one in self.ended if not one.is_finished()] + [trial]
        for one in over:
            if one in (trials := tune_controller.get_trials()):
                trials.remove(one)
            for name in KEPT:
                getattr(tune_controller, name, set()).discard(one)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def carry_out(
    director: Director,
    resources: Resources,
    opened: Admission | None = None,
    *,
    checkpoint_seconds: float,
    patience: float,
    on_loss: Callable[[], None],
) -> None:
    """Run all that the Director asks for; returns when it is finished. A run that hangs is killed (patience: seconds) and goes on from its
    last checkpoint. opened: what examines machines that join a running cluster. ClusterLost where Ray has ended under it; on_loss is
    called first, in another thread: this one may never come out of Ray."""
    if resources.machines.running:
        cluster.check_room(resources)
    cluster.expect(resources.slots)
    director.nodes.count(cluster.alive(), resources.worker)
    common = {"cpus": resources.cpus, "gpus": resources.gpus, "workers": resources.workers, "checkpoint_seconds": checkpoint_seconds}
    state = director.folder / "ray"
    searcher = _Searcher(director, common, resources)
    tuner = tune.Tuner(
        tune.with_resources(_trainable(), lambda job: _reserved(resources, job)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_Scheduler(director, searcher.trials),
            num_samples=sys.maxsize,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["key"][:12],
            trial_dirname_creator=lambda trial: trial.config["key"][:12] + "-" + trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(state.resolve()), verbose=0, failure_config=tune.FailureConfig(max_failures=0)
        ),
    )
    try:
        with watched(director, resources, patience, on_loss, opened):
            tuner.fit()
    except (Exception, Left) as fault:
        if ended := lost():
            raise ended from fault
        if not has_left(fault):
            raise
        for active in list(director.queue.active.values()):
            director.queue.again(active)  # they stay as their processes left them, and are taken up by the next command
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _trainable() -> Any:
    from search.trial import run_trial

    return run_trial


def _reserved(resources: Resources, job: dict[str, Any]) -> PlacementGroupFactory:
    group = job.get("group", False)
    return placed(resources.bundles(group), [] if group else job["avoid"])  # a group's workers are placed by `group._trainer`


def placed(bundles: list[dict[str, float]], avoid: list[str]) -> PlacementGroupFactory:
    """A run's reservation, on no node that is to be avoided."""
    selector = cluster.elsewhere(avoid)
    return PlacementGroupFactory(bundles, bundle_label_selector=[selector] * len(bundles)) if selector else PlacementGroupFactory(bundles)
