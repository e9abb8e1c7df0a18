"""Runs that were trained by other code or other versions are named: in the report, in the table that they stand in, and nowhere else."""

import copy
import re

import fake
import pytest

import analysis
from analysis.mixture import codes_of, mixture, versions_of

ASKED, RECORDS = fake.study_and_records(trials=0)
ARM = "5/m = 0.1"


def changed(change, arm=ARM, seed=0):
    """The records, one changed."""
    records = copy.deepcopy(RECORDS)
    change(next(one for one in records if arm in one["arms"] and one["seed"] == seed))
    return records


def test_runs_of_one_code_and_one_set_of_versions_are_worth_no_word():
    assert mixture((codes_of(record), versions_of(record)) for record in RECORDS) == ()
    assert mixture([]) == () and mixture([(None, None), ("", "")]) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.update(code="beef" * 8), "more than one code .*: 1 run beefbeef, [0-9]+ runs c0dec0de"),
        (lambda record: record.update(stage_codes={"pretrain": ["beef" * 8, "c0de" * 8]}), "more than one code .*: 1 run beefbeef and c0dec0de"),
        (lambda record: record.pop("code"), "more than one code .*: .* 1 run unknown"),
        (lambda record: record.update(versions={"python": "3.11.7", "torch": "2.16.0"}), r"version of torch: [0-9]+ runs 2\.15\.0, 1 run 2\.16\.0"),
    ],
    ids=["code", "code of a stage", "code unknown", "version"],
)  # fmt: skip
def test_a_mix_is_named_for_the_study_and_below_the_table_it_stands_in(tmp_path, change, words):
    study = analysis.load(fake.write(tmp_path / "study", ASKED, changed(change)))
    (warning,) = study.warnings
    assert re.search(words, warning)
    notes = {summary.table.number: "\n".join(summary.notes) for summary in analysis.summarize(study)}
    assert re.search(words, notes["5"]) and "more than one" not in notes["2"]


def test_what_is_no_fingerprint_and_no_version_is_no_traceback(tmp_path):
    odd = changed(lambda record: record.update(code=3, versions=["torch"], stage_codes={"a": 5, "b": [None, {}]}))
    assert analysis.load(fake.write(tmp_path / "study", ASKED, odd)).warnings
