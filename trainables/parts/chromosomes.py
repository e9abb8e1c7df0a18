"""Synthetic G-banded chromosomes, clusters of them in the four types of SupCAM with true masks, and karyotypes of 24 classes.
Comes in: descriptions (numbers) and a seed. Goes out: drawings, and a `Pack` like that of a folder of images. Exists so that
everything runs without data that cannot be shared, and so that a label can be true by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from scipy.ndimage import binary_dilation, gaussian_filter, gaussian_filter1d

from trainables.parts.data import TOLERANCE, Pack, make_pack, on_canvas, rescale, shrink
from trainables.parts.errors import RequestError

CLUSTER_TYPES = ("instance", "overlapping", "touching", "touching_overlapping")
STEP = 0.35  # px between the points that a chromosome is drawn with: 8 in each pixel, 4 where a bend spreads them to twice the distance
TOUCH_AT_MOST = 4  # px that two touching chromosomes may share
CLEAR = 4  # px between two chromosomes that have nothing to do with each other; wider than any blur closes


@dataclass(frozen=True)
class Chromosome:
    """One chromosome as numbers; `draw` turns it into pixels."""

    length: float  # px along its axis
    width: float  # px
    centromere: float = 0.4  # where along the axis, 0 (tip of the p arm) .. 1
    waist: float = 0.75  # width at the centromere as a part of `width`
    bands: tuple[tuple[float, float], ...] = ((1.0, 1.0),)  # (end along the axis 0..1, stain 0..1), from the p arm's tip on
    bend: tuple[float, ...] = (0.0,)  # turn of the axis in radians over each of this many equal stretches
    intensity: float = 170.0  # gray value, 0..255, of stain 1
    cleft: float = 0.0  # 0..1: how much paler the line between the two chromatids is


@dataclass(frozen=True)
class Drawing:
    """A drawn chromosome, cropped to its mask."""

    values: np.ndarray  # float32 (h, w), 0 outside the mask; not yet blurred
    mask: np.ndarray  # bool (h, w)


def draw(chromosome: Chromosome, angle: float = 0.0) -> Drawing:
    """The chromosome with the middle of its axis at `angle` (radians, from the x axis towards y). ValueError on impossible numbers."""
    c = chromosome
    ends = [end for end, _ in c.bands]
    if c.length < 2 or c.width < 2:
        raise ValueError(f"length and width of a chromosome must be at least 2 px, got {c.length} and {c.width}")
    if not c.bands or ends != sorted(ends) or ends[-1] < 1 or ends[0] <= 0:
        raise ValueError(f"bands must be (end, stain) with rising ends, the last at 1, got {c.bands}")
    if not c.bend:
        raise ValueError("bend must have at least one stretch, got none; (0.0,) is straight")
    s = np.linspace(0, 1, max(3, math.ceil(c.length / STEP)))
    step = c.length / (len(s) - 1)
    turn = np.interp(s, np.linspace(0, 1, len(c.bend) + 1), np.concatenate([[0], np.cumsum(c.bend)]))
    heading = angle + gaussian_filter1d(turn, 0.06 * len(s), mode="nearest")
    heading += angle - heading[len(s) // 2]
    half = c.width / 2 * (1 - (1 - c.waist) * np.exp(-(((s - c.centromere) * c.length / (0.3 * c.width)) ** 2)))
    to_end = np.minimum(s, 1 - s) * c.length / (0.3 * c.width)  # ends are rounded over 0.3 of the width
    half *= np.sqrt(np.clip(1 - np.clip(1 - to_end, 0, 1) ** 2, 0.05, 1))
    stain = np.array([level for _, level in c.bands])[np.minimum(np.searchsorted(ends, s), len(ends) - 1)]
    stain = gaussian_filter1d(stain, 0.9 / step, mode="nearest")
    t = np.linspace(-1, 1, max(3, math.ceil(c.width / STEP)))
    across = (1 - 0.3 * t**4) * (1 - c.cleft * np.exp(-((t / 0.18) ** 2)))
    x = np.cumsum(np.cos(heading)) * step
    y = np.cumsum(np.sin(heading)) * step
    px = x[:, None] - np.sin(heading)[:, None] * half[:, None] * t
    py = y[:, None] + np.cos(heading)[:, None] * half[:, None] * t
    ix, iy = np.floor(px - px.min()).astype(np.int64).ravel(), np.floor(py - py.min()).astype(np.int64).ravel()
    height, width = int(iy.max()) + 1, int(ix.max()) + 1
    flat = iy * width + ix
    points = np.bincount(flat, minlength=height * width).reshape(height, width)
    total = np.bincount(flat, (c.intensity * stain[:, None] * across).ravel(), minlength=height * width).reshape(height, width)
    mask = points >= 3
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask = mask[crop]
    return Drawing(np.where(mask, total[crop] / np.maximum(points[crop], 1), 0).astype(np.float32), mask)


def random_chromosome(
    rng: np.random.Generator,
    length: float,
    width: float,
    intensity: float = 170.0,
    bend: float = 0.6,
    contrast: float = 0.5,
    gap: float = 0.0,
) -> Chromosome:
    """A chromosome with random bands. bend: scale, in radians, of its turns; contrast 0..1 of its bands; gap 0..1: chance of one band so
    pale that the two sides look like two chromosomes."""
    edges = [0.0]
    while edges[-1] < 1:
        edges.append(edges[-1] + rng.uniform(0.28, 0.75) * width / length)
    dark = rng.integers(2)
    levels = [1 - contrast * rng.uniform(0.6, 1) if (i + dark) % 2 else 1 - contrast * rng.uniform(0, 0.3) for i in range(len(edges) - 1)]
    if rng.random() < gap:
        levels[rng.integers(len(levels) // 3, max(len(levels) // 3 + 1, 2 * len(levels) // 3 + 1)) % len(levels)] = 0.25
    slack = min(1.0, (length / width - 1.5) / 4)  # a short one cannot bend much without folding
    turns = rng.normal(0, bend * max(0.0, slack), 3)
    if rng.random() < 0.5:
        turns = np.abs(turns) * rng.choice([-1, 1])  # an arc rather than an S
    return Chromosome(
        length=length,
        width=width,
        centromere=rng.uniform(0.15, 0.5),
        waist=rng.uniform(0.55, 0.9),
        bands=tuple((min(1.0, end), level) for end, level in zip(edges[1:], levels, strict=True)),
        bend=tuple(np.clip(turns, -1.6, 1.6).tolist()),
        intensity=intensity,
        cleft=rng.uniform(0, 0.35),
    )


# --------------------------------------------------------------------------------------------------------------- clusters


@dataclass(frozen=True)
class Cluster:
    """A drawn cluster with the masks that make its type true."""

    image: np.ndarray  # uint8 (canvas, canvas), background 0
    kind: str  # one of CLUSTER_TYPES
    masks: np.ndarray  # bool (chromosomes, canvas, canvas)


def relation(a: np.ndarray, b: np.ndarray, overlap_at_least: float) -> str:
    """How two masks (h, w) lie: "overlap" (shared pixels >= overlap_at_least), "touch" (at most TOUCH_AT_MOST shared, and a gap of at most
    2 px), "apart" (a gap of at least CLEAR px) or "unclear"."""
    shared = int((a & b).sum())
    if shared >= overlap_at_least:
        return "overlap"
    near = binary_dilation(a, np.ones((3, 3), bool), 2)
    if shared <= TOUCH_AT_MOST and (near & b).any():
        return "touch"
    return "unclear" if (binary_dilation(near, np.ones((3, 3), bool), CLEAR - 2) & b).any() else "apart"


def kind_of(masks: np.ndarray, overlap_at_least: float) -> str | None:
    """The type that masks (chromosomes, h, w) make true, None where a pair is unclear or nothing holds them together."""
    found = {relation(masks[i], masks[j], overlap_at_least) for i in range(len(masks)) for j in range(i)} - {"apart"}
    if len(masks) == 1:
        return "instance"
    if found == {"touch", "overlap"} and len(masks) >= 3:
        return "touching_overlapping"
    return "overlapping" if found == {"overlap"} else "touching" if found == {"touch"} else None


def overlap_at_least(width: float, difficulty: float) -> float:
    """Pixels that two chromosomes of this width must share to count as overlapping: a part of a square crossing."""
    return max(3.0 * TOUCH_AT_MOST, (1.1 - 0.8 * difficulty) * width**2)


def draw_cluster(
    kind: str,
    rng: np.random.Generator,
    canvas: int = 224,
    difficulty: float = 0.25,
    scale: float = 1.0,
    stain: float = 1.0,
    blur: float = 1.0,
) -> Cluster:
    """One cluster of type `kind`. scale, stain, blur: of the patient's slide: factor on sizes, factor on gray values, px of blur.
    difficulty 0..1: smaller and paler overlaps, gaps between those that touch, pale bands, debris, noise."""
    if kind not in CLUSTER_TYPES:
        raise ValueError(f"kind must be one of {', '.join(CLUSTER_TYPES)}, got {kind!r}")
    unit = scale * canvas / 224
    for _ in range(200):
        pieces = _arrange(_plan(kind, rng, difficulty), rng, canvas, difficulty, unit, stain)
        if pieces is not None:
            return _render(kind, pieces, rng, canvas, difficulty, blur)
    raise RuntimeError(f"no room for a cluster of type {kind} on {canvas} px at scale {scale}")


def _plan(kind: str, rng: np.random.Generator, difficulty: float) -> list[str]:
    """How each further chromosome joins one of those before it; most often as few as the type needs, as in Tseng et al. 2023."""
    more = int(rng.random() < 0.5 * difficulty) + int(rng.random() < 0.2 * difficulty)
    if kind == "instance":
        return []
    if kind == "overlapping":
        return ["overlap"] * (1 + min(more, 1))
    if kind == "touching":
        return ["touch"] * (1 + more)
    joins = ["overlap", "touch", *rng.choice(["overlap", "touch"], more).tolist()]
    rng.shuffle(joins)
    return joins


@dataclass(frozen=True)
class _Piece:
    drawing: Drawing
    y: int
    x: int


def _shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pixels that masks first (M, h, w) and second (a, b) share at every shift: (M, h + a - 1, w + b - 1), entry [m, i, j] for second's
    corner at row i - (a - 1), column j - (b - 1) of first."""
    shape = (first.shape[1] + second.shape[0] - 1, first.shape[2] + second.shape[1] - 1)
    padded = [scipy.fft.next_fast_len(n, real=True) for n in shape]
    spectrum = scipy.fft.rfft2(first.astype(np.float32), padded) * scipy.fft.rfft2(second[::-1, ::-1].astype(np.float32), padded)
    return np.rint(scipy.fft.irfft2(spectrum, padded)[:, : shape[0], : shape[1]]).astype(np.int64)


def _grow(mask: np.ndarray, by: int) -> np.ndarray:
    """Every pixel within `by` of the mask, rows or columns; (h, w) -> (h, w)."""
    for axis in (0, 1):
        padded = np.pad(mask, [(by, by) if i == axis else (0, 0) for i in (0, 1)])
        mask = np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * by + 1, axis).any(-1))
    return mask


def _arrange(joins: list[str], rng: np.random.Generator, canvas: int, difficulty: float, unit: float, stain: float) -> list[_Piece] | None:
    """Chromosomes placed one after the other, each in the asked relation to one before and clear of the rest; None where no place is free."""
    pieces: list[_Piece] = []
    widest = 15.0 * unit
    least = overlap_at_least(widest, difficulty)
    room = canvas - 4
    usual = 62.0 if not joins else 70.0 * 0.94 ** (len(joins) - 1)
    for join in ["", *joins]:
        length = float(np.clip(usual * rng.lognormal(0, 0.38), 26, 135)) * unit
        made = random_chromosome(
            rng,
            min(length, 0.8 * room),
            widest * rng.uniform(0.86, 1.0),
            intensity=170.0 * stain * rng.uniform(0.9, 1.1),
            bend=0.3 + 0.5 * difficulty,
            contrast=0.25 + 0.5 * difficulty,
            gap=0.3 * difficulty,
        )
        new = draw(made, rng.uniform(0, 2 * math.pi))
        height, width = new.mask.shape
        if not pieces:
            if max(height, width) > room:
                return None
            pieces.append(_Piece(new, 0, 0))
            continue
        top, left = min(p.y for p in pieces), min(p.x for p in pieces)
        bottom, right = max(p.y + p.drawing.mask.shape[0] for p in pieces), max(p.x + p.drawing.mask.shape[1] for p in pieces)
        target = int(rng.integers(len(pieces)))
        frame = np.zeros((2, bottom - top + 2 * CLEAR, right - left + 2 * CLEAR), bool)
        for i, p in enumerate(pieces):
            y, x = p.y - top + CLEAR, p.x - left + CLEAR
            frame[int(i != target), y : y + p.drawing.mask.shape[0], x : x + p.drawing.mask.shape[1]] |= p.drawing.mask
        gapped = join == "touch" and rng.random() < 0.5
        own, touched, near, other = _shared(np.stack([frame[0], _grow(frame[0], 1), _grow(frame[0], 2), _grow(frame[1], CLEAR)]), new.mask)
        if join == "overlap":
            free = (own >= least) & (own <= (0.22 + 0.25 * difficulty) * min(new.mask.sum(), frame[0].sum()))
        elif gapped:
            free = (touched == 0) & (near >= 3)
        else:
            free = (own <= TOUCH_AT_MOST) & (touched >= 2)
        rows = np.arange(own.shape[0]) - (height - 1) - CLEAR + top
        columns = np.arange(own.shape[1]) - (width - 1) - CLEAR + left
        tall = np.maximum(bottom, rows + height) - np.minimum(top, rows) <= room
        wide = np.maximum(right, columns + width) - np.minimum(left, columns) <= room
        places = np.flatnonzero(free & (other == 0) & tall[:, None] & wide)
        if not len(places):
            return None
        row, column = np.unravel_index(rng.choice(places), own.shape)
        pieces.append(_Piece(new, int(rows[row]), int(columns[column])))
    return pieces


def _render(kind: str, pieces: list[_Piece], rng: np.random.Generator, canvas: int, difficulty: float, blur: float) -> Cluster:
    """Pieces on the middle of the canvas: overlaps a little darker, then stain, debris, blur and noise; the background stays exactly 0."""
    top, left = min(p.y for p in pieces), min(p.x for p in pieces)
    down = (canvas - (max(p.y + p.drawing.mask.shape[0] for p in pieces) - top)) // 2 - top
    across = (canvas - (max(p.x + p.drawing.mask.shape[1] for p in pieces) - left)) // 2 - left
    stained = np.zeros((canvas, canvas), np.float32)
    masks = np.zeros((len(pieces), canvas, canvas), bool)
    gain = rng.uniform(0.8, 1.0) - 0.65 * difficulty  # how much the lower of two chromosomes adds where they overlap
    for i, p in enumerate(pieces):
        height, width = p.drawing.mask.shape
        here = np.s_[p.y + down : p.y + down + height, p.x + across : p.x + across + width]
        masks[i][here] = p.drawing.mask
        stained[here] = np.maximum(stained[here], p.drawing.values) + gain * np.minimum(stained[here], p.drawing.values)
    rows, columns = np.flatnonzero(stained.any(1)), np.flatnonzero(stained.any(0))
    margin = 8
    box = np.s_[max(0, rows[0] - margin) : rows[-1] + 1 + margin, max(0, columns[0] - margin) : columns[-1] + 1 + margin]
    part = stained[box]
    yy, xx = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    for _ in range(rng.poisson(1.5 * difficulty)):  # debris: small round specks, often at the edge of a chromosome
        y, x, radius = rng.uniform(0, part.shape[0]), rng.uniform(0, part.shape[1]), rng.uniform(0.8, 2.4)
        part = np.maximum(part, rng.uniform(40, 170) * np.exp(-((((yy - y) ** 2 + (xx - x) ** 2) / radius**2) ** 2)))
    part = gaussian_filter(part, blur, truncate=3)
    grain = gaussian_filter(rng.standard_normal(part.shape, np.float32), 0.6, truncate=3)
    slope = rng.normal(0, 0.12 * difficulty, 2)  # uneven stain across the image
    part = part * (1 + slope[0] * (yy / part.shape[0] - 0.5) + slope[1] * (xx / part.shape[1] - 0.5) + 0.16 * difficulty * grain)
    image = np.zeros((canvas, canvas), np.uint8)
    image[box] = np.where(part > TOLERANCE + 1, np.clip(part, 0, 255), 0).astype(np.uint8)
    return Cluster(image, kind, masks)


def cluster_set(
    n_per_class: int | Sequence[int] = 150,
    size: int = 224,
    seed: int = 0,
    difficulty: float = 0.25,
    canvas: int = 224,
    images_per_patient: float = 3.0,
) -> Pack:
    """Clusters of the four types as a `Pack`, the same for equal arguments. n_per_class: images of each class, one number or four.
    Drawn on a square of `canvas` px and averaged down to `size`, so that sets of two sizes show the same clusters. A patient (one
    slide) has a scale, a stain and a blur of its own. difficulty: 0 (clear) .. 1, see `draw_cluster`."""
    counts = [n_per_class] * len(CLUSTER_TYPES) if isinstance(n_per_class, int) else list(n_per_class)
    faults = []
    if len(counts) != len(CLUSTER_TYPES) or any(not isinstance(n, int) or n < 2 for n in counts):
        faults.append(f"images per class must be one number or {len(CLUSTER_TYPES)}, each at least 2, got {n_per_class}; for example 150")
    if not 0 <= difficulty <= 1:
        faults.append(f"difficulty must lie between 0 and 1, got {difficulty}; 0.25 is the default")
    if not 16 <= size <= canvas:
        faults.append(f"size must lie between 16 and the canvas ({canvas}), got {size}; choose a smaller size or a larger canvas")
    if images_per_patient < 1:
        faults.append(f"images per patient must be at least 1, got {images_per_patient}; 3 is the default")
    if faults:
        raise RequestError(*faults)
    total = sum(counts)
    rng = np.random.default_rng(seed)
    patients = max(2, round(total / images_per_patient))
    scales = np.clip(rng.lognormal(0.12, 0.06 + 0.24 * difficulty, patients), 0.55, 1.6)
    stains = rng.uniform(0.7, 1.2, patients)
    blurs = rng.uniform(0.6, 0.8 + 0.9 * difficulty, patients)
    labels = np.repeat(np.arange(len(CLUSTER_TYPES)), counts)
    owner = rng.integers(patients, size=total)
    images = np.zeros((total, size, size), np.uint8)
    areas = np.zeros((total, 2))
    files = []
    for i, label in enumerate(labels):
        who, kind = owner[i], CLUSTER_TYPES[label]
        own = np.random.default_rng([seed, i])  # so that an image does not depend on how many random numbers the ones before took
        drawn = draw_cluster(kind, own, canvas, difficulty, scales[who], stains[who], blurs[who]).image
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        areas[i] = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1), np.count_nonzero(drawn)
        images[i] = shrink(drawn, size, size)
        files.append(f"{kind}/{i:06d}.png")
    notes = [f"synthetic: seed {seed}, difficulty {difficulty:g}, drawn at {canvas} px"]
    return make_pack(images, labels, CLUSTER_TYPES, files, [f"p{who:05d}" for who in owner], areas, notes)


# ------------------------------------------------------------------------------------------------------------- karyotypes

KARYOTYPE = (*map(str, range(1, 23)), "X", "Y")
# Relative length (parts in a hundred of the haploid autosomes) and centromere (short arm / whole), near the Paris Conference's (1971).
_FORM = {
    "1": (8.44, 0.48), "2": (8.02, 0.39), "3": (6.83, 0.47), "4": (6.30, 0.29), "5": (6.08, 0.29), "6": (5.90, 0.39), "7": (5.36, 0.39),
    "8": (4.93, 0.34), "9": (4.80, 0.35), "10": (4.59, 0.34), "11": (4.61, 0.40), "12": (4.66, 0.30), "13": (3.74, 0.17), "14": (3.56, 0.19),
    "15": (3.46, 0.20), "16": (3.36, 0.41), "17": (3.25, 0.34), "18": (2.93, 0.31), "19": (2.67, 0.47), "20": (2.56, 0.45), "21": (1.90, 0.31),
    "22": (2.04, 0.30), "X": (5.12, 0.40), "Y": (2.15, 0.27),
}  # fmt: skip


@dataclass(frozen=True)
class Hospital:
    """How a laboratory's images look, beside their individuals."""

    scale: float = 1.0  # factor on sizes
    reverse: bool = False  # dark bands are pale and pale ones dark (R-banding)
    contrast: float = 0.55  # of the bands, 0..1
    stain: tuple[float, float] = (140.0, 200.0)  # gray values, 0..255, from individual to individual
    blur: tuple[float, float] = (0.6, 1.1)  # px


HOSPITALS = {
    "g_bands": Hospital(),
    "reverse_stain": Hospital(scale=0.8, reverse=True, contrast=0.4, stain=(90.0, 150.0), blur=(0.9, 1.4)),
}


def karyotype_bands(name: str) -> tuple[tuple[float, float], ...]:
    """(end along the axis 0..1, darkness 0..1) of a class's bands, the same in every individual and hospital; drawn, not those of nature."""
    rng = np.random.default_rng([24, KARYOTYPE.index(name)])
    edges, dark, bands = 0.0, int(rng.integers(2)), []
    while edges < 1:
        edges = min(1.0, edges + float(rng.uniform(0.3, 0.85)) / _FORM[name][0])
        bands.append((edges, float(rng.uniform(0.7, 1.0) if dark else rng.uniform(0.0, 0.3))))
        dark = 1 - dark
    return tuple(bands)


def draw_karyotype_chromosome(
    name: str, rng: np.random.Generator, hospital: Hospital, unit: float, stain: float, blur: float, squeeze: float
) -> np.ndarray:
    """uint8 (h, w) of one chromosome on black, cropped. unit: factor on sizes in px; squeeze: factor on length, of the metaphase."""
    relative, centromere = _FORM[name]
    length, width = 16.0 * relative * squeeze * unit * rng.lognormal(0, 0.04), 17.0 * unit * rng.uniform(0.92, 1.08)
    bands = karyotype_bands(name)
    ends = [*np.sort(np.clip([end + rng.normal(0, 0.008) for end, _ in bands[:-1]], 0.005, 0.995)).tolist(), 1.0]
    levels = [(1 - dark if hospital.reverse else dark) + rng.normal(0, 0.04) for _, dark in bands]
    slack = min(1.0, max(0.0, (length / width - 1.5) / 4))  # a short one cannot bend much without folding
    turns = rng.normal(0, 0.35 * slack, 3)
    described = Chromosome(
        length=length,
        width=width,
        centromere=centromere,
        waist=0.6,
        bands=tuple((end, float(np.clip(1 - hospital.contrast * (1 - level), 0.1, 1))) for end, level in zip(ends, levels, strict=True)),
        bend=tuple(np.clip(turns, -1.6, 1.6).tolist()),
        intensity=stain * rng.uniform(0.93, 1.07),
        cleft=rng.uniform(0, 0.25),
    )
    values = np.pad(draw(described, rng.uniform(0, 2 * math.pi)).values, 4)
    part = gaussian_filter(values, blur * max(unit, 0.5), truncate=3)
    part *= 1 + 0.05 * gaussian_filter(rng.standard_normal(part.shape, np.float32), 0.6, truncate=3)
    gray = np.where(part > TOLERANCE + 1, np.clip(part, 0, 255), 0).astype(np.uint8)
    rows, columns = np.flatnonzero(gray.any(1)), np.flatnonzero(gray.any(0))
    return np.asarray(gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def karyotype_set(
    individuals: int = 24,
    *,
    homologues: int = 2,
    size: int = 224,
    canvas: int = 256,
    seed: int = 0,
    hospital: str = "g_bands",
    normal_side: float = 0.0,
) -> Pack:
    """Chromosomes of the 24 classes as a `Pack`, the same for equal arguments: of each individual 1-22, X, X or X, Y (every second one
    has a Y, the first too), two of each autosome or, with homologues=1, one of each kind. Each class has its own length, centromere and
    bands in all sets; an individual has a scale, a condensation, a stain and a blur. hospital: a word of HOSPITALS. normal_side: median length in
    pixels to which the set is scaled, as `common_scale` does; 0: as drawn."""
    faults = []
    if not isinstance(individuals, int) or individuals < 2:
        faults.append(f"a set needs at least 2 individuals, got {individuals}; for example 24")
    if homologues not in (1, 2):
        faults.append(f"homologues must be 1 or 2, got {homologues}")
    if not 16 <= size <= canvas:
        faults.append(f"size must lie between 16 and the canvas ({canvas}), got {size}; choose a smaller size or a larger canvas")
    if hospital not in HOSPITALS:
        faults.append(f"hospital must be one of {', '.join(HOSPITALS)}, got {hospital!r}")
    if faults:
        raise RequestError(*faults)
    style = HOSPITALS[hospital]
    rng = np.random.default_rng([seed, list(HOSPITALS).index(hospital)])
    scales, squeezes = np.clip(rng.lognormal(0, 0.06, individuals), 0.85, 1.15), np.clip(rng.lognormal(0, 0.08, individuals), 0.8, 1.2)
    stains, blurs = rng.uniform(*style.stain, individuals), rng.uniform(*style.blur, individuals)
    entries = []  # (class, individual, number of the homologue)
    for who in range(individuals):
        for label, name in enumerate(KARYOTYPE):
            male = who % 2 == 0
            copies = {"X": 1 if male else homologues, "Y": int(male)}.get(name, homologues)
            entries += [(label, who, copy) for copy in range(copies)]
    entries.sort(key=lambda entry: (KARYOTYPE[entry[0]], entry[1:]))
    drawn = []
    for label, who, copy in entries:
        own = np.random.default_rng([seed, list(HOSPITALS).index(hospital), label, who, copy])
        unit = style.scale * scales[who]
        drawn.append(draw_karyotype_chromosome(KARYOTYPE[label], own, style, unit, stains[who], blurs[who], squeezes[who]))
    areas = np.array([(gray.size, np.count_nonzero(gray)) for gray in drawn], np.float64)
    factor = normal_side / float(np.median([max(gray.shape) for gray in drawn])) if normal_side else 1.0
    images = np.stack([on_canvas(rescale(gray, factor) if normal_side else gray, canvas, size) for gray in drawn])
    files = [f"{KARYOTYPE[label]}/p{who:05d}_{copy}.png" for label, who, copy in entries]
    notes = [f"synthetic: hospital {hospital}, seed {seed}, drawn at {canvas} px"]
    pack = make_pack(images, [label for label, _, _ in entries], KARYOTYPE, files, [f"p{who:05d}" for _, who, _ in entries], areas, notes)
    return replace(pack, scale=factor if normal_side else 0.0)
