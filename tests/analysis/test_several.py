"""Two studies side by side, and several as one."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path

import fake
import numpy as np
import pytest
from scipy import stats

import analysis
from analysis.__main__ import main
from analysis.crossed import two_way
from analysis.several import compare, heading, merge
from analysis.study import runs_of

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
    arms = {row.arm.config_hash for summary in first.summaries for row in summary.rows if row.cells[summary.table.metric].n > 1}
    assert pair.comparisons == len(arms) > 1, "an arm that stands in two tables is one comparison"
    expected = stats.t.interval(1 - 0.05 / len(arms), 2, 1.1, stats.sem([1.0, 1.1, 1.2]))
    assert pair.interval == pytest.approx(expected)


def test_two_data_sets_are_not_paired_and_have_welchs_interval(tmp_path):
    first, second = (analysis.load(p) for p in (fake.make(tmp_path / "a"), moved(tmp_path / "b", 0.01, "e" * 64)))
    pair = next(p for p in compare(first, second) if p.arm == "MoCo")
    ends = stats.ttest_ind(pair.second.array, pair.first.array, equal_var=False).confidence_interval(1 - 0.05 / pair.comparisons)
    assert pair.paired == 0 and pair.comparisons > 1
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


def changed(folder: Path, change, patients: bool = True) -> Path:
    """The study with predictions of runs beside it, whose accuracy the records have; `change` alters a record first."""
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    for r in records:
        change(asked, r)
    fake.write(folder, asked, records)
    fake.leave(folder, asked, records)
    data = json.loads((folder / "data/data.json").read_text())
    (folder / "data/data.json").write_text(json.dumps(data | {"patients": [f"p{i % 31}" if patients else "" for i in range(600)]}))
    for r in records:
        file = folder / "checkpoints" / r["key"] / "result.json"
        if file.exists():
            given = json.loads(file.read_text())["predictions"]["test"]
            r["metrics"]["test_accuracy"] = float(np.mean(np.argmax(given["probability"], axis=1) == np.array(given["label"])))
    return fake.write(folder, asked, records)


def other_code(asked, r):
    r["code"] = "beef" * 8
    r["key"] = fake.digest([r["key"], "other code"])
    r["metrics"] = {k: min(1.0, v + 0.04) for k, v in r["metrics"].items()}


def test_two_commits_on_the_same_test_images_are_compared_over_seeds_and_patients(tmp_path):
    first, second = (analysis.load(changed(tmp_path / n, c)) for n, c in (("a", lambda *_: None), ("b", other_code)))
    pair = next(p for p in compare(first, second) if p.arm == "MoCo")
    assert (pair.paired, pair.over, pair.differs) == (3, "seeds and patients", ("code",))
    a, b = (
        {s: study.predictions[study.predictions["key"] == k] for s, (k, _) in cell.runs.items()}
        for study, cell in ((first, pair.first), (second, pair.second))
    )
    people = [f"p{i}" for i in range(31)]
    table = []
    for seed in (0, 1, 2):
        right = [frame[seed].groupby("patient", observed=False)["right"].agg(["sum", "count"]).loc[people] for frame in (a, b)]
        without = [(r["sum"].sum() - r["sum"]) / (r["count"].sum() - r["count"]) for r in right]
        whole = [r["sum"].sum() / r["count"].sum() for r in right]
        pseudo = [31 * w - 30 * o for w, o in zip(whole, without, strict=True)]
        table.append(100 * (pseudo[1] - pseudo[1].mean() + whole[1] - pseudo[0] + pseudo[0].mean() - whole[0]))
    expected = two_way(np.array(table))
    assert pair.difference == pytest.approx(expected.value) and pair.interval == pytest.approx(expected.interval(pair.comparisons))


def test_another_split_on_the_same_data_is_not_paired_and_stands_in_the_title(tmp_path):
    def split(asked, r):
        r["params"]["split"] = [0.8, 0.1, 0.1]

    def usual(asked, r):
        r["params"]["split"] = [0.6, 0.1, 0.3]

    a, b = changed(tmp_path / "a", usual), changed(tmp_path / "b", split)
    pair = next(p for p in compare(analysis.load(a), analysis.load(b)) if p.arm == "MoCo")
    assert (pair.paired, pair.over, pair.differs) == (0, "seeds and patients", ("split",))
    assert main(["--compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 0
    assert "<h1>supcam-quick-synthetic and supcam-quick-synthetic: different split</h1>" in (tmp_path / "out/comparison.html").read_text()


def test_other_settings_seeds_and_versions_stand_in_the_title_and_beside_the_row(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    for r in records:
        r["params"]["split"] = [0.6, 0.1, 0.3]
    a = fake.write(tmp_path / "a", asked, copy.deepcopy(records))
    for r in records:
        r["params"]["queue_size"] = 512
        r["versions"]["torch"] = "2.16.0"
    b = fake.write(tmp_path / "b", asked, [r for r in records if r["seed"] < 2 and "5/m = 0.1" not in r["arms"]])
    assert main(["--compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 0
    head = (tmp_path / "out/comparison.md").read_text().splitlines()[0]
    assert head.endswith("different settings, versions, seeds")
    rows = list(csv.DictReader((tmp_path / "out/comparison.csv").read_text(encoding="utf-8").splitlines()))
    differs = {r["arm"]: r["differs"] for r in rows}
    assert differs["MoCo"] == "settings (queue_size); versions; seeds" and differs["m = 0.1"] == "", (
        "an arm without a run has no other split"
    )
    one = fake.write(tmp_path / "one", asked, [r for r in records if "5/m = 0.1" in r["arms"]])
    pairs = compare(analysis.load(one), analysis.load(b))
    assert heading(analysis.load(one), analysis.load(b), pairs).endswith(": no arm has a run of both"), "nor are they the same in all"


def test_equal_studies_are_said_to_be_equal_and_two_procedures_are_refused(tmp_path, capsys):
    a, b = fake.make(tmp_path / "a"), fake.make(tmp_path / "b")
    assert main(["--compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 0
    assert "same data, split, settings, code, versions and seeds" in (tmp_path / "out/comparison.md").read_text()
    asked = json.loads((b / "study.json").read_text())
    fake.write(b, asked | {"procedure": "scl"}, [r | {"procedure": "scl"} for r in RECORDS])
    assert main(["--compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 2
    assert "different procedures (supcam, scl)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda asked: asked["baseline"].update(queue_size=512), "differ in their settings (queue_size)"),
        (
            lambda asked: asked["tables"][0].update(baseline_arm="MoCo"),
            "table 2 has different baseline arms ('Training from scratch' and 'MoCo')",
        ),
        (lambda asked: asked["tables"][0]["arms"][2].update(config_hash="f" * 64), "table 2 has two arms 'MoCo' of different settings"),
    ],
)
def test_merging_refuses_what_would_give_two_arms_of_one_name_or_a_second_baseline(tmp_path, capsys, change, words):
    asked = copy.deepcopy(ASKED)
    change(asked)
    assert main([str(fake.make(tmp_path / "a")), str(fake.write(tmp_path / "b", asked, RECORDS)), "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_studies_that_say_other_patients_of_the_same_images_are_not_merged(tmp_path, capsys):
    folders = [fake.make(tmp_path / "a"), fake.make(tmp_path / "b")]
    for folder, patients in zip(folders, (["p0", "p1"], None), strict=True):
        fake.leave(folder, ASKED, RECORDS)
        data = json.loads((folder / "data/data.json").read_text())
        (folder / "data/data.json").write_text(json.dumps(data | {"patients": patients}))
    for order in (folders, folders[::-1]):
        assert main([*map(str, order), "--out", str(tmp_path / "out")]) == 2
        assert "different patients of the same images" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_merged_study_says_in_its_name_what_its_parts_differ_in(tmp_path):
    records = copy.deepcopy(RECORDS)
    for r in records:
        r["code"], r["seed"], r["key"] = "beef" * 8, r["seed"] + 3, fake.digest([r["key"], "later"])
    study = analysis.load(
        merge([fake.make(tmp_path / "a"), fake.write(tmp_path / "b", {**ASKED, "seeds": [3, 4, 5]}, records)], tmp_path / "out")
    )
    assert study.name.endswith("(different code, seeds)")


def test_an_arm_s_seed_that_two_codes_have_trained_is_not_merged_and_it_is_named(tmp_path, capsys):
    a, b = fake.make(tmp_path / "a"), changed(tmp_path / "b", other_code)
    assert main([str(a), str(b), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "seed 0, was trained by code beefbeef and c0dec0de in the studies" in said and "34 more runs" in said and "--compare" in said
    assert not (tmp_path / "out").exists()


def test_of_two_runs_of_one_seed_in_one_study_the_last_completed_counts_everywhere_and_is_named(tmp_path):
    asked, records = copy.deepcopy(ASKED), copy.deepcopy(RECORDS)
    own = asked["tables"][0]["arms"][2]["config_hash"]
    first = [r for r in records if r["config_hash"] == own]
    for code, day, by in (("beef" * 8, "22", 0.01), ("fa11" * 8, "23", None), ("0dd0" * 8, "20", 0.02)):
        for r in map(copy.deepcopy, first):
            r |= {"code": code, "key": fake.digest([r["key"], code]), "ended": r["ended"].replace("-21T", f"-{day}T")}
            r["metrics"] = {k: v + (by or 0.0) for k, v in r["metrics"].items()}
            if by is None:
                r |= {"status": "failed", "metrics": {}, "error": {"kind": "x", "message": "x"}}
            records.append(r)
    study = analysis.load(fake.write(tmp_path, asked, records))
    cell = study.summaries[0].rows[2].cells["test_accuracy"]
    assert [key for key, _ in cell.runs.values()] == [fake.digest([r["key"], "beef" * 8]) for r in first]
    assert runs_of(study, own, "test_accuracy") == cell.runs and study.winner.seeds == (0, 1, 2)
    assert (study.summaries[0].rows[2].counts["completed"], sum(study.summaries[0].rows[2].counts.values())) == (3, 3)
    named = [
        words for words in study.warnings if words.startswith("2/MoCo has 4 runs of seed 0 (code 0dd00dd0 and beefbeef and c0dec0de and")
    ]
    assert len(named) == 1 and f"run {cell.runs[0][0][:8]}, the last that ended, is the one that counts" in named[0]


def later(asked, r):
    asked["seeds"] = [3, 4, 5]
    r["seed"] += 3
    r["key"] = fake.digest([r["key"], "later"])


@pytest.mark.parametrize("lost", [False, True])
def test_a_merged_study_keeps_predictions_and_patients_or_says_whose_are_lost(tmp_path, lost):
    a, b = changed(tmp_path / "a", lambda *_: None), changed(tmp_path / "b", later)
    for path in (b / "checkpoints").glob("*/result.json") if lost else ():
        path.unlink()
    study = analysis.load(merge([a, b], tmp_path / "out"))
    summary = study.summaries[0]
    cell = next(r for r in summary.rows if r.arm.name == "MoCo").cells["test_accuracy"]
    if lost:
        assert math.isnan(cell.interval.low)
        assert any("No interval of MoCo" in n and "no predictions (seed 3, run " in n for n in summary.notes)
    else:
        assert (cell.level.seeds, cell.level.cases, cell.level.unit) == (6, 31, "patients") and math.isfinite(cell.gain_interval.low)
        assert not any("seeds alone" in note for note in summary.notes)
        assert set(study.predictions["patient"].dropna()) == {f"p{i}" for i in range(31)} and study.predictions["file"].notna().all()


def test_different_images_under_one_external_name_are_not_merged_and_other_sets_stand_side_by_side(tmp_path, capsys):
    def external(slug, digest):
        asked = copy.deepcopy(ASKED)
        asked["data"]["external"] = [{"slug": slug, "source": slug, "hash": digest * 64, "images": 240}]
        return asked

    a, b, c = (fake.write(tmp_path / n, external(*of), RECORDS) for n, of in (("a", ("q", "e")), ("b", ("q", "f")), ("c", ("r", "f"))))
    assert main([str(a), str(b), "--out", str(tmp_path / "out")]) == 2
    assert "different images as external set q" in capsys.readouterr().err
    assert analysis.load(merge([a, c], tmp_path / "out")).external_images == {"q": 240, "r": 240}


REFUSED = [["a", "b", "--light"], ["--compare", "a", "b", "--light"], ["--compare", "a", "b", "--price-per-hour", "2"]]


@pytest.mark.parametrize("wrong", [[], ["a", "--compare", "a", "b"], ["a", "--out", "x"], ["a", "--price-per-hour", "-1"], *REFUSED])
def test_a_request_that_contradicts_itself_ends_with_status_two(wrong):
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2


def apart(folder: Path, seed: int) -> analysis.Study:
    """The study with predictions by patient, as of a split of its own."""
    asked, records = copy.deepcopy(fake.study_and_records(trials=0))
    asked["baseline"]["split_seed"] = seed
    asked["tables"] = asked["tables"][:1]
    asked["tables"][0]["arms"] = asked["tables"][0]["arms"][:3]
    records = [r for r in records if r["arms"] in (["2/Training from scratch"], ["2/MoCo"])]
    for r in records:
        r["params"] |= {"split": [0.6, 0.1, 0.3], "split_seed": seed}
    fake.write(folder, asked, records)
    fake.leave(folder, asked, records, heat=False)
    fake.doubt(folder, 0)
    return analysis.load(folder)


def test_over_other_test_images_the_patients_of_both_sides_stay_open_and_lost_predictions_leave_no_interval(tmp_path):
    first, second = apart(tmp_path / "a", 0), apart(tmp_path / "b", 1)
    pair = next(p for p in compare(first, second) if p.arm == "MoCo")
    one, two = pair.first.level, pair.second.level
    error = math.hypot(one.error, two.error)
    tail = 0.05 / (2 * pair.comparisons)
    half = (one.error**2 * one.quantile(tail) + two.error**2 * two.quantile(tail)) / error
    assert (pair.paired, pair.over, one.cases > 1) == (0, "seeds and patients", True)
    assert pair.interval == pytest.approx((pair.difference - half, pair.difference + half))
    assert half > stats.norm.isf(tail) * error * 0.999
    (tmp_path / "b/checkpoints" / pair.second.runs[0][0] / "result.json").unlink()
    lost = next(p for p in compare(first, analysis.load(tmp_path / "b")) if p.arm == "MoCo")
    assert math.isnan(lost.interval.low) and lost.over.startswith("undecided: predictions of single images are lost")
