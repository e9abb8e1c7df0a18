"""The study's own images as another laboratory would show them: each run is judged on those of its own test part, and on no others."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from search import exported, registry
from search.source import SIMULATED
from trainables import supcam
from trainables.data import read
from trainables.data.normal import width_of
from trainables.data.open import decode
from trainables.data.pack import judged_on, load_pack, make_pack, save_pack
from trainables.data.split import split


def written(folder, pack):
    for file, image in zip(pack.files, pack.images, strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.pad(255 - image, 3, constant_values=255)).save(folder / file)
    return folder


def test_clusters_are_seen_as_by_another_laboratory_image_by_image_and_each_file_is_read_once(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(read, "decode", lambda path, *how: opened.append(path) or decode(path, *how))
    drawn = supcam.synthesize(supcam.SupcamConfig(input_size=224), images=24, seed=0)
    folder = written(tmp_path / "own", drawn)
    widths = []
    for normal in ({}, {"normal_width": 15.0, "normal_gray": 190.0}):
        config = supcam.SupcamConfig(input_size=64, **normal)
        own, seen = supcam.read_both(folder, config)
        assert len(set(opened)) == len(opened) == len(own)
        opened.clear()
        assert own.hash == supcam.read(folder, config).hash and not any((seen.images == own.images).all((1, 2)))
        opened.clear()
        assert (seen.files, seen.classes, seen.labels.tolist()) == (own.files, own.classes, own.labels.tolist())
        assert own.hash != seen.hash and not seen.copy_of and any(note.startswith("simulated") for note in seen.notes)
        widths.append(np.median([width_of(image) for image in seen.images]) / np.median([width_of(image) for image in own.images]))
    assert widths[0] < 0.85 and widths[1] == pytest.approx(1, abs=0.08)


def test_a_run_is_judged_on_its_own_test_part_of_them_and_on_all_of_another_set(toy_pack, tmp_path):
    test = split(toy_pack, (0.6, 0.2, 0.2), 0)["test"]
    seen = replace(toy_pack, copy_of=toy_pack.hash)
    assert judged_on(load_pack(save_pack(seen, tmp_path / "seen")), toy_pack, test).tolist() == test.tolist()
    assert len(judged_on(toy_pack, toy_pack, test)) == len(judged_on(seen, replace(toy_pack, hash="another"), test)) == len(toy_pack)


@pytest.mark.slow
def test_a_folder_without_external_sets_brings_its_own_images_seen_elsewhere_and_the_export_is_proven_on_them(
    inside, toy, toy_pack, tmp_path, monkeypatch
):
    asked = []

    def elsewhere(folder, config):
        asked.append(folder)
        pack = toy.procedure.read(folder, config)
        pale = make_pack(pack.images // 2, pack.labels, pack.classes, pack.files, pack.patients, pack.areas, ["simulated: paler"])
        return pack, replace(pale, copy_of=pack.hash)

    folder = written(tmp_path / "images", toy_pack)
    command = ("--data", str(folder), "--preset", "quick", "--trials", "0", "--tables", "1", "--arms", "plain", "--repeats", "1")
    before = ("--name", "before")
    assert inside(*command, *before) == 0
    for module in (registry, exported):
        monkeypatch.setattr(module, "load", lambda name: replace(toy, procedure=replace(toy.procedure, elsewhere=elsewhere)))
    assert inside(*command, *before) == 0 and not asked, "a study of before goes on as it was"
    assert inside(*command, "--name", "after") == 0
    assert asked == [folder]
    study = inside.storage / "after"
    told = json.loads((study / "study.json").read_text())
    test = told["data"]["parts"]["test"]
    [external] = told["data"]["external"]
    assert (external["slug"], external["images"], sum(external["counts"].values())) == (SIMULATED, test, test)
    assert told["tables"][0]["metrics"] == ["test_accuracy", f"external_{SIMULATED}_accuracy"]
    *_, record = map(json.loads, (study / "records.jsonl").read_text().splitlines())
    assert np.sum(record["confusion"][f"external_{SIMULATED}"]) == test
    assert f"external_{SIMULATED}_accuracy" in json.loads((study / "best" / "metrics.json").read_text())["metrics"]
    assert inside(*command, "--name", "after") == 0 and asked == [folder], "what was seen is kept"
    assert inside(*command, "--name", "named", "--external", str(written(tmp_path / "padova", other(toy)))) == 0
    told = json.loads((inside.storage / "named" / "study.json").read_text())
    assert [one["slug"] for one in told["data"]["external"]] == ["padova"], "real images of another laboratory are better"


def other(toy):
    return toy.procedure.synthesize(toy.procedure.config(), images=30, seed=5)
