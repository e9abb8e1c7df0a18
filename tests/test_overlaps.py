"""Tiles and crops of one field are told by their pixels, and stand on one side; what a file is beside its picture is held against the class."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from trainables.data.cells import read_cells
from trainables.data.check import inspect_folder
from trainables.data.copies import shared_files
from trainables.data.overlaps import landmarks_of, overlapping
from trainables.data.read import read_folder
from trainables.data.split import split

SIDE, STEP = 64, 32
SLIDES = 6


def slide(seed, side=160):
    """uint8 (side, side, 3): nuclei on a texture, as stained tissue has."""
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(rng.normal(size=(side, side)), 3) * 60 + 200
    nuclei = gaussian_filter((rng.random((side, side)) < 0.012).astype(float), rng.uniform(2.5, 3.5)) * 4500
    return np.clip(ground[..., None] - nuclei[..., None] * (0.7, 1.0, 0.5), 20, 255).astype(np.uint8)


def tiles(seed, step=STEP):
    picture = slide(seed)
    return [picture[y : y + SIDE, x : x + SIDE] for y in range(0, 97, step) for x in range(0, 97, step)]


def gray(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG" if quality else "PNG", quality=quality or 75)
    return np.asarray(Image.open(stream).convert("L"), np.float32)


@pytest.mark.parametrize("quality", [0, 80])
def test_tiles_of_one_field_are_found_and_others_are_not(quality):
    marks = [landmarks_of(gray(tile, quality)) for seed in range(SLIDES) for tile in tiles(seed)]
    found = set(overlapping(marks))
    halves = {
        (16 * s + i, 16 * s + i + by) for s in range(SLIDES) for i in range(16) for by in (1, 4) if i + by < 16 and (by == 4 or i % 4 < 3)
    }
    assert len(found & halves) >= 0.9 * len(halves) and all(i // 16 == j // 16 for i, j in found)
    assert {(i, 5) for i, j in found if j == 5} <= set(overlapping(marks[:16], marks[:6])) and not overlapping(marks[:16], marks[16:32])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tiles")
    for seed in range(SLIDES):
        for i, tile in enumerate(tiles(seed)):
            path = made / "ab"[seed % 2] / f"{seed}{i:02d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(tile).save(path)
    return made


def test_all_who_split_keep_the_tiles_of_one_field_together(folder):
    found = inspect_folder(folder)
    assert found.parts == {"train": 32, "val": 32, "test": 32}
    assert any(line.startswith("96 images of 96 show a part of what another one shows (a/0") for line in found.warnings)
    for pack in (read_folder(folder, 64, 64), read_cells(folder)):
        assert all(
            len({name // 100 for name in map(int, (f[2:5] for f in np.array(pack.files)[part]))}) == 2 for part in split(pack).values()
        )
        assert any("a part of what another one shows" in note for note in pack.notes)


def test_tiles_of_one_field_in_two_given_parts_or_two_sets_are_named(folder, tmp_path):
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        part = tmp_path / ("train", "val", "test")[i % 3] / path.parent.name
        part.mkdir(parents=True, exist_ok=True)
        (part / path.name).write_bytes(path.read_bytes())
    assert any("parts of one field on two sides" in line for line in inspect_folder(tmp_path).warnings)
    assert "or show a part of one" in shared_files(tmp_path / "train", tmp_path / "test").refused


def saved(folder, how):
    """Twelve images of each class, each another noise, saved as `how` says of each class."""
    for k, label in enumerate("ab"):
        (folder / label).mkdir()
        for i in range(12):
            image = np.zeros((24, 24), np.uint8)
            image[4:20, 4:20] = np.random.default_rng(100 * k + i).integers(20, 250, (16, 16))
            how(image, folder / label / str(i), k, i)
    return folder


WAYS = {
    "format": lambda image, path, k, i: Image.fromarray(image).save(f"{path}{('.png', '.bmp')[k]}"),
    "colours": lambda image, path, k, i: Image.fromarray(image).convert(("L", "RGB")[k]).save(f"{path}.png"),
    "resolution": lambda image, path, k, i: Image.fromarray(image).save(f"{path}.png", dpi=((96, 96), (300, 300))[k]),
    "compression": lambda image, path, k, i: Image.fromarray(image).save(f"{path}.jpg", quality=(95, 80)[k]),
    "program": lambda image, path, k, i: Image.fromarray(image).save(f"{path}.tif", software=("Ikaros", "ZEN")[k]),
    "frame": lambda image, path, k, i: Image.fromarray(np.pad(image, k)).save(f"{path}.png"),
}


@pytest.mark.parametrize("trait", WAYS)
def test_a_class_that_its_files_tell_is_said_of_a_check_and_of_a_study(tmp_path, trait):
    saved(tmp_path, WAYS[trait])
    for said in (inspect_folder(tmp_path).warnings, read_folder(tmp_path, 32, 32).notes, read_cells(tmp_path).notes):
        assert any("can be read off the files" in line and f"{trait} alone is right for 100.0%" in line for line in said)


@pytest.mark.parametrize(
    "how",
    [
        lambda image, path, k, i: Image.fromarray(image).save(f"{path}{('.png', '.bmp')[i % 2]}"),  # both classes in both
        lambda image, path, k, i: Image.fromarray(image).save(f"{path}{('.png', '.bmp')[i == k == 0]}"),  # one odd file
        lambda image, path, k, i: Image.fromarray(np.pad(image, 12 * k + i)).save(f"{path}.png"),  # sizes that measure objects
    ],
)
def test_files_that_tell_no_class_are_no_warning(tmp_path, how):
    assert not any("can be read off" in line for line in inspect_folder(saved(tmp_path, how)).warnings)
