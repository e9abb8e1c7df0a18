"""Marks that are burnt into the images of one class: found where they tell the class, passed over where they do not."""

import numpy as np
import pytest
from PIL import Image

from search import cli
from trainables.data.burnt import Corners, burnt_in, said_of_marks
from trainables.data.open import Opened, decoded_of
from trainables.data.pack import make_pack
from trainables.data.read import read_folder


def bar(image, kind, number):
    if kind == "b":
        image[-9:-5, -30:-6] = 20


def label(image, kind, number):
    if kind == "b":
        image[4:12, 4:7] = image[4:12, 12:15] = image[7:9, 4:15] = 255  # H
        image[4:12, 20 + number % 7] = 255  # what differs from image to image


def most(image, kind, number):
    bar(image, kind if number % 5 else "a", number)


def one_patient(image, kind, number):
    bar(image, kind if number % 4 == 1 else "a", number)


def everywhere(image, kind, number):
    bar(image, "b", number)


def anywhere(image, kind, number):
    image[number : number + 4, 3 * (number % 9) : 3 * (number % 9) + 24] = 20


def nothing(image, kind, number):
    pass


def drawn(burn, tissue, images=40):
    """(class, patient, image) of two classes of four patients: blobs of gray on white, or grain that fills the frame."""
    draw = np.random.default_rng(5)
    y, x = np.mgrid[:64, :80]
    for kind in "ab":
        for number in range(images):
            image = draw.integers(120, 200, (16, 20)).repeat(4, 0).repeat(4, 1) if tissue else np.full((64, 80), 250)
            if not tissue:
                away = np.hypot(y - 32 - draw.normal() * 3, (x - 40) / draw.uniform(0.7, 1.4)) / draw.uniform(12, 22)
                image = np.where(away < 1, draw.integers(60, 160) + 20 * np.sin(x), image)
            burn(image, kind, number)
            yield kind, f"P{number % 4}", Image.fromarray(image.astype(np.uint8))


@pytest.mark.parametrize("tissue", [False, True])
@pytest.mark.parametrize(
    ("burn", "words"),
    [
        (bar, "bottom right (100% of b, 0% of the other classes"),
        (label, "top left (100% of b, 0% of the other classes"),
        (most, "bottom right (80% of b, 0% of the other classes"),
        (one_patient, "bottom right (25% of b, of P1 alone, 0% of the other classes"),
        (everywhere, ""),
        (anywhere, ""),
        (nothing, ""),
    ],
)
def test_what_is_burnt_into_one_class_is_named_with_its_place(burn, words, tissue):
    if burn is label and not tissue:
        pytest.skip("white on white is not to be seen")
    kinds, patients, images = zip(*drawn(burn, tissue), strict=True)
    corners = {i: Corners.of(decoded_of(Opened(image, None, 1, False))) for i, image in enumerate(images)}
    names = [f"{i}.png" for i in corners]
    pack = make_pack(
        np.zeros((len(names), 1, 1), np.uint8), ["ab".index(k) for k in kinds], "ab", names, patients, np.ones((len(names), 2))
    )
    said = said_of_marks(burnt_in(corners, pack))
    assert bool(said) == bool(words) and words in "".join(said)


def test_check_and_a_study_say_what_is_burnt_in_and_the_page_shows_it(tmp_path, capsys):
    for number, (kind, _, image) in enumerate(drawn(bar, tissue=False, images=9)):
        (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / kind / f"{number}.png")
    cli.main(["data", "check", str(tmp_path / "data"), "--html", str(tmp_path / "page.html")])
    assert "warning: something is burnt into the images of one class" in capsys.readouterr().out
    assert "Burnt into b, bottom right" in (tmp_path / "page.html").read_text()
    assert any("burnt into the images of one class" in note for note in read_folder(tmp_path / "data", 80, 40).notes)
