"""Notes below a table on how its numbers were read: where clusters were fitted, clusters without a cell, types dealt out within a karyotype."""

from __future__ import annotations

import copy
import math
import re

import fake
import pytest

import analysis
from analysis import published, report, view


def notes_of(folder, changed):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    asked = copy.deepcopy(asked)
    asked["tables"] = asked["tables"][:1]
    asked["tables"][0]["arms"] = asked["tables"][0]["arms"][0::2][:2]  # the one between has no completed run
    first, second = (arm["config_hash"] for arm in asked["tables"][0]["arms"])
    for record in records:
        if record["status"] == "completed" and record["config_hash"] in (first, second):
            changed(record, record["config_hash"] == first)
    [summary] = analysis.load(fake.write(folder, asked, records)).summaries
    return [row.arm.name for row in summary.rows[:2]], summary


def with_fits(record, first):
    record["metrics"] |= {"test_accuracy": 0.5, "test_accuracy_train_fit" if first else "test_accuracy_scored_fit": 0.4}


def test_scores_of_both_fits_stand_below_the_table_and_that_arms_have_different_ones_is_said(tmp_path):
    (one, other), summary = notes_of(tmp_path, with_fits)
    [note] = [note for note in summary.notes if "fitted on the scored part itself" in note]
    assert f"{one}: 50.00 and 40.00, the first in the table; " in note
    assert f"{other}: 40.00 and 50.00, the second in the table." in note and note.endswith("may be the fit's.")
    [claim] = summary.claims
    assert claim.endswith(
        "with both fitted on one it is -10.00 on the scored part and +10.00 on the training part, points, without an interval."
    )


def test_of_arms_with_one_fit_no_difference_is_blamed_and_of_none_nothing_is_said(tmp_path):
    (one, other), summary = notes_of(tmp_path / "a", lambda record, first: with_fits(record, True))
    [note] = [note for note in summary.notes if "fitted on the scored part itself" in note]
    assert note.endswith(f"{one}: 50.00 and 40.00, the first in the table; {other}: 50.00 and 40.00, the first in the table.")
    assert not any("fitted" in words for words in summary.claims)
    _, plain = notes_of(tmp_path / "b", lambda record, first: None)
    assert not any(word in note for note in plain.notes for word in ("fitted on", "no test cell", "karyotype"))


def test_a_completed_run_with_a_cluster_without_cells_is_named(tmp_path):
    def empty(record, first):
        record["metrics"] |= {"test_smallest_cluster": 0.0 if first and record["seed"] == 1 else 0.1, "test_largest_cluster": 0.617}

    (one, other), summary = notes_of(tmp_path, empty)
    [note] = [note for note in summary.notes if "no test cell" in note]
    assert f"{one}: 1 of 3 (the largest cluster holds up to 61.7 %)" in note and other not in note


def test_an_accuracy_with_types_dealt_out_is_a_line_of_its_own_and_no_column(tmp_path):
    def dealt(record, first):
        record["metrics"] |= {"test_accuracy": 0.9, "test_accuracy_dealt": 0.95 if first else 0.89, "test_share_dealt": 0.6}

    (one, other), summary = notes_of(tmp_path, dealt)
    [note] = [note for note in summary.notes if "karyotype" in note]
    assert f"{one}: 95.00 (+5.00); {other}: 89.00 (-1.00)" in note and "left as they are (40.0 % of the images)" in note
    assert "test_accuracy_dealt" not in summary.table.metrics


def test_where_one_seed_lacks_the_other_fit_or_the_dealt_types_both_numbers_are_of_the_seeds_that_have_them(tmp_path):
    def some(record, first):
        record["metrics"] |= {"test_accuracy": 0.5 + 0.1 * record["seed"]}
        if record["seed"] < 2:
            record["metrics"] |= {"test_accuracy_train_fit": 0.4, "test_accuracy_dealt": record["metrics"]["test_accuracy"]}

    (one, _), summary = notes_of(tmp_path, some)
    notes = "\n".join(summary.notes)
    assert f"{one}: 55.00 and 40.00 over 2 of 3 seeds, the first in the table" in notes
    assert f"{one}: 55.00 (+0.00 over 2 of 3 seeds)" in notes and "left as they are." in notes


def test_the_largest_cluster_is_that_of_a_run_with_an_empty_one_and_not_said_where_it_is_not_known(tmp_path):
    def known(record, first):
        empty = record["seed"] == 0
        record["metrics"] |= {"test_smallest_cluster": 0.0 if empty else 0.1}
        if first:
            record["metrics"] |= {"test_largest_cluster": 0.4 if empty else 0.9}

    (one, other), summary = notes_of(tmp_path, known)
    [note] = [note for note in summary.notes if "no test cell" in note]
    assert note.endswith(f"{one}: 1 of 3 (the largest cluster holds up to 40.0 %); {other}: 1 of 3.")


def test_rows_of_more_epochs_than_the_baseline_are_named_and_where_all_have_as_many_nothing_is_said(tmp_path):
    def longer(record, first):
        record["history"] = [{"stage": "finetune", "epoch": epoch} for epoch in range(1, 3 if first else 6)]

    (one, other), summary = notes_of(tmp_path / "a", longer)
    assert summary.baseline == one
    [note] = [note for note in summary.notes if note.startswith("Epochs of a run")]
    assert f"{one} 2; {other} 5. What a row of more gains over {one} can be a gain of epochs alone" in note
    _, summary = notes_of(tmp_path / "b", lambda record, first: longer(record, True))
    assert not any(note.startswith("Epochs of a run") for note in summary.notes)

    def nothing_learns(record, first):
        longer(record, first)
        record["history"] = [epoch | {"learning_rate": 0.01 if first else 0.0} for epoch in record["history"]]

    _, summary = notes_of(tmp_path / "c", nothing_learns)
    assert not any(note.startswith("Epochs of a run") for note in summary.notes), "a yardstick's epoch is none"


@pytest.mark.parametrize(("given", "said"), [("local-dir:ours", True), ("random", False), (None, False)])
def test_a_row_from_random_weights_beside_rows_from_given_ones_is_named(tmp_path, given, said):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    asked = copy.deepcopy(asked)
    asked["tables"] = asked["tables"][:1]
    first, *_ = asked["tables"][0]["arms"]
    first["overrides"] = {"weights": "random"}
    asked["baseline"] = {**asked.get("baseline", {}), **({} if given is None else {"weights": given})}
    (summary,) = analysis.summarize(analysis.load(fake.write(tmp_path / "study", asked, records)))
    words = f"{first['name']}: from random weights; rows that name none begin with {given}. "
    assert any(note.startswith(words) for note in summary.notes) is said


def test_another_method_that_was_trained_with_less_than_its_description_has_says_so_and_one_as_described_does_not(tmp_path):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    asked = copy.deepcopy(asked)
    asked["tables"] = asked["tables"][:1]
    asked["baseline"] |= {"gan_epochs": 2, "gan_width": 128}
    first, second, *_ = asked["tables"][0]["arms"]
    first["described"] = {"gan_epochs": 50, "gan_width": 128}
    second |= {"described": {"gan_epochs": 50, "gan_width": 128}, "overrides": second["overrides"] | {"gan_epochs": 50}}
    for synthetic in ({}, {"images": 400, "seed": 0}):
        asked["data"] |= {"synthetic": synthetic}
        [summary] = analysis.load(fake.write(tmp_path / str(len(synthetic)), asked, records)).summaries
        notes = [note for note in summary.notes if "as described" in note]
        assert notes == [
            f"{first['name']}: not trained as described, but with gan_epochs 2 for 50. Its row says little of the method itself."
        ]
        # on images that the program has drawn nothing is said of the paper's order and sizes
        cells = [row.cells[summary.table.metric] for row in summary.rows]
        assert any(cell.published for cell in cells) and any(cell.verdict for cell in cells) != bool(synthetic)
        assert any("drawn by this program" in note for note in summary.notes) == bool(synthetic)
        assert not (synthetic and any("published order" in note or "rank correlation" in note for note in summary.notes))
        assert any(math.isfinite(cell.difference) for cell in cells) != bool(synthetic)
        assert any(cell.paper_gain for cell in cells) != bool(synthetic)
    # nor on the page or in a file: the published values stand there as what they are
    frame = (study := analysis.load(tmp_path / "2")).results
    assert frame["published_mean"].notna().any() and not frame["published_is_compared"].any()
    assert frame["difference_to_published"].isna().all() and frame["verdict"].isna().all()
    assert not any(key in cell for row in view._table(summary)["rows"] for cell in row["cells"] for key in ("paper", "paperGain", "word"))
    report.write_report(study.folder)
    written = {name: (study.folder / name).read_text() for name in ("report.html", "report.md", f"tables/table-{summary.table.slug}.tex")}
    for name, text in written.items():
        body = re.sub(r"<(script|style)[ >].*?</\1>", "", text, flags=re.S)
        assert "ther images" in body and all(f"{cell.published.mean:.2f}" in body for cell in cells if cell.published), name
        assert not re.search(r"ours − published|verdict|against the paper|does the paper|order (kept|reversed|undecided)", body, re.I), name


def test_published_numbers_of_a_set_of_other_types_stand_there_and_are_not_compared(tmp_path, monkeypatch):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    folder = fake.write(tmp_path / "study", asked, records)
    of = asked["tables"][0]["dataset"]
    for types, compared in ((asked["data"]["classes"][::-1], True), (["sTILs", "other"], False)):
        monkeypatch.setattr(published, "TYPES", {of: tuple(types)})
        summary = analysis.load(folder).summaries[0]
        cells = [row.cells[summary.table.metric] for row in summary.rows]
        assert any(cell.published for cell in cells) and any(cell.verdict for cell in cells) == compared
        told = [note for note in summary.notes if note.startswith("Published numbers")]
        assert told == [
            f"Published numbers are of {of}. If these images are others, what differs may be theirs: the program cannot know."
            if compared
            else f"Published numbers are of other images ({of}: sTILs, other; here: {', '.join(asked['data']['classes'])}), stand here as "
            "what the paper has, and are not compared with ours."
        ]


@pytest.mark.parametrize("same", [True, False])
def test_rows_that_the_settings_make_one_configuration_are_said_to_be_the_same_runs(tmp_path, same):
    asked, records = fake.study_and_records(seeds=3, trials=0)
    asked = copy.deepcopy(asked)
    asked["tables"] = asked["tables"][:1]
    first, _, second = asked["tables"][0]["arms"][:3]
    if same:
        second["config_hash"] = first["config_hash"]
    [summary] = analysis.load(fake.write(tmp_path, asked, records)).summaries
    words = f"{first['name']} and {second['name']}: one configuration under the settings of this study, so the same runs."
    assert any(note.startswith(words) for note in summary.notes) == same
