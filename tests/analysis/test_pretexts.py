"""What the report says of a contrast: one plain word where it learned something else, and its numbers at the last epoch."""

import copy
import math

import fake
import pytest

import analysis
from analysis.pretext import pretexts, word

ASKED, RECORDS = fake.study_and_records()


@pytest.mark.parametrize(("own", "step", "queue", "rank", "wanted"), [
    (0.90, 0.78, 0.30, 12.0, "keys are told by their age"),  # measured: a moving average of .9
    (0.85, 0.10, 0.08, 40.0, ""),
    (0.95, 0.50, 0.42, 6.0, ""),  # supervised: the step's others are of the same classes as the queue's
    (0.30, 0.28, 0.27, 30.0, "own keys are no nearer than others"),
    (0.99, 0.99, 0.99, 1.1, "embeddings are nearly alike"),
    (0.60, 0.30, math.nan, 20.0, ""),  # no queue
    (0.31, 0.30, math.nan, 20.0, "own keys are no nearer than others"),
])  # fmt: skip
def test_a_contrast_that_learned_something_else_has_its_word(own, step, queue, rank, wanted):
    assert word(own, step, queue, rank) == wanted


@pytest.mark.parametrize(("found", "wanted"), [(0.1, ""), (0.09, "own keys are seldom found"), (math.nan, "")])
def test_own_keys_that_are_seldom_found_are_said_at_the_end_alone(tmp_path, found, wanted):
    assert word(0.67, 0.33, 0.33, 7.3, found) == wanted
    records = with_health(RECORDS, 0.6)
    for entry in (e for record in records for e in record["history"] if e["stage"] == "pretrain"):
        entry |= {"pretext_step": 0.33, "pretext_step_top1": found if entry["epoch"] > 2 else 0.01}
    study = analysis.load(fake.write(tmp_path, ASKED, records))
    words = {row.word for row in pretexts(study, study.summaries) if row.arm != "m = 0.5"}  # diverged in its second epoch
    assert words == {wanted}


def with_health(records, queue):
    records = copy.deepcopy(records)
    for record in records:
        for entry in (e for e in record["history"] if e["stage"] == "pretrain"):
            entry |= {"pretext_own": 0.9, "pretext_step": 0.78, "pretext_step_top1": 0.56, "pretext_rank": 9.0}
            entry |= {"pretext_queue": queue + 0.001 * entry["epoch"], "pretext_queue_top1": 0.25} if queue is not None else {}
    return records


def test_the_report_has_the_health_of_each_arm_at_its_last_epoch_over_seeds(tmp_path):
    folder = fake.write(tmp_path, ASKED, with_health(RECORDS, 0.3))
    study = analysis.load(folder)
    rows = pretexts(study, study.summaries)
    arms = {arm.config_hash for table in study.tables for arm in table.arms}
    assert 0 < len(rows) <= len(arms) and len({row.arm for row in rows}) == len(rows)
    full = max(rows, key=lambda row: row.seeds)
    last = max(entry["epoch"] for entry in RECORDS[0]["history"] if entry["stage"] == "pretrain")
    assert full.cosines == pytest.approx((0.9, 0.78, 0.3 + 0.001 * last)) and full.shares[:2] == pytest.approx((56, 25))
    assert not math.isnan(full.shares[2]) and math.isnan(full.shares[3])  # the fake records have kNN and no probe
    analysis.write_report(folder, figures="light")
    for name in ("report.html", "report.md"):
        assert (folder / name).read_text(encoding="utf-8").count("keys are told by their age") == len(rows)


def test_a_word_that_was_true_until_an_epoch_says_so(tmp_path):
    records = with_health(RECORDS, 0.3)
    for record in records:
        for entry in (e for e in record["history"] if e["stage"] == "pretrain" and e["epoch"] > 2):
            entry["pretext_step"] = 0.3
    study = analysis.load(fake.write(tmp_path, ASKED, records))
    words = {row.arm: row.word for row in pretexts(study, study.summaries)}
    assert words.pop("m = 0.5") == "keys are told by their age"  # diverged in its second epoch
    assert set(words.values()) == {"keys are told by their age until epoch 2"}


def test_a_contrast_without_a_queue_and_records_without_health_are_told_as_they_are(tmp_path):
    study = analysis.load(fake.write(tmp_path / "a", ASKED, with_health(RECORDS, None)))
    rows = pretexts(study, study.summaries)
    assert rows and all(math.isnan(row.cosines[2]) and row.word == "" for row in rows)
    bare = analysis.load(fake.write(tmp_path / "b", ASKED, RECORDS))
    assert pretexts(bare, bare.summaries) == ()
