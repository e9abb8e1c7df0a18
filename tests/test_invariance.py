"""Copies of test images: what they are, what is found, and where it is said."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import analysis
from search import invariance
from search.invariance import ALONE, COPIES, ELSEWHERE, LABORATORY, ONE_CLASS, SAMPLE, card_lines, invariances, on_white
from trainables.data.normal import Normal
from trainables.data.pack import make_pack
from trainables.data.read import read_images
from trainables.data.synthetic_karyotypes import karyotype_set

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
    return invariances(by(toy, judge, **more), None, {}, pack, np.arange(0, len(pack), 2), None, CPU)


def test_a_judgement_of_what_an_image_shows_keeps_its_class_under_every_copy(toy, chromosomes):
    def long(images):
        return [str(np.ptp(np.flatnonzero(image.any(1))) > 27) for image in images]

    same = found(toy, chromosomes, long)
    assert set(same) == {*COPIES, ALONE, ONE_CLASS, LABORATORY}
    assert min(part for name, part in same.items() if name != LABORATORY) >= 0.9
    assert all(same[name] == 1 for name in ("inverted", "RGB", "RGBA", "TIFF", "padded by 10", "padded to 300", ALONE, ONE_CLASS))


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
    assert invariances(judged, None, {}, chromosomes, np.arange(len(chromosomes)), None, CPU)[ALONE] < 0.2


def test_the_sample_is_of_the_test_part_the_same_each_time_and_limited(toy, chromosomes, monkeypatch):
    looked = []
    monkeypatch.setattr(invariance, "on_white", lambda pack, index, source: looked.append(index) or on_white(pack, index, source))
    test = np.arange(5, 45)
    monkeypatch.setattr(invariance, "SAMPLE", 20)
    for _ in range(2):
        invariances(by(toy, lambda images: ["x"] * len(images)), None, {}, chromosomes, test, None, CPU)
    assert looked[:20] == looked[20:] and set(looked) <= set(test) and len(set(looked)) == 20 and SAMPLE == 100


def test_the_file_is_taken_where_it_is_there_and_the_packed_image_where_not(chromosomes, tmp_path):
    path = tmp_path / chromosomes.files[3]
    path.parent.mkdir(parents=True)
    gray = np.zeros((30, 40), np.uint8)
    gray[5:20, 8:12] = 99
    Image.fromarray(gray).save(path)
    assert np.array_equal(on_white(chromosomes, 3, tmp_path), np.pad(255 - gray, 2, constant_values=255))
    path.write_bytes(b"damaged")
    for source in (tmp_path, None):
        assert np.array_equal(on_white(chromosomes, 3, source)[2:-2, 2:-2], 255 - chromosomes.images[3])


def test_images_in_colour_have_no_such_copies(toy, chromosomes):
    colour = make_pack(
        np.stack([chromosomes.images] * 3, 3), chromosomes.labels, chromosomes.classes, chromosomes.files, None, chromosomes.areas
    )
    assert found(toy, colour, lambda images: ["x"] * len(images)) == {} and card_lines({}) == []


def test_a_procedure_that_reads_no_single_images_has_no_such_copies_and_is_exported_all_the_same(toy, chromosomes):
    blind = dataclasses.replace(toy.procedure, read_images=None)
    assert invariances(blind, None, {}, chromosomes, np.arange(len(chromosomes)), None, CPU) == {}


def test_an_export_says_on_its_card_and_in_the_report_what_was_found(exported):
    exported()
    best = exported.folder / "best"
    same = json.loads((best / "metrics.json").read_text())["same_class"]
    card = (best / "README.md").read_text()
    assert set(same) == {*COPIES, ALONE, ONE_CLASS, LABORATORY} and ELSEWHERE.words in card
    assert all(f"| {name} | {100 * part:.0f} % |" in card for name, part in same.items())
    analysis.write_report(exported.folder)
    for name in ("report.md", "report.html"):
        assert f"turned by 90 degrees {100 * same['turned by 90 degrees']:.0f} %" in (exported.folder / name).read_text()
    short = card_lines({"half size": 0.5, "RGB": 1.0, LABORATORY: 0.2})[0]
    assert "Below 97 %: half size (50 %). Give" in short and "Below" not in card_lines({"RGB": 1.0})[0]
