"""Scores of clusters without each patient in turn, against the metric of training; and the tables and sentences that come from them."""

from __future__ import annotations

import json
import math

import fake
import numpy as np
import pytest
from scipy import stats

import analysis
from analysis import artefacts, clustering, crossed
from trainables.parts.clustering import clustering_metrics, within_tiles


def drawn(cells: int = 300, types: int = 4, clusters: int = 5, cases: int = 9, seed: int = 0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, types, cells)
    cluster = np.where(rng.random(cells) < 0.5, label, rng.integers(0, clusters, cells))
    case = np.unique(rng.integers(0, cases, cells), return_inverse=True)[1]
    return label, cluster, case


def of_training(name, label, cluster, tile):
    return (clustering_metrics(label, cluster) | within_tiles(label, cluster, tile))[name]


@pytest.mark.parametrize("name", clustering.NAMES)
@pytest.mark.parametrize("tiles", ["cases", "several of a case", "of several cases"])
def test_the_score_without_each_case_is_that_of_the_training_codes_metric(name, tiles):
    label, cluster, case = drawn()
    label[case == 3] = 2  # a case of one type
    cluster[case == 5] = 1  # and one in one cluster
    number = np.arange(len(label))
    tile = {"cases": case, "several of a case": case * 2 + number % 2, "of several cases": case // 3}[tiles]
    whole, without = clustering.jackknife(name, label, cluster, tile, case)
    assert whole == pytest.approx(of_training(name, label, cluster, tile), abs=1e-9)
    wanted = [of_training(name, *(values[case != one] for values in (label, cluster, tile))) for one in range(case.max() + 1)]
    assert without == pytest.approx(np.array(wanted), abs=1e-9)


@pytest.mark.parametrize("name", clustering.NAMES)
def test_single_images_as_cases_are_left_out_one_by_one(name):
    label, cluster, _ = drawn(60)
    tile, case = np.arange(60) % 4, np.random.default_rng(1).permutation(60)
    _, without = clustering.jackknife(name, label, cluster, tile, case)
    wanted = [of_training(name, *(values[case != one] for values in (label, cluster, tile))) for one in range(60)]
    assert without == pytest.approx(np.array(wanted), abs=1e-9)


@pytest.mark.parametrize("name", clustering.NAMES)
def test_one_cluster_and_a_cluster_a_tile_are_scored_as_in_training(name):
    label, _, case = drawn()
    for cluster in (np.zeros_like(case), case, np.arange(len(case)) % 2 * 3):
        whole, without = clustering.jackknife(name, label, cluster, case, case)
        assert whole == pytest.approx(of_training(name, label, cluster, case), abs=1e-9)
        assert without[2] == pytest.approx(of_training(name, *(v[case != 2] for v in (label, cluster, case))), abs=1e-9)


def test_what_is_no_score_of_clusters_and_what_has_one_case_has_no_pseudo_values():
    label, cluster, case = drawn()
    assert clustering.jackknife("silhouette", label, cluster, case, case) is None
    assert clustering.jackknife("ami", label, cluster, case, np.zeros_like(case)) is None


def test_pseudo_values_have_the_score_as_their_mean_and_the_jackknifes_spread():
    label, cluster, case = drawn()
    given = artefacts.Groups(np.arange(len(label)), label, cluster, case, np.where(case == 1, 0, label), np.where(case == 2, 0, label))
    value, pseudo = crossed.cluster_values("ami", given, case)
    m = case.max() + 1
    plain = np.array([m * value - (m - 1) * clustering_metrics(label[case != one], cluster[case != one])["ami"] for one in range(m)])
    assert pseudo.mean() == pytest.approx(value) and pseudo.std() == pytest.approx(plain.std())
    for name, said in (("probe_accuracy", given.probe), ("knn_accuracy", given.neighbours)):
        value, pseudo = crossed.cluster_values(name, given, case)
        right = said == label
        plain = np.array([m * right.mean() - (m - 1) * right[case != one].mean() for one in range(m)])
        assert value == pytest.approx(right.mean()) and pseudo == pytest.approx(plain - plain.mean() + value)


def study(folder, tiles=True, spoil=None):
    """The made study, its predictions turned into clusters of 600 cells on 12 tiles."""
    asked, records = fake.study_and_records(seeds=3, trials=0)
    names = [f"test_{name}" for name in ("ami", "ami_within", "probe_accuracy", "knn_accuracy")]
    for table in asked["tables"]:
        table |= {"metric": names[0], "metrics": names}
    fake.write(folder, asked, records)
    fake.leave(folder, asked, records)
    data = json.loads((folder / "data/data.json").read_text())
    data["files"] = [f"Train/t{i % 12}.png#{i}" for i in range(600)]
    data["patients"] = [f"Train/t{i % 12}" if tiles else f"p{i % 12}" for i in range(600)]
    (folder / "data/data.json").write_text(json.dumps(data))
    for number, r in enumerate(records):
        file = folder / "checkpoints" / r["key"] / "result.json"
        if not file.exists():
            continue
        given = json.loads(file.read_text())
        entry = given["predictions"]["test"]
        index, label = np.array(entry["index"]), np.array(entry["label"])
        rng = np.random.default_rng(number)
        cluster = np.where(rng.random(len(label)) < 0.6, label, rng.integers(0, 4, len(label)))
        entry = {"index": index, "label": label, "cluster": cluster, "tile": index % 12, "probe": cluster, "neighbours": label - label % 2}
        if spoil is not None:
            spoil(entry)
        given["predictions"]["test"] = {name: values.tolist() for name, values in entry.items()}
        file.write_text(json.dumps(given))
        scores = clustering_metrics(label, cluster) | within_tiles(label, cluster, index % 12)
        scores |= {"probe_accuracy": float((cluster == label).mean()), "knn_accuracy": float((label % 2 == 0).mean())}
        r["metrics"] |= {f"test_{name}": value for name, value in scores.items()}
    fake.write(folder, asked, records)
    return {s.table.number: s for s in analysis.summarize(analysis.load(folder))}["2"]


def test_a_table_of_clusters_has_intervals_over_seeds_and_tiles_and_its_sentences_say_so(tmp_path):
    summary = study(tmp_path)
    for metric in ("test_ami", "test_ami_within", "test_probe_accuracy", "test_knn_accuracy"):
        level = summary.rows[2].cells[metric].level
        assert (level.seeds, level.cases, level.unit) == (3, 12, "tiles"), metric
        assert level.value == pytest.approx(summary.rows[2].cells[metric].mean)
    assert any("seeds x tiles (patients are not known), 12 of them" in note for note in summary.notes)
    assert summary.claims and all("3 seeds, 12 tiles" in words for words in summary.claims)


def test_patients_of_several_tiles_are_called_patients(tmp_path):
    summary = study(tmp_path, tiles=False)
    assert all("3 seeds, 12 patients" in words for words in summary.claims)


def _without_tiles(entry):
    del entry["tile"]


def _negative(entry):
    entry["cluster"] = entry["cluster"] - 1


def _short(entry):
    entry["tile"] = entry["tile"][:-1]


def test_clusters_of_before_tiles_were_kept_leave_the_seeds_alone(tmp_path):
    cell = study(tmp_path, spoil=_without_tiles).rows[2].cells["test_ami"]
    assert cell.level.cases == 0 and cell.interval == pytest.approx(stats.t.interval(0.95, 2, cell.mean, stats.sem(cell.array)))


@pytest.mark.parametrize("spoil", [_negative, _short])
def test_clusters_that_are_damaged_leave_no_interval(tmp_path, spoil):
    cell = study(tmp_path, spoil=spoil).rows[2].cells["test_ami"]
    assert math.isnan(cell.interval.low) and "are damaged" in cell.level.lost


def test_the_report_of_clusters_names_no_damage_where_there_are_no_probabilities(tmp_path):
    study(tmp_path)
    loaded = analysis.load(tmp_path)
    key = loaded.usable[loaded.usable["status"] == "completed"].iloc[0]["key"]
    assert artefacts.predictions(loaded, key) is None and artefacts.groups(loaded, key) is not None


def test_a_yardstick_is_never_the_best(tmp_path):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    fake.write(tmp_path, asked, records)
    best = analysis.best(analysis.load(tmp_path))
    for table in asked["tables"]:
        for arm in table["arms"]:
            arm |= {"yardstick": arm["config_hash"] == best.config_hash}
    fake.write(tmp_path, asked, records)
    assert analysis.best(analysis.load(tmp_path)).config_hash != best.config_hash
