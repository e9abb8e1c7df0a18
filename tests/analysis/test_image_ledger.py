"""The image ledger: what stands in it is what the runs' predictions say, counted here again from the files; and what it must not claim."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path

import fake
import numpy as np
import pytest

import analysis
from analysis import ledger, pictures

ASKED, RECORDS = fake.study_and_records()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose predictions lie beside its records, with patients; no run gets the images 0 to 4 of the test part right."""
    made = fake.write(tmp_path_factory.mktemp("made") / "study", ASKED, RECORDS)
    fake.leave(made, ASKED, RECORDS, heat=False)
    fake.doubt(made)
    return made


def said(folder: Path, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    test = json.loads((folder / "checkpoints" / key / "result.json").read_text())["predictions"]["test"]
    return np.array(test["index"]), np.array(test["label"]), np.array(test["probability"]).argmax(axis=1)


def test_the_ledger_holds_every_test_image_by_arm_and_seed_as_the_runs_left_them(folder):
    found = ledger.ledger(analysis.load(folder))
    assert len(found.of) == 24 and found.left_out == 0, "eight different arms that completed, three seeds each"
    for (arm, seed, key), row in zip(found.of, found.said, strict=True):
        record = next(r for r in RECORDS if r["key"] == key)
        assert (record["seed"], record["config_hash"]) == (seed, found.hashes[arm])
        index, label, guess = said(folder, key)
        assert np.array_equal(row, guess) and np.array_equal(found.index, index) and np.array_equal(found.truth, label)
    assert (found.arms[found.baseline], found.winner >= 0) == ("Training from scratch", True)


def test_doubts_are_the_images_that_no_run_gets_right_and_wins_those_of_most_seeds(folder):
    study = analysis.load(folder)
    found = ledger.ledger(study)
    runs = {key: said(folder, key) for _, _, key in found.of}
    wrong = np.all([guess != label for _, label, guess in runs.values()], axis=0)
    assert found.doubts.tolist() == np.flatnonzero(wrong).tolist() and set(range(5)) <= set(found.doubts.tolist())
    right = {
        arm: np.mean([runs[key][2] == found.truth for a, _, key in found.of if a == arm], axis=0) for arm in (found.winner, found.baseline)
    }
    wins = (right[found.winner] > 0.5) & (right[found.baseline] < 0.5)
    assert found.won(found.winner, found.baseline).tolist() == np.flatnonzero(wins).tolist()
    by_patient = {g.name: g for g in ledger.groups(found, found.patients)}
    images, doubts = Counter(found.patients), Counter(np.array(found.patients)[wrong].tolist())
    assert {name: (g.images, g.doubts) for name, g in by_patient.items()} == {name: (n, doubts[name]) for name, n in images.items()}
    assert f"{wrong.sum()} of {len(wrong)} test images" in ledger.words(found)


def test_the_effect_of_leaving_images_out_is_counted_anew_and_called_no_result(folder, tmp_path):
    study = analysis.load(folder)
    found = ledger.ledger(study)
    keep = np.setdiff1d(np.arange(len(found.truth)), found.doubts)
    by = {(arm, seed): 100 * (row == found.truth) for (arm, seed, _), row in zip(found.of, found.said, strict=True)}
    base = {seed: values for (arm, seed), values in by.items() if arm == found.baseline}
    for arm, (name, whole, rest, gain, gain_rest) in enumerate(ledger.effect(found, found.doubts)):
        mine = {seed: values for (a, seed), values in by.items() if a == arm}
        assert name == found.arms[arm] and rest > whole
        assert (whole, rest) == pytest.approx(tuple(np.mean([v[some].mean() for v in mine.values()]) for some in (slice(None), keep)))
        if arm != found.baseline:
            assert (gain, gain_rest) == pytest.approx(
                tuple(np.mean([v[some].mean() - base[s][some].mean() for s, v in mine.items()]) for some in (slice(None), keep))
            )
    analysis.write_report(folder, figures="light")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Every arm rises, because they were chosen so: this is no result." in text


def test_a_run_of_other_images_is_left_out_and_counted(folder, tmp_path):
    study = analysis.load(folder)
    other = next(key for arm, _, key in ledger.ledger(study).of if arm == 0)
    path = folder / "checkpoints" / other / "result.json"
    before = path.read_text()
    given = json.loads(before)
    given["predictions"]["test"]["index"][0] = 599  # another image, of whatever class
    path.write_text(json.dumps(given))
    found = ledger.ledger(analysis.load(folder))
    path.write_text(before)
    assert found.left_out == 1 and other not in {key for _, _, key in found.of}
    assert "1 more run of other images" in ledger.words(found)


def test_a_study_without_predictions_has_no_ledger_and_one_without_images_has_one_without_pictures(tmp_path):
    made = fake.write(tmp_path, copy.deepcopy(ASKED), RECORDS)
    assert ledger.ledger(analysis.load(made)) is None
    fake.leave(made, ASKED, RECORDS, heat=False)
    (made / "data/images.npy").unlink()
    study = analysis.load(made)
    found = ledger.ledger(study)
    view = ledger.view(study, found)
    assert (view["sheet"], view["pictures"]) == ("", {}) and found.files[0].endswith(".png")
    (made / "data/data.json").unlink()
    assert ledger.ledger(analysis.load(made)).files[0].startswith("image ")


def test_more_predictions_than_the_page_can_hold_leave_out_the_last_seeds(folder, monkeypatch):
    monkeypatch.setattr(ledger, "_MOST", 16 * 180)
    found = ledger.ledger(analysis.load(folder))
    assert len(found.of) == 16 and found.left_out == 8 and len(found.arms) == 8
    assert {seed for _, seed, _ in found.of} == {0, 1}


def test_an_image_keeps_its_shape_on_its_tile():
    image = np.zeros((20, 60, 3), dtype=np.uint8)
    image[..., 0] = 200
    tile = pictures.tile(image)
    assert tile.shape == (48, 48, 3)
    assert tile[24, 24].tolist() == [200, 0, 0] and tile[:16].max() == 0 and tile[32:].max() == 0
