"""What the report says of the race on fresh seeds, and the front of two objectives."""

from __future__ import annotations

import copy
from pathlib import Path

import fake
import pytest

import analysis
from analysis import pareto, race, search

ASKED, _ = fake.study_and_records(trials=0)


def raced(folder: Path, winner: int = 1) -> analysis.Study:
    """Three configurations: the search saw 90, 85, 80 %; on two fresh seeds they have 70, 80 and nothing."""
    asked = copy.deepcopy(ASKED) | {"trials": 3, "tables": []}
    records = []
    for trial, (seen, again) in enumerate(((0.90, 0.70), (0.85, 0.80), (0.80, None))):
        for seed in (0, 1, 2):
            if seed and again is None:
                continue
            one = fake.record({"margin": 0.1 * (trial + 1)}, seed, 0.8, trial=trial if seed == 0 else None, test=False)
            one["metrics"]["val_accuracy"] = again if seed else seen
            one["metrics"]["parameters"] = (3e6, 1e6, 2e6)[trial]
            records.append(one)
    hashes = list(dict.fromkeys(one["config_hash"] for one in records))
    outs = [None, None, {"after": 0, "why": "a run of it ended without a score"}]
    asked["race"] = {
        "winner": hashes[winner], "seeds": [1, 2],
        "finalists": [{"name": f"trial {n}", "config_hash": h, "trial": n, "score": s, "out": o} for n, (h, s, o) in enumerate(zip(hashes, (0.9, 0.85, 0.8), outs, strict=True))],
    }  # fmt: skip
    return analysis.load(fake.write(folder, asked, records))


def test_the_report_says_who_raced_who_won_and_by_how_much_the_search_flattered_it(tmp_path):
    study = raced(tmp_path)
    said = search.overtuning(study, search.trial_table(study))[-2:]
    assert "trial 0 70.00 % over 2 seeds (the search had seen 90.00 %)" in said[0]
    assert "trial 2 no score (the search had seen 80.00 %), out: a run of it ended without a score" in said[0]
    assert said[1] == "trial 1 won; the search had flattered it by 5.00 points."


def test_who_lost_the_race_is_not_the_best_whatever_the_search_had_seen_of_it(tmp_path):
    study = raced(tmp_path)
    assert len(race.losers(study)) == 2
    assert analysis.best(study).name == "trial 1"
    rows = study.usable
    assert rows.loc[rows["trial"] == 0, "val_accuracy"].iloc[0] == 0.9


def test_a_study_without_a_race_says_nothing_of_one(tmp_path):
    study = analysis.load(fake.make(tmp_path))
    assert race.words(study) == () and race.losers(study) == frozenset()


@pytest.mark.parametrize("damage", [None, [], {"finalists": 3}, {"finalists": [None, {"name": 1}], "winner": 5}, {"winner": "x"}])
def test_a_damaged_race_is_no_race(tmp_path, damage):
    asked, records = fake.study_and_records(trials=6)
    study = analysis.load(fake.write(tmp_path, asked | {"race": damage}, records))
    assert race.words(study) == () and not race.losers(study) and analysis.best(study) is not None


def test_the_front_holds_what_no_other_beats_in_both(tmp_path):
    study = raced(tmp_path)
    study.asked["objective"]["second"] = {"metric": "parameters", "direction": "minimize"}
    front = pareto.front(study, search.trial_table(study))
    assert list(front["size"]) == [1e6, 2e6, 3e6]
    assert list(zip(front["trial"], front["best"], strict=True)) == [(1, True), (2, False), (0, True)]


def test_of_one_objective_there_is_no_front(tmp_path):
    study = raced(tmp_path)
    assert pareto.front(study, search.trial_table(study)).empty
