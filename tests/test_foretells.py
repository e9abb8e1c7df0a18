"""What foretells a run's end, on made studies: a score that orders runs as their ends do has 1, one of chance about 0."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "analysis"))
import fake

from analysis.study import load
from benchmarks import foretells
from benchmarks.foretells import correlation, lines, ways


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(foretells, "DRAWS", 50)


def study(folder, ends):
    """Runs with the ends named, whose kNN on the way is as high as their end."""
    asked, _ = fake.study_and_records()
    records = [fake.record({"margin": 0.01 * (1 + number)}, 0, end) for number, end in enumerate(ends)]
    for record in records:
        for entry in (e for e in record["history"] if e["stage"] == "pretrain"):
            entry["val_knn_accuracy"] = record["metrics"]["val_accuracy"] - 0.3
            entry["val_probe_accuracy"] = 0.5
    return fake.write(folder, asked, records)


def test_a_score_that_orders_runs_as_their_ends_do_foretells_them(tmp_path):
    folder = study(tmp_path, np.linspace(0.5, 0.9, 7))
    table = lines([folder], "val_accuracy")
    [row] = [line for line in table if "val_knn_accuracy" in line]
    assert row.count("+1.00 (+1.00 to +1.00)") == 3 and "| pretrain | val_knn_accuracy | 7 |" in row
    [probe] = [line for line in table if "val_probe_accuracy" in line]
    assert probe.endswith("| – | – | – |")  # it does not vary


def test_runs_that_share_a_stage_count_once_with_their_mean_end(tmp_path):
    asked, _ = fake.study_and_records()
    records = [fake.record({"margin": 0.1 * (1 + number)}, 0, end) for number, end in enumerate((0.5, 0.7, 0.9))]
    records[1]["stage_hashes"] = records[0]["stage_hashes"]
    records[1]["history"] = [e for e in records[0]["history"] if e["stage"] == "pretrain"] + [
        e for e in records[1]["history"] if e["stage"] != "pretrain"
    ]
    table = ways(load(fake.write(tmp_path, asked, records)), "val_accuracy")
    part = table[(table["stage"] == "pretrain") & (table["score"] == "val_knn_accuracy") & (table["share"] == 1.0)]
    ends = [record["metrics"]["val_accuracy"] for record in records]
    assert sorted(part["end"]) == pytest.approx(sorted([(ends[0] + ends[1]) / 2, ends[2]]))


def test_an_interval_is_over_configurations_and_holds_chance_where_there_is_nothing():
    draw = np.random.default_rng(0)
    rho, low, high = correlation(draw.normal(size=40), draw.normal(size=40), np.repeat(np.arange(20), 2))
    assert low < rho < high and low < 0 < high
    assert all(np.isnan(correlation(np.ones(5), np.arange(5.0), np.arange(5))))
