"""Chromosomes straightened by their medial axis: a bent band pattern is the unbent one again; what has no single axis stays as it is, and is counted."""

import numpy as np
import pytest
from PIL import Image

from trainables.data.normal import Normal, brought, normal_of
from trainables.data.read import read_folder
from trainables.data.straighten import longest_path, medial_axis, straightened
from trainables.scl import SclConfig

LENGTH, WIDTH = 120, 14


def bands(along):
    return 130 + 70 * np.sin(2 * np.pi * along / 24) + 40 * np.sin(2 * np.pi * along / 57 + 1)


def unbent():
    return np.repeat(bands(np.arange(LENGTH) + 0.5)[:, None], WIDTH, 1)


def bent(radius, side=150, turn=0.0):
    """The strip along an arc of this radius."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    angle = np.mod(np.arctan2(y, x) - turn, 2 * np.pi)
    along, across = angle * radius, np.hypot(y, x) - radius
    return np.where((along < LENGTH) & (np.abs(across) <= WIDTH / 2), np.rint(bands(along)), 0).astype(np.uint8)


def apart(found, wanted):
    """Mean absolute error as a share of the wanted mean, the better of both ways round, but for 8 pixels of each end, where the axis is a straight
    line drawn on, and 2 of each edge; lengths and widths brought together."""
    found = found[:, (found > 0).mean(0) > 0.5] if (found > 0).mean(0).max() > 0.5 else found
    found = found[(found > 0).mean(1) > 0.5] if (found > 0).mean(1).max() > 0.5 else found
    size = (wanted.shape[1], wanted.shape[0])
    found = np.asarray(Image.fromarray(found).resize(size, Image.Resampling.BILINEAR), float)
    return min(np.abs(found[::way] - wanted)[8:-8, 2:-2].mean() for way in (1, -1)) / wanted.mean()


@pytest.mark.parametrize("radius", [35, 45, 60])
@pytest.mark.parametrize("turn", [0.0, 1.0])
def test_a_bent_band_pattern_becomes_the_unbent_one(radius, turn):
    gray = bent(radius, turn=turn)
    found, done = straightened(gray)
    assert done and found.shape[0] == pytest.approx(LENGTH, abs=5) and WIDTH - 1 <= found.shape[1] <= WIDTH + 8
    assert apart(found, unbent()) < 0.1 and apart(gray, unbent()) > 0.4


def test_a_straight_one_stays_what_it_is():
    gray = np.pad(np.rint(unbent()).astype(np.uint8), 6)
    for image in (gray, np.rot90(gray)):
        found, done = straightened(image)
        assert done and apart(found, unbent()) < 0.08


def ring(side=80):
    y, x = np.mgrid[:side, :side] - side / 2
    return np.where(np.abs(np.hypot(y, x) - 28) < 6, 150, 0).astype(np.uint8)


def nine():
    """A ring with a tail: filled, it would pass for one strip."""
    gray = np.zeros((90, 40), np.uint8)
    gray[2:26, 4:28] = 150
    gray[9:19, 11:21] = 0
    gray[20:88, 8:24] = 150
    return gray


def disc(side=40):
    y, x = np.mgrid[:side, :side] - side / 2
    return np.where(np.hypot(y, x) < 14, 150, 0).astype(np.uint8)


def cross(side=90):
    gray = np.zeros((side, side), np.uint8)
    gray[40:50, 5:-5] = gray[5:-5, 40:50] = 150
    return gray


@pytest.mark.parametrize("gray", [ring(), nine(), disc(), cross(), np.zeros((20, 20), np.uint8), np.eye(3, dtype=np.uint8) * 90], ids=["ring", "nine", "disc", "cross", "blank", "specks"])  # fmt: skip
def test_what_has_no_single_axis_stays_as_it_is(gray):
    found, done = straightened(gray)
    assert not done and found is gray


def test_the_longest_path_leaves_spurs_out():
    places = np.array([[5, c] for c in range(12)] + [[4, 6], [3, 6]])
    path = longest_path(places)
    assert [places[i].tolist() for i in path] in ([[5, c] for c in range(12)], [[5, c] for c in range(11, -1, -1)])
    assert len(longest_path(places[:1])) == 0 and medial_axis(ring() > 0) is None


def test_a_folder_is_read_straightened_where_asked_and_what_was_left_is_counted(tmp_path):
    for name, gray in (("a/0", bent(40)), ("a/1", disc()), ("b/0", bent(55)), ("b/1", cross())):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(gray).save(path)
    normal = normal_of(vars(SclConfig(straighten=True)))
    assert normal == Normal(straight=True) and normal_of(vars(SclConfig())) == Normal()
    pack, plain = (read_folder(tmp_path, 160, 80, normal=one) for one in (normal, Normal()))
    assert "each image by itself: straightened by its medial axis" in pack.notes
    assert "2 of 4 images left as they are: short, touching themselves, or without a single axis" in pack.notes
    same = [np.array_equal(a, b) for a, b in zip(pack.images, plain.images, strict=True)]
    assert dict(zip(pack.files, same, strict=True)) == {"a/0.png": False, "a/1.png": True, "b/0.png": False, "b/1.png": True}
    assert np.array_equal(pack.images[0], brought(bent(40), normal, 160, 80)[0])  # as the built-in set is
