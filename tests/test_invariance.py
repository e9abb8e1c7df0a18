"""Copies of test images: what they are, what is found, and where it is said."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import analysis
from search import export as exporting
from search import invariance
from search.export import measure_copies
from search.exported import exported_key
from search.invariance import (
    ALONE,
    COLOUR_COPIES,
    COPIES,
    ELSEWHERE,
    LABORATORY,
    LEAST,
    ONE_CLASS,
    SAMPLE,
    Copies,
    as_given,
    card_lines,
    invariances,
)
from search.study import read_study
from trainables import ccrl
from trainables.data.normal import Normal
from trainables.data.open import read_picture
from trainables.data.read import read_images
from trainables.data.synthetic_cells import cell_set
from trainables.data.synthetic_karyotypes import karyotype_set
from trainables.parts.procedure import Setting

CPU = torch.device("cpu")
ALL = Normal(width=12.0, gray=190.0, upright=True)


@pytest.fixture(scope="module")
def chromosomes():
    return karyotype_set(2, homologues=1, size=160, canvas=160)


def by(toy, judge, normal=ALL):
    """A procedure that says what `judge` makes of each image of a folder."""
    return replace(
        toy.procedure,
        read_images=lambda paths, config: (read_images(paths, 320, 160, normal=normal)[0], {}, [], []),
        predict=lambda config, tensors, images, classes, device: {"prediction": judge(images)},
    )


def found(toy, pack, judge, **more):
    return invariances(by(toy, judge, **more), None, {}, pack, np.arange(0, len(pack), 2), None, CPU).same


def test_a_judgement_of_what_an_image_shows_keeps_its_class_under_every_copy(toy, chromosomes):
    def long(images):
        return [str(np.ptp(np.flatnonzero(image.any(1))) > 27) for image in images]

    same = found(toy, chromosomes, long)
    assert set(same) == {*COPIES, ALONE, ONE_CLASS, LABORATORY}
    assert min(part for name, part in same.items() if name != LABORATORY) >= 0.9
    assert all(same[name] == 1 for name in ("inverted", "RGB", "RGBA", "TIFF", "padded by 10", "padded to 300", ALONE, ONE_CLASS))


@pytest.mark.slow
def test_a_judgement_by_size_turn_or_neighbours_is_found_out(toy, chromosomes):
    plain = Normal()
    sizes = found(toy, chromosomes, lambda images: [str(np.count_nonzero(image) // 30) for image in images], normal=plain)
    assert sizes["half size"] < 0.1 and sizes["double size"] < 0.1 and sizes["inverted"] == 1
    turned = found(toy, chromosomes, lambda images: [str(np.ptp(np.argwhere(i), axis=0).argmax()) for i in images], normal=plain)
    assert turned["turned by 90 degrees"] < 0.2 and turned["RGB"] == 1
    crowd = found(toy, chromosomes, lambda images: [str(np.mean([i.mean() for i in images]) < image.mean()) for image in images])
    assert crowd[ONE_CLASS] < 1

    def alone(paths, config):
        images = read_images(paths, 96, 64)[0]
        return images // len(images), {}, [], []

    judged = replace(by(toy, lambda images: [str(int(image.max()) > 30) for image in images]), read_images=alone)
    assert invariances(judged, None, {}, chromosomes, np.arange(len(chromosomes)), None, CPU).same[ALONE] < 0.2


@pytest.mark.slow
def test_the_sample_is_of_the_test_part_the_same_each_time_and_limited(toy, chromosomes, monkeypatch):
    looked = []
    monkeypatch.setattr(invariance, "as_given", lambda pack, index, source: looked.append(index) or as_given(pack, index, source))
    test = np.arange(5, 45)
    monkeypatch.setattr(invariance, "SAMPLE", 20)
    for _ in range(2):
        invariances(by(toy, lambda images: ["x"] * len(images)), None, {}, chromosomes, test, None, CPU)
    each = LEAST + 20  # ten for the clock, then all
    assert looked[:each] == looked[each:] and set(looked) <= set(test) and len(set(looked)) == 20 and SAMPLE == 100


@pytest.mark.slow
def test_a_slow_network_is_asked_about_fewer_images_and_a_very_slow_one_about_none_and_the_card_says_so(toy, chromosomes, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(invariance, "SAMPLE", 20)
    monkeypatch.setattr(invariance.time, "monotonic", lambda: now[0])
    asked = []

    def judge(seconds):
        def of(images):
            now[0] += seconds * len(images)
            asked.append(len(images))
            return ["x"] * len(images)

        return by(toy, of)

    test = np.arange(len(chromosomes))

    def look(seconds):
        asked.clear()
        begun = now[0]
        return invariances(judge(seconds), None, {}, chromosomes, test, None, CPU), now[0] - begun

    fast, took = look(0.001)
    assert fast.images == fast.wanted == 20 and took < invariance.SECONDS
    slow, took = look(0.5)
    assert LEAST <= slow.images < slow.wanted and took < invariance.SECONDS
    assert f"Of {slow.images} test images" in card_lines(slow)[0] and "as 120 s were enough for" in card_lines(slow)[0]
    none, took = look(2.0)
    assert none.images == 0 and not none.same and took == 2.0 * (LEAST + 1)
    assert "Not measured: copies of 10 images would have taken more than 120 seconds" in card_lines(none)[0]


def test_the_file_is_taken_where_it_is_there_and_the_packed_image_where_not(chromosomes, tmp_path):
    path = tmp_path / chromosomes.files[3]
    path.parent.mkdir(parents=True)
    gray = np.zeros((30, 40), np.uint8)
    gray[5:20, 8:12] = 99
    Image.fromarray(gray).save(path)
    assert np.array_equal(as_given(chromosomes, 3, tmp_path), np.pad(255 - gray, 2, constant_values=255))
    path.write_bytes(b"damaged")
    for source in (tmp_path, None):
        assert np.array_equal(as_given(chromosomes, 3, source)[2:-2, 2:-2], 255 - chromosomes.images[3])


def of_cells(cells, judge):
    """What is found for a clustering of cells by `judge`."""
    procedure = replace(ccrl.PROCEDURE, predict=lambda config, tensors, images, classes, device: {"cluster": judge(images / 255)})
    return invariances(procedure, ccrl.CcrlConfig(), {}, cells, np.arange(0, len(cells), 2), None, CPU)


@pytest.mark.slow
def test_of_cells_a_turn_a_stain_a_shift_and_a_format_are_looked_at_and_each_is_found_out_by_what_depends_on_it():
    cells = cell_set(60, seed=0)
    size = of_cells(cells, lambda images: (images.mean(3) < 0.6).mean((1, 2)) > 0.3)
    assert set(size.same) == {*COLOUR_COPIES, ALONE, ONE_CLASS} and size.what == "cluster" and size.images == size.wanted == 30
    exact = ("RGBA", "TIFF", "turned by 90 degrees", "turned by 180 degrees", "mirrored", ALONE, ONE_CLASS)
    assert all(size.same[name] == 1 for name in exact)
    assert "copies with the same cluster as the image itself" in card_lines(size)[0] and "| mirrored | 100 % |" in card_lines(size)[0]
    of = {  # a judgement -> the copies that change it
        "turned by 90 degrees": lambda images: images[:, 0, :, 0].round(3).tolist(),
        "mirrored": lambda images: images[:, :, 0, 0].round(3).tolist(),
        "shifted by 2 px": lambda images: images[:, 16, 16].round(3).tolist(),
        "brightness 0.9": lambda images: (images.mean((1, 2, 3)) * 50).round(),
        "contrast 0.8": lambda images: (images.std((1, 2, 3)) * 100).round(),
        "optical densities 1.2": lambda images: (images[..., 1].mean((1, 2)) * 50).round(),
    }
    for name, judge in of.items():
        assert of_cells(cells, lambda images, judge=judge: [str(one) for one in judge(images)]).same[name] < 0.5, name


def test_colours_of_16_bits_are_written_as_they_are(tmp_path):
    image = np.random.default_rng(0).integers(90, 216, (5, 7, 3)).astype(np.uint8)  # nothing black, nothing white
    make, ending, how = COLOUR_COPIES["16 bits"]
    make(image).save(tmp_path / f"deep{ending}", **how)
    picture, said = read_picture(tmp_path / f"deep{ending}")
    assert np.array_equal(picture, image) and said.deep


def test_a_yardstick_that_an_image_alone_does_not_show_has_no_such_copies():
    cells = cell_set(60, seed=0)
    config = ccrl.canonical(ccrl.CcrlConfig(features="area"))
    tensors = ccrl.exported(config, ccrl.build(config, Setting(cells, ccrl.split_of(config, cells, 0), 0)).result())
    assert invariances(ccrl.PROCEDURE, config, tensors, cells, np.arange(20), None, CPU) == Copies() and card_lines(Copies()) == []


def test_a_procedure_that_reads_no_single_images_has_no_such_copies_and_is_exported_all_the_same(toy, chromosomes):
    blind = dataclasses.replace(toy.procedure, read_images=None)
    assert invariances(blind, None, {}, chromosomes, np.arange(len(chromosomes)), None, CPU) == Copies()


def test_an_export_says_on_its_card_and_in_the_report_what_was_found_and_before_that_it_was_not_looked_at(exported, toy, toy_pack):
    exported()
    best = exported.folder / "best"
    assert json.loads((best / "metrics.json").read_text())["same_class"] is None and "Not measured yet" in (best / "README.md").read_text()
    ledger, _ = exported.bench.open()
    study = read_study(exported.folder)
    assert measure_copies(toy, exported.folder, study, ledger, toy_pack) and exported_key(best) is not None
    assert not measure_copies(toy, exported.folder, study, ledger, toy_pack), "it is known"
    same = json.loads((best / "metrics.json").read_text())["same_class"]
    card = (best / "README.md").read_text()
    assert set(same) == {*COPIES, ALONE, ONE_CLASS, LABORATORY} and ELSEWHERE.words in card
    small = f"brought to {toy_pack.images.shape[1]} x {toy_pack.images.shape[1]} px before, since their files were not at hand"
    assert small in card, "half the size of an image that is small already is not half the size of its file"
    assert all(f"| {name} | {100 * part:.0f} % |" in card for name, part in same.items())
    analysis.write_report(exported.folder)
    for name in ("report.md", "report.html"):
        assert f"turned by 90 degrees: {100 * same['turned by 90 degrees']:.0f} %" in (exported.folder / name).read_text()
        assert small in (exported.folder / name).read_text()
    short = card_lines(Copies({"half size": 0.5, "RGB": 1.0, LABORATORY: 0.2}, 4, 4))[0]
    assert "Below 97 %: half size (50 %). Give" in short and "Below" not in card_lines(Copies({"RGB": 1.0}, 4, 4))[0]


def test_the_report_is_written_before_copies_are_looked_at_and_again_with_what_was_found(inside, monkeypatch):
    found = []

    def look(*arguments):
        found.append((inside.study / "report.html").exists())
        return Copies({"RGB": 0.75}, 4, 4)

    monkeypatch.setattr(exporting, "invariances", look)
    assert inside("--trials", "0", "--tables", "1", "--arms", "plain", "--repeats", "1") == 0
    assert found == [True] and exported_key(inside.study / "best") is not None
    assert "| RGB | 75 % |" in (inside.study / "best" / "README.md").read_text() and "RGB: 75 %" in (inside.study / "report.md").read_text()
