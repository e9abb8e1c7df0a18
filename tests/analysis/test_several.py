"""Two studies side by side, and several as one."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import fake
import numpy as np
import pytest
from scipy import stats

import analysis
from analysis.__main__ import main
from analysis.several import compare, merge

ASKED, RECORDS = fake.study_and_records()


def moved(folder: Path, by: float, data_hash: str = fake.DATA_HASH) -> Path:
    """The same study with every accuracy moved by about `by`."""
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["data"]["hash"] = data_hash
    for r in records:
        r["data_hash"] = data_hash
        r["metrics"] = {k: v + by + 0.001 * r["seed"] for k, v in r["metrics"].items()}
    return fake.write(folder, asked, records)


def test_two_commits_on_the_same_data_are_paired_by_seed(tmp_path):
    first, second = (analysis.load(p) for p in (fake.make(tmp_path / "a"), moved(tmp_path / "b", 0.01)))
    pair = next(p for p in compare(first, second) if p.arm == "MoCo")
    assert (pair.paired, pair.difference) == (3, pytest.approx(1.1))
    expected = stats.t.interval(0.95, 2, 1.1, stats.sem([1.0, 1.1, 1.2]))
    assert pair.interval == pytest.approx(expected)


def test_two_data_sets_are_not_paired_and_have_welchs_interval(tmp_path):
    first, second = (analysis.load(p) for p in (fake.make(tmp_path / "a"), moved(tmp_path / "b", 0.01, "e" * 64)))
    pair = next(p for p in compare(first, second) if p.arm == "MoCo")
    ends = stats.ttest_ind(pair.second.array, pair.first.array, equal_var=False).confidence_interval(0.95)
    assert pair.paired == 0
    assert pair.interval == pytest.approx((ends.low, ends.high))


def test_a_comparison_is_written_as_csv_markdown_and_page_and_failed_arms_have_no_number(tmp_path):
    a, b, out = fake.make(tmp_path / "a"), moved(tmp_path / "b", 0.01), tmp_path / "out"
    assert main(["--compare", str(a), str(b), "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "comparison.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 11
    assert next(r for r in rows if r["arm"] == "ImageNet weights")["difference"] == ""
    assert "<h1>" in (out / "comparison.html").read_text(encoding="utf-8")
    assert "+1.10" in (out / "comparison.md").read_text(encoding="utf-8")


def test_merged_studies_have_the_seeds_arms_and_trials_of_all(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["seeds"] = [3, 4, 5]
    for r in records:
        r["seed"] += 3
        r["key"] = fake.digest([r["key"], "later"])
    asked["tables"] = [asked["tables"][1]]
    a, b = fake.make(tmp_path / "a"), fake.write(tmp_path / "b", asked, records)
    study = analysis.load(merge([a, b], tmp_path / "out"))
    assert study.warnings == ()
    assert study.seeds == (0, 1, 2, 3, 4, 5)
    cells = {r.arm.name: r.cells["test_accuracy"] for s in analysis.summarize(study) for r in s.rows}
    assert (cells["m = 0.1"].n, cells["MoCo"].n) == (6, 6)  # a run counts for every table that has its configuration
    assert sorted(study.records["trial"].dropna()) == list(range(12))
    assert np.isfinite(analysis.best(study).mean)


def test_studies_of_different_data_are_not_merged(tmp_path, capsys):
    a, b = fake.make(tmp_path / "a"), moved(tmp_path / "b", 0.0, "e" * 64)
    assert main([str(a), str(b), "--out", str(tmp_path / "out")]) == 2
    assert "differ in their data hash" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_merged_study_never_overwrites_one_of_its_parts(tmp_path, capsys):
    a, b = fake.make(tmp_path / "a"), moved(tmp_path / "b", 0.0)
    before = (a / "records.jsonl").read_bytes()
    assert main([str(a), str(b), "--out", str(a)]) == 2
    assert "overwrite" in capsys.readouterr().err
    assert (a / "records.jsonl").read_bytes() == before


def test_a_part_with_a_text_for_a_trial_and_no_tables_is_merged_all_the_same(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    asked["tables"] = None
    for r in records:
        r["trial"] = "two"
        r["key"] = fake.digest([r["key"], "later"])
    asked["trials"] = "many"
    study = analysis.load(merge([fake.make(tmp_path / "a"), fake.write(tmp_path / "b", asked, records)], tmp_path / "out"))
    assert (len(study.records), len(study.tables)) == (2 * len(RECORDS), 2)
    assert sorted(study.records["trial"].dropna()) == list(range(6))


def test_studies_of_two_presets_are_not_merged(tmp_path, capsys):
    b = fake.write(tmp_path / "b", {**ASKED, "preset": "paper"}, RECORDS)
    assert main([str(fake.make(tmp_path / "a")), str(b), "--out", str(tmp_path / "out")]) == 2
    assert "differ in their preset (paper, quick)" in capsys.readouterr().err


def test_the_arms_of_a_search_are_renumbered_as_its_trials_are(tmp_path):
    parts = []
    for part in "ab":
        asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
        for r in records:
            r["params"]["part"] = part
            r["config_hash"], r["key"] = fake.digest([r["config_hash"], part]), fake.digest([r["key"], part])
        best = next(r for r in records if r["trial"] == 3)
        best["arms"] = ["search/trial 3"]
        arms = [{"name": "trial 3", "config_hash": best["config_hash"], "overrides": {}}]
        asked["tables"] = [{"number": "search", "title": "t", "metric": "val_accuracy", "metrics": ["val_accuracy"], "arms": arms}]
        parts.append(fake.write(tmp_path / part, asked, records))
    study = analysis.load(merge(parts, tmp_path / "out"))
    assert [a.name for a in study.tables[0].arms] == ["trial 3", "trial 9"]
    for arm in study.tables[0].arms:
        row = study.records[study.records["config_hash"] == arm.config_hash].iloc[0]
        assert (f"trial {row['trial']}", row["arms"]) == (arm.name, (f"search/{arm.name}",))


def test_pairs_of_studies_that_redraw_their_splits_have_the_corrected_interval(tmp_path):
    wide = []
    for redrawn in (False, True):
        paths = []
        for name, by in (("a", 0.0), ("b", 0.01)):
            path = moved(tmp_path / f"{name}{redrawn}", by)
            records = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
            for r in records:
                r["params"]["split_per_seed"] = redrawn
                r["metrics"] = {k: v + by * r["seed"] ** 2 for k, v in r["metrics"].items()}
            paths.append(fake.write(path, ASKED, records))
        pair = next(p for p in compare(*map(analysis.load, paths)) if p.arm == "MoCo")
        assert pair.paired == 3
        wide.append(pair.interval.high - pair.interval.low)
    assert wide[1] / wide[0] == pytest.approx((1 + 3 * 180 / 360) ** 0.5)


REFUSED = [["a", "b", "--light"], ["--compare", "a", "b", "--light"], ["--compare", "a", "b", "--price-per-hour", "2"]]


@pytest.mark.parametrize("wrong", [[], ["a", "--compare", "a", "b"], ["a", "--out", "x"], ["a", "--price-per-hour", "-1"], *REFUSED])
def test_a_request_that_contradicts_itself_ends_with_status_two(wrong):
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
