"""Drawn clusters of chromosomes in the four types of SupCAM, with true masks.
Comes in: numbers and a seed. Goes out: a `Pack` like that of a folder of images. Exists so that a label can be true by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.io
from scipy.ndimage import binary_dilation, gaussian_filter

from trainables.data.ground import TOLERANCE, on_black
from trainables.data.laboratory import Laboratory, seen_by
from trainables.data.normal import AS_IT_IS, Normal, brought
from trainables.data.pack import Pack, make_pack
from trainables.data.scale import foreground_box
from trainables.data.synthetic import Drawing, draw, random_chromosome
from trainables.parts.errors import RequestError

CLUSTER_TYPES = ("instance", "overlapping", "touching", "touching_overlapping")
TOUCH_AT_MOST = 4  # px that two touching chromosomes may share
CLEAR = 4  # px between two chromosomes that have nothing to do with each other; wider than any blur closes


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
    """Chromosomes placed one after the other, each in the asked relation to one before and clear of the rest; None where no place is
    free."""
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
    normal: Normal = AS_IT_IS,
    laboratory: Laboratory | None = None,
) -> Pack:
    """Clusters of the four types as a `Pack`, the same for equal arguments. n_per_class: images of each class, one number or four.
    Drawn on a square of `canvas` px and averaged down to `size`, so that sets of two sizes show the same clusters. A patient (one
    slide) has a scale, a stain and a blur of its own. difficulty: 0 (clear) .. 1, see `draw_cluster`. normal: what each image is brought
    to, as if it was read. laboratory: whose images of these clusters are taken; None: those that were drawn."""
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
        if laboratory is not None:
            drawn = on_black(seen_by(laboratory, drawn).astype(np.float32)).black
        areas[i] = foreground_box(drawn).size, np.count_nonzero(drawn)
        images[i] = brought(drawn, normal, canvas, size)[0]
        files.append(f"{kind}/{i:06d}.png")
    notes = [f"synthetic: seed {seed}, difficulty {difficulty:g}, drawn at {canvas} px"]
    notes += [f"seen by another laboratory: {laboratory.words}"] if laboratory is not None else []
    notes += [normal.words] if normal.words else []
    return make_pack(images, labels, CLUSTER_TYPES, files, [f"p{who:05d}" for who in owner], areas, notes)
