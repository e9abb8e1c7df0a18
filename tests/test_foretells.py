"""What foretells a run's end, on made studies: a score that orders runs as their ends do has 1, one of chance about 0."""

import json
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
    table = lines(load(folder), "val_accuracy")
    [row] = [line for line in table if "val_knn_accuracy" in line]
    assert row.count("+1.00 (+1.00 to +1.00)") == 3 and "| pretrain | val_knn_accuracy | 7 |" in row
    [probe] = [line for line in table if "val_probe_accuracy" in line]
    assert probe.endswith("| – | – | – |")  # it does not vary


def test_yardsticks_train_nothing_and_foretell_nothing(tmp_path):
    folder = study(tmp_path, np.linspace(0.5, 0.9, 7))
    asked = json.loads((folder / "study.json").read_text())
    hashes = [json.loads(line)["config_hash"] for line in (folder / "records.jsonl").read_text().splitlines()]
    asked["tables"] = [asked["tables"][0] | {"arms": [{"name": "free", "config_hash": hashes[0], "overrides": {}, "yardstick": True}]}]
    (folder / "study.json").write_text(json.dumps(asked))
    assert any("| pretrain | val_knn_accuracy | 6 |" in line for line in lines(load(folder), "val_accuracy"))


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


def test_the_score_is_that_of_the_studys_search_and_those_of_the_pretext_stand_beside_validations(tmp_path, monkeypatch, capsys):
    asked, _ = fake.study_and_records()
    asked["objective"] = {"metric": "val_ami", "direction": "maximize", "intermediate": "val_early_ami"}
    records = [fake.record({"margin": 0.01 * (1 + number)}, 0, 0.5 + 0.05 * number) for number in range(7)]
    for number, record in enumerate(records):
        record["metrics"]["val_ami"] = -0.1 * number  # the other way round than the accuracy
        for entry in record["history"]:
            entry["pretext_own"] = 0.1 * number
    monkeypatch.setattr(sys, "argv", ["foretells", str(fake.write(tmp_path, asked, records))])
    foretells.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if "| pretext_own |" in line]
    assert rows and all("| val_ami |" in row and row.count("-1.00 (-1.00 to -1.00)") == 3 for row in rows)


def test_what_a_study_lacks_is_said_in_words_with_status_2_and_the_others_are_told(tmp_path, monkeypatch, capsys):
    asked, _ = fake.study_and_records()
    whole = study(tmp_path / "whole", np.linspace(0.5, 0.9, 7))
    few = study(tmp_path / "few", (0.5, 0.7))
    silent = [fake.record({"margin": 0.01 * (1 + number)}, 0, 0.5 + 0.05 * number) | {"history": []} for number in range(7)]
    silent = fake.write(tmp_path / "silent", asked, silent)
    none = fake.write(tmp_path / "none", asked, [])
    words = {
        (tmp_path / "gone",): "no study folder",
        (few,): "an order needs 5 trainings or more, each with scores on the way, it has 2",
        (silent,): "none of its runs reported a loss or a validation on the way",
        (none,): "no run of it has been completed",
        (whole, "--of", "val_ami"): "none of its 7 completed runs has val_ami; --of takes one that they have: ",
    }
    for arguments, said in words.items():
        monkeypatch.setattr(sys, "argv", ["foretells", str(whole), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            foretells.main()
        out = capsys.readouterr()
        assert ended.value.code == 2 and said in out.err and "Traceback" not in out.err
        assert ("| pretrain | val_knn_accuracy | 7 |" in out.out) == ("--of" not in arguments)


def test_an_interval_is_over_configurations_and_holds_chance_where_there_is_nothing():
    draw = np.random.default_rng(0)
    rho, low, high = correlation(draw.normal(size=40), draw.normal(size=40), np.repeat(np.arange(20), 2))
    assert low < rho < high and low < 0 < high
    assert all(np.isnan(correlation(np.ones(5), np.arange(5.0), np.arange(5))))
