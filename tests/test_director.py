"""Every decision of a study, without Ray: rows and endings are handed in by the test, in any order that a cluster could give."""

import json
import math
import threading
from dataclasses import asdict, replace

import optuna
import pytest
from driving import END, Bench, toy_entry
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from test_ledger import record

import analysis
from search import budget as budgeting
from search import director as directing
from search import endings, registry, shelf
from search import queue as queueing
from search import search as searching
from search.budget import Budget
from search.home import STOP
from search.mirror import JOURNAL
from search.queue import Active
from search.ranking import best_trials
from search.sampling import Strategy
from search_spaces._declare import Arm, Table
from trainables.parts import execution
from trainables.parts.checkpoint import save_state
from trainables.parts.execution import FLIGHT, MODEL, RESULT, Outcome

SUPCAM = registry.load("supcam")
HASTY = Strategy(grace=1, startup=1)  # stops the second trial, if it is behind the first at once


def row(stage="warm", epoch=1, **metrics):
    return {"stage": stage, "epoch": epoch, "loss": 1.0, "learning_rate": 0.1, "seconds": 0.5} | metrics


def end(bench, director, active, status="completed", val=0.5, **error):
    """What a worker leaves and sends at the end of a run."""
    folder = bench.folder / active.folder
    folder.mkdir(parents=True, exist_ok=True)
    if status == "completed":
        if (folder / RESULT).exists():  # only its evaluation on the test part was missing
            val = json.loads((folder / RESULT).read_text())["metrics"]["val_accuracy"]
        metrics = {f"{part}_accuracy": val for part in ("val", *(("test",) if director.job(active)["evaluate_test"] else ()))}
        outcome = Outcome(
            metrics=metrics, history=list(active.rows), stage_hashes=dict(active.run.stages), stage_seconds={"warm": 1.5}, started="s"
        )
        (folder / RESULT).write_text(json.dumps(asdict(outcome)))
        (folder / MODEL).write_text("")
        director.stages.put(active.run.stages["warm"], {}, {})
        error = {"outcome": asdict(outcome)} | error
    else:
        error = {
            "kind": "request",
            "message": "broken",
            "device_memory": 1 << 30,
            "neighbours": False,
        } | error  # alone on the largest device
    return director.row(active.run.key, {"end": status} | error | END)


@pytest.fixture
def study(bench):
    """A study of fake runs."""
    return lambda **request: bench(pack=None, **request)


def begin(folder):
    """What a process does first."""
    folder.mkdir(parents=True, exist_ok=True)
    execution._note(folder, "\nlife host 123 0")


def trials(director):
    return director.searches[0].study.get_trials(deepcopy=False)


def best_of(director):
    return next(iter(best_trials(director.searches[0].study)), None)


def lines(bench):
    return [json.loads(line) for line in (bench.folder / "records.jsonl").read_text().splitlines()]


# -- what runs, and in which order ---------------------------------------------------------------------------------------------------


def test_the_published_point_is_asked_first_and_is_the_arm_s_own_run(study):
    _, c = study().open()
    active = c.next()
    assert active.trial.number == 0 and active.run.arms == ("1/plain", "2/none")
    assert active.trial.params == {"form": "plain", "rate": 0.02}
    assert not active.stoppable
    assert c.job(active)["evaluate_test"]


def test_optuna_is_given_the_declared_distributions_unchanged(study):
    _, c = study().open()
    c.next()
    assert trials(c)[0].distributions == {name: c.plan.space[name].distribution for name in ("form", "rate")}


def test_every_distribution_of_the_real_space_reaches_optuna_unchanged(bench):
    _, c = bench(entry=SUPCAM, pack=None, trials=8, tables=["none"], repeats=1).open(slots=8)
    seen = {}
    while (active := c.next()) is not None:
        seen |= trials(c)[active.trial.number].distributions
    asked = {name: dimension for name, dimension in c.plan.space.items() if "method" not in dimension.when}  # the others: by --retune
    assert len(c.queue.active) == 8 and set(seen) == set(asked) and len(asked) > 8
    assert all(seen[name] == dimension.distribution for name, dimension in asked.items())


def test_a_trial_has_no_margin_where_its_form_has_none(bench):
    _, c = bench(entry=SUPCAM, pack=None, trials=12, tables=["none"], repeats=1).open(slots=12)
    while c.next() is not None:
        pass
    forms = set()
    for trial in trials(c):
        form, names = trial.params["margin_form"], set(trial.params)
        forms.add(form)
        assert ("margin.self" in names, "margin.class" in names) == (form == "self_margin", form in ("parametric_margin", "cluster_margin"))
    assert len(forms) > 1


def test_parallel_asks_do_not_propose_one_point_twice(bench):
    _, c = bench(entry=SUPCAM, pack=None, trials=16, tables=["none"], repeats=1).open(slots=16)
    runs = []
    while (active := c.next()) is not None:
        runs.append(active.run.key)
    assert len(set(runs)) == 16


def test_a_score_that_the_last_epoch_and_the_end_both_give_is_recorded_as_judged_at_the_end(bench, toy):
    same = replace(toy, study=replace(toy.study, intermediate="val_accuracy"))
    one = bench(entry=same, trials=0, tables=["1"], repeats=1)
    ledger, c = one.open()
    active = c.next()
    c.row(active.run.key, row(val_accuracy=0.25))
    end(one, c, active, val=0.5)
    assert ledger.records[active.run.key]["metrics"]["val_accuracy"] == 0.5


def test_a_proposal_depends_on_the_history_and_not_on_the_process_that_asks(toy, tmp_path):
    points = []
    for name in ("a", "b"):
        bench = Bench(toy, tmp_path / name, trials=4, tables=["none"], repeats=1)
        for _ in range(4):
            _, c = bench.open()
            active = c.next()
            points.append(active.trial.params)
            end(bench, c, active, val=0.1)
        bench.close()
    assert points[:4] == points[4:]
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 4


def test_a_run_waits_for_the_stage_that_another_is_training_and_one_that_needs_none_does_not(study):
    bench = study(trials=0, repeats=1, tables=["1"])
    _, c = bench.open(slots=3)
    first, second = c.next(), c.next()
    assert first.run.arms == ("1/plain",)
    assert second.run.arms == ("1/slow",)  # "bent, a little" shares the warm stage with "plain" and is not placed beside it
    assert c.next() is None and not c.finished()
    c.stages.put(first.run.stages["warm"], {}, {})
    third = c.next()
    assert third.run.arms == ("1/bent, a little",)
    assert third.run.stages["warm"] == first.run.stages["warm"] and third.run.stages["tune"] != first.run.stages["tune"]


def test_a_waiting_run_goes_ahead_when_the_one_it_waited_for_fails(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain", "bent*"])
    _, c = bench.open(slots=2)
    first = c.next()
    assert c.next() is None
    end(bench, c, first, "failed")
    assert c.next().run.arms == ("1/bent, a little",)


def test_a_trial_whose_stage_is_being_trained_waits_and_is_not_lost(study):
    bench = study(trials=2, tables=["1"], arms=["plain"], repeats=1, overrides={"rate": 0.03})
    plan = bench.plan()
    bench.plan = lambda: replace(plan, space={"form": plan.space["form"]})
    _, c = bench.open(slots=2)
    busy = c.queue.place(c.queue.take_tabled())
    assert c.next() is None  # trial 0 is the busy run itself and listens; trial 1 is the same or a bent one, whose stage is busy
    assert sum(trial.state == TrialState.RUNNING for trial in trials(c)) == 2
    end(bench, c, busy)
    while (active := c.next()) is not None:
        end(bench, c, active)
    assert c.complete() and {trial.state for trial in trials(c)} == {TrialState.COMPLETE}


def test_the_best_points_race_on_fresh_seeds_and_the_winner_alone_is_tested_beside_the_published_settings(study):
    bench = study(trials=3, repeats=3, tables=["none"])
    _, c = bench.open(slots=9)
    placed = [c.next() for _ in range(3)]
    assert c.next() is None
    for active, val in zip(placed, (0.5, 0.9, 0.7), strict=True):
        end(bench, c, active, val=val)
    of_trial = {active.run.config_hash: active.trial.number for active in placed}
    again = {1: 0.6, 2: 0.8, 0: 0.5}  # the search had flattered trial 1
    for seed, known in ((1, 1), (2, 0)):  # the baseline runs to the end whatever comes: its seeds wait for nobody
        heat = [c.next() for _ in range(2 + 2 * known)]
        assert c.next() is None, "a seed is judged when all have ended it"
        ours = [(seed, 1), (seed, 2), *([(1, 0), (2, 0)] if known else [])]
        assert [(active.run.seed, of_trial[active.run.config_hash]) for active in heat] == ours
        for active in heat:
            assert active.trial is None and not active.stoppable and not c.job(active)["evaluate_test"]
            end(bench, c, active, val=again[of_trial[active.run.config_hash]])
    assert c.finals[0].race().winner == placed[2].run.config_hash
    last = []
    while (active := c.next()) is not None:
        last.append((active.run.arms, active.run.seed))
        assert c.job(active)["evaluate_test"]
        end(bench, c, active)
    assert last == [((name,), seed) for name in ("search/trial 2", "search/baseline settings") for seed in (0, 1, 2)]
    assert c.complete() and c.next() is None
    assert c.ledger.records[placed[2].run.key]["trial"] == 2  # its test metrics were added, and it is still the trial's record
    tested = {record["config_hash"] for record in c.ledger.records.values() if "test_accuracy" in record["metrics"]}
    assert tested == {placed[2].run.config_hash, placed[0].run.config_hash}


def test_a_driver_that_starts_again_in_the_middle_of_a_race_decides_the_same(study):
    def finish(bench, restart):
        _, c = bench.open(slots=1)
        order = []
        while not c.complete():
            if restart:
                _, c = bench.open(slots=1)
            active = c.next()
            order.append((active.run.config_hash, active.run.seed, active.run.arms))
            end(bench, c, active, val=int(active.run.key[:4], 16) / 65536)
        return order, c.outcome()

    straight = finish(study(trials=4, repeats=6, tables=["none"], folder=study().folder / "a"), False)
    broken = finish(study(trials=4, repeats=6, tables=["none"], folder=study().folder / "b"), True)
    assert straight == broken and straight[1]["winner"]


def test_a_finalist_whose_run_breaks_is_out_and_the_race_goes_on(study):
    bench = study(trials=2, repeats=2, tables=["none"])
    _, c = bench.open(slots=2)
    first, second = c.next(), c.next()
    end(bench, c, first, val=0.5)
    end(bench, c, second, val=0.9)
    favourite, published = c.next(), c.next()
    assert favourite.run.config_hash == second.run.config_hash
    end(bench, c, favourite, "diverged")
    end(bench, c, published, val=0.5)
    assert c.finals[0].race().winner == first.run.config_hash
    assert c.outcome()["finalists"][0]["out"] == {"after": 0, "why": "a run of it ended without a score"}


def test_the_best_point_is_not_chosen_while_a_trial_listens_to_another_s_run(study):
    bench = study(trials=2, repeats=2, tables=["1"], arms=["slow"])
    _, c = bench.open(slots=2)
    end(bench, c, c.next(), val=0.5)
    busy = c.queue.place(c.queue.take_tabled())
    busy.trials.append(c.searches[0].ask()[0])
    c.queue.tabled.clear()
    assert c.next() is None and not c.complete() and c.finals[0].race() is None
    end(bench, c, busy, val=0.9)
    assert best_of(c).number == 1
    assert c.finals[0].candidates[0].trial == 1


def test_a_confirmed_run_that_stands_in_a_table_is_run_once(study):
    bench = study(trials=1, repeats=2, tables=["1"], arms=["plain"])
    ledger, c = bench.open()
    while (active := c.next()) is not None:
        end(bench, c, active)
    assert c.complete()
    assert [record["seed"] for record in lines(bench)] == [0, 1]
    c.queue.tabled = dict(c.planned)  # as if they had still been waiting when the search ended
    ledger.records.clear()
    assert c.next().run.arms == ("1/plain",)
    assert len(c.queue.tabled) == 1


def test_ties_of_the_search_go_to_the_earliest_trial(study):
    bench = study(trials=3, repeats=1, tables=["none"])
    _, c = bench.open()
    while (active := c.next()) is not None:
        end(bench, c, active, val=0.5)
    assert best_of(c).number == 0


# -- what Optuna is told -------------------------------------------------------------------------------------------------------------


def test_a_completed_trial_is_told_its_validation_score_and_no_test_metric_is_near_it(study):
    bench = study(trials=2, repeats=1, tables=["none"])
    _, c = bench.open()
    end(bench, c, c.next(), val=0.1)
    active = c.next()
    c.row(active.run.key, row(epoch=1, val_early=0.3, loss=9.0))
    folder = bench.folder / active.folder
    end(bench, c, active, val=0.81)
    result = json.loads((folder / RESULT).read_text())
    trial = trials(c)[1]
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.81, {1: 0.3})
    assert not any("test" in name for name in result["metrics"])
    assert not any("test" in name for record in lines(bench) for name in [*record["metrics"], *record["confusion"]])
    assert "test" not in json.dumps([trial.user_attrs, trial.system_attrs])


def test_a_poisoned_test_metric_changes_nothing_that_the_search_does(toy, tmp_path):
    """The published point stands in a table, so its run has test metrics: whatever they are, the proposals are the same."""
    seen = []
    for name, poison in (("a", 0.0), ("b", 1e9)):
        bench = Bench(toy, tmp_path / name, trials=7, repeats=1, tables=["1"], arms=["plain"])
        _, c = bench.open()
        while (active := c.next()) is not None:
            val = (active.run.config.rate * 7) % 1
            c.row(active.run.key, row(val_early=val, test_early=poison))
            if active.run.key in c.queue.active:
                folder = bench.folder / active.folder
                folder.mkdir(parents=True, exist_ok=True)
                outcome = Outcome(metrics={"val_accuracy": val, "test_accuracy": poison}, history=list(active.rows), started="s")
                (folder / RESULT).write_text(json.dumps(asdict(outcome)))
                c.stages.put(active.run.stages["warm"], {}, {})
                c.row(active.run.key, {"end": "completed", "outcome": asdict(outcome)} | END)
        seen.append([(trial.params, trial.state, trial.value) for trial in trials(c)] + [best_of(c).number])
        bench.close()
    assert seen[0] == seen[1] and len(seen[0]) == 8


def test_a_stopped_trial_reaches_optuna_as_pruned_with_its_intermediate_values(study):
    bench = study(trials=2, repeats=1, tables=["none"], strategy=HASTY)
    ledger, c = bench.open()
    first = c.next()
    for epoch in (1, 2, 3):
        assert not c.row(first.run.key, row(epoch=epoch, val_early=0.9))
    end(bench, c, first, val=0.9)
    second = c.next()
    (bench.folder / second.folder).mkdir(parents=True)
    (bench.folder / second.folder / FLIGHT).write_text("")
    assert second.stoppable
    assert c.row(second.run.key, row(epoch=1, val_early=0.1))
    trial = trials(c)[1]
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.1})
    record = ledger.records[second.run.key]
    assert (
        record["status"] == "pruned" and ledger.history(second.run.key) == [row(epoch=1, val_early=0.1)] and record["epochs"] == {"warm": 1}
    )
    assert record["metrics"] == {"val_early": 0.1} and record["checkpoint"] is None
    assert not (bench.folder / second.folder / FLIGHT).exists()
    assert not c.row(second.run.key, row(epoch=2, val_early=1.0)), "rows of a stopped run are late, and change nothing"
    assert len(lines(bench)) == 2
    assert best_of(c).number == 0


def test_a_run_that_a_table_wants_is_never_stopped(study, monkeypatch):
    bench = study(trials=3, repeats=1, tables=["1"], arms=["plain"], strategy=HASTY)
    _, c = bench.open(slots=3)
    wanted, other, first = c.next(), c.next(), c.next()
    for epoch in (1, 2, 3):
        c.row(first.run.key, row(epoch=epoch, val_early=0.9))
    end(bench, c, first)
    assert "1/plain" in wanted.run.arms and other.stoppable
    real, said = c.searches[0].report, []
    monkeypatch.setattr(
        c.searches[0], "report", lambda number, step, score: said.append((number, real(number, step, score))) or said[-1][1]
    )
    for epoch in (1, 2, 3):
        c.row(other.run.key, row(epoch=epoch, val_early=0.9))
        assert not c.row(wanted.run.key, row(epoch=epoch, val_early=0.1))
    assert (wanted.trial.number, True) in said, "the search alone would have stopped it"


def test_the_record_says_which_epoch_a_stage_handed_on_where_that_is_not_its_last(study):
    bench = study(trials=1, repeats=1, tables=["none"])
    ledger, c = bench.open()
    active = c.next()
    outcome = Outcome(metrics={"val_accuracy": 0.5}, stage_hashes=dict(active.run.stages), started="s", kept={"warm": 3})
    end(bench, c, active, outcome=asdict(outcome))
    assert ledger.records[active.run.key]["kept_epochs"] == {"warm": 3}


@pytest.mark.parametrize(
    ("status", "kind"),
    [("diverged", "not_finite"), ("collapsed", "collapsed"), ("failed", "out_of_memory"), ("failed", "unreachable_weights")],
)
def test_a_run_that_broke_reaches_optuna_as_stopped_without_a_score_and_its_record_says_why(study, status, kind):
    bench = study(trials=1, repeats=1, tables=["none"])
    ledger, c = bench.open()
    active = c.next()
    c.row(active.run.key, row(val_early=0.4))
    end(bench, c, active, status, kind=kind, message="because")
    trial = trials(c)[0]
    assert (trial.state, trial.values, trial.user_attrs["reason"]) == (TrialState.PRUNED, None, "because")
    assert not trial.intermediate_values, "a sampler that saw its scores would take them for those of a run that was stopped early"
    record = ledger.records[active.run.key]
    assert (record["status"], record["error"]) == (status, {"kind": kind, "message": "because"})
    assert c.complete() and best_of(c) is None


def test_a_run_whose_process_died_too_often_is_recorded_as_such(study):
    bench = study(trials=1, repeats=1, tables=["none"])
    _, c = bench.open()
    active = c.next()
    c.row(active.run.key, row(val_early=0.4))
    for _ in range(4):
        assert not lines(bench)
        begin(bench.folder / active.folder)
        c.lost(active.run.key)
        active = c.next() or active
    assert len(lines(bench)) == 1 and lines(bench)[0]["error"]["kind"] == "worker_killed"
    assert trials(c)[0].state == TrialState.PRUNED


def test_the_record_is_written_before_optuna_is_told(study, monkeypatch):
    bench = study(trials=1, repeats=1, tables=["none"])
    _, c = bench.open()
    active = c.next()

    def die(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "tell", die)
    with pytest.raises(KeyboardInterrupt):
        end(bench, c, active, val=0.7)
    monkeypatch.undo()
    assert [record["key"] for record in lines(bench)] == [active.run.key]
    _, again = bench.open()
    assert [(trial.state, trial.value) for trial in trials(again)] == [(TrialState.COMPLETE, 0.7)]
    assert again.next().trial is None, "all that is left is the evaluation of the best point"


def test_a_run_killed_before_its_record_is_trained_again_and_told_once(study, monkeypatch):
    bench = study(trials=1, repeats=1, tables=["none"])
    ledger, c = bench.open()
    active = c.next()

    def die(record):
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger, "append", die)
    with pytest.raises(KeyboardInterrupt):
        end(bench, c, active, val=0.7)
    _, again = bench.open()
    resumed = again.next()
    assert (resumed.run.key, resumed.trial.number) == (active.run.key, 0)
    end(bench, again, resumed, val=0.7)
    assert [(trial.state, trial.value) for trial in trials(again)] == [(TrialState.COMPLETE, 0.7)]


def test_a_trial_that_ran_when_the_driver_died_goes_on_and_its_rows_are_not_told_twice(study):
    bench = study(trials=3, repeats=1, tables=["none"])
    _, c = bench.open(slots=2)
    one, two = c.next(), c.next()
    for epoch in (1, 2):
        c.row(one.run.key, row(epoch=epoch, val_early=0.2 * epoch))
    _, again = bench.open(slots=3)
    resumed = [again.next(), again.next()]
    assert {(active.run.key, active.trial.number) for active in resumed} == {(one.run.key, 0), (two.run.key, 1)}
    for epoch in (1, 2, 3):
        again.row(one.run.key, row(epoch=epoch, val_early=0.2 * epoch))
    assert trials(again)[0].intermediate_values == pytest.approx({1: 0.2, 2: 0.4, 3: 0.6})
    assert again.next().trial.number == 2


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_trial_cut_off_between_ask_and_its_last_suggest_keeps_its_values_and_goes_on(study, monkeypatch, asked):
    """The published point is the one that must not get lost."""
    bench = study(trials=1, repeats=1, tables=["none"])
    _, c = bench.open()
    real, count = searching.suggest, []

    def die(*arguments):
        if len(count) == asked:
            raise KeyboardInterrupt
        count.append(1)
        return real(*arguments)

    monkeypatch.setattr(searching, "suggest", die)
    if asked < 2:
        with pytest.raises(KeyboardInterrupt):
            c.next()
    monkeypatch.setattr(searching, "suggest", real)
    _, again = bench.open()
    active = again.next()
    assert (active.trial.number, active.trial.params) == (0, {"form": "plain", "rate": 0.02})


def test_a_point_that_the_procedure_refuses_is_told_without_a_score_with_its_reason_and_the_study_goes_on(study):
    bench = study(trials=6, repeats=1, tables=["none"], overrides={"pause": 101.0})
    _, c = bench.open()
    while (active := c.next()) is not None:
        assert active.run.config.form == "plain"
        end(bench, c, active)
    states = {trial.params["form"]: trial.state for trial in trials(c)}
    assert states == {"plain": TrialState.COMPLETE, "bent": TrialState.PRUNED}
    reasons = {trial.user_attrs.get("reason") for trial in trials(c) if trial.state == TrialState.PRUNED}
    assert reasons == {"a bent loss takes no pause above 100"}
    assert c.complete() and len(trials(c)) == 6


def test_a_search_keeps_away_from_where_runs_diverge_though_the_best_scores_lie_beside_it(study):
    """Told as FAIL, they are left out of the sampler's model, and it goes there again: 34 of 40 trials of a simulation, against 12 of random search."""
    bench = study(trials=40, repeats=1, tables=["none"], strategy=Strategy(scheduler="none", finalists=1))
    plan = bench.plan()
    bench.plan = lambda: replace(plan, space={"rate": plan.space["rate"]})
    _, c = bench.open()
    broke = 0
    while (active := c.next()) is not None and active.trial is not None:
        rate = active.run.config.rate
        c.row(active.run.key, row(epoch=1, val_early=0.9))
        if rate > 0.03:  # a third of the space, on its scale
            broke += 1
            end(bench, c, active, "diverged", kind="not_finite")
        else:
            end(bench, c, active, val=0.5 + 10 * rate)
    assert len(trials(c)) == 40 and broke <= 20


def test_an_equal_point_costs_nothing_and_is_told_from_the_ledger(study):
    bench = study(trials=4, repeats=1, tables=["none"], strategy=HASTY)
    plan = bench.plan()
    only_form = {"form": plan.space["form"]}
    bench.plan = lambda: replace(plan, space=only_form, trials=4, strategy=HASTY)
    ledger, c = bench.open()
    placed = 0
    while (active := c.next()) is not None:
        placed += active.trial is not None
        c.row(active.run.key, row(val_early=0.9 if placed == 1 else 0.1))
        if active.run.key in c.queue.active:
            end(bench, c, active, val=0.5)
    assert len(trials(c)) == 4 and placed <= 2 and c.complete()
    for trial in trials(c):
        record = ledger.records[trial.user_attrs["key"]]
        assert {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned"}[trial.state] == record["status"]
        if trial.state == TrialState.PRUNED:
            assert trial.intermediate_values == {1: 0.1}


# -- what is continued ---------------------------------------------------------------------------------------------------------------


def test_a_finished_study_has_nothing_to_do_and_more_trials_go_on_from_it(study):
    bench = study(trials=2, repeats=1, tables=["1"])
    _, c = bench.open()
    while (active := c.next()) is not None:
        end(bench, c, active)
    done = len(lines(bench))
    _, again = bench.open()
    assert again.finished() and again.complete() and again.next() is None
    bench.request["trials"] = 4
    _, more = bench.open()
    while (active := more.next()) is not None:
        assert active.trial is not None
        end(bench, more, active)
    assert len(trials(more)) == 4 and len(lines(bench)) == done + 2


def test_a_pruned_run_is_trained_to_its_end_when_a_table_comes_to_want_it(study):
    bench = study(trials=1, repeats=1, tables=["1"], arms=["slow"])
    ledger, c = bench.open(with_search=False)
    run = c.plan.runs[0]
    ledger.append(record(run.key, "pruned", trial=4))
    _, again = bench.open(with_search=False)
    active = again.next()
    assert active.run.key == run.key
    end(bench, again, active)
    assert lines(bench)[-1]["status"] == "completed" and lines(bench)[-1]["trial"] == 4


def test_a_search_s_run_that_a_table_comes_to_want_is_only_evaluated(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["slow"])
    ledger, c = bench.open()
    key = c.plan.runs[0].key
    ledger.append(record(key, metrics={"val_accuracy": 0.5}))
    _, again = bench.open()
    assert again.next().run.key == key
    ledger.records[key]["metrics"]["test_accuracy"] = 0.5


def test_failed_runs_stay_failed_until_asked_for_and_are_then_retried_once(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain", "slow"])
    _, c = bench.open()
    end(bench, c, c.next(), "failed", kind="out_of_memory", message="full")
    end(bench, c, c.next())
    _, again = bench.open()
    assert again.complete()
    _, again = bench.open(retry_failed=True)
    active = again.next()
    assert active.run.arms == ("1/plain",)
    end(bench, again, active, "failed", kind="out_of_memory", message="still full")
    assert again.complete() and again.next() is None
    assert [record["error"] and record["error"]["message"] for record in lines(bench)] == ["full", None, "still full"]


def test_a_confirmation_that_fails_again_is_not_retried_for_ever(study):
    bench = study(trials=1, repeats=2, tables=["none"])
    _, c = bench.open()
    end(bench, c, c.next())
    end(bench, c, c.next(), "failed")  # seed 1
    end(bench, c, c.next())  # seed 0 again, for its test metrics
    assert c.complete()
    _, again = bench.open(retry_failed=True)
    active = again.next()
    assert active.run.seed == 1
    end(bench, again, active, "failed")
    assert again.next() is None and again.complete()


def test_a_completed_run_whose_test_part_cannot_be_evaluated_stays_completed_and_is_not_asked_again_at_once(study):
    bench = study(trials=1, repeats=1, tables=["none"])
    _, c = bench.open()
    active = c.next()
    end(bench, c, active, val=0.7)
    evaluation = c.next()
    assert evaluation.run.key == active.run.key and c.job(evaluation)["evaluate_test"]
    end(bench, c, evaluation, "failed", kind="out_of_memory", message="full")
    assert c.complete() and c.next() is None
    for ledger in (c.ledger, bench.open()[0]):
        record = ledger.records[active.run.key]
        assert (record["status"], record["metrics"]) == ("completed", {"val_accuracy": 0.7})
    assert (bench.folder / active.folder / RESULT).exists(), "what was trained is kept"
    _, again = bench.open()
    end(bench, again, again.next())
    assert again.complete() and again.ledger.records[active.run.key]["metrics"] == {"val_accuracy": 0.7, "test_accuracy": 0.7}


def test_tune_leaves_the_tables_and_ablate_the_search(study):
    bench = study(trials=2, repeats=1, tables=["1"])
    _, c = bench.open(with_search=False)
    runs = []
    while (active := c.next()) is not None:
        runs.append(active)
        end(bench, c, active)
    assert not c.searches and not (bench.folder / JOURNAL).exists() and all(active.trial is None for active in runs)
    _, c = bench.open(with_tables=False)
    while (active := c.next()) is not None:
        assert active.trial is not None or "search/" in active.run.arms[-1]
        end(bench, c, active)
    assert c.complete() and len(trials(c)) == 2


def test_after_its_time_a_study_starts_nothing_ends_what_runs_and_says_that_more_is_left(study):
    bench = study(trials=2, repeats=1, tables=["1"])
    _, c = bench.open()
    active = c.next()
    c.budget.deadline = -math.inf
    assert c.next() is None and not c.finished()
    end(bench, c, active)
    assert c.finished() and not c.complete() and c.next() is None
    _, again = bench.open()
    assert not again.finished() and again.next() is not None


@pytest.mark.parametrize("harm", ["torn", "flipped", "lost", "of another"])
def test_the_copy_for_the_dashboard_is_made_anew_where_it_is_not_what_the_records_say(study, harm):
    bench = study(trials=3, repeats=1, tables=["none"])
    _, c = bench.open()
    end(bench, c, c.next(), val=0.6)
    end(bench, c, c.next(), val=0.7)
    path = bench.folder / JOURNAL
    content = path.read_bytes()
    path.unlink() if harm == "lost" else path.write_bytes(
        {"torn": content[:-7], "flipped": content.replace(b"0.7", b"0.8"), "of another": content.replace(b"bench", b"other")}[harm]
    )
    _, again = bench.open()
    while (active := again.next()) is not None:
        end(bench, again, active, val=0.8)
    assert [(trial.state, trial.value) for trial in trials(again)] == [(TrialState.COMPLETE, value) for value in (0.6, 0.7, 0.8)]
    shown = optuna.load_study(study_name="bench", storage=JournalStorage(JournalFileBackend(str(path)))).trials
    assert [(trial.number, trial.value, trial.params) for trial in shown] == [(one.number, one.value, one.params) for one in trials(again)]


def test_the_live_view_may_look_while_the_study_is_at_work(study):
    """From another thread, as it does."""
    bench = study(trials=0, repeats=10, tables=["1", "2"])
    _, c = bench.open(slots=4)
    stop, seen, faults = threading.Event(), [], []

    def look():
        while not stop.is_set():
            try:
                seen.append(c.progress())
            except RuntimeError as fault:  # "dictionary changed size during iteration"
                faults.append(fault)
                return

    thread = threading.Thread(target=look)
    thread.start()
    while (active := c.next()) is not None:
        c.row(active.run.key, row())
        end(bench, c, active)
    stop.set()
    thread.join()
    assert not faults and seen
    totals = {progress.done + progress.running + progress.placed + progress.waiting for progress in seen}
    assert totals == {30}
    last = c.progress()
    assert (last.done, last.running, last.waiting, last.counts) == (30, 0, 0, {"completed": 30})


def test_progress_counts_what_was_asked_for_from_the_first_look_to_the_last(study):
    bench = study(trials=3, repeats=2, tables=["1"])
    _, c = bench.open(slots=2)
    totals = []
    while (active := c.next()) is not None:
        totals.append(c.progress())
        end(bench, c, active, val=0.5 + 0.1 * len(totals))
    last = c.progress()
    assert last.running == last.waiting == 0 and last.best[0] == max(record["metrics"]["val_accuracy"] for record in lines(bench))
    assert all(one.done + one.running + one.placed + one.waiting >= last.done for one in totals), "what is to come is an upper bound"
    assert "trial" in totals[0].in_flight[0] or "1/" in totals[0].in_flight[0]


# -- whose fault -----------------------------------------------------------------------------------------------------------------------


def facts(node, memory=0):
    return {"node": node, "host": node, "device_memory": memory, "device": "gpu"}


def test_a_machine_s_fault_is_no_result_however_often_it_comes(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    for _ in range(12):
        c.lost(c.next().run.key, node_lives=False)
    assert not lines(bench) and not c.finished()
    end(bench, c, c.next())
    assert [record["status"] for record in lines(bench)] == ["completed"] and c.complete()


def test_five_preemptions_with_epochs_between_lose_nothing_where_the_node_is_not_known_to_be_gone(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    for epoch in range(1, 6):
        active = c.next()
        c.row(active.run.key, row(epoch=epoch))
        c.lost(active.run.key)
    assert not lines(bench)
    end(bench, c, c.next())
    assert [record["status"] for record in lines(bench)] == ["completed"]


def test_a_black_hole_takes_two_runs_is_named_and_gets_no_third(study):
    bench = study(trials=0, repeats=3, tables=["1"])
    _, c = bench.open(slots=2)
    words = "does not see the study's folder"
    for count in range(2):
        bad, good = c.next(), c.next()
        assert ("hole" in c.job(good)["avoid"]) == (count > 1)
        c.row(bad.run.key, {"end": "misplaced", "kind": "no_storage", "message": words} | END | facts("hole") | {"host": "blackbox"})
        end(bench, c, good)
    assert c.job(c.next())["avoid"] == ["hole"]
    assert any(note.startswith("machine blackbox was set aside") and words in note for note in c.notes)
    assert c.progress().aside == [f"blackbox: {words}"]
    assert {record["status"] for record in lines(bench)} == {"completed"}


def test_an_error_of_nobody_knows_what_is_tried_once_more_and_then_recorded_with_its_checkpoint_kept(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    for _ in range(2):
        assert not lines(bench)
        active = c.next()
        (bench.folder / active.folder).mkdir(parents=True, exist_ok=True)
        (bench.folder / active.folder / FLIGHT).write_text("")
        end(bench, c, active, "failed", kind="error", message="odd")
    assert [record["error"]["message"] for record in lines(bench)] == ["odd"]
    assert (bench.folder / active.folder / FLIGHT).exists()


def test_memory_that_a_neighbour_or_a_smaller_card_lacks_is_not_the_configuration_s_fault(study):
    bench = study(trials=0, repeats=1, tables=["1"])
    _, c = bench.open(slots=2)
    one, other = c.next(), c.next()
    c.row(other.run.key, row() | {"origin": facts("large", 80)})
    c.row(
        one.run.key,
        {"end": "failed", "kind": "out_of_memory", "message": "full", "origin": facts("small", 24)} | END
        | {"device_memory": 24, "neighbours": False},
    )  # fmt: skip
    again = c.next()
    assert again.run.key == one.run.key and c.job(again)["avoid"] == ["small"] and not lines(bench)
    full = {"end": "failed", "kind": "out_of_memory", "message": "full", "origin": facts("large", 80)} | END
    c.row(again.run.key, full | {"device_memory": 80, "neighbours": True})
    assert c.next() is None, "it runs alone: nothing is placed beside the others while it waits"
    end(bench, c, other)
    alone = c.next()
    assert alone.run.key == one.run.key and c.next() is None, "nothing is placed beside it"
    c.row(alone.run.key, full | {"device_memory": 80, "neighbours": True})
    assert len(lines(bench)) == 1, "the neighbour is none of ours: nobody knows"
    alone = c.next()
    c.row(alone.run.key, full | {"device_memory": 80, "neighbours": False})
    assert lines(bench)[-1]["error"]["kind"] == "out_of_memory", "alone on the largest device"


def test_memory_of_the_host_is_not_taken_for_the_device_s(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    full = {"end": "failed", "kind": "out_of_memory", "message": "full", "origin": facts("one", 80)} | END | {"device_memory": 80}
    for _ in range(2):
        assert not lines(bench)
        c.row(c.next().run.key, full)
    assert lines(bench)[-1]["error"]["kind"] == "out_of_memory"


def test_a_card_too_small_that_is_the_only_one_left_does_not_try_for_ever(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    c.nodes.met(facts("large", 80))  # and went
    full = {"end": "failed", "kind": "out_of_memory", "message": "full", "origin": facts("small", 24)} | END
    for _ in range(3):
        assert not lines(bench)
        c.row(c.next().run.key, full | {"device_memory": 24, "neighbours": False})
    assert lines(bench)[-1]["error"]["kind"] == "out_of_memory"


def test_a_run_that_was_stopped_is_left_to_be_done_and_the_study_is_not_complete(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    active = c.next()
    (bench.folder / STOP).touch()
    c.row(active.run.key, {"end": "stopped"} | END)
    assert c.finished() and not c.complete() and c.next() is None, "its worker saw the word to stop before this command did"
    _, c = bench.open()
    assert c.next() is not None


def test_what_a_machine_said_of_a_run_is_not_said_of_the_next_one_it_goes_to(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    active = c.next()
    c.row(active.run.key, row() | {"origin": facts("a")})
    c.lost(active.run.key, node_lives=False)
    again = c.next()
    assert c.queue.node_of(again.run.key) == ""
    end(bench, c, again, "failed", origin=facts("b"))
    assert (lines(bench)[-1]["host"], lines(bench)[-1]["device"]) == ("b", "gpu")


def test_what_an_earlier_process_of_a_run_sends_is_not_taken_for_the_present_one_s(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    first = c.next()
    before = c.job(first)["placement"]
    c.lost(first.run.key, before)
    second = c.next()
    c.lost(first.run.key, before)
    c.row(first.run.key, {"end": "failed", "kind": "request", "message": "late"} | END, before)
    assert second.run.key in c.queue.active and not lines(bench)


def test_a_search_asks_for_no_more_trials_than_free_slots_while_one_stage_is_trained(study):
    bench = study(trials=30, repeats=1, tables=["none"])
    plan = bench.plan()
    bench.plan = lambda: replace(plan, space={"bend": replace(plan.space["bend"], when={})})
    _, c = bench.open(slots=4)
    c.next()
    while c.next() is not None:
        pass
    assert len(c.searches[0].running) <= 4


def test_fewer_trials_than_were_asked_for_end_the_search_and_more_take_it_up_again(study):
    bench = study(trials=40, repeats=2, tables=["none"])
    _, c = bench.open(slots=3)
    for _ in range(3):
        end(bench, c, c.next())
    c.next(), c.next()
    bench.request["trials"] = 2
    _, c = bench.open()
    while (active := c.next()) is not None:
        assert active.trial is None
        end(bench, c, active)
    assert c.complete() and c.outcome()["winner"]
    bench.request["trials"] = 6
    _, c = bench.open()
    assert c.next().trial.number == 3, "what was begun goes on"


# -- any order -----------------------------------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Runs begin, report, end, break and are lost in any order; drivers die at any moment. Whatever happens: nothing is trained twice, no
    stage by two at once, and in the end the ledger holds all and Optuna what the ledger says."""

    @initialize(trials=st.integers(0, 4), repeats=st.integers(1, 3), slots=st.integers(1, 3))
    def begin(self, trials, repeats, slots):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.bench = Bench(toy_entry(), Path(self.folder.name), trials=trials, repeats=repeats, tables=["1", "2"], strategy=HASTY)
        self.slots, self.left = slots, set()
        self.restart()

    def restart(self):
        self.ledger, self.c = self.bench.open(slots=self.slots)

    @rule()
    def place(self):
        if len(self.c.queue.active) < self.slots:
            before = dict(self.ledger.records)
            active = self.c.next()
            if active is not None:
                old = before.get(active.run.key)
                assert old is None or (old["status"] == "pruned" and active.run.arms) or not any("test" in name for name in old["metrics"])

    @precondition(lambda self: self.c.queue.active)
    @rule(data=st.data(), score=st.floats(0, 1))
    def report(self, data, score):
        key = data.draw(st.sampled_from(sorted(self.c.queue.active)))
        epoch = len(self.c.queue.active[key].rows) + 1
        if epoch <= 3:
            self.c.row(key, row(epoch=epoch, val_early=score))

    @precondition(lambda self: self.c.queue.active)
    @rule(
        data=st.data(), val=st.floats(0, 1), status=st.sampled_from(["completed", "completed", "completed", "failed", "diverged", "lost"])
    )
    def ends(self, data, val, status):
        active = self.c.queue.active[data.draw(st.sampled_from(sorted(self.c.queue.active)))]
        if status == "lost":
            self.c.lost(active.run.key)
        else:
            end(self.bench, self.c, active, status, val=val)

    @rule()
    def driver_dies(self):
        self.restart()

    @rule(more=st.integers(1, 2))
    def asks_for_more(self, more):
        if self.bench.request["trials"] < 6:
            self.bench.request["trials"] += more
            self.restart()

    @invariant()
    def no_stage_is_trained_by_two(self):
        if not hasattr(self, "c"):
            return
        busy = [active.run.stages["warm"] for active in self.c.queue.active.values() if not self.c.stages.has(active.run.stages["warm"])]
        assert len(busy) == len(set(busy))

    @invariant()
    def the_view_adds_up(self):
        if hasattr(self, "c"):
            progress = self.c.progress()
            assert progress.running + progress.placed == len(self.c.queue.active) and progress.waiting >= 0

    def teardown(self):
        if hasattr(self, "c"):
            try:
                self.check()
            finally:
                self.bench.close()
                self.folder.cleanup()

    def check(self):
        for _ in range(500):
            if self.c.finished():
                break
            active = self.c.next() if len(self.c.queue.active) < self.slots else None
            if active is None:
                end(self.bench, self.c, next(iter(self.c.queue.active.values())), val=0.5)
        assert self.c.complete()
        records = self.ledger.records
        assert {run.key for run in self.c.plan.runs} <= set(records)
        written = [record for record in lines(self.bench) if record["status"] == "completed"]
        with_test = [record["key"] for record in written if "test_accuracy" in record["metrics"]]
        assert len(with_test) == len(set(with_test))
        assert all(sum(record["key"] == key for record in written) <= 2 for key in records)
        if self.c.searches:
            self.check_optuna(records)

    def check_optuna(self, records):
        told = trials(self.c)
        assert len(told) == self.c.plan.trials
        for trial in told:
            record = records[trial.user_attrs["key"]]
            if trial.state == TrialState.COMPLETE:
                assert trial.value == record["metrics"]["val_accuracy"]
            else:
                assert trial.state == TrialState.PRUNED
                assert bool(trial.intermediate_values) != ("reason" in trial.user_attrs)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))


# -- what is kept on the disk ----------------------------------------------------------------------------------------------------------


def kept(bench):
    """(files of runs, stages) that stand in the study's folder."""
    return len(list(bench.folder.glob("checkpoints/*/*"))), len(list(bench.folder.glob("stages/*")))


def test_the_files_of_a_long_search_stay_as_many_as_those_of_a_short_one(study):
    bench = study(trials=80, repeats=2, tables=["1"], arms=["plain"])
    _, c = bench.open(slots=2)
    counts = []
    while (active := c.next()) is not None:
        # each tenth trial is better than all before it, a third is stopped early
        val = 0.5 + 0.001 * len(counts) if len(counts) % 10 == 9 else 0.3
        c.row(active.run.key, row(val_early=0.1 if len(counts) % 3 else 0.9))
        if active.run.key in c.queue.active:
            end(bench, c, active, val=val)
        counts.append(kept(bench))
    assert c.complete() and len(trials(c)) == 80
    # two runs of the table, three finalists and their second seeds, two in flight: a model and a result each
    assert max(files for files, _ in counts) <= 2 * 10 and max(stages for _, stages in counts) <= 10
    assert kept(bench) == (2 * 4, 4)
    records = c.ledger.records
    assert len(records) == 80 + 4 and all(record["history"] for record in records.values() if record["status"] == "pruned")
    best_key = best_of(c).user_attrs["key"]
    assert (bench.folder / "checkpoints" / best_key / MODEL).exists() and records[best_key]["metrics"]["val_accuracy"] > 0.56
    assert all((bench.folder / "checkpoints" / run.key / MODEL).exists() for run in c.plan.runs)


def test_what_a_driver_that_died_left_too_much_is_deleted_by_the_next(study, monkeypatch):
    bench = study(trials=3, repeats=1, tables=["none"])
    _, c = bench.open()
    monkeypatch.setattr(directing.Director, "free", lambda self: None)
    for val in (0.1, 0.9, 0.2):
        end(bench, c, c.next(), val=val)
    assert kept(bench) == (6, 3)
    monkeypatch.undo()
    _, again = bench.open()
    assert kept(bench) == (4, 2) and (bench.folder / "checkpoints" / best_of(again).user_attrs["key"] / MODEL).exists()


def test_models_of_an_earlier_command_s_tables_stay_in_a_later_search(study):
    bench = study(trials=0, repeats=1, tables=["1"])
    _, c = bench.open()
    while (active := c.next()) is not None:
        end(bench, c, active)
    tabled = {path.parent.name for path in bench.folder.glob(f"checkpoints/*/{MODEL}")}
    bench.request |= {"trials": 4, "tables": ["none"]}
    _, c = bench.open()
    while (active := c.next()) is not None:
        end(bench, c, active, val=0.9)
    assert tabled <= {path.parent.name for path in bench.folder.glob(f"checkpoints/*/{MODEL}")} and len(tabled) == 3


def test_a_trial_whose_model_was_not_kept_is_trained_again_for_a_table_and_says_so(study):
    bench = study(trials=3, repeats=1, tables=["none"], strategy=Strategy(finalists=1))
    _, c = bench.open()
    for val in (0.2, 0.1, 0.9):
        end(bench, c, c.next(), val=val)
    end(bench, c, c.next())  # the best one's test metrics
    end(bench, c, c.next())  # and those of the baseline
    assert c.complete()
    lost = trials(c)[1]
    table = Table("9", "What was not kept", "Toys", "again", (Arm("again", lost.params),))
    bench.entry = replace(bench.entry, study=replace(bench.entry.study, tables=(table,)))
    bench.request |= {"tables": ["9"]}
    _, c = bench.open()
    assert any("trained again" in note and note.startswith("1 run") for note in c.notes)
    active = c.next()
    assert active.run.key == lost.user_attrs["key"] and active.again
    end(bench, c, active, val=0.1)
    record = c.ledger.records[active.run.key]
    assert record["again"] and record["trial"] == 1 and "test_accuracy" in record["metrics"] and c.complete()
    assert (bench.folder / active.folder / MODEL).exists()
    _, c = bench.open()
    assert c.complete() and not c.notes


def test_a_stage_that_later_trials_may_share_is_kept_and_the_oldest_of_many_is_not(study, monkeypatch):
    monkeypatch.setattr(shelf, "STAGES_KEPT", 2)
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    plan = bench.plan()
    space = {"rate": replace(plan.space["rate"], distribution=CategoricalDistribution((0.001, 0.002, 0.003, 0.004, 0.005, 0.006)))}
    bench.plan = lambda: replace(plan, space=space, trials=6)
    _, c = bench.open()
    most = 0
    while (active := c.next()) is not None:
        end(bench, c, active, val=0.5)
        most = max(most, kept(bench)[1])
    assert 2 < most <= 4, "the table's, the best one's and two more"


def stopped_beside_another(bench, c):
    """A run of a search that is stopped early, after one that was better and has ended."""
    first = c.next()
    c.row(first.run.key, row(epoch=1, val_early=0.9))
    end(bench, c, first, val=0.5)
    stopped = c.next()
    assert c.row(stopped.run.key, row(epoch=1, val_early=0.1))
    return stopped


def test_a_trial_that_was_stopped_early_stays_so_when_a_table_has_had_its_run_trained_to_the_end(study):
    """As a candidate it would be another one after a restart than before it."""
    bench = study(trials=3, repeats=2, tables=["none"], strategy=HASTY)
    _, c = bench.open()
    stopped = stopped_beside_another(bench, c)
    end(bench, c, c.next(), val=0.6)
    before = [(one.number, one.state, one.intermediate_values, c.searches[0].rungs(one.number)) for one in trials(c)]
    chosen = [one.hash for one in c.finals[0].candidates]
    wanted = replace(stopped.run, arms=("M/late",))
    end(bench, c, c.queue.place(Active(wanted)), val=0.99)
    assert lines(bench)[-1]["status"] == "completed"
    straight = [one.hash for one in c.finals[0].candidates]
    _, c = bench.open()
    assert [one.hash for one in c.finals[0].candidates] == straight == chosen
    assert [(one.number, one.state, one.intermediate_values, c.searches[0].rungs(one.number)) for one in trials(c)][1:] == before[1:]


def test_what_runs_cost_before_a_machine_s_fault_counts_in_the_budget_and_stands_in_their_record(study, monkeypatch):
    clock = [0.0]
    for module in (budgeting, endings, queueing):
        monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open(budget=Budget(seconds=100.0))
    for _ in range(2):
        c.row(c.next().run.key, row() | {"origin": facts("a")})
        clock[0] += 40.0
        c.lost(next(iter(c.queue.active)), node_lives=False)
        clock[0] += 1000.0  # it waits for a machine
    active = c.next()
    assert active is not None and not c.stopping, "80 of 100 s are spent"
    c.row(active.run.key, row() | {"origin": facts("a")})
    clock[0] += 30.0
    assert c.progress() and c.budget.over(list(c.queue.active.values()))
    end(bench, c, active)
    assert lines(bench)[-1]["seconds"] == 1.5 and lines(bench)[-1]["lost_seconds"] == pytest.approx(108.5)
    assert c.budget.spent == pytest.approx(110.0)
    _, c = bench.open(budget=Budget(seconds=100.0))
    assert c.budget.spent == pytest.approx(110.0)
    assert analysis.load(bench.folder).records["paid_seconds"].sum() == pytest.approx(110.0)


def test_a_folder_that_one_machine_cannot_write_is_that_machine_s_fault_and_the_study_s_where_this_one_cannot(study, monkeypatch):
    bench = study(trials=0, repeats=3, tables=["1"])
    _, c = bench.open(slots=2)
    words = "/s/model could not be written: No space left on device"
    full = {"end": "stopped", "message": words} | END | facts("full")
    for _ in range(2):
        bad, good = c.next(), c.next()
        c.row(bad.run.key, row() | {"origin": facts("full")})
        c.row(bad.run.key, full)
        assert c.halt is None and not c.stopping
        end(bench, c, good)
    assert c.progress().aside == [f"full: {words}"] and not (bench.folder / ".stop").exists()
    assert {record["status"] for record in lines(bench)} == {"completed"}
    monkeypatch.setattr(directing, "takes_files", lambda folder: False)
    last = c.next()
    c.row(last.run.key, row() | {"origin": facts("other")})
    c.row(last.run.key, full | facts("other"))
    assert c.halt == words and c.next() is None


def test_a_group_that_cannot_write_on_its_machine_before_it_has_said_where_it_is_does_not_end_the_study(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    active = c.next()
    c.row(active.run.key, {"end": "stopped", "message": "/s/epochs.log could not be written: Read-only file system"} | END | facts("full"))
    assert c.halt is None and c.next() is active and not lines(bench)


def test_a_word_to_stop_that_was_for_an_earlier_command_stops_neither_the_run_nor_the_study(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    key = c.next().run.key
    c.row(key, {"end": "stopped"} | END)  # a shared folder's cache still showed it there
    again = c.next()
    assert again.run.key == key and not c.stopping and not lines(bench)


HOLES = {
    "error": {"end": "failed", "kind": "error", "message": "OSError: [Errno 28] No space left on device: /tmp"},
    "weights": {"end": "failed", "kind": "unreachable_weights", "message": "no way out from there"},
    "memory of the host": {"end": "failed", "kind": "out_of_memory", "message": "host"},
    "a smaller card": {"end": "failed", "kind": "out_of_memory", "message": "full", "neighbours": False, "device_memory": 24},
}


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
def test_a_machine_on_which_every_run_breaks_off_at_once_takes_none_from_the_others_and_is_set_aside(study, hole):
    bench = study(trials=0, repeats=3, tables=["1"])
    _, c = bench.open(slots=2)
    c.nodes.machines = 2
    wanted = 0
    while not c.finished():
        active = c.next()
        assert active is not None
        wanted += 1
        assert wanted < 60
        if "hole" not in c.job(active)["avoid"]:
            c.row(active.run.key, hole | END | facts("hole", 24))
        else:
            c.row(active.run.key, row() | {"origin": facts("good", 80)})
            end(bench, c, active)
    assert {one["status"] for one in lines(bench)} == {"completed"}
    assert list(c.nodes.aside) == ["hole"] and c.halt is None


def test_an_error_of_the_configuration_on_every_machine_is_recorded_and_sets_no_machine_aside(study):
    bench = study(trials=0, repeats=3, tables=["1"])
    _, c = bench.open(slots=2)
    c.nodes.machines = 2
    while not c.finished():
        active = c.next()
        where = "b" if "a" in c.job(active)["avoid"] else "a"
        c.row(active.run.key, HOLES["error"] | END | facts(where, 24))
    assert {one["status"] for one in lines(bench)} == {"failed"} and not c.nodes.aside


def test_a_process_that_says_where_it_is_before_its_first_epoch_is_no_epoch(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    active = c.next()
    assert c.row(active.run.key, {"origin": facts("a")}) is False
    assert c.queue.node_of(active.run.key) == "a" and not active.rows


def test_a_stop_asked_for_while_the_command_prepares_is_heard(inside, monkeypatch):
    from search import api

    real = api.settle

    def settle(work):
        real(work)
        (work.folder / STOP).touch()

    monkeypatch.setattr(api, "settle", settle)
    assert inside("--trials", "0", "--repeats", "1", "--tables", "1") == 3


@pytest.mark.parametrize("limit", [1000.0, None])
def test_what_a_retried_run_cost_before_counts_after_a_restart_too(study, limit):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open(budget=Budget(seconds=limit))
    active = c.next()
    for epoch in (1, 2, 3):
        c.row(active.run.key, row(epoch=epoch) | {"seconds": 100.0})
    end(bench, c, active, "failed", started="2026-11-27T08:00:00+00:00")
    _, c = bench.open(budget=Budget(seconds=limit), retry_failed=True)
    end(bench, c, c.next())
    spent = c.budget.spent
    assert spent > 300
    _, c = bench.open(budget=Budget(seconds=limit))
    assert c.budget.spent == pytest.approx(spent)
    c.ledger.append(c.ledger.whole(next(iter(c.ledger.records))))  # as where its metrics on the test part alone are added
    _, c = bench.open(budget=Budget(seconds=limit))
    assert c.budget.spent == pytest.approx(spent)
    rows = analysis.load(bench.folder).records
    assert rows["paid_seconds"].sum() == pytest.approx(spent), "the report's money is the budget's"


def test_what_an_earlier_command_trained_of_a_run_in_flight_counts_in_the_budget(study):
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open(budget=Budget(seconds=100.0))
    active = c.next()
    (bench.folder / active.folder).mkdir(parents=True, exist_ok=True)
    save_state(bench.folder / active.folder / FLIGHT, {}, {"stage_seconds": {"warm": 70.0, "main": 40.0}})
    _, c = bench.open(budget=Budget(seconds=100.0))
    assert c.finished() and not c.complete() and c.next() is None and not c.all_paid()
    _, c = bench.open(budget=Budget(paid=100.0))
    assert c.finished() and c.next() is None and c.all_paid(), "or the same command would be said to go on, and would not"
    _, c = bench.open(budget=Budget(seconds=200.0))
    assert c.next().run.key == active.run.key


def test_what_an_earlier_command_trained_of_a_race_in_flight_counts_in_the_budget_too(study):
    bench = study(trials=1, repeats=2, tables=["none"])
    _, c = bench.open()
    end(bench, c, c.next())
    raced = c.next()
    (bench.folder / raced.folder).mkdir(parents=True, exist_ok=True)
    save_state(bench.folder / raced.folder / FLIGHT, {}, {"stage_seconds": {"warm": 110.0}})
    _, c = bench.open(budget=Budget(seconds=100.0))
    assert c.finished() and not c.complete() and c.next() is None
    _, c = bench.open(budget=Budget(seconds=200.0))
    assert c.next().run.key == raced.run.key


@pytest.mark.parametrize("killed", [False, True])
def test_an_equal_point_of_a_stopped_run_is_stopped_wherever_a_command_dies_though_a_table_wants_its_end(study, killed):
    bench = study(trials=2, repeats=1, tables=["none"], strategy=HASTY)
    _, c = bench.open()
    stopped = stopped_beside_another(bench, c)
    point = trials(c)[1].params
    table = Table("9", "What was stopped", "Toys", "late", (Arm("late", point),))
    bench.entry = replace(bench.entry, study=replace(bench.entry.study, tables=(table,)))
    bench.request |= {"tables": ["9"], "trials": 3}
    _, c = bench.open()
    if killed:
        c.searches[0].ledger.ask("", 2, point)  # its last act
        _, c = bench.open()
    else:
        c.searches[0].study.enqueue_trial(point)
    while (active := c.next()) is not None:
        end(bench, c, active, val=0.99)
    assert c.complete() and c.ledger.records[stopped.run.key]["arms"] == ["9/late"]
    assert [one.state for one in trials(c)][1:] == [TrialState.PRUNED, TrialState.PRUNED]
    before = [(one.params, one.state, one.intermediate_values) for one in trials(c)]
    _, c = bench.open()
    assert [(one.params, one.state, one.intermediate_values) for one in trials(c)][1:] == before[1:]
