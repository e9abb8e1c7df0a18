"""Others' features and methods: closed forms, invariances, second implementations in plain loops, toy sets whose answer is known."""

import numpy as np
import pytest
from skimage.filters import threshold_otsu
from sklearn.metrics import adjusted_rand_score

from trainables.baselines import morphology
from trainables.baselines.morphology import NAMES, curvature_of, morphological, runs
from trainables.baselines.texture import textures
from trainables.data.crops import dark_part
from trainables.parts.clustering import cluster


def blob(radius, side=140, wave=0.0, arms=5, squeeze=1.0, turn=0.0):
    """A disc, an ellipse or a flower: pixels within radius (1 + wave cos(arms angle))."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    y, x = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
    return np.hypot(y / squeeze, x) <= radius * (1 + wave * np.cos(arms * np.arctan2(y, x)))


def shape(mask):
    return dict(zip(NAMES, morphological([mask])[0], strict=True))


# ------------------------------------------------------------------------------------------------------ thirty numbers


@pytest.mark.parametrize("radius", [8, 20, 50])
def test_a_disc_has_the_thirty_numbers_of_a_circle(radius):
    found = shape(blob(radius))
    closed = {
        "area": np.pi * radius**2, "perimeter": 2 * np.pi * radius, "equivalent diameter": 2 * radius, "Feret diameter, largest": 2 * radius,
        "Feret diameter, smallest": 2 * radius, "ellipse: major axis": 2 * radius, "ellipse: minor axis": 2 * radius, "circle: radius": radius,
        "compactness": 1, "convexity": 1, "circularity": 1, "solidity": 1, "extent": np.pi / 4, "curvature: mean": 1 / radius,
    }  # fmt: skip
    for name, value in closed.items():
        assert found[name] == pytest.approx(value, rel=0.12), name
    assert found["ellipse: eccentricity"] < 0.2 and abs(found["elongation"]) < 0.1 and found["circle: variance of the fit"] < 0.1
    assert found["Hu moment 1"] == pytest.approx(np.log10(1 / (2 * np.pi)), rel=0.02)  # of a disc: 1 / (2 pi), the others vanish


def test_an_ellipse_has_its_axes_its_eccentricity_and_the_curvatures_at_its_ends():
    found = shape(blob(20, squeeze=2.0, turn=0.5))
    assert found["ellipse: major axis"] == pytest.approx(80, rel=0.02) and found["ellipse: minor axis"] == pytest.approx(40, rel=0.02)
    assert found["ellipse: eccentricity"] == pytest.approx(np.sqrt(3) / 2, rel=0.01) and found["elongation"] == pytest.approx(0.5, abs=0.03)
    assert found["ellipse: variance of the fit"] < 1e-3
    assert found["indentations"] == 0 and found["protrusions"] == 2


def test_a_flower_has_as_many_protrusions_and_indentations_as_petals():
    for arms in (3, 5):
        found = shape(blob(40, wave=0.2, arms=arms))
        assert arms <= found["protrusions"] <= arms + 1 and found["indentations"] == arms
        assert found["curvature: smallest"] < 0 < found["curvature: mean"]
        assert found["solidity"] < 0.97


def test_curvature_is_that_of_the_closed_form_whichever_way_the_outline_runs():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radius = 60 * (1 + 0.2 * np.cos(3 * angle))
    outline = np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1)
    first, second = -60 * 0.6 * np.sin(3 * angle), -60 * 1.8 * np.cos(3 * angle)
    exact = (radius**2 + 2 * first**2 - radius * second) / (radius**2 + first**2) ** 1.5
    for points in (outline, outline[::-1]):
        found = curvature_of(points, smoothing=0.0)
        assert found.max() == pytest.approx(exact.max(), rel=2e-3) and found.min() == pytest.approx(exact.min(), rel=2e-2)


def test_the_numbers_do_not_change_when_a_cell_is_turned_or_mirrored_but_for_the_sign_of_the_last_moment():
    mask = blob(25, wave=0.25, arms=3, squeeze=1.4, turn=0.3)
    wanted = morphological([mask])[0]
    for other in (np.rot90(mask), mask[::-1], mask.T, np.pad(mask, 9)):
        assert np.allclose(morphological([other])[0][:17], wanted[:17], rtol=0.02, atol=0.01)
        assert np.allclose(morphological([other])[0][17:19], wanted[17:19], rtol=0.3)  # where the spline starts matters a little
        assert np.allclose(np.abs(morphological([other])[0][23:]), np.abs(wanted[23:]), rtol=1e-3)


def test_hu_moments_are_those_of_plain_loops():
    mask = blob(9, side=30, wave=0.3, arms=3, squeeze=1.3)
    points = [(float(y), float(x)) for y in range(30) for x in range(30) if mask[y, x]]
    n = len(points)
    cy, cx = sum(y for y, _ in points) / n, sum(x for _, x in points) / n

    def eta(p, q):
        return sum((y - cy) ** p * (x - cx) ** q for y, x in points) / n ** (1 + (p + q) / 2)

    first = eta(2, 0) + eta(0, 2)
    second = (eta(2, 0) - eta(0, 2)) ** 2 + 4 * eta(1, 1) ** 2
    third = (eta(3, 0) - 3 * eta(1, 2)) ** 2 + (3 * eta(2, 1) - eta(0, 3)) ** 2
    found = shape(mask)
    for number, value in ((1, first), (2, second), (3, third)):
        assert found[f"Hu moment {number}"] == pytest.approx(np.log10(value), rel=1e-6)


def test_runs_are_counted_around_a_circle():
    assert [runs(np.array(hit, bool)) for hit in ([1, 0, 1, 1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0, 1])] == [2, 0, 1, 2]


def test_a_mask_of_fewer_than_twelve_pixels_has_no_shape_and_every_larger_one_has_finite_numbers():
    assert np.isnan(morphological([np.ones((2, 5), bool), np.ones((1, 11), bool)])).all()
    odd = [np.ones((1, 12), bool), np.ones((3, 4), bool), np.eye(14, dtype=bool)]
    assert np.isfinite(morphological(odd)).all() and morphological([]).shape == (0, 30) and len(set(NAMES)) == 30
    assert morphology.SMALLEST == 12


def test_round_and_long_nuclei_of_one_area_are_told_apart_by_shape():
    chance = np.random.default_rng(0)
    masks, labels = [], []
    for number in range(60):
        squeeze = (1.1, 2.5)[number % 2]
        masks.append(blob(chance.normal(9, 0.3) / np.sqrt(squeeze), 40, squeeze=squeeze, turn=chance.uniform(0, 3)))
        labels.append(number % 2)
    found, _ = cluster(morphological(masks), 2, seed=0, standard=True)
    assert adjusted_rand_score(labels, found) == 1


# ------------------------------------------------------------------------------------------------------ SIFT and LBP


def crops(number=6, seed=0):
    """Smooth noise in colour."""
    coarse = np.random.default_rng(seed).random((number, 8, 8, 3))
    return (np.kron(coarse, np.ones((1, 4, 4, 1))) * 255).astype(np.uint8)


def test_each_block_is_of_unit_length_and_patterns_do_not_see_a_quarter_turn():
    images = crops()
    rows = textures(images)
    assert rows.shape == (6, 156)
    for block in (slice(0, 128), slice(128, 138), slice(138, 156)):
        assert np.allclose(np.linalg.norm(rows[:, block], axis=1), 1)
    outer = rows[:, :128].reshape(-1, 4, 4, 8).copy()
    outer[:, 1:3, 1:3] = 0  # a keypoint's size is no side: one as large as the crop has all of it in the four cells in the middle
    assert ((outer**2).sum((1, 2, 3)) > 0.4).all()
    turned = textures(np.rot90(images, 1, (1, 2)))
    assert np.allclose(turned[:, 128:138], rows[:, 128:138], atol=0.03) and not np.allclose(turned[:, :128], rows[:, :128], atol=0.1)
    darker = textures((images * 0.5).astype(np.uint8))
    assert np.allclose(darker[:, :128], rows[:, :128], atol=0.05)  # gradients' directions stay


def test_the_patterns_of_eight_neighbours_are_those_of_plain_loops():
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 1), dtype=np.uint8).repeat(3, 2)
    gray = image[..., 0].astype(float)  # of equal channels OpenCV's gray is the channel
    counts = np.zeros(10)
    ring = [(-np.sin(2 * np.pi * k / 8), np.cos(2 * np.pi * k / 8)) for k in range(8)]

    def at(y, x):
        """Bilinear; 0 beyond the border."""
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        total = 0.0
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (1 - abs(y - y0 - dy)) * (1 - abs(x - x0 - dx))
                inside = 0 <= y0 + dy < 32 and 0 <= x0 + dx < 32
                total += weight * (gray[y0 + dy, x0 + dx] if inside else 0.0)
        return total

    for y in range(32):
        for x in range(32):
            bits = [at(y + round(dy, 5), x + round(dx, 5)) >= gray[y, x] for dy, dx in ring]
            changes = sum(bits[k] != bits[k - 1] for k in range(8))
            counts[sum(bits) if changes <= 2 else 9] += 1
    assert textures(image[None])[0, 128:138] == pytest.approx(counts / np.linalg.norm(counts), abs=5e-3)


# ------------------------------------------------------------------------------------------------------ masks where only boxes are known


def test_the_dark_part_is_the_largest_one_below_otsus_threshold():
    picture = np.full((30, 40, 3), 200, np.uint8)
    picture[5:20, 8:25] = 60
    picture[25:28, 30:34] = 50  # a smaller one beside it
    wanted = np.zeros((30, 40), bool)
    wanted[5:20, 8:25] = True
    assert np.array_equal(dark_part(picture), wanted)
    assert dark_part(np.full((4, 5, 3), 9, np.uint8)).all()
    noisy = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    found = dark_part(noisy[..., None].repeat(3, 2))
    assert noisy[found].max() <= threshold_otsu(noisy)
