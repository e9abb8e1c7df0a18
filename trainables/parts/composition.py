"""Category-variant composition (Luo, Wu, Zhao 2023, Algorithm 1 and section 2.2.2): two chromosome clusters laid over one another.
Comes in: batches of primary and candidate images with labels, a look-up table. Goes out: composed images with their new labels.
Exists because contrastive learning wants new images with discrete labels, which mixup and cutmix do not give.

Random numbers are all drawn up front on the CPU, so that the result depends neither on the device nor on how a batch is sliced."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.parts.errors import RequestError
from trainables.parts.numbers import constant

CLASSES = ("instance", "overlapping", "touching", "touching_overlapping")
UNCERTAIN = -1  # in LookUpTable.cells; the word `uncertain` in a file
BLENDS = ("equal", "lambda", "maximum")
LOOK_UP_TABLES = Path(__file__).with_name("look_up_tables.csv")
COLUMNS = ("table", "first", "second", "touching", "overlapping")
PUBLISHED_SIDE = 224  # pixels; the threshold is given for images of this side
TRIES = 16  # of an image that a steady composition holds at once, 0.8 MB each at 224 pixels


@dataclass(frozen=True)
class LookUpTable:
    """The label of a composed image. cells[case][a][b]: case 0 touching, 1 overlapping; a, b, and the value index CLASSES; -1 uncertain."""

    name: str
    cells: tuple[tuple[tuple[int, ...], ...], ...]

    def label(self, first: int, second: int, overlapping: bool) -> int:
        return self.cells[int(overlapping)][first][second]


@dataclass(frozen=True)
class Numbers:
    """The random numbers of N compositions, uniform in [0, 1), on the CPU. places: (N, draws, 4): vertical and horizontal shift of the
    primary, then of the candidate. ratios: (N,): lambda, the primary's share (Beta(1, 1) is the uniform distribution)."""

    places: Tensor
    ratios: Tensor

    def __getitem__(self, rows: slice | Tensor) -> "Numbers":
        """The numbers of a part of the batch: what a data-parallel worker passes on with its part of the images."""
        return Numbers(self.places[rows], self.ratios[rows])


@dataclass(frozen=True)
class Composed:
    """images: (N, H, W) float32; labels: (N,) int64; overlap: (N,) int64, pixels where both are foreground; drawn: (N,) bool;
    shifts: (N, 4) int64, pixels, in the order of Numbers.places. Where drawn is False the candidate came back unchanged, with
    overlap -1 and shifts 0."""

    images: Tensor
    labels: Tensor
    overlap: Tensor
    drawn: Tensor
    shifts: Tensor


def load_tables(path: str | Path | None = None) -> dict[str, LookUpTable]:
    """The look-up tables `light`, `middle`, `heavy`, `no`, and those of a user's file at `path`: a CSV with the columns of COLUMNS, a row
    for each of the ten unordered pairs of a table, classes spelled as in CLASSES, or `uncertain`. RequestError (a ValueError) with all
    faults at once: file not readable, columns missing, an unknown word, a pair missing or given twice, a table that exists already."""
    tables = _read_tables(LOOK_UP_TABLES)
    if path is not None:
        own = _read_tables(Path(path))
        if taken := sorted(tables.keys() & own.keys()):
            raise RequestError(*(f"{path}: a table '{name}' comes with the program. Give it another name." for name in taken))
        tables |= own
    return tables


def draw_composition(n: int, draws: int = 10, generator: torch.Generator | None = None) -> Numbers:
    """The random numbers of n compositions; always n (4 draws + 1) numbers, whatever becomes of them. generator: on the CPU; None = torch's
    own. ValueError if it lives elsewhere or draws is below 1."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"composition needs a generator on the CPU, so that the device does not change the result, got {generator.device}")
    return Numbers(torch.rand(n, draws, 4, generator=generator), torch.rand(n, generator=generator))


def compose(
    primary: Tensor,
    candidate: Tensor,
    primary_labels: Tensor,
    candidate_labels: Tensor,
    table: LookUpTable,
    blend: str = "equal",
    threshold: float = 200,
    draws: int = 10,
    require_contact: bool = False,
    generator: torch.Generator | None = None,
    numbers: Numbers | None = None,
    steady: bool | None = None,
) -> Composed:
    """Algorithm 1 for a batch, on the device of the images.

    primary, candidate: (N, H, W), uint8 or float, 0 = background, foreground above 0 (0 to 255, not yet normalised); labels (N,) int64.
    blend, where both are foreground: `equal` 0.5 / 0.5, `lambda` of one ratio per image, `maximum`; float32, not rounded.
    threshold: P in pixels at 224 x 224, scaled with the image area and rounded down: an overlap of at most P is the touching case.
    draws: upper limit of draws per image; all uncertain: the candidate comes back with its own label.
    require_contact: a touching case in which no foreground pixel of one image is one of the other or among its 8 neighbours is uncertain.
    Shifts are whole pixels, each in [-floor(R), floor(R)] equally likely, R as in line 5 of the algorithm; what leaves the frame is lost.
    numbers: drawn before by `draw_composition` (then draws and generator do not count).
    steady: every draw of every image is tried at once and the first that is certain is taken, so that the device is asked nothing and
    labels and images are not checked (see `check_images`); None: wherever the images are not on a CPU. Otherwise draws are tried one after
    the other, of those images alone that still need one. Both give the same, bit for bit.
    ValueError for an unknown blend, a threshold below 0, shapes that do not fit, labels outside CLASSES, an image that is all background
    or has values below 0."""
    n, device = len(primary), primary.device
    if blend not in BLENDS:
        raise ValueError(f"blend must be one of {', '.join(BLENDS)}, got {blend!r}")
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be at least 0 pixels, got {threshold}")
    if primary.ndim != 3 or primary.shape != candidate.shape or primary_labels.shape != (n,) or candidate_labels.shape != (n,):
        given = [tuple(tensor.shape) for tensor in (primary, candidate, primary_labels, candidate_labels)]
        raise ValueError(f"composition takes images (N, H, W) twice and labels (N,) twice, got {given}")
    if numbers is None:
        numbers = draw_composition(n, draws, generator)
    elif numbers.ratios.shape != (n,):
        raise ValueError(f"composition of {n} images needs the random numbers of {n}, got those of {len(numbers.ratios)}")

    nothing = Composed(
        candidate.to(torch.float32, copy=True),
        candidate_labels.clone(),
        torch.full((n,), -1, dtype=torch.int64, device=device),
        torch.zeros(n, dtype=torch.bool, device=device),
        torch.zeros(n, 4, dtype=torch.int64, device=device),
    )
    if n == 0 or all(cell == UNCERTAIN for case in table.cells for row in case for cell in row):
        return nothing  # the `no` table: no draw can be certain
    if steady is None:
        steady = device.type != "cpu"
    spans = [[images.amax(dim=dim) > 0 for images in (primary, candidate)] for dim in (2, 1)]  # rows, then columns, with foreground
    if not steady:
        _check_images((primary, candidate), torch.stack(spans[0]), torch.stack([primary_labels, candidate_labels]))

    height, width = primary.shape[1:]
    limit = math.floor(threshold * height * width / PUBLISHED_SIDE**2)
    cells = constant(table.cells, device)[:, primary_labels, candidate_labels]  # (2, N)
    shifts = _whole_shifts(numbers.places.to(device), torch.stack([_reach(torch.stack(pair)) for pair in spans], dim=2).flatten(1))
    below, above = _windows(primary), _windows(candidate)
    if steady:
        return _all_at_once(nothing, below, above, cells, shifts, limit, require_contact, blend, numbers.ratios.to(device))
    labels, overlap, taken = nothing.labels.clone(), nothing.overlap.clone(), nothing.shifts.clone()
    open_rows = (cells != UNCERTAIN).any(dim=0).nonzero()[:, 0]
    for draw in range(shifts.shape[1]):
        if len(open_rows) == 0:
            break
        moved = shifts[open_rows, draw]
        first, second = _shift(below, open_rows, moved[:, :2]), _shift(above, open_rows, moved[:, 2:])
        pixels = torch.minimum(first, second).flatten(1).count_nonzero(dim=1)
        found = torch.where(pixels > limit, cells[1, open_rows], cells[0, open_rows])
        if require_contact:
            apart = (pixels == 0).nonzero()[:, 0]
            near = (_grow(first[apart] > 0) & (second[apart] > 0)).flatten(1).any(dim=1)
            found[apart] = torch.where(near, found[apart], UNCERTAIN)
        certain = found != UNCERTAIN
        rows = open_rows[certain]
        labels[rows], overlap[rows], taken[rows] = found[certain], pixels[certain], moved[certain]
        open_rows = open_rows[~certain]

    images, rows = nothing.images, (overlap >= 0).nonzero()[:, 0]
    images[rows] = _blended(_shift(below, rows, taken[rows, :2]), _shift(above, rows, taken[rows, 2:]), blend, numbers.ratios[rows])
    return Composed(images, labels, overlap, overlap >= 0, taken)


def _all_at_once(
    candidate: Composed, below: Tensor, above: Tensor, cells: Tensor, shifts: Tensor, limit: int, require_contact: bool,
    blend: str, ratios: Tensor
) -> Composed:  # fmt: skip
    """`compose` in fixed shapes. candidate: what comes back where no draw is certain; cells (2, N); shifts (N, draws, 4); ratios (N,)."""
    rows = torch.arange(len(shifts), device=shifts.device)
    tried, counts = [], []
    for some in shifts.split(TRIES, dim=1):
        each = rows[:, None].expand(some.shape[:2])
        first, second = _shift(below, each, some[..., :2]), _shift(above, each, some[..., 2:])  # (N, tries, H, W)
        pixels = torch.minimum(first, second).flatten(2).count_nonzero(dim=2)
        found = torch.where(pixels > limit, cells[1, :, None], cells[0, :, None])
        if require_contact:
            near = (_grow(first > 0) & (second > 0)).flatten(2).any(dim=2)
            found = torch.where((pixels == 0) & ~near, UNCERTAIN, found)
        tried.append(found)
        counts.append(pixels)
    labels, overlaps = torch.cat(tried, 1), torch.cat(counts, 1)
    certain = labels != UNCERTAIN
    which, drawn = certain.int().argmax(dim=1, keepdim=True), certain.any(dim=1)  # argmax: the first of equal values
    taken = shifts.gather(1, which[:, :, None].expand(-1, -1, 4))[:, 0]
    images = _blended(_shift(below, rows, taken[:, :2]), _shift(above, rows, taken[:, 2:]), blend, ratios)
    return Composed(
        torch.where(drawn[:, None, None], images, candidate.images),
        torch.where(drawn, labels.gather(1, which)[:, 0], candidate.labels),
        torch.where(drawn, overlaps.gather(1, which)[:, 0], candidate.overlap),
        drawn,
        torch.where(drawn[:, None], taken, candidate.shifts),
    )


def _blended(first: Tensor, second: Tensor, blend: str, ratios: Tensor) -> Tensor:
    """Line 11 to 13 of the algorithm. first, second: (n, H, W) of any type; ratios: (n,). (n, H, W) float32."""
    first, second = first.float(), second.float()
    either = torch.maximum(first, second)  # where one is background, the other
    if blend == "maximum":
        return either
    share = ratios[:, None, None] if blend == "lambda" else 0.5
    return torch.where(torch.minimum(first, second) > 0, torch.lerp(second, first, share), either)


def _reach(hit: Tensor) -> Tensor:
    """Line 4 and 5 of the algorithm along one axis. hit: (2, N, side) bool, where the primary and the candidate have foreground;
    (N, 2) int64: floor(R) of the primary and of the candidate."""
    side = hit.shape[2]
    hit = hit.int()  # argmax: the first of equal values
    extent = side - hit.flip(2).argmax(dim=2) - hit.argmax(dim=2)
    return ((extent.sum(dim=0).clamp(max=side) - extent) // 2).T


def _whole_shifts(places: Tensor, reach: Tensor) -> Tensor:
    """places (N, draws, 4) in [0, 1), reach (N, 4) -> (N, draws, 4) int64 in [-reach, reach]."""
    reach = reach[:, None, :]
    return (places * (2 * reach + 1)).long().minimum(2 * reach) - reach


def _windows(images: Tensor) -> Tensor:
    """(N, H, W) -> a view (N, Y, X, H, W) of the images with a margin of background: the frame at each place that a shift can move it to.
    The margin is half of the side, which R never exceeds."""
    height, width = images.shape[1:]
    down, right = (height + 1) // 2, (width + 1) // 2
    return F.pad(images, (right, right, down, down)).unfold(1, height, 1).unfold(2, width, 1)


def _shift(windows: Tensor, rows: Tensor, shifts: Tensor) -> Tensor:
    """The images of these rows (...), each moved by its (down, right) of shifts (..., 2), background where nothing comes from; (..., H,
    W)."""
    return windows[rows, windows.shape[1] // 2 - shifts[..., 0], windows.shape[2] // 2 - shifts[..., 1]]


def _grow(masks: Tensor) -> Tensor:
    """(..., H, W) bool: each foreground pixel with its 8 neighbours."""
    for dim in (-2, -1):
        size = masks.shape[dim]
        grown = masks.clone()
        grown.narrow(dim, 1, size - 1).logical_or_(masks.narrow(dim, 0, size - 1))
        grown.narrow(dim, 0, size - 1).logical_or_(masks.narrow(dim, 1, size - 1))
        masks = grown
    return masks


def check_images(images: Iterable[Tensor], files: Sequence[str]) -> None:
    """What `compose` refuses of an image, once for all images that steady steps compose. images: (n, H, W) uint8 in chunks."""
    empty = torch.cat([some.amax(dim=(1, 2)) == 0 for some in images])
    if bool(empty.any()):
        raise ValueError(
            f"composition needs a chromosome on every image, but {files[int(empty.int().argmax())]} is all background (0). "
            "Find such images with `python -m search data check FOLDER` and take them out."
        )


def _check_images(images: tuple[Tensor, Tensor], hit: Tensor, labels: Tensor) -> None:
    """hit: (2, N, H) bool, rows with foreground; labels: (2, N). One question to the device when all is well."""
    empty = ~hit.any(dim=2)
    foreign = (labels < 0) | (labels >= len(CLASSES))
    faulty = empty | foreign
    if any(image.is_floating_point() for image in images):
        faulty = faulty | torch.stack([(image < 0).flatten(1).any(dim=1) for image in images])
    if not bool(faulty.any()):
        return
    which, row = faulty.nonzero()[0].tolist()
    name = ("primary", "candidate")[which]
    if empty[which, row]:
        raise ValueError(
            f"composition needs a chromosome on every image, but {name} image {row} of the batch is all background (0). "
            "Find such images with `python -m search data check FOLDER` and take them out."
        )
    if foreign[which, row]:
        label = int(labels[which, row])
        raise ValueError(f"composition knows the classes 0 to 3 ({', '.join(CLASSES)}), but {name} image {row} has label {label}")
    raise ValueError(
        f"composition needs values of 0 (background) and above, but {name} image {row} has values below 0. Compose before normalising."
    )


def _read_tables(path: Path) -> dict[str, LookUpTable]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            columns = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path}: a look-up table must be a readable CSV in UTF-8, got: {error}") from error
    if missing := [column for column in COLUMNS if column not in columns]:
        raise RequestError(f"{path}: a look-up table needs the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}")

    faults: list[str] = [] if rows else [f"{path}: no row in it; a look-up table has a row for each of the ten pairs"]
    tables: dict[str, list[list[list[int]]]] = {}
    given: dict[str, dict[tuple[int, int], int]] = {}
    words = {name: place for place, name in enumerate(CLASSES)}
    results = words | {"uncertain": UNCERTAIN}
    for line, row in rows:
        values = {column: (row[column] or "").strip() for column in COLUMNS}
        known = {"first": words, "second": words, "touching": results, "overlapping": results}
        wrong = [column for column, allowed in known.items() if values[column] not in allowed]
        faults += [f"{path}, line {line}: {c} must be one of {', '.join(known[c])}, got '{values[c]}'" for c in wrong]
        if not values["table"]:
            faults.append(f"{path}, line {line}: table must be a name, got nothing")
        cells = tables.setdefault(values["table"], [[[UNCERTAIN] * len(CLASSES) for _ in CLASSES] for _ in range(2)])
        seen = given.setdefault(values["table"], {})
        if "first" in wrong or "second" in wrong:
            continue
        first, second = sorted((words[values["first"]], words[values["second"]]))
        if (first, second) in seen:
            pair = f"{CLASSES[first]}, {CLASSES[second]}"
            faults.append(f"{path}, line {line}: the pair {pair} of table '{values['table']}' stands in line {seen[first, second]} already")
        seen[first, second] = line
        for case, column in enumerate(("touching", "overlapping")):
            if column not in wrong:
                cells[case][first][second] = cells[case][second][first] = known[column][values[column]]
    for name, seen in given.items():
        pairs = [(a, b) for a in range(len(CLASSES)) for b in range(a, len(CLASSES))]
        faults += [f"{path}: table '{name}' lacks the pair {CLASSES[a]}, {CLASSES[b]}" for a, b in pairs if (a, b) not in seen]
    if faults:
        raise RequestError(*faults)
    return {name: LookUpTable(name, tuple(tuple(map(tuple, case)) for case in cells)) for name, cells in tables.items()}
