"""External test sets: looked at by final models alone, added later without training, refused where they are not external."""

import json
from dataclasses import replace

import numpy as np
import pytest

import analysis
from search import export as exporting
from search.study import name_external, read_study
from trainables.data.copies import Shared, shared_images
from trainables.data.pack import make_pack
from trainables.parts.errors import RequestError


@pytest.fixture(scope="module")
def elsewhere(toy):
    return toy.procedure.synthesize(toy.procedure.config(), images=30, seed=5)


@pytest.fixture
def study(bench, elsewhere):
    return bench(trials=2, repeats=1, tables=["1"], external={"padova": elsewhere})


def test_runs_of_tables_are_judged_on_the_external_set_and_those_of_the_search_are_not(study, elsewhere):
    ledger, director = study.open()
    study.finish(director)
    seen = {bool(record["arms"]): [] for record in ledger.records.values()}
    for record in ledger.records.values():
        seen[bool(record["arms"])].append(record["metrics"])
    assert seen[True] and all("external_padova_accuracy" in metrics for metrics in seen[True])
    assert not any(name.startswith(("external", "test")) for metrics in seen.get(False, []) for name in metrics)
    record = next(record for record in ledger.records.values() if record["arms"])
    assert np.sum(record["confusion"]["external_padova"]) == len(elsewhere)


def test_an_external_set_that_comes_later_trains_nothing(bench, elsewhere, tmp_path):
    first = bench(trials=0, repeats=1, tables=["1"])
    ledger, director = first.open()
    first.finish(director)
    before = {key: record["metrics"]["test_accuracy"] for key, record in ledger.records.items()}
    first.close()
    second = bench(trials=0, repeats=1, tables=["1"], external={"padova": elsewhere})
    epochs = []
    task = type(second.entry.procedure.stages[0].build(second.entry.procedure.config(), _setting(second)))
    original = task.batches
    task.batches = lambda self, epoch: epochs.append(epoch) or original(self, epoch)
    try:
        ledger, director = second.open()
        second.finish(director)
    finally:
        task.batches = original
    assert not epochs and second.trained
    assert {key: record["metrics"]["test_accuracy"] for key, record in ledger.records.items()} == before
    assert all("external_padova_accuracy" in record["metrics"] for record in ledger.records.values())
    second.close()
    third = bench(trials=0, repeats=1, tables=["1"])  # the same study, not named again
    _, director = third.open()
    assert director.finished()
    assert director.external == ("padova",)


def _setting(bench):
    from trainables.parts.procedure import Setting

    return Setting(bench.pack, bench.entry.procedure.parts(bench.entry.procedure.config(), bench.pack, 0), 0)


def test_another_set_under_the_name_of_a_known_one_is_refused(study, bench, toy):
    study.open()
    study.close()
    other = toy.procedure.synthesize(toy.procedure.config(), images=30, seed=6)
    with pytest.raises(RequestError) as refused:
        bench(trials=2, repeats=1, tables=["1"], external={"padova": other}).open()
    assert any("external set padova" in line for line in refused.value.faults)


def test_tables_have_columns_of_the_external_set_beside_those_of_the_own_test_part(study):
    _, director = study.open()
    study.finish(director)
    asked = read_study(study.folder)
    assert asked["tables"][0]["metrics"] == ["test_accuracy", "external_padova_accuracy"]
    assert asked["data"]["external"][0]["images"] == 30
    summary = analysis.summarize(analysis.load(study.folder))[0]
    assert summary.rows[0].cells["external_padova_accuracy"].n == 1


def test_an_export_is_proven_on_the_external_set_too(study, toy):
    ledger, director = study.open()
    study.finish(director)
    best = analysis.best(analysis.load(study.folder))
    record = ledger.records[best.key]
    folder = exporting.export(toy, study.folder, read_study(study.folder), ledger, study.pack, record, best.words)
    assert (
        json.loads((folder / "metrics.json").read_text())["metrics"]["external_padova_accuracy"]
        == record["metrics"]["external_padova_accuracy"]
    )
    assert (folder / "confusion_external_padova.csv").exists()
    record["metrics"]["external_padova_accuracy"] += 0.1
    with pytest.raises(RuntimeError, match="external_padova_accuracy"):
        exporting.export(toy, study.folder, read_study(study.folder), ledger, study.pack, record, best.words)


def test_images_that_stand_in_both_sets_are_counted_and_named(toy_pack):
    assert shared_images(toy_pack, toy_pack).refused.startswith("60 images in both sets: dark/000.png = dark/000.png")
    pixels = toy_pack.images.copy()
    pixels[1:, 0, 0] ^= 1
    changed = make_pack(pixels, toy_pack.labels, toy_pack.classes, toy_pack.files, None, toy_pack.areas)
    assert shared_images(toy_pack, changed).refused.startswith("1 image in both")
    empty = make_pack(np.zeros_like(pixels), toy_pack.labels, toy_pack.classes, toy_pack.files, None, toy_pack.areas)
    assert shared_images(empty, empty) == Shared()


def test_external_sets_are_named_by_their_folders_and_two_of_one_name_are_refused(tmp_path):
    assert list(name_external([tmp_path / "Q-Band (Padova)", tmp_path / "b"])) == ["q_band_padova", "b"]
    with pytest.raises(RequestError, match="must differ"):
        name_external([tmp_path / "x" / "qband", tmp_path / "y" / "QBand"])


def test_what_a_run_leaves_for_the_report_is_written_once_with_the_test_part(bench, toy):
    calls = []

    def artefacts(config, tensors, pack, chosen, device):
        calls.append(len(chosen))
        return {"embedding": np.zeros((len(chosen), 2), np.float16), "index": chosen}

    entry = replace(toy, procedure=replace(toy.procedure, artefacts=artefacts))
    study = bench(entry=entry, trials=0, repeats=1, tables=["1"])
    ledger, director = study.open()
    study.finish(director)
    assert len(calls) == len(ledger.records)
    key = next(iter(ledger.records))
    with np.load(study.folder / "checkpoints" / key / "artefacts.npz", allow_pickle=False) as kept:
        assert kept["embedding"].shape == (calls[0], 2)


def test_what_plain_means_reach_stands_in_the_study_instead_of_size(bench, toy):
    found = [{"name": "pixels", "metrics": {"test_accuracy": 0.5}}]
    entry = replace(toy, procedure=replace(toy.procedure, baselines=lambda config, pack, parts: found))
    study = bench(entry=entry, trials=0, repeats=1, tables=["1"])
    study.open()
    data = read_study(study.folder)["data"]
    assert data["baselines"] == found
    assert data["size_baseline"] is None


def test_the_same_images_are_known_under_another_frame_and_polarity_and_whatever_their_scale(tmp_path):
    from PIL import Image

    from trainables.data.copies import shared_files

    chance = np.random.default_rng(0)
    for name, frame, white in (("one", 4, False), ("other", 9, True)):
        for number in range(3):
            gray = np.zeros((12 + 2 * frame, 10 + 2 * frame), np.uint8)
            known = np.random.default_rng(number).integers(60, 250, (12, 10))
            fresh = chance.integers(60, 250, (12, 10))
            gray[frame : frame + 12, frame : frame + 10] = known if number < 2 or name == "one" else fresh
            path = tmp_path / name / "a" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - gray if white else gray).save(path)
    assert shared_files(tmp_path / "one", tmp_path / "other").refused.startswith("2 images in both sets: a/0.png = a/0.png")
    assert shared_files(tmp_path / "one", tmp_path / "one").refused.startswith("3 images")
