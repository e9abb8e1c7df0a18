"""Algorithm 1 against the reference image by image, the look-up tables cell by cell, and what must not change the result."""

import numpy as np
import pytest
import references
import torch

from trainables.parts.composition import BLENDS, CLASSES, COLUMNS, LOOK_UP_TABLES, Numbers, compose, draw_composition, load_tables
from trainables.parts.errors import RequestError

TABLES = load_tables()
INSTANCE, OVERLAPPING, TOUCHING, BOTH = range(4)


def blobs(n, height, width, seed, largest=0.8):
    """uint8 images with a blob of random size, grey values and holes; every other one in the middle, the rest anywhere."""
    random = np.random.default_rng(seed)
    images = np.zeros((n, height, width), dtype=np.uint8)
    for place, image in enumerate(images):
        h, w = (int(random.integers(1, max(2, largest * side))) for side in (height, width))
        y, x = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1))
        if place % 2:
            y, x = (height - h) // 2, (width - w) // 2
        image[y : y + h, x : x + w] = random.integers(0, 256, (h, w)) * (random.random((h, w)) < 0.8)
        image[y, x], image[y + h - 1, x + w - 1] = 255, 1
    return torch.from_numpy(images)


def batch(n=40, height=17, width=23, seed=0, largest=0.8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (2, n), generator=generator)
    return blobs(n, height, width, seed, largest), blobs(n, height, width, seed + 1000, largest), labels[0], labels[1]


def expected_shifts(primary, candidate, places):
    """Whole pixels in [-floor(R), floor(R)], equally likely."""
    reach = [int(r) for r in references.shift_range(primary.numpy(), candidate.numpy())]
    return [[min(int(u * (2 * r + 1)), 2 * r) - r for u, r in zip(draw, reach, strict=True)] for draw in places.tolist()]


def square(side, top, left, height, width, value=100):
    image = torch.zeros(side, side, dtype=torch.uint8)
    image[top : top + height, left : left + width] = value
    return image


def one(primary, candidate, first, second, table="middle", **options):
    """Composition of a single pair."""
    return compose(primary[None], candidate[None], torch.tensor([first]), torch.tensor([second]), TABLES[table], **options)


def places_for(*draws):
    return Numbers(torch.tensor([draws]), torch.tensor([0.25]))


CASES = (  # seed, largest blob, draws, threshold in pixels of a 17 x 23 image
    (0, 0.8, 5, 6.5),
    (1, 0.3, 2, 0),
    (2, 0.8, 2, 0),
)


def at_224(pixels):
    return pixels * 224 * 224 / (17 * 23)


@pytest.mark.parametrize("table", ["light", "middle", "heavy", "no"])
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("require_contact", [False, True])
def test_composition_equals_the_plain_loops_written_from_the_paper(table, blend, require_contact):
    for seed, largest, draws, pixels in CASES:
        primary, candidate, first, second = batch(seed=seed, largest=largest)
        numbers = draw_composition(40, draws, torch.Generator().manual_seed(seed))
        composed = compose(
            *(primary, candidate, first, second, TABLES[table], blend, at_224(pixels), draws, require_contact),
            generator=torch.Generator().manual_seed(seed),
        )
        assert composed.images.dtype == torch.float32 and composed.images.shape == (40, 17, 23) and composed.labels.dtype == torch.int64
        for i in range(40):
            shifts = expected_shifts(primary[i], candidate[i], numbers.places[i])
            pair = primary[i].numpy(), candidate[i].numpy(), int(first[i]), int(second[i])
            image, label, overlap, n = references.compose(
                *pair, shifts, table, blend, float(numbers.ratios[i]), at_224(pixels), require_contact
            )
            assert (int(composed.labels[i]), int(composed.overlap[i])) == (label, overlap)
            assert bool(composed.drawn[i]) == (overlap >= 0)
            assert composed.shifts[i].tolist() == (shifts[n - 1] if overlap >= 0 else [0, 0, 0, 0])
            if blend == "lambda":
                assert composed.images[i].numpy() == pytest.approx(image, rel=1e-6)
            else:
                assert (composed.images[i].numpy() == image).all()


def test_the_comparison_with_the_plain_loops_meets_every_kind_of_outcome():
    """Else it would compare nothing: fallback, first draw, later draw, touching and overlapping case, pixels lost at the frame."""
    kinds = dict.fromkeys(("fallback", "first draw", "later draw", "touching", "overlapping", "clipped"), 0)
    for seed, largest, draws, pixels in CASES:
        given = batch(seed=seed, largest=largest)
        numbers = draw_composition(40, draws, torch.Generator().manual_seed(seed))
        result = compose(*given, TABLES["middle"], threshold=at_224(pixels), numbers=numbers)
        for i in range(40):
            if not result.drawn[i]:
                kinds["fallback"] += 1
                continue
            first = expected_shifts(given[0][i], given[1][i], numbers.places[i])[0]
            kinds["first draw" if result.shifts[i].tolist() == first else "later draw"] += 1
            kinds["overlapping" if result.overlap[i] > pixels else "touching"] += 1
            foreground = sum((images[i] > 0).sum() for images in given[:2]) - result.overlap[i]
            kinds["clipped"] += int((result.images[i] > 0).sum() < foreground)
    assert min(kinds.values()) >= 4, kinds


PAIRS = [(a, b) for a in range(4) for b in range(4)]


@pytest.mark.parametrize("table", ["light", "middle", "heavy", "no"])
@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[f"{CLASSES[a]}+{CLASSES[b]}" for a, b in PAIRS])
@pytest.mark.parametrize("overlapping", [False, True], ids=["touching case", "overlapping case"])
def test_each_cell_of_each_look_up_table_is_that_of_the_specification(table, a, b, overlapping):
    expected = references.look_up(table, a, b, overlapping)
    label = TABLES[table].label(a, b, overlapping)
    assert label == (-1 if expected is None else expected)
    side = 10 if overlapping else 4  # 100 and at most 16 shared pixels, with a limit of 16
    image = square(20, 5, 5, side, side)
    composed = one(image, image, a, b, table, threshold=16 * 224 * 224 / 400, numbers=places_for([0.5] * 4))
    assert composed.labels.item() == (b if expected is None else expected)
    assert composed.drawn.item() == (expected is not None)


def test_a_composed_image_is_never_a_single_instance():
    for table in TABLES.values():
        assert all(cell != INSTANCE for case in table.cells for row in case for cell in row)


def test_the_pairs_of_a_table_are_unordered():
    for table in TABLES.values():
        for overlapping in (False, True):
            assert all(table.label(a, b, overlapping) == table.label(b, a, overlapping) for a, b in PAIRS)


def test_the_threshold_counts_at_224_and_scales_with_the_area():
    for side, limit in ((224, 200), (112, 50), (64, 16)):
        for shared, label in ((limit, TOUCHING), (limit + 1, OVERLAPPING)):
            image = torch.zeros(side, side, dtype=torch.uint8)
            image.view(-1)[:shared] = 9  # rows of full width: no room for a shift to the side
            composed = one(image, image, INSTANCE, INSTANCE, numbers=places_for([0.5] * 4))
            assert (composed.overlap.item(), composed.labels.item()) == (shared, label)


def test_shifts_keep_to_the_range_of_the_algorithm_and_reach_both_ends():
    """8 x 6 and 4 x 10 boxes in a frame of 40: R = ((12 - 8) / 2, (16 - 6) / 2), ((12 - 4) / 2, (16 - 10) / 2)."""
    n = 4000
    primary, candidate = square(40, 10, 10, 8, 6).expand(n, -1, -1), square(40, 10, 10, 4, 10).expand(n, -1, -1)
    labels = torch.zeros(n, dtype=torch.int64)
    shifts = compose(primary, candidate, labels, labels, TABLES["heavy"], generator=torch.Generator().manual_seed(0)).shifts
    for column, reach in enumerate((2, 5, 4, 3)):
        values, counts = shifts[:, column].unique(return_counts=True)
        assert values.tolist() == list(range(-reach, reach + 1))
        share = counts / n * (2 * reach + 1)
        assert (share - 1).abs().max() < 0.25  # equally likely: about five standard deviations
    assert compose(primary, candidate, labels, labels, TABLES["heavy"], generator=torch.Generator().manual_seed(0)).drawn.all()


def test_the_frame_limits_the_range_and_a_full_frame_leaves_no_room():
    full, small = torch.ones(10, 10, dtype=torch.uint8), square(10, 4, 4, 2, 2)
    numbers = places_for([0.0, 0.0, 0.0, 0.0])
    assert one(full, small, INSTANCE, INSTANCE, numbers=numbers).shifts.tolist() == [[0, 0, -4, -4]]
    odd = square(10, 4, 4, 3, 3)
    assert one(odd, small, INSTANCE, INSTANCE, numbers=numbers).shifts.tolist() == [[-1, -1, -1, -1]]  # R 1 and 1.5


def test_uncertain_draws_are_repeated_until_one_is_certain():
    image = square(40, 10, 10, 10, 10)
    on_top, apart = [0.5] * 4, [0.0, 0.0, 0.999, 0.999]
    composed = one(image, image, TOUCHING, TOUCHING, threshold=0, numbers=places_for(on_top, on_top, apart, on_top))
    assert composed.shifts.tolist() == [[-5, -5, 5, 5]] and composed.labels.item() == TOUCHING and composed.overlap.item() == 0


def test_when_every_draw_is_uncertain_the_candidate_comes_back_with_its_label():
    primary, candidate = square(40, 10, 10, 10, 10), square(40, 12, 12, 9, 9, value=7)
    composed = one(primary, candidate, TOUCHING, BOTH, threshold=0, numbers=places_for(*[[0.5] * 4] * 3))
    assert torch.equal(composed.images[0], candidate.float()) and composed.labels.item() == BOTH
    assert (composed.drawn.item(), composed.overlap.item(), composed.shifts.tolist()) == (False, -1, [[0] * 4])


def test_no_more_draws_are_made_than_asked_for():
    image = square(40, 10, 10, 10, 10)
    apart = torch.tensor([0.0, 0.0, 0.999, 0.999])
    places = torch.full((1, 10, 4), 0.5)
    places[0, 9] = apart
    for draws, drawn in ((9, False), (10, True)):
        numbers = Numbers(places[:, :draws], torch.zeros(1))
        assert one(image, image, TOUCHING, TOUCHING, threshold=0, numbers=numbers).drawn.item() == drawn


def test_the_no_table_always_gives_the_candidate():
    primary, candidate, first, second = batch()
    composed = compose(primary, candidate, first, second, TABLES["no"], generator=torch.Generator())
    assert torch.equal(composed.images, candidate.float()) and torch.equal(composed.labels, second) and not composed.drawn.any()


@pytest.mark.parametrize(
    ("down", "right", "overlap", "contact"),
    [(0, 0, 0, False), (7, 0, 0, False), (8, 2, 0, False), (8, 0, 0, True), (8, 1, 0, True), (10, -1, 0, True), (9, 0, 1, True)],
)
def test_required_contact_makes_separate_objects_uncertain_and_lets_neighbours_pass(down, right, overlap, contact):
    """Dots at opposite corners of a box, against dots at its other two corners; the second box moved against the first."""
    primary, candidate = torch.zeros(40, 40, dtype=torch.uint8), torch.zeros(40, 40, dtype=torch.uint8)
    primary[10, 10] = primary[19, 19] = candidate[10, 19] = candidate[19, 10] = 50
    numbers = places_for([0.0, 0.5, (down + 0.5) / 11, (right + 5.5) / 11])  # R = 5
    free = one(primary, candidate, INSTANCE, INSTANCE, numbers=numbers)
    assert free.shifts.tolist() == [[-5, 0, down - 5, right]] and (free.overlap.item(), free.labels.item()) == (overlap, TOUCHING)
    bound = one(primary, candidate, INSTANCE, INSTANCE, numbers=numbers, require_contact=True)
    assert bound.drawn.item() == contact and bound.labels.item() == (TOUCHING if contact else INSTANCE)


def test_the_blends_are_half_and_half_the_drawn_ratio_and_the_maximum():
    primary, candidate = square(8, 2, 2, 4, 3, value=101), square(8, 2, 3, 4, 3, value=40)
    rows = {}
    for blend in BLENDS:
        composed = one(primary, candidate, INSTANCE, INSTANCE, "heavy", blend=blend, numbers=places_for([0.5] * 4))
        rows[blend] = composed.images[0, 3].tolist()
    assert rows["equal"] == [0, 0, 101, 70.5, 70.5, 40, 0, 0]
    assert rows["lambda"] == [0, 0, 101, 55.25, 55.25, 40, 0, 0]  # ratio 0.25 of the primary
    assert rows["maximum"] == [0, 0, 101, 101, 101, 40, 0, 0]


def test_bytes_and_floats_give_the_same():
    primary, candidate, first, second = batch()
    numbers = draw_composition(40, 10, torch.Generator().manual_seed(0))
    for blend in BLENDS:
        results = [
            compose(primary.to(kind), candidate.to(kind), first, second, TABLES["middle"], blend, numbers=numbers)
            for kind in (torch.uint8, torch.float32)
        ]
        assert torch.equal(results[0].images, results[1].images) and torch.equal(results[0].labels, results[1].labels)


def test_the_images_given_are_not_written_to():
    primary, candidate, first, second = batch()
    primary, candidate = primary.float(), candidate.float()
    before = primary.clone(), candidate.clone(), second.clone()
    for table in ("heavy", "no"):
        composed = compose(primary, candidate, first, second, TABLES[table], generator=torch.Generator())
        composed.images.fill_(3)
        composed.labels.fill_(3)
        assert torch.equal(primary, before[0]) and torch.equal(candidate, before[1]) and torch.equal(second, before[2])


@pytest.mark.parametrize("parts", [[40], [20, 20], [1] * 40, [3, 30, 7]], ids=str)
def test_the_result_does_not_depend_on_how_the_batch_is_sliced(parts):
    given = batch()
    numbers = draw_composition(40, 10, torch.Generator().manual_seed(5))
    whole = compose(*given, TABLES["middle"], "lambda", require_contact=True, generator=torch.Generator().manual_seed(5))
    start, pieces = 0, []
    for n in parts:
        rows = slice(start, start + n)
        pieces.append(compose(*(t[rows] for t in given), TABLES["middle"], "lambda", require_contact=True, numbers=numbers[rows]))
        start += n
    for name in ("images", "labels", "overlap", "drawn", "shifts"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(piece, name) for piece in pieces])), name


def test_the_same_numbers_are_consumed_whatever_the_outcome():
    given = batch()
    states = []
    for options in ({"table": TABLES["no"]}, {"table": TABLES["light"]}, {"table": TABLES["heavy"], "blend": "lambda"}):
        generator = torch.Generator().manual_seed(0)
        compose(*given, **options, generator=generator)
        states.append(generator.get_state())
    assert all(torch.equal(state, states[0]) for state in states)
    numbers = draw_composition(6, 10, torch.Generator().manual_seed(0))
    assert numbers.places.shape == (6, 10, 4) and numbers.ratios.shape == (6,)


def test_an_empty_batch_is_composed_to_an_empty_batch():
    primary, candidate, first, second = (t[:0] for t in batch())
    assert compose(primary, candidate, first, second, TABLES["heavy"]).images.shape == (0, 17, 23)


@pytest.mark.parametrize("which", [0, 1])
def test_an_image_that_is_all_background_is_named(which):
    given = [t.clone() for t in batch(n=4)]
    given[which][2] = 0
    with pytest.raises(ValueError, match=f"{('primary', 'candidate')[which]} image 2 of the batch is all background.*data check"):
        compose(*given, TABLES["middle"])


def test_foreign_labels_and_normalised_images_are_refused():
    primary, candidate, first, second = batch(n=4)
    for label in (-1, 4):
        labels = torch.tensor([0, label, 1, 2])
        with pytest.raises(ValueError, match=f"candidate image 1 has label {label}"):
            compose(primary, candidate, first, labels, TABLES["middle"])
    with pytest.raises(ValueError, match="primary image 0 has values below 0"):
        compose(primary / 255 - 0.5, candidate.float(), first, second, TABLES["middle"])


def test_options_out_of_range_are_refused():
    given = batch(n=4)
    with pytest.raises(ValueError, match="equal, lambda, maximum, got 'mean'"):
        compose(*given, TABLES["middle"], blend="mean")
    with pytest.raises(ValueError, match="threshold must be at least 0 pixels, got -1"):
        compose(*given, TABLES["middle"], threshold=-1)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        compose(*given, TABLES["middle"], draws=0)
    with pytest.raises(ValueError, match="4 images needs the random numbers of 4, got those of 3"):
        compose(*given, TABLES["middle"], numbers=draw_composition(3))
    with pytest.raises(ValueError, match=r"images \(N, H, W\) twice"):
        compose(given[0], given[1][:, :5], *given[2:], TABLES["middle"])


def rows_of(name, drop=(), replace=None):
    """The middle table under another name, as lines of a CSV, without the lines of `drop` (from 1) and with words replaced in one line."""
    lines = [line.replace("middle,", f"{name},", 1) for line in LOOK_UP_TABLES.read_text().splitlines() if line.startswith("middle,")]
    if replace:
        line, old, new = replace
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new)
    return [line for place, line in enumerate(lines, start=1) if place not in drop]


def written(tmp_path, *lines, columns=COLUMNS):
    path = tmp_path / "own.csv"
    path.write_text("\n".join((",".join(columns), *lines)) + "\n", encoding="utf-8")
    return path


def test_a_user_can_add_a_table(tmp_path):
    lines = rows_of("mine", replace=(3, "touching,uncertain", "touching,touching_overlapping"))
    lines[3] = "mine, touching_overlapping , instance ,touching_overlapping,uncertain"  # spaces and the other order
    tables = load_tables(written(tmp_path, *lines))
    assert sorted(tables) == ["heavy", "light", "middle", "mine", "no"]
    assert tables["mine"].label(TOUCHING, INSTANCE, overlapping=True) == BOTH == tables["mine"].label(INSTANCE, TOUCHING, overlapping=True)
    mine, middle = tables["mine"], tables["middle"]
    differing = [(a, b, case) for a, b in PAIRS for case in (False, True) if mine.label(a, b, case) != middle.label(a, b, case)]
    assert differing == [(INSTANCE, TOUCHING, True), (TOUCHING, INSTANCE, True)]


def test_every_fault_of_a_users_table_is_named_at_once(tmp_path):
    lines = rows_of("mine", drop=(10,), replace=(2, "overlapping,touching_overlapping,overlapping", "overlapped,both,overlapping"))
    with pytest.raises(RequestError) as caught:
        load_tables(written(tmp_path, *lines, lines[0], *rows_of("other", drop=(5,))))
    faults = "\n".join(caught.value.faults)
    assert "line 3: second must be one of instance, overlapping, touching, touching_overlapping, got 'overlapped'" in faults
    assert "line 3: touching must be one of instance, overlapping, touching, touching_overlapping, uncertain, got 'both'" in faults
    assert "line 11: the pair instance, instance of table 'mine' stands in line 2 already" in faults
    assert "table 'mine' lacks the pair touching_overlapping, touching_overlapping" in faults
    assert "table 'other' lacks the pair overlapping, overlapping" in faults
    assert isinstance(caught.value, ValueError)


def test_a_users_table_that_cannot_be_read_or_takes_a_known_name_is_refused(tmp_path):
    with pytest.raises(RequestError, match="readable CSV"):
        load_tables(tmp_path / "absent.csv")
    with pytest.raises(RequestError, match="missing: second, touching"):
        load_tables(written(tmp_path, columns=("table", "first", "overlapping")))
    with pytest.raises(RequestError, match="no row in it"):
        load_tables(written(tmp_path))
    with pytest.raises(RequestError, match="table must be a name"):
        load_tables(written(tmp_path, *rows_of("")))
    with pytest.raises(RequestError, match="'middle' comes with the program"):
        load_tables(written(tmp_path, *rows_of("middle")))
    (tmp_path / "bytes.csv").write_bytes(b"table,first\n\xff\xfe,\n")
    with pytest.raises(RequestError, match="readable CSV"):
        load_tables(tmp_path / "bytes.csv")


@pytest.mark.gpu
@pytest.mark.parametrize("blend", BLENDS)
def test_a_gpu_gives_what_the_cpu_gives(blend):
    given = batch(n=64, height=64, width=64)
    numbers = draw_composition(64, 10, torch.Generator().manual_seed(0))
    here = compose(*given, TABLES["middle"], blend, require_contact=True, numbers=numbers)
    there = compose(*(t.cuda() for t in given), TABLES["middle"], blend, require_contact=True, numbers=numbers)
    for name in ("labels", "overlap", "drawn", "shifts"):
        assert torch.equal(getattr(here, name), getattr(there, name).cpu()), name
    torch.testing.assert_close(here.images, there.images.cpu())
