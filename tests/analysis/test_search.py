"""What is said of a search: its trials, what its parameters matter, the winner's luck, and the workers' time."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import fake
import numpy as np
import pytest

import analysis
from analysis import search, slots

ASKED, RECORDS = fake.study_and_records(trials=24)


def load(folder: Path, records: list = RECORDS, asked: dict = ASKED) -> analysis.Study:
    return analysis.load(fake.write(folder, asked, records))


def test_trials_come_in_order_with_the_last_intermediate_score_of_a_pruned_one(tmp_path):
    trials = search.trial_table(load(tmp_path))
    assert list(trials["trial"]) == list(range(24))
    pruned = trials[trials["status"] == "pruned"].iloc[0]
    told = next(r for r in RECORDS if r["trial"] == pruned["trial"])
    assert pruned["score"] == pytest.approx(100 * told["metrics"]["val_knn_accuracy"])


def test_a_parameter_whose_condition_does_not_hold_has_no_value(tmp_path):
    asked = copy.deepcopy(ASKED)
    space = asked["space"]
    del space["margin"]
    space["margin.self"] = {"name": "FloatDistribution", "attributes": {"low": 0, "high": 0.5}, "when": {"form": ["self_margin"]}}
    space["margin.class"] = {"name": "FloatDistribution", "attributes": {"low": 0, "high": 0.8}, "when": {"form": ["cluster_margin"]}}
    study = load(tmp_path, asked=asked)
    margin = next(p for p in search.parameters(study) if p.name == "margin")
    assert (margin.low, margin.high, len(margin.when)) == (0, 0.8, 2)
    trials = search.trial_table(study)
    assert trials.loc[trials["param.form"] == "all_margin", "param.margin"].isna().all()
    assert trials.loc[trials["param.form"] != "all_margin", "param.margin"].notna().all()


def test_a_parameter_that_decides_the_score_explains_all_and_a_random_one_nothing():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 4, 400)
    share, low, high = search.explained(groups, groups.astype(float))
    chance = search.by_chance([groups], groups.astype(float))
    assert share == pytest.approx(1)
    assert low == pytest.approx(1)
    share, low, high = search.explained(groups, rng.normal(size=400))
    assert share < chance < 0.05
    assert low <= high


def test_the_share_explained_is_the_adjusted_correlation_ratio():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 3, 60)
    score = groups + rng.normal(size=60)
    within = sum(((score[groups == g] - score[groups == g].mean()) ** 2).sum() for g in range(3)) / (60 - 3)
    assert search.explained(groups, score)[0] == pytest.approx(1 - within / score.var(ddof=1))


@pytest.mark.parametrize("parameters", [1, 12])
def test_the_largest_share_of_random_scores_lies_below_the_mark_of_chance_in_nineteen_of_twenty_cases(parameters):
    rng = np.random.default_rng(2)
    below = []
    for _ in range(150):
        groups, score = [rng.integers(0, 4, 40) for _ in range(parameters)], rng.normal(size=40)
        below.append(max(search.explained(g, score)[0] for g in groups) <= search.by_chance(groups, score))
    assert np.mean(below) == pytest.approx(0.95, abs=0.05)


def test_importance_finds_the_parameter_that_matters(tmp_path):
    records = copy.deepcopy(RECORDS)
    for r in records:
        if r["trial"] is not None and r["status"] == "completed":
            r["metrics"]["val_accuracy"] = 0.9 - abs(math.log(r["params"]["temperature"] / 0.07)) / 10
    study = load(tmp_path, records)
    found = search.importances(study, search.trial_table(study))
    assert found[0].name == "temperature"
    assert found[0].share > found[0].chance


def test_few_trials_have_no_importance_and_the_page_says_why(tmp_path):
    few = fake.make(tmp_path / "s", trials=6)
    study = analysis.load(few)
    assert search.importances(study, search.trial_table(study)) == ()
    analysis.write_report(few, figures="light")
    assert "importance of parameters would be noise" in (few / "report.html").read_text(encoding="utf-8")


def test_what_the_winner_loses_on_fresh_seeds_is_said(tmp_path):
    records = copy.deepcopy(RECORDS)
    for r in records:
        if r["trial"] == 0:
            r["metrics"]["val_accuracy"] = 0.99
    for r in records:
        if r["config_hash"] == next(q["config_hash"] for q in records if q["trial"] == 0) and r["trial"] is None:
            r["metrics"]["val_accuracy"] = 0.90
    study = load(tmp_path, records)
    words = " ".join(search.overtuning(study, search.trial_table(study)))
    assert "best trial of the search is 0" in words
    assert "On 2 fresh seeds the same configuration has 90.00 % ± 0.00: -9.00 points, so the search's score was partly luck" in words


@pytest.mark.parametrize(
    ("fresh", "said"),
    [
        ((0.85, 0.95), "-9.00 points, no more than seeds differ."),
        ((0.99,), "+0.00 points, one seed does not tell whether the search's score was luck."),
    ],
)
def test_seeds_that_differ_and_a_single_one_show_no_luck(tmp_path, fresh, said):
    records = copy.deepcopy(RECORDS)
    top = next(r for r in records if r["trial"] == 0)
    top["metrics"]["val_accuracy"] = 0.99
    others = [r for r in records if r["config_hash"] == top["config_hash"] and r["trial"] is None]
    for r, score in zip(others, fresh, strict=False):
        r["metrics"]["val_accuracy"] = score
    records = [r for r in records if r not in others[len(fresh) :]]
    study = load(tmp_path, records)
    assert said in " ".join(search.overtuning(study, search.trial_table(study)))


def test_a_winner_without_a_fresh_seed_is_said_to_be_of_unknown_luck(tmp_path):
    study = load(tmp_path, [r for r in RECORDS if r["trial"]])
    assert any("not known" in w for w in search.overtuning(study, search.trial_table(study)))


def test_idle_time_between_runs_counts_and_a_stopped_study_does_not(tmp_path):
    def at(worker, start, end):
        return copy.deepcopy(RECORDS[len(records)]) | {"worker": worker, "started": start, "ended": end}

    records: list = []
    day = "2026-11-21T"
    for worker, start, end in (
        ("a", f"{day}10:00:00Z", f"{day}10:10:00Z"),
        ("b", f"{day}10:00:00+00:00", f"{day}10:05:00+00:00"),
        ("a", f"{day}20:00:00Z", f"{day}20:10:00Z"),
        ("b", f"{day}20:00:00Z", f"{day}20:05:00Z"),
        ("b", "not a time", f"{day}20:05:00Z"),
    ):
        records.append(at(worker, start, end))
    runs, cuts, busy = slots.worked(load(tmp_path, records))
    assert len(runs) == 4
    assert busy == pytest.approx(0.75)
    assert cuts == [600.0]
    assert runs["to"].max() == 1200
    records[2] |= {"started": f"{day}10:10:00Z", "interruptions": 1, "seconds": 600.0}  # it was at work when the study was stopped
    assert slots.worked(load(tmp_path / "interrupted", records))[2] == pytest.approx(0.75), "the pause is nobody's work"


def test_a_slot_whose_process_is_another_after_each_run_is_one_slot_and_not_idle(tmp_path):
    records = []
    for minute in range(10):
        for _ in range(2):
            began, ended = f"2026-11-21T10:{minute:02d}:00Z", f"2026-11-21T10:{minute:02d}:58Z"
            new = copy.deepcopy(RECORDS[len(records)]) | {"worker": f"node:{100 + len(records)}", "started": began, "ended": ended}
            records.append(new)
    runs, _, busy = slots.worked(load(tmp_path, records))
    assert sorted(set(runs["slot"])) == ["node 1", "node 2"]
    assert busy == pytest.approx(580 / 598)


def test_runs_that_overlap_on_one_machine_and_runs_of_two_machines_are_of_different_slots(tmp_path):
    spans = (("a:1", 0, 30), ("a:2", 10, 20), ("a:3", 25, 40), ("b:1", 0, 10), ("b:1", 12, 20))
    records = [
        copy.deepcopy(RECORDS[i]) | {"worker": worker, "started": f"2026-11-21T10:00:{a:02d}Z", "ended": f"2026-11-21T10:00:{b:02d}Z"}
        for i, (worker, a, b) in enumerate(spans)
    ]
    runs = slots.worked(load(tmp_path, records))[0].set_index("key")["slot"]
    assert [runs[RECORDS[i]["key"]] for i in range(5)] == ["a 1", "a 2", "a 2", "b 1", "b 1"]


def test_a_price_per_hour_becomes_the_money_spent(tmp_path):
    records = copy.deepcopy(RECORDS[:2])
    for r in records:
        r["gpu_seconds"] = 1800.0
    made = fake.write(tmp_path, ASKED, records)
    analysis.write_report(made, price_per_hour=3.0)
    assert "3.00 spent at 3 per GPU-hour" in (made / "report.md").read_text(encoding="utf-8")
