"""Reading a study folder: what stands in the table of records, and that nothing wrong in it is fatal or silent."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path

import fake
import pytest

import analysis
from analysis import methods

ASKED, RECORDS = fake.study_and_records()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return fake.make(tmp_path / "study")


def load(folder: Path, records: list, asked: object = ASKED, tail: str = "") -> analysis.Study:
    fake.write(folder, asked, records)
    if tail:
        with (folder / "records.jsonl").open("a", encoding="utf-8") as file:
            file.write(tail)
    return analysis.load(folder)


def test_a_sound_study_is_a_tidy_table_without_warnings(made):
    study = analysis.load(made)
    assert study.warnings == ()
    assert len(study.records) == len(RECORDS)
    done = study.records[study.records["status"] == "completed"]
    assert done["val_accuracy"].between(0, 1).all()
    assert set(done["param.margin"]) >= {0.1, 0.2, 0.3}
    assert [t.number for t in study.tables] == ["2", "5"]
    assert study.classes == tuple(fake.CLASSES)


def test_the_full_method_stands_in_two_tables_and_is_one_run_per_seed(made):
    study = analysis.load(made)
    full = study.tables[0].arms[-1], study.tables[1].arms[1]
    assert list(study.of_arm(full[0])["key"]) == list(study.of_arm(full[1])["key"])
    assert list(study.of_arm(full[0])["seed"]) == [0, 1, 2]


def test_a_torn_last_line_is_set_aside_with_a_word(tmp_path):
    study = load(tmp_path, RECORDS[:-1], tail=json.dumps(RECORDS[-1])[:50])
    assert len(study.records) == len(RECORDS) - 1
    assert any("torn (50 bytes)" in w for w in study.warnings)


def test_lines_that_are_no_records_are_named_by_their_line(tmp_path):
    study = load(tmp_path, RECORDS, tail='not json\n{"a": 1}\n[1, 2]\n\n')
    assert len(study.records) == len(RECORDS)
    first = len(RECORDS) + 1
    assert any("cannot be read as JSON" in w and f"line {first}" in w for w in study.warnings)
    assert any("are not records" in w and f"line {first + 1}, {first + 2}" in w for w in study.warnings)


_LINE = json.dumps({**RECORDS[0], "key": "odd", "config_hash": "odd"}).encode()


@pytest.mark.parametrize(
    "line",
    [
        _LINE.replace(b'"loss": ', b'"loss": NaN, "was": ', 1),
        _LINE.replace(b'"loss": ', b'"loss": -Infinity, "was": ', 1),
        _LINE.replace(b'"seed": 0', b'"seed": 7, "seed": 0'),
        _LINE.replace(b'"device": "cpu"', rb'"device": "\ud800"'),
        _LINE.replace(b'"gpu_seconds": 0.0', b'"gpu_seconds": 1e400'),
        b"\xef\xbb\xbf" + _LINE + b"\r",
    ],
    ids=["NaN", "-Infinity", "a name twice", "half a character", "a number out of range", "a byte order mark"],
)
def test_what_python_s_json_reads_is_a_record_however_odd(tmp_path, line):
    fake.write(tmp_path, ASKED, RECORDS)
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(line + b"\n")
    study = analysis.load(tmp_path)
    assert study.records.set_index("key").loc["odd", "seed"] == 0
    assert str(study.detail("odd")) == str(json.loads(line))
    assert not any("odd" in w or "line" in w for w in study.warnings)


@pytest.mark.parametrize(
    "line",
    [
        _LINE.replace(b'"loss": ', b'"loss": , "was": ', 1),  # far from what the tables need, and yet the line is damaged
        _LINE.replace(b'"device": "cpu"', b'"device": "\xff"'),
        _LINE.replace(b'"history": [', b'"history": [' + b"[" * 100_000, 1),
        _LINE.replace(b'"seed": 0', b'"seed": 00'),
    ],
    ids=["a hole in the history", "no text", "nested without end", "no number"],
)
def test_what_python_s_json_refuses_is_set_aside_by_its_line(tmp_path, line):
    fake.write(tmp_path, ASKED, RECORDS)
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(line + b"\n" + json.dumps({**RECORDS[0], "key": "after"}).encode() + b"\n")
    study = analysis.load(tmp_path)
    assert "after" in set(study.records["key"]) and "odd" not in set(study.records["key"])
    assert any("cannot be read as JSON" in w and f"line {len(RECORDS) + 1}" in w for w in study.warnings)


def test_thousands_of_records_stand_each_in_its_row(tmp_path):
    records = [{**RECORDS[0], "key": f"{i:05}", "trial": i, "metrics": {"val_accuracy": i / 5000}} for i in range(2350)]
    records[1700]["metrics"] = {"val_accuracy": 0.34, "late": 0.5, "seconds": 0.25}
    records[1700]["params"] = {**RECORDS[0]["params"], "late": ["a", 1]}
    again = {**records[30], "metrics": {"val_accuracy": 30 / 5000, "later": 0.75}, "ended": "2027"}
    study = load(tmp_path, [*records[::-1], again])
    rows = study.records.set_index("key")
    assert list(rows["trial"]) == list(range(2350))
    assert list(rows["val_accuracy"]) == [i / 5000 for i in range(2350)]
    assert rows["late"].dropna().to_dict() == rows["metric.seconds"].dropna().mul(2).to_dict() == {"01700": 0.5}
    assert rows["later"].dropna().to_dict() == {"00030": 0.75}
    assert rows["param.late"].dropna().to_dict() == {"01700": ["a", 1]}
    assert rows["seconds"].eq(RECORDS[0]["seconds"]).all()
    assert study.detail("01234")["trial"] == 1234


def test_an_unknown_schema_is_counted_and_left_out(tmp_path):
    study = load(tmp_path, [*RECORDS[1:], {**RECORDS[0], "schema": 99}])
    assert len(study.records) == len(RECORDS) - 1
    assert any("1 record of schema 99" in w for w in study.warnings)


@pytest.mark.parametrize(
    "change", [{"seed": "0"}, {"seed": 2**63}, {"seed": 10**30}, {"status": "gone"}, {"key": ""}, {"config_hash": None}]
)
def test_a_record_that_names_no_run_is_left_out(tmp_path, change):
    study = load(tmp_path, [*RECORDS[1:], {**RECORDS[0], **change}])
    assert len(study.records) == len(RECORDS) - 1
    assert any("not records of a run" in w for w in study.warnings)


def test_a_completed_run_supersedes_a_failed_one_of_the_same_key_in_either_order(tmp_path):
    failed = {**RECORDS[0], "status": "failed", "metrics": {}, "error": {"kind": "out_of_memory", "message": ""}, "ended": "2027"}
    for i, records in enumerate(([failed, *RECORDS], [*RECORDS, failed])):
        study = load(tmp_path / str(i), records)
        assert study.warnings == ()
        assert study.records.set_index("key").loc[RECORDS[0]["key"], "status"] == "completed"


def test_a_later_line_adds_test_metrics_to_an_earlier_one(tmp_path):
    trial = next(r for r in RECORDS if r["trial"] is not None and r["status"] == "completed" and "test_f1" not in r["metrics"])
    later = {
        **trial,
        "trial": None,
        "metrics": {**trial["metrics"], "test_accuracy": 0.5},
        "ended": "2027",
        "confusion": {"test": [[1, 0], [0, 1]]},
    }
    study = load(tmp_path, [*RECORDS, later])
    row = study.records.set_index("key").loc[trial["key"]]
    assert (row["test_accuracy"], row["trial"]) == (0.5, trial["trial"])
    assert study.warnings == ()
    assert set(study.detail(trial["key"])["confusion"]) == {"val", "test"}


def test_the_same_key_with_another_value_keeps_the_first_and_says_so(tmp_path):
    other = copy.deepcopy(RECORDS[0])
    other["metrics"]["val_accuracy"] += 0.1
    other["ended"] = "2027"
    study = load(tmp_path, [other, *RECORDS])
    assert study.records.set_index("key").loc[other["key"], "val_accuracy"] == RECORDS[0]["metrics"]["val_accuracy"]
    assert any("differ in val_accuracy" in w for w in study.warnings)


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.9", None, True, 10**400])
def test_a_metric_that_is_no_finite_number_is_left_out_and_said(tmp_path, value):
    records = copy.deepcopy(RECORDS)
    records[0]["metrics"]["test_f1"] = value
    study = load(tmp_path, records)
    assert math.isnan(study.records.set_index("key").loc[records[0]["key"], "test_f1"])
    assert any("1 completed run of the tables without a finite test F1" in w for w in study.warnings)


def test_what_counts_nowhere_and_what_is_no_share_is_said(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["seeds"] = [0, 1]
    records[0]["metrics"]["test_accuracy"] = 1.1367
    study = load(tmp_path / "study", records, asked)
    other = sum(r["seed"] == 2 and r["trial"] is None for r in RECORDS)
    (words,) = [w for w in study.warnings if "does not ask for now" in w]
    assert (
        words.startswith(f"{other} runs of 1 seed that the study does not ask for now (2) are in the records")
        and len(study.unasked) == other
    )
    assert f"runs, {other} of them of other seeds" in methods.methods_md(study)
    assert "1 run with test_accuracy out of 0 to 1 (1.137): left out of it; a record holds shares of 1, not per cent" in study.warnings
    assert study.results["mean"].max() < 100


def test_runs_on_other_data_are_never_counted(tmp_path):
    study = load(tmp_path, [*RECORDS[1:], {**RECORDS[0], "data_hash": "other"}])
    assert any("1 run of another data set" in w for w in study.warnings)
    assert len(study.of_arm(study.tables[0].arms[0])) == 2


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "missing"),
        ("", "empty"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1]", "not a study's file"),
        ('{"x": 1}', "not a study's file"),
    ],
)
def test_a_study_file_that_cannot_be_used_leaves_the_runs(made, content, word):
    (made / "study.json").unlink()
    if content is not None:
        (made / "study.json").write_text(content)
    study = analysis.load(made)
    assert word in study.warnings[0]
    assert len(study.records) == len(RECORDS)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"%PDF-1.4\nx\n"])
def test_a_records_file_that_is_empty_or_foreign_leaves_an_empty_study(made, content):
    (made / "records.jsonl").unlink()
    if content is not None:
        (made / "records.jsonl").write_bytes(content)
    study = analysis.load(made)
    assert study.records.empty
    assert study.warnings
    assert analysis.best(study) is None


def test_a_folder_without_a_study_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(analysis.StudyError, match=r"holds neither study\.json nor records\.jsonl; give the folder"):
        analysis.load(tmp_path)
    with pytest.raises(analysis.StudyError, match="no study folder"):
        analysis.load(tmp_path / "none")


def test_the_order_of_lines_does_not_matter(tmp_path):
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))
    one, two = load(tmp_path / "a", RECORDS), load(tmp_path / "b", shuffled)
    assert one.records.equals(two.records)


def test_the_best_has_the_highest_mean_among_those_with_every_seed(tmp_path):
    records = copy.deepcopy(RECORDS)
    next(r for r in records if r["trial"] == 1)["metrics"]["val_accuracy"] = 0.999  # a lucky trial of one seed
    study = load(tmp_path, records)
    found = analysis.best(study)
    done = study.records[study.records["status"] == "completed"]
    full = done.groupby("config_hash")["val_accuracy"].agg(["size", "mean"]).query("size == 3")
    assert found.mean == pytest.approx(full["mean"].max())
    assert found.seeds == (0, 1, 2)
    assert found.mean < 0.999


def test_a_configuration_judged_on_another_split_is_not_chosen(tmp_path):
    records, asked = copy.deepcopy(RECORDS), copy.deepcopy(ASKED)
    asked["baseline"]["split"] = [0.6, 0.1, 0.3]
    other = asked["tables"][0]["arms"][3]["config_hash"]
    for r in records:
        r["params"]["split"] = [0.8, 0.1, 0.1] if r["config_hash"] == other else [0.6, 0.1, 0.3]
        if r["config_hash"] == other:
            r["metrics"] = {k: 0.99 for k in r["metrics"]}
    found = analysis.best(analysis.load(fake.write(tmp_path, asked, records)))
    assert found.config_hash != other
    assert found.mean < 0.99


def test_without_a_configuration_of_every_seed_fewer_are_taken_and_said(tmp_path):
    study = load(tmp_path, [r for r in RECORDS if r["seed"] != 2])
    found = analysis.best(study)
    assert found.seeds == (0, 1)
    assert "none has all 3 seeds completed" in found.words


@pytest.mark.parametrize(("steady", "name"), [(2, "MoCo"), (3, "MoCo + SupCon")])
def test_equal_means_go_to_the_lower_spread(tmp_path, steady, name):
    records = [r for r in copy.deepcopy(RECORDS) if r["status"] == "completed" and r["trial"] is None]
    arms = ASKED["tables"][0]["arms"]
    values = {arms[5 - steady]["config_hash"]: (0.8, 0.9, 1.0), arms[steady]["config_hash"]: (0.89, 0.9, 0.91)}
    for r in records:
        r["metrics"]["val_accuracy"] = values.get(r["config_hash"], (0.1, 0.1, 0.1))[r["seed"]]
    found = analysis.best(load(tmp_path, records))
    assert found.name == name
    assert found.std == pytest.approx(0.01)


def test_the_run_that_is_exported_is_chosen_without_test_data(tmp_path):
    records = copy.deepcopy(RECORDS)
    before = analysis.best(load(tmp_path / "a", records))
    for r in records:
        r["metrics"] = {k: (1 - v if k.startswith("test_") else v) for k, v in r["metrics"].items()}
    after = analysis.best(load(tmp_path / "b", records))
    assert (before.key, before.config_hash) == (after.key, after.config_hash)


def test_the_exported_run_is_the_winners_best_seed_on_validation(tmp_path):
    study = load(tmp_path, RECORDS)
    found = analysis.best(study)
    runs = study.records[study.records["config_hash"] == found.config_hash].set_index("key")["val_accuracy"]
    assert runs[found.key] == runs.max() > runs.min()


def test_an_objective_to_be_minimised_turns_the_choice_round(tmp_path):
    asked = {**ASKED, "objective": {**ASKED["objective"], "direction": "minimize"}}
    assert analysis.best(load(tmp_path, RECORDS, asked)).mean < analysis.best(load(tmp_path / "b", RECORDS)).mean
