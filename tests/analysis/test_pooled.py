"""Gains of several laboratories, pooled: the arithmetic against published and other people's numbers, and what is refused."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path

import fake
import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

import analysis
from analysis.__main__ import main
from analysis.bundle import write_bundle
from analysis.pooled import random_effects
from analysis.several import compare

# Log risk ratios of 13 trials of BCG vaccine and their variances (Colditz et al. 1994, as in the manuals of metafor)
BCG = np.array([-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209, 0.0120, -0.4694, -1.3713, -0.3394, 0.4459, -0.0173])
BCG_VARIANCE = np.array([0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230, 0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714])


def test_the_bcg_trials_give_the_published_restricted_likelihood_and_knapp_hartung_numbers():
    found = random_effects(BCG, np.sqrt(BCG_VARIANCE))
    assert found.mean == pytest.approx(-0.7145, abs=2e-4)
    assert found.tau**2 == pytest.approx(0.3132, abs=5e-4)
    assert found.error == pytest.approx(0.1807, abs=2e-4)
    assert found.interval == pytest.approx((-1.1082, -0.3208), abs=5e-4)
    assert found.share == pytest.approx(0.9222, abs=1e-3)


def test_mean_and_factor_agree_with_statsmodels_for_the_same_variance_between():
    rng = np.random.default_rng(1)
    for k in (3, 5, 9):
        errors = rng.uniform(0.5, 2, k)
        effects = rng.normal(2, 3, k)
        found = random_effects(effects, errors)
        other = combine_effects(effects, errors**2, method_re="iterated", use_t=True)
        weights = 1 / (errors**2 + found.tau**2)
        assert found.mean == pytest.approx((weights * effects).sum() / weights.sum())
        assert found.mean == pytest.approx(other.mean_effect_re, abs=0.25), "Paule and Mandel's variance is near"
        assert found.tau == pytest.approx(math.sqrt(other.tau2), abs=0.5)


def test_the_variance_between_is_where_the_restricted_likelihood_is_highest():
    found = random_effects(BCG, np.sqrt(BCG_VARIANCE))

    def likelihood(between: float) -> float:
        w = 1 / (BCG_VARIANCE + between)
        mean = (w * BCG).sum() / w.sum()
        return float(0.5 * np.log(w).sum() - 0.5 * math.log(w.sum()) - 0.5 * (w * (BCG - mean) ** 2).sum())

    top = likelihood(found.tau**2)
    assert all(likelihood(found.tau**2 * factor) < top for factor in (0.9, 0.99, 1.01, 1.1))


def test_laboratories_that_agree_have_no_variance_between_and_no_shorter_interval_than_their_errors_give():
    found = random_effects([1.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    assert found.tau == 0 and found.error == pytest.approx(0.5 / math.sqrt(3))


@pytest.mark.parametrize(("effects", "errors"), [([1.0], [1.0]), ([1.0, 2.0], [0.0, 1.0]), ([1.0, math.nan], [1.0, 1.0])])
def test_what_cannot_be_pooled_is_refused(effects, errors):
    with pytest.raises(ValueError, match="two or more finite effects"):
        random_effects(effects, errors)


def laboratory(folder: Path, number: int) -> Path:
    """The same arms on other data, with every gain a little different."""
    asked, records = copy.deepcopy(fake.study_and_records())
    asked["data"]["hash"] = f"{number}" * 64
    rng = np.random.default_rng(number)
    for r in records:
        r["data_hash"] = asked["data"]["hash"]
        r["metrics"] = {k: v + rng.normal(0, 0.01) for k, v in r["metrics"].items()}
    return fake.write(folder / f"laboratory-{number}", asked, records)


def test_bundles_of_three_laboratories_give_a_forest_whose_numbers_are_those_of_their_tables(tmp_path):
    studies = [laboratory(tmp_path, n) for n in (1, 2, 3)]
    bundles = [write_bundle(analysis.load(f), tmp_path / f"{f.name}.zip")[0] for f in studies]
    assert main(["--forest", *map(str, bundles), "--out", str(tmp_path / "forest")]) == 0
    written = (tmp_path / "forest/forest.csv").read_text().splitlines()
    rows = [r for r in csv.DictReader(written) if (r["table"], r["arm"]) == ("2", "MoCo")]
    assert [r["laboratory"] for r in rows] == ["laboratory-1", "laboratory-2", "laboratory-3", "all, random effects"]
    cells = [analysis.load(f).results.set_index("key").loc["2/moco/accuracy"] for f in studies]
    assert [float(r["gain"]) for r in rows[:3]] == pytest.approx([c["gain_over_baseline"] for c in cells])
    expected = random_effects([c["gain_over_baseline"] for c in cells], [c["gain_error"] for c in cells])
    assert [float(rows[3][k]) for k in ("gain", "low", "high", "tau")] == pytest.approx([expected.mean, *expected.interval, expected.tau])
    names = {p.name for p in (tmp_path / "forest").iterdir()}
    assert {"forest-2-moco.svg", "forest-2-moco.pdf", "forest.md"} <= names


def test_one_study_twice_is_not_two_laboratories(tmp_path, capsys):
    folder = laboratory(tmp_path, 1)
    again = folder.rename(tmp_path / "again")
    assert main(["--forest", str(laboratory(tmp_path, 1)), str(again), "--out", str(tmp_path / "forest")]) == 2
    assert "are of the same data: they are no two laboratories" in capsys.readouterr().err
    assert not (tmp_path / "forest").exists()


@pytest.mark.parametrize(("kind", "words"), [("labels", "laboratory-2 is of relabelled data"), ("files", "are of files of the same names")])
def test_the_same_images_with_other_labels_are_no_second_laboratory(tmp_path, capsys, kind, words):
    one, two = laboratory(tmp_path, 1), laboratory(tmp_path, 2)
    if kind == "labels":
        asked = json.loads((two / "study.json").read_text())
        asked["data"]["relabelled"] = [{"file": "relabelling.csv", "images": [["a.png", "instance", "touching"]]}]
        (two / "study.json").write_text(json.dumps(asked))
    for folder in (one, two) if kind == "files" else ():
        (folder / "data").mkdir()
        (folder / "data/data.json").write_text(json.dumps({"files": ["a.png", "b.png"]}))
    assert main(["--forest", str(one), str(two), "--out", str(tmp_path / "forest")]) == 2
    assert words in capsys.readouterr().err


def test_other_settings_under_the_same_name_are_said(tmp_path):
    one, two = laboratory(tmp_path, 1), laboratory(tmp_path, 2)
    text = (two / "study.json").read_text()
    records = (two / "records.jsonl").read_text()
    config_hash = fake.study_and_records()[0]["tables"][0]["arms"][2]["config_hash"]
    (two / "study.json").write_text(text.replace(config_hash, "f" * 64))
    (two / "records.jsonl").write_text(records.replace(config_hash, "f" * 64))
    assert main(["--forest", str(one), str(two), "--out", str(tmp_path / "forest")]) == 0
    assert "Table 2, MoCo: settings differ between laboratories." in (tmp_path / "forest/forest.md").read_text()


def broken(folder: Path) -> Path:
    """A run of arm MoCo of table 2 diverged."""
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    asked = json.loads((folder / "study.json").read_text())
    arm = next(a["config_hash"] for a in asked["tables"][0]["arms"] if a["name"] == "MoCo")
    for r in records:
        if r["config_hash"] == arm and r["seed"] == 0:
            r |= {"status": "diverged", "metrics": {}, "error": {"kind": "NonFinite", "message": "loss is nan"}}
    return fake.write(folder, asked, records)


@pytest.mark.slow
def test_an_arm_of_which_a_run_broke_is_not_pooled_and_that_is_said_beside_metric_and_baseline(tmp_path):
    studies = [laboratory(tmp_path, 1), laboratory(tmp_path, 2), broken(laboratory(tmp_path, 3))]
    assert main(["--forest", *map(str, studies), "--out", str(tmp_path / "forest")]) == 0
    rows = list(csv.DictReader((tmp_path / "forest/forest.csv").read_text().splitlines()))
    of_moco = [r["laboratory"] for r in rows if (r["table"], r["arm"]) == ("2", "MoCo")]
    assert of_moco == ["laboratory-1", "laboratory-2", "all, random effects"]
    text = (tmp_path / "forest/forest.md").read_text()
    assert "Table 2, MoCo, laboratory-3: 1 run of the arm or its baseline arm diverged or collapsed" in text
    assert "| 2 | MoCo | Training from scratch | Accuracy | laboratory-1 |" in text and "| seeds |" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1, "head, separator and rows have as many cells"


def test_a_comparison_with_an_arm_of_which_a_run_broke_has_no_interval_and_says_why(tmp_path):
    pairs = compare(*map(analysis.load, (laboratory(tmp_path, 1), broken(laboratory(tmp_path / "other", 1)))))
    found = next(p for p in pairs if (p.table, p.arm) == ("2", "MoCo"))
    assert math.isnan(found.interval.low) and "diverged or collapsed" in found.over
    assert not any("diverged" in p.over for p in pairs if p.table == "2" and p.arm != "MoCo")
