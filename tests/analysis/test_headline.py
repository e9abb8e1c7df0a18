"""What the headline compares the winner with, with how many other differences its interval holds together, and of how many seeds it is."""

from __future__ import annotations

import copy

import fake
import pytest

import analysis
from analysis.crossed import clip_gain, of_seeds
from analysis.headline import above, headline

WINNER, PUBLISHED, BASELINE = "MoCo + SupCon + CatVar", "MoCo + SupCon + CatVar + self-margin", "Training from scratch"


def of_tables(folder, baseline=BASELINE, apart=False):
    """A study of table 2 that CatVar without the margin wins. The published configuration, without overrides, is another arm of it, or with
    `apart` the baseline arm of table 5 alone. One seed of the winner has no test score."""
    asked, records = copy.deepcopy(fake.study_and_records(trials=0))
    asked["tables"] = asked["tables"][: 1 + apart]
    asked["tables"][0]["baseline_arm"] = baseline
    if apart:
        asked["tables"][0]["arms"].pop()
    for record in records:
        if f"2/{WINNER}" in record["arms"]:
            record["metrics"]["val_accuracy"] = 0.99
            if record["seed"] == 0:
                record["metrics"]["test_accuracy"] = float("nan")
    return analysis.load(fake.write(folder, asked, records))


@pytest.mark.parametrize(
    ("baseline", "apart", "over", "comparisons"),
    [
        (BASELINE, False, BASELINE, 4),  # the table's own cell, not one more difference to the published configuration
        (WINNER, False, PUBLISHED, 4),  # the table's own cell, by the other sign
        (WINNER, True, "m = 0.2", 4),  # of two tables: one more than the three of the winner's
        (None, False, PUBLISHED, 1),
    ],
)
def test_the_gain_in_the_headline_holds_together_with_the_differences_of_the_winner_s_table(tmp_path, baseline, apart, over, comparisons):
    study = of_tables(tmp_path, baseline, apart)
    found = headline(study)
    assert (study.winner.name, found.over, found.pairs) == (WINNER, over, 2)
    seeds = {row.arm.name: dict(row.cells["test_accuracy"].values) for summary in study.summaries for row in summary.rows}
    gained = of_seeds([seeds[WINNER][seed] - seeds[over][seed] for seed in (1, 2)])
    assert found.gain_interval == pytest.approx(clip_gain("test_accuracy", gained.interval(comparisons)))
    assert found.kind == ("simultaneous 95 % interval" if comparisons > 1 else "95 % interval")


def test_a_headline_is_of_the_seeds_that_have_the_test_score_and_the_page_claims_no_more_than_that(tmp_path):
    study = of_tables(tmp_path)
    assert (headline(study).seeds, len(study.winner.seeds)) == (2, 3)
    analysis.write_report(tmp_path, "light")
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "over 2 seeds" in text and "over 3 seeds;" not in text and "± " in text and "180 images)" in text
        assert "records.jsonl alone" not in text and "Student's over seeds" not in text


def test_a_yardstick_that_is_above_the_winner_is_named_though_it_was_not_up_for_choice(tmp_path):
    asked, records = copy.deepcopy(fake.study_and_records(trials=0))
    best = next(arm for arm in asked["tables"][0]["arms"] if arm["name"] == PUBLISHED)
    study = analysis.load(fake.write(tmp_path / "a", asked, records))
    assert above(study, headline(study)) == ""
    for arm in (arm for table in asked["tables"] for arm in table["arms"] if arm["config_hash"] == best["config_hash"]):
        arm["yardstick"] = True
    study = analysis.load(fake.write(tmp_path / "b", asked, records))
    assert study.winner.name != PUBLISHED and f"above it: {PUBLISHED} (86.30 %)" in above(study, headline(study))
