"""Runs that were trained by other code or other versions are named: in the report, in the table that they stand in, and nowhere else."""

import copy
import re

import fake
import pytest

import analysis
from analysis.methods import methods_md
from analysis.mixture import device_of, mixture, origin_of

ASKED, RECORDS = fake.study_and_records(trials=0)
ARM = "5/m = 0.1"


def changed(change, arm=ARM, seed=0):
    """The records, one changed."""
    records = copy.deepcopy(RECORDS)
    change(next(one for one in records if arm in one["arms"] and one["seed"] == seed))
    return records


def test_runs_of_one_code_and_one_set_of_versions_are_worth_no_word():
    assert mixture(origin_of(record) for record in RECORDS) == ()
    assert mixture([]) == () and mixture([(None, None, None), ("", "", "")]) == ()


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


@pytest.mark.parametrize(
    ("record", "device"),
    [
        ({"device": "NVIDIA H200", "processor": "AMD EPYC (AVX2)"}, "NVIDIA H200"),
        ({"device": "cpu", "processor": "AMD EPYC (AVX2)"}, "AMD EPYC (AVX2)"),
        ({"device": "cpu"}, "cpu"),
        ({"device": "cpu", "processor": 3}, None),
        ({"device": "cpu", "processor": "B (AVX2)", "stage_devices": {"pretrain": ["A (AVX512)", "B (AVX2)"]}}, "A (AVX512) and B (AVX2)"),
        ({"device": "NVIDIA H200", "stage_devices": {"pretrain": [], "finetune": 3}}, "NVIDIA H200"),
        ({"device": ""}, None),
        ({}, None),
    ],
)
def test_a_device_is_a_gpu_or_a_kind_of_processor(record, device):
    assert device_of(record) == device


def test_devices_of_more_than_one_kind_are_named_and_one_that_is_not_known_is_no_kind():
    runs = [("c", "", "AMD EPYC (AVX2)")] * 2 + [("c", "", "Intel Xeon (AVX512)"), ("c", "", "cpu"), ("c", "", None)]
    assert mixture(runs[1:2] + runs[3:]) == mixture(runs[3:]) == ()
    (words,) = mixture([*runs[3:], ("c", "", "NVIDIA H200")])
    assert ": 1 run on NVIDIA H200, 1 run on a CPU that its record does not name. " in words, "a CPU is no GPU, whichever it is"
    assert mixture([("c", "", "AMD EPYC (AVX2) and NVIDIA H200"), ("c", "", "cpu")]) == ()
    (words,) = mixture([("c", "", "Radeon (TM) Pro W6800 (Navi 21)"), ("c", "", "cpu")])
    assert "a CPU that its record does not name" in words
    (words,) = mixture(runs)
    assert words.startswith("Trained on devices of more than one kind: 2 runs on AMD EPYC (AVX2), 1 run on Intel Xeon (AVX512). ")


def test_a_table_of_two_kinds_of_processor_says_so_on_the_page_and_in_the_methods(tmp_path):
    records = changed(lambda record: record.update(processor="Intel Xeon (AVX512)"))
    for record in records:
        record.setdefault("processor", "AMD EPYC (AVX2)")
    study = analysis.load(fake.write(tmp_path / "study", ASKED, records))
    assert any("1 run on Intel Xeon (AVX512)" in words for words in study.warnings)
    notes = {summary.table.number: "\n".join(summary.notes) for summary in analysis.summarize(study)}
    assert "1 run on Intel Xeon (AVX512)" in notes["5"] and "kind" not in notes["2"]
    assert "Trained on AMD EPYC (AVX2), Intel Xeon (AVX512)" in methods_md(study)


def test_what_is_no_fingerprint_and_no_version_is_no_traceback(tmp_path):
    odd = changed(lambda record: record.update(code=3, versions=["torch"], stage_codes={"a": 5, "b": [None, {}]}))
    assert analysis.load(fake.write(tmp_path / "study", ASKED, odd)).warnings
