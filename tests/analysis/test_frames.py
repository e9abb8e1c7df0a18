"""The typed tables of a notebook: numbers are numbers, and they are the ones of the records."""

from __future__ import annotations

import copy
from pathlib import Path

import fake
import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import frames

ASKED, RECORDS = fake.study_and_records()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> analysis.Study:
    folder = fake.write(tmp_path_factory.mktemp("made"), ASKED, RECORDS)
    fake.leave(folder, ASKED, RECORDS)
    return analysis.load(folder)


def test_a_study_says_in_one_line_what_it_is(study):
    said = repr(study)
    assert len(said) < 160 and "\n" not in said
    assert f"{len(RECORDS)} runs" in said and "tables 2, 5" in said and "supcam" in said


@pytest.mark.parametrize("name", ["runs", "epochs", "predictions", "results", "trials"])
def test_no_column_of_a_notebook_s_table_is_of_python_objects(study, name):
    frame = getattr(study, name)
    assert len(frame)
    assert [c for c in frame if frame[c].dtype == object] == []


def test_numbers_are_numbers_times_are_times_and_words_are_categories(study):
    runs = study.runs
    assert runs["test_accuracy"].dtype == "float64" and runs["param.queue_size"].dtype == "Int64"
    assert runs["param.margin"].dtype == "float64" and isinstance(runs["param.form"].dtype, pd.CategoricalDtype)
    assert (runs["ended"] >= runs["started"]).all() and str(runs["started"].dt.tz) == "UTC"
    assert list(runs["status"].cat.categories) == ["completed", "pruned", "diverged", "collapsed", "failed"]
    by_key = {r["key"]: r for r in RECORDS}
    assert all(
        by_key[k]["metrics"].get("val_accuracy", None) == v for k, v in zip(runs["key"], runs["val_accuracy"], strict=True) if v == v
    )


def test_a_parameter_of_mixed_kinds_keeps_every_value_as_a_word(tmp_path):
    records = copy.deepcopy(RECORDS)
    for r, value in zip(records, [True, 3, "x", [1, 2], None] * 20, strict=False):
        r["params"]["odd"] = value
    runs = analysis.load(fake.write(tmp_path, ASKED, records)).runs
    assert set(runs["param.odd"].dropna()) == {"True", "3", "x", "[1, 2]"}


def test_the_predictions_of_a_run_give_its_recorded_share_of_right_ones_with_file_and_truth(study):
    frame = study.predictions
    assert set(frame["part"]) == {"test"}
    one = frame[frame["key"] == frame["key"].iloc[0]]
    assert len(one) == 180 and (one["right"] == (one["truth"] == one["predicted"])).all()
    assert all(file.startswith(f"{truth}/cell") for file, truth in zip(one["file"], one["truth"], strict=True))
    shares = one[[c for c in one if c.startswith("probability.")]]
    assert np.allclose(shares.max(axis=1), one["confidence"], atol=1e-6) and np.allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_predictions_that_cannot_be_read_are_a_warning_and_the_others_are_there(tmp_path):
    folder = fake.write(tmp_path, ASKED, RECORDS)
    fake.leave(folder, ASKED, RECORDS)
    whole = analysis.load(folder).predictions
    broken = whole["key"].iloc[0]
    (folder / "checkpoints" / broken / "result.json").write_text("{")
    with pytest.warns(UserWarning, match="cannot be read"):
        rest = analysis.load(folder).predictions
    assert set(whole["key"]) - set(rest["key"]) == {broken}


def test_results_are_the_cells_of_the_summaries_in_full_precision(study):
    frame = study.results.set_index(["table", "arm", "metric"])
    cells = [(s.table.number, r.arm.name, c) for s in analysis.summarize(study) for r in s.rows for c in r.cells.values()]
    assert len(frame) == len(cells)
    for number, arm, cell in cells:
        row = frame.loc[(number, arm, cell.metric)]
        assert (row["n"], bool(row["best"])) == (cell.n, cell.bold)
        assert row[["mean", "gain_over_baseline", "p_adjusted"]].astype(float).tolist() == pytest.approx(
            [cell.mean, cell.gain, cell.p], nan_ok=True, rel=1e-15
        )


def test_every_cell_has_a_key_of_its_own_also_where_two_arms_are_called_alike(tmp_path):
    asked = copy.deepcopy(ASKED)
    asked["tables"][0]["arms"][2]["name"] = "MoCo"
    asked["tables"][0]["arms"][3]["name"] = "MoCo!"
    frame = analysis.load(fake.write(tmp_path, asked, RECORDS)).results
    assert frame["key"].is_unique
    assert {"2/moco/accuracy", "2/moco-2/accuracy"} <= set(frame["key"])
    assert (frames.slug("Größe, 2 %"), frames.slug("§")) == ("groe-2", "x")


def test_the_types_of_the_package_are_there_for_a_checker():
    assert (Path(analysis.__file__).parent / "py.typed").is_file()


def test_a_study_without_runs_has_tables_without_rows(tmp_path):
    study = analysis.load(fake.write(tmp_path, {**ASKED, "tables": []}, []))
    assert all(getattr(study, name).empty for name in ("runs", "epochs", "predictions", "results", "trials"))
