"""What a search takes over from another study, what it spends, and that it cannot see the test part."""

import json
import shutil
import time
from dataclasses import replace

import pytest
from driving import Bench
from optuna.trial import TrialState
from test_director import best_of, end, lines, row, trials

from analysis.records import paid_seconds
from search import api, ranking
from search.budget import Budget, spent_seconds
from search.ledger import record_of
from search.record import record_of_run
from search.sampling import Strategy
from search.study import read_study
from search.warm import warm_start
from trainables.parts import execution
from trainables.parts.errors import RequestError


def searched(bench, value=lambda config: 0.9 - abs(config.rate - 0.05)):
    _, c = bench.open()
    while (active := c.next()) is not None:
        end(bench, c, active, val=value(active.run.config))
    bench.close()
    return c


@pytest.fixture
def known(bench, tmp_path, toy_pack, monkeypatch):
    """A study of eight trials, with its study.json; and what starts from it."""
    source = bench(folder=tmp_path / "known", trials=8, repeats=1, tables=["none"])
    searched(source)

    def start(pack=toy_pack, **request):
        one = bench(
            folder=tmp_path / "new",
            pack=pack,
            **({"trials": 3, "repeats": 1, "tables": ["none"], "strategy": Strategy(source="known")} | request),
        )
        return one, warm_start(source.folder, one.entry, one.plan(), pack.hash)

    start.source = source
    return start


def test_a_search_that_starts_from_another_is_told_its_trials_and_asks_its_best_points_after_the_published_one(known):
    one, warm = known()
    assert len(warm.trials) == 8 and warm.notes == ("the search starts from 8 configurations of known",)
    _, c = one.open(warm=warm)
    told = trials(c)[:8]
    assert all(trial.state == TrialState.COMPLETE for trial in told)
    assert sorted(trial.value for trial in told) == sorted(
        record["metrics"]["val_accuracy"] for record in lines(known.source) if not record["arms"]
    )
    asked = [c.next().trial for _ in range(3)]
    assert asked[0].params == {"form": "plain", "rate": 0.02}
    best = sorted((trial for trial in told if trial.params != asked[0].params), key=lambda trial: -trial.value)
    assert [trial.params for trial in asked[1:]] == [trial.params for trial in best[:2]]
    assert c.next() is None, "what was taken over counts as no trial of this study"


def test_the_best_of_a_study_is_never_one_that_was_taken_over(known):
    one, warm = known()
    _, c = one.open(warm=warm)
    while (active := c.next()) is not None:
        end(one, c, active, val=0.001)
    assert best_of(c).value == 0.001
    assert {record["trial"] for record in lines(one)} == {8, 9, 10}


def test_what_is_taken_over_is_the_same_in_each_command(known):
    one, warm = known()
    for _ in range(2):
        _, c = one.open(warm=warm)
        assert [trial.user_attrs["from"] for trial in trials(c)[:8]] == [known.key for known in warm.trials]
        assert len(trials(c)) == 8 + 3, "the published point and the best that differ from it wait"


def test_scores_of_other_data_are_not_taken_over_but_the_best_points_are_asked_first(known, toy):
    other = toy.procedure.synthesize(toy.procedure.config(), images=60, seed=1)
    one, warm = known(pack=other)
    assert not warm.trials and "made on other data" in warm.notes[0]
    _, c = one.open(warm=warm)
    assert len(trials(c)) <= 4 and c.next().trial.params == {"form": "plain", "rate": 0.02}
    assert c.next().trial.params in [dict(point) for point in warm.first]


def test_scores_under_other_settings_are_not_taken_over_either(known):
    _, warm = known(overrides={"epochs": 3})
    assert not warm.trials and "other settings" in warm.notes[0] and warm.first


def test_what_is_no_study_of_this_procedure_is_refused(known, tmp_path, toy):
    one, _ = known()
    with pytest.raises(RequestError, match="holds no study"):
        warm_start(tmp_path / "nowhere", one.entry, one.plan(), "d")
    study = read_study(known.source.folder)
    (known.source.folder / "study.json").write_text(json.dumps(study | {"procedure": "other"}))
    with pytest.raises(RequestError, match="must be a study of toy, got one of other"):
        warm_start(known.source.folder, one.entry, one.plan(), "d")


# -- budgets ----------------------------------------------------------------------------------------------------------------------------


def test_once_its_gpu_hours_are_spent_a_study_starts_nothing_and_ends_what_runs(bench):
    one = bench(pack=None, trials=0, repeats=2, tables=["1"])
    _, c = one.open(slots=2, budget=Budget(seconds=2.0))
    first, second = c.next(), c.next()
    end(one, c, first)  # 1.5 s of its worker
    assert c.budget.spent == 1.5
    end(one, c, second)
    assert c.budget.spent == 3.0 and c.next() is None and c.finished() and not c.complete()
    _, c = one.open(budget=Budget(seconds=2.0))
    assert c.finished(), "what an earlier session spent counts"
    _, c = one.open(budget=Budget(seconds=100.0))
    assert c.next() is not None


def test_what_is_under_way_counts_against_the_hours(bench):
    one = bench(pack=None, trials=0, repeats=2, tables=["1"])
    _, c = one.open(slots=3, budget=Budget(seconds=50.0))
    active = c.next()
    assert c.next() is not None
    active.began = time.monotonic() - 60
    assert c.next() is None and not c.finished()


def test_what_waits_for_a_machine_costs_no_hours_and_is_not_called_running(bench):
    one = bench(pack=None, trials=0, repeats=2, tables=["1"])
    _, c = one.open(slots=3, budget=Budget(seconds=1e-9))
    c.next()
    assert c.next() is not None, "no process has begun"
    assert (c.progress().running, c.progress().placed) == (0, 2)
    assert all("waiting for a machine" in words for words in c.progress().in_flight)


@pytest.mark.parametrize(("device", "field"), [("H100", "gpu_seconds"), ("cpu", "worker_seconds")])
def test_seconds_count_each_gpu_of_a_run_and_each_worker_of_one_without(bench, device, field):
    one = bench(pack=None, trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = one.open()
    c.budget.held = 2.0
    active = c.next()
    active.rows = [row()]
    ending = {"end": "failed", "kind": "error", "message": "", "started": "", "ended": "", "worker": "", "peak_memory_bytes": None}
    record = record_of_run(c, active, ending | {"device": device})
    assert record[field] == 2 * record["seconds"] == spent_seconds(record) == paid_seconds([record]) == 1.0


def test_a_run_of_two_workers_without_a_gpu_holds_two_workers(inside, monkeypatch):
    held = []
    monkeypatch.setattr(api, "_carry_out", lambda work, director: held.append(director.budget.held))
    inside("--trials", "0", "--tables", "1", "--workers-per-run", "2", "--gpus-per-run", "0")
    assert held == [2.0]


# -- two objectives ---------------------------------------------------------------------------------------------------------------------


def test_with_two_objectives_optuna_is_told_score_and_size_and_nothing_is_stopped(bench):
    one = bench(pack=None, trials=4, repeats=1, tables=["none"], strategy=Strategy(scheduler="none", second="parameters"))
    _, c = one.open()
    values = []
    for val, size in ((0.9, 100), (0.5, 50), (0.4, 70), (0.95, 200)):
        active = c.next()
        for epoch in (1, 2, 3):
            assert not c.row(active.run.key, row(epoch=epoch, val_early=val / 9))
        end(one, c, active, val=val, parameters=size)
        values.append(tuple(trials(c)[-1].values))
    assert values == [(0.9, 100.0), (0.5, 50.0), (0.4, 70.0), (0.95, 200.0)]
    assert [trial.number for trial in ranking.best_trials(c.searches[0].study)] == [3, 0, 1], "trial 2 is worse and larger than trial 1"
    _, again = one.open()
    assert [tuple(trial.values) for trial in trials(again)] == values


def test_the_size_of_a_model_is_read_from_its_file(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file(
        {"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.float16), "steps": torch.zeros(9, dtype=torch.int64)}, tmp_path / "m"
    )
    assert execution.parameters_of(tmp_path / "m") == 17


# -- the test part ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_garbage_for_a_test_part_every_decision_of_a_search_is_the_same(toy, toy_pack, tmp_path):
    """Really trained: the search, early stopping, the race and its winner. Only the test metrics differ."""
    parts = toy.procedure.parts(toy.procedure.config(), toy_pack, 0)
    entry = replace(toy, procedure=replace(toy.procedure, parts=lambda config, pack, seed: parts))
    labels = toy_pack.labels.copy()
    labels[parts["test"]] = 1 - labels[parts["test"]]
    garbage = replace(toy_pack, labels=labels)  # with the hash of the other: equal keys
    seen = []
    for name, pack in (("a", toy_pack), ("b", garbage)):
        bench = Bench(entry, tmp_path / name, pack, trials=4, repeats=2, tables=["none"], strategy=Strategy(grace=1, startup=1))
        _, c = bench.open()
        bench.finish(c)
        scores = {record["key"]: record["metrics"].get("test_accuracy") for record in c.ledger.records.values()}
        seen.append((bench.trained, [(trial.params, trial.values, trial.state) for trial in trials(c)], c.outcome(), scores))
        bench.close()
    assert seen[0][:3] == seen[1][:3]
    tested = [key for key, value in seen[0][3].items() if value is not None]
    assert all(seen[0][3][key] == pytest.approx(1 - seen[1][3][key]) for key in tested), "the garbage was there to be seen"
    assert any(seen[0][3][key] != seen[1][3][key] for key in tested)


# -- a search that goes on -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 13])
def test_a_study_that_is_asked_for_more_and_stops_halfway_reports_and_goes_on(toy, inside, seed):
    """Its old winner's model is still there, and nothing but what stands in a table has been judged on the test part."""
    words = ("--tables", "none", "--scheduler", "none", "--sampler", "random", "--seed", str(seed))
    assert inside(*words, "--trials", "5", "--repeats", "2") == 0

    def exported():
        """Whose model it is; the card beside it may know of more seeds by now."""
        told = json.loads((inside.study / "best" / "karyotune.json").read_text())
        return told["key"], told["files"]["model.safetensors"]

    best = exported()
    for more in (("--trials", "5", "--repeats", "3"), ("--trials", "14", "--repeats", "3")):
        inside.most = 1 if more[1] == "5" else 6
        assert inside(*words, *more) == 3, "unfinished"
        study = json.loads((inside.study / "study.json").read_text())
        records = [record_of(line) for line in (inside.study / "records.jsonl").read_bytes().splitlines()]
        tested = {record["config_hash"] for record in records if "test_accuracy" in record["metrics"]}
        tabled = {arm["config_hash"] for table in study["tables"] for arm in table["arms"]}
        assert tested <= tabled
        for record in records:
            if record["config_hash"] in tabled and record["status"] == "completed":
                assert (inside.study / record["checkpoint"]).exists(), "its model stays until another one has won"
        assert exported() == best
        inside.most = None
        assert inside(*words, *more) == 0
        best = exported()


def test_an_unfinished_search_s_best_is_not_tested_and_not_exported(toy, inside, capsys):
    inside.most = 2
    assert inside("--trials", "6", "--tables", "none", "--repeats", "2", "--scheduler", "none") == 3, "unfinished"
    assert "it is tested and exported when the search has ended" in capsys.readouterr().out
    assert not (inside.study / "best").exists()
    assert b"test_accuracy" not in (inside.study / "records.jsonl").read_bytes()
    assert inside("export") == 0 and not (inside.study / "best").exists()


@pytest.mark.slow
def test_a_study_that_started_from_another_goes_on_as_it_began_whatever_became_of_that(toy, inside):
    common = ("--trials", "6", "--tables", "none", "--repeats", "1", "--scheduler", "none", "--sampler", "random")
    other = inside.storage / "one"
    assert inside("--name", "one", *common) == 0
    inside.study = inside.storage / "two"
    inside.most = 3
    inside("--name", "two", "--seed", "1", "--from", str(other), *common)
    assert inside("--name", "one", *common[:1], "9", *common[2:]) == 0, "the other one grows"
    (inside.study / "optuna.journal").unlink()
    inside.most = None
    before = len(inside.trained)
    assert inside("--name", "two", "--seed", "1", "--from", str(other), *common) == 0
    ran = {record_of(line)["trial"] for line in (inside.study / "records.jsonl").read_bytes().splitlines()}
    assert len(inside.trained) - before <= 6 and len(ran - {None}) == 6, "six trials in all"
    again = len(inside.trained)
    assert inside("--name", "two", "--seed", "1", "--from", str(other), *common) == 0 and len(inside.trained) == again
    shutil.rmtree(other)
    assert inside("--name", "two", "--seed", "1", "--from", str(other), *common) == 0


def test_a_grid_learns_nothing_from_another_study(inside, capsys):
    assert inside("--sampler", "grid", "--grid", "2", "--from", str(inside.storage / "one")) == 2
    assert "--sampler grid learns nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_made_again_from_records_with_gaps_asks_no_point_twice(toy, inside):
    words = ("--trials", "10", "--tables", "none", "--repeats", "1", "--scheduler", "none", "--sampler", "grid", "--grid", "3")
    inside.most = 6
    assert inside(*words) == 3, "unfinished"
    path = inside.study / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    gone = [line for line in lines if record_of(line.rstrip())["trial"] in (2, 4)]
    path.write_bytes(b"".join(line for line in lines if line not in gone))
    for line in gone:
        shutil.rmtree(inside.study / "checkpoints" / record_of(line.rstrip())["key"], ignore_errors=True)
    (inside.study / "optuna.journal").unlink()
    inside.most = None
    assert inside(*words) == 0
    records = {record["key"]: record for record in map(record_of, path.read_bytes().splitlines())}
    points = [json.dumps(record["params"], sort_keys=True) for record in records.values() if record["trial"] is not None]
    assert len(points) == len(set(points)) == 10
