"""What an image is brought to by itself: measures with known answers, and copies that must come out alike."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter, rotate

from trainables.data.ground import on_black
from trainables.data.laboratory import ELSEWHERE, Laboratory, seen_by
from trainables.data.normal import AS_IT_IS, Normal, brought, normal_of, stretched, width_of
from trainables.data.read import read_images
from trainables.data.scale import foreground_box, on_canvas
from trainables.data.synthetic_clusters import draw_cluster
from trainables.data.synthetic_karyotypes import karyotype_set

ALL = Normal(width=12.0, gray=190.0, upright=True)


def strip(length, width, level=200):
    return np.pad(np.full((length, width), level, np.uint8), 7)


@pytest.fixture(scope="module")
def drawn():
    """Chromosomes of all kinds, each in a frame of its own."""
    return [np.asarray(image) for image in karyotype_set(2, homologues=1, size=160, canvas=160).images]


def alike(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.mark.parametrize(("length", "width"), [(40, 8), (90, 8), (60, 15), (120, 15)])
def test_the_width_of_a_strip_is_its_width_whatever_its_length_and_the_number_of_strips(length, width):
    assert width_of(strip(length, width)) == pytest.approx(width, rel=0.12)
    assert width_of(np.hstack([strip(length, width), strip(length, width)])) == pytest.approx(width_of(strip(length, width)))


def test_a_faint_edge_a_pale_band_and_a_hole_do_not_change_the_width():
    plain = strip(60, 15)
    banded, holed, faint = plain.copy(), plain.copy(), np.where(plain > 0, plain, 12).astype(np.uint8)
    banded[20:26] = np.where(banded[20:26] > 0, 90, 0)
    holed[30:34, 12:16] = 0
    for changed in (banded, holed, faint):
        assert width_of(changed) == pytest.approx(width_of(plain))


def test_twice_the_size_is_twice_as_wide(drawn):
    for gray in drawn[::5]:
        large = np.asarray(Image.fromarray(gray).resize((320, 320), Image.Resampling.BICUBIC))
        assert width_of(large) == pytest.approx(2 * width_of(gray), rel=0.08)


def test_a_paler_or_darker_copy_is_stretched_to_the_same_grays_and_its_ground_stays_0(drawn):
    for gray in drawn[::7]:
        pale = np.rint(gray * 0.5).astype(np.uint8)
        one, other = stretched(gray, 190), stretched(pale, 190)
        assert np.percentile(one[one > 0], 95) == pytest.approx(190, abs=3)
        assert np.abs(one.astype(int) - other)[(one > 0) & (other > 0)].max() <= 4
        assert not one[gray == 0].any() and (one[gray > 40] > 0).all()
        veil = np.where(binary_dilation(gray > 0, iterations=2) & (gray == 0), 6, gray)  # less than a twelfth of the object's own gray
        assert np.count_nonzero(veil) > np.count_nonzero(gray) and not stretched(veil, 190)[gray == 0].any()


def test_turns_by_90_degrees_and_frames_do_not_change_a_pixel(drawn):
    for number, gray in enumerate(drawn):
        seen = brought(gray, ALL, 96, 64)[0]
        turned = np.pad(np.rot90(gray, 1 + number % 3), ((3, 40), (11, 0)))
        assert np.abs(brought(turned, ALL, 96, 64)[0].astype(int) - seen).max() <= 1
        flat = Normal(width=12.0)
        assert np.array_equal(np.rot90(brought(gray, flat, 96, 64)[0]), brought(np.rot90(gray), flat, 96, 64)[0])


def test_what_is_brought_to_its_own_width_is_the_image_averaged_down(drawn):
    for gray in drawn[::6]:
        box = foreground_box(gray)
        seen = brought(gray, Normal(width=width_of(gray)), 160, 80)[0]
        plain = on_canvas(np.pad(box, [(0, side % 2) for side in box.shape]), 160, 80)
        assert max(alike(np.roll(seen, (y, x), (0, 1)), plain) for y in (-1, 0, 1) for x in (-1, 0, 1)) > 0.985


def test_an_object_at_any_angle_stands_with_the_same_end_up():
    wedge = np.zeros((120, 120), np.uint8)
    for row in range(20, 100):
        wedge[row, 60 - (row - 20) // 8 - 3 : 60 + (row - 20) // 8 + 3] = 100 + row
    straight = brought(wedge, ALL, 128, 64)[0]
    for angle in (30, 75, 140, 200, 290):
        turned = np.clip(rotate(wedge, angle, order=1), 0, 255).astype(np.uint8)
        assert alike(brought(turned, ALL, 128, 64)[0], straight) > 0.98
    rows = np.flatnonzero(straight.any(1))
    assert np.count_nonzero(straight[rows[2]]) < np.count_nonzero(straight[rows[-3]])  # the thin end is further from the middle


def test_copies_of_another_size_blur_and_depth_come_out_alike(drawn, tmp_path):
    for number, gray in enumerate(drawn[::6]):
        seen = brought(gray, ALL, 96, 64)[0]
        half = np.asarray(Image.fromarray(gray).resize((80, 80), Image.Resampling.BOX))
        double = np.asarray(Image.fromarray(gray).resize((320, 320), Image.Resampling.BICUBIC))
        soft = gaussian_filter(gray.astype(np.float32), 0.7).astype(np.uint8)
        for copy, least in ((half, 0.93), (double, 0.985), (soft, 0.97)):
            assert alike(brought(copy, ALL, 96, 64)[0], seen) > least
        path = tmp_path / f"{number}.png"
        Image.fromarray((255 - gray).astype(np.uint16) * 150).save(path)
        Image.fromarray(255 - gray).save(tmp_path / "eight.png")
        images, _, _, _ = read_images([path, tmp_path / "eight.png"], 96, 64, normal=ALL)
        assert alike(images[0], images[1]) > 0.99


def test_a_ground_of_240_is_ground_and_grays_are_counted_from_it(drawn):
    for gray in drawn[::6]:
        white = 255 - gray
        plain = on_black(white.astype(np.float32)).black
        dim = on_black(np.minimum(white, 240).astype(np.float32)).black
        assert dim.max() == plain.max() - 15 and not dim[plain == 0].any()
        assert alike(brought(dim, ALL, 96, 64)[0], brought(plain, ALL, 96, 64)[0]) > 0.98


def test_what_is_longer_than_the_canvas_is_scaled_down_to_it_and_counted(tmp_path):
    long = strip(200, 10)
    seen, factor, large = brought(long, Normal(width=20.0), 128, 64)
    assert large and factor == pytest.approx(128 / 200) and np.ptp(np.flatnonzero(seen.any(1))) + 1 in (63, 64, 65)
    assert not brought(long, Normal(width=5.0), 128, 64)[2]
    Image.fromarray(long).save(tmp_path / "long.png")
    _, _, notes, _ = read_images([tmp_path / "long.png"], 128, 64, normal=Normal(width=20.0))
    assert "1 image larger than 128 px scaled down" in notes and any("scaled by 0.64 in the middle" in note for note in notes)


def test_a_speck_and_an_image_without_ground_are_brought_without_harm():
    speck = np.zeros((50, 50), np.uint8)
    speck[20, 30] = 200
    for gray in (speck, np.full((700, 900), 120, np.uint8), np.zeros((9, 9), np.uint8)):
        seen, _, _ = brought(gray, ALL, 96, 64)
        assert seen.shape == (64, 64) and seen.any() == gray.any()


def test_nothing_asked_for_is_nothing_done(drawn):
    assert np.array_equal(brought(drawn[0], AS_IT_IS, 200, 50)[0], on_canvas(drawn[0], 200, 50))
    assert AS_IT_IS.words == "" and normal_of({"canvas": 3}) == AS_IT_IS
    assert normal_of({"normal_width": 12, "normal_gray": 190, "upright": True}) == ALL
    assert all(word in ALL.words for word in ("each image by itself", "below 190", "main axis", "12 px wide"))


def test_another_laboratory_s_images_differ_as_it_says():
    gray = draw_cluster("touching", np.random.default_rng(3)).image
    same, other = seen_by(Laboratory(), gray), seen_by(ELSEWHERE, gray)
    assert np.array_equal(np.sort(on_black(same.astype(np.float32)).black.ravel())[-50:], np.sort(gray.ravel())[-50:])
    assert other.max() == 240 and max(other.shape) < 0.8 * max(same.shape)
    areas = [np.count_nonzero(on_black(seen_by(Laboratory(margin=margin), gray).astype(np.float32)).black) for margin in (-1, 0, 2)]
    assert areas == sorted(areas) and areas[0] < areas[2]
