"""Behaviour of the drawn chromosomes and of the synthetic cluster set: labels must be true by their masks."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from trainables.data.ground import TOLERANCE
from trainables.data.read import read_folder
from trainables.data.scale import shrink
from trainables.data.split import split
from trainables.data.synthetic import Chromosome, draw, random_chromosome
from trainables.data.synthetic_clusters import CLUSTER_TYPES, TOUCH_AT_MOST, cluster_set, draw_cluster, kind_of, overlap_at_least, relation
from trainables.parts.errors import RequestError

# ---- one chromosome


def test_a_straight_chromosome_has_the_length_width_and_area_of_its_description():
    drawing = draw(Chromosome(length=80, width=14, waist=1.0))
    assert drawing.values.shape == drawing.mask.shape
    height, width = drawing.mask.shape
    assert width == pytest.approx(80, abs=2) and height == pytest.approx(14, abs=2)
    assert drawing.mask.sum() == pytest.approx(80 * 14, rel=0.06)  # its ends are round
    assert (drawing.values[~drawing.mask] == 0).all() and (drawing.values[drawing.mask] > 0).all()


def test_the_angle_turns_it_and_half_a_turn_keeps_its_area():
    lying, standing = (draw(Chromosome(length=80, width=14), angle) for angle in (0, np.pi / 2))
    assert standing.mask.shape == pytest.approx(lying.mask.shape[::-1], abs=1)
    areas = [draw(Chromosome(length=80, width=14), angle).mask.sum() for angle in np.linspace(0, np.pi, 9)]
    assert np.ptp(areas) < 0.04 * np.mean(areas)


def test_a_bend_takes_its_ends_nearer_without_changing_its_area_or_tearing_holes():
    straight, bent = draw(Chromosome(length=100, width=14)), draw(Chromosome(length=100, width=14, bend=(0.8, 0.8)))
    assert bent.mask.shape[1] < straight.mask.shape[1] - 3 and bent.mask.shape[0] > straight.mask.shape[0] + 12
    assert bent.mask.sum() == pytest.approx(straight.mask.sum(), rel=0.05)
    inner = ~binary_dilation(~np.pad(straight.mask, 1), iterations=2)[1:-1, 1:-1]
    assert straight.mask[inner].all()
    for row in bent.mask.T:  # one stretch of foreground in each column of an arc that opens downwards or upwards
        assert np.abs(np.diff(np.pad(row, 1).astype(int))).sum() in (2, 4)


def test_bands_stand_where_the_description_puts_them():
    drawing = draw(Chromosome(length=90, width=14, waist=1.0, bands=((1 / 3, 0.2), (2 / 3, 1.0), (1.0, 0.5)), intensity=200))
    middle = drawing.values[6]
    assert [middle[15], middle[45], middle[75]] == pytest.approx([40, 200, 100], rel=0.03)


def test_the_waist_lies_at_the_centromere():
    drawing = draw(Chromosome(length=90, width=16, centromere=0.3, waist=0.5))
    width = drawing.mask.sum(0)
    assert np.argmin(width[10:-10]) + 10 == pytest.approx(0.3 * 90, abs=3) and width[10:-10].min() == pytest.approx(8, abs=2)


def test_the_cleft_is_a_pale_line_along_the_axis():
    drawing = draw(Chromosome(length=60, width=16, waist=1.0, cleft=0.5))
    assert drawing.values[8, 30] < 0.75 * drawing.values[4, 30]


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"length": 1, "width": 9}, "at least 2 px, got 1 and 9"),
        ({"length": 30, "width": 9, "bands": ((0.5, 1.0),)}, "rising ends, the last at 1"),
        ({"length": 30, "width": 9, "bands": ((0.7, 1.0), (0.5, 1.0), (1.0, 1.0))}, "rising ends"),
        ({"length": 30, "width": 9, "bend": ()}, "at least one stretch"),
    ],
)
def test_impossible_descriptions_are_refused(description, words):
    with pytest.raises(ValueError, match=words):
        draw(Chromosome(**description))


def test_random_chromosomes_are_valid_for_every_length():
    rng = np.random.default_rng(0)
    for length in np.linspace(20, 150, 60):
        made = random_chromosome(rng, length, 15, gap=1.0)
        assert draw(made, rng.uniform(0, 6)).mask.sum() > 0.6 * length * 15 * 0.8


# ---- relations and types


def squares(*corners, side=10):
    masks = np.zeros((len(corners), 60, 60), bool)
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = True
    return masks


@pytest.mark.parametrize(
    ("corner", "expected"),
    [((5, 5), "overlap"), ((0, 10), "touch"), ((0, 11), "touch"), ((0, 9), "unclear"), ((0, 12), "unclear"), ((0, 14), "apart")],
)
def test_two_masks_overlap_touch_or_lie_apart_by_their_shared_pixels_and_their_gap(corner, expected):
    assert relation(*squares((0, 0), corner), 25) == expected


def test_the_type_follows_from_all_pairs():
    assert kind_of(squares((0, 0)), 25) == "instance"
    assert kind_of(squares((0, 0), (5, 5)), 25) == "overlapping"
    assert kind_of(squares((0, 0), (0, 10)), 25) == "touching"
    assert kind_of(squares((0, 0), (5, 5), (15, 5)), 25) == "touching_overlapping"
    assert kind_of(squares((0, 0), (0, 30)), 25) is None and kind_of(squares((0, 0), (0, 9)), 25) is None


@pytest.mark.parametrize("difficulty", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("kind", CLUSTER_TYPES)
def test_every_drawn_cluster_is_of_its_type_by_its_masks(kind, difficulty):
    rng = np.random.default_rng(3)
    for i in range(12):
        scale = (0.6, 1.0, 1.5)[i % 3]
        cluster = draw_cluster(kind, rng, difficulty=difficulty, scale=scale)
        assert cluster.kind == kind and kind_of(cluster.masks, overlap_at_least(15 * scale, difficulty)) == kind
        assert cluster.image.shape == (224, 224) and cluster.masks.shape[1:] == (224, 224)
        assert (cluster.image[cluster.masks.any(0)] > 0).mean() > 0.98  # what the masks say is there can be seen
        assert cluster.image[~binary_dilation(cluster.masks.any(0), iterations=8)].mean() < 1  # and little else


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="must be one of instance, overlapping"):
        draw_cluster("crossing", np.random.default_rng(0))


# ---- the set


@pytest.fixture(scope="module")
def drawn():
    return cluster_set(20, seed=5)


def test_a_set_has_the_asked_counts_patients_and_an_exact_zero_background(drawn):
    assert drawn.classes == CLUSTER_TYPES and list(drawn.counts.values()) == [20] * 4
    assert drawn.images.shape == (80, 224, 224) and drawn.images.dtype == np.uint8
    assert len(set(drawn.patients)) > 10 and drawn.files == tuple(sorted(drawn.files))
    assert (drawn.images[:, 0] == 0).all() and not ((drawn.images > 0) & (drawn.images <= TOLERANCE)).any()
    assert (drawn.areas[:, 1] == (drawn.images > 0).sum((1, 2))).all()
    assert list(cluster_set((2, 3, 4, 5), size=32).counts.values()) == [2, 3, 4, 5]


def test_equal_seeds_give_equal_sets_and_other_seeds_and_difficulties_do_not(drawn):
    assert cluster_set(20, seed=5).hash == drawn.hash
    assert len({drawn.hash, cluster_set(20, seed=6).hash, cluster_set(20, seed=5, difficulty=0.3).hash}) == 3


def test_a_smaller_set_shows_the_same_clusters(drawn):
    small = cluster_set(20, size=64, seed=5)
    np.testing.assert_array_equal(small.images[7], shrink(drawn.images[7], 64, 64))


def test_the_set_can_be_split_by_its_patients(drawn):
    parts = split(drawn, (0.6, 0.15, 0.25))
    assert sum(map(len, parts.values())) == 80


def test_the_set_comes_back_from_files_pixel_by_pixel(drawn, tmp_path):
    from search.data_commands import synthesize

    synthesize(lambda: drawn, tmp_path / "set", out=lambda _: None)
    assert read_folder(tmp_path / "set").hash == drawn.hash


def test_more_difficulty_makes_overlaps_smaller():
    assert overlap_at_least(15, 1.0) < overlap_at_least(15, 0.0) and overlap_at_least(3, 1.0) > TOUCH_AT_MOST


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_per_class": 1}, "each at least 2, got 1"),
        ({"n_per_class": (5, 5, 5)}, "one number or 4"),
        ({"difficulty": 1.5}, "between 0 and 1, got 1.5"),
        ({"size": 300}, r"between 16 and the canvas \(224\), got 300"),
        ({"images_per_patient": 0.5}, "at least 1, got 0.5"),
    ],
)
def test_impossible_sets_are_refused(arguments, words):
    with pytest.raises(RequestError, match=words):
        cluster_set(**arguments)


@pytest.mark.slow
def test_size_alone_gives_the_type_away_only_in_part():
    from trainables.data.size import size_baseline

    assert 0.45 < size_baseline(cluster_set(150, size=64))["accuracy"] < 0.65
