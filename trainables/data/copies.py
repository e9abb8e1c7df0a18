"""Images that show the same thing: equal pixels, and near duplicates by correlation.
Comes in: images, or two folders. Goes out: pairs. Exists so that a copy on two sides of a split makes a score untrue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.find import list_folder
from trainables.data.open import UnreadableError, decode
from trainables.data.pack import Pack, pixel_keys
from trainables.data.readers import each
from trainables.data.scale import area_weights, foreground_box
from trainables.data.words import count, few

SIDE = 24  # px of the reduced image that near duplicates are compared on
# Correlations above which two images count as near duplicates. Looked at by eye on 4,000 clusters and 14,002 chromosomes (Tseng et al.
# 2023) and 5,474 Q-banded ones (Poletti et al. 2012): all 10 + 37 + 13 pairs above are the same object; the best of different ones had
# 0.983 (G) and 0.9897 (Q) upright, 0.990 turned.
NEAR, NEAR_TURNED = 0.99, 0.992


@dataclass(frozen=True)
class NearPair:
    """Two files that show the same thing with other pixels."""

    first: str
    second: str
    correlation: float
    turned: bool  # only after a quarter turn or a mirroring


def reduced(box: np.ndarray) -> np.ndarray:
    """(h, w) -> float32 (SIDE * SIDE,) with mean 0 and length 1, so that a dot product is a correlation; all 0 for a flat box."""
    small = area_weights(box.shape[0], SIDE) @ box.astype(np.float32) @ area_weights(box.shape[1], SIDE).T
    small = (small - small.mean()).ravel()
    length = float(np.linalg.norm(small))
    return small / length if length > 1e-3 else np.zeros_like(small)


def in_one_position(box: np.ndarray) -> np.ndarray:
    """Lying, with its weight to the right and below: the same for the 8 turns and mirrorings, except where the weights nearly balance."""
    box = box.T if box.shape[0] > box.shape[1] else box
    across, down = box.sum(0, dtype=float), box.sum(1, dtype=float)
    if (across * (np.arange(len(across)) - (len(across) - 1) / 2)).sum() < 0:
        box = box[:, ::-1]
    return box[::-1] if (down * (np.arange(len(down)) - (len(down) - 1) / 2)).sum() < 0 else box


def near_duplicates(images: np.ndarray) -> list[tuple[int, int, float, bool]]:
    """(i, j, correlation, turned) of images (N, S, S) on black that show the same without having the same pixels, best first; the pairs are
    what `split` takes as `ties`. See `near_pairs`."""
    boxes = [foreground_box(np.asarray(image)) for image in images]
    keys = pixel_keys(images)
    return near_pairs([reduced(box) for box in boxes], [reduced(in_one_position(box)) for box in boxes], [box.shape for box in boxes], keys)


def near_pairs(
    upright: Sequence[np.ndarray], turned: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]], keys: Sequence[bytes], block: int = 1024
) -> list[tuple[int, int, float, bool]]:
    """Boxes of the foreground, reduced to SIDE x SIDE and correlated, as they stand and in a position chosen by their moments; blind
    to gray level, contrast, padding and scale. The sides of two boxes may differ in proportion by 10 %. Of exact duplicates (equal keys)
    only the first takes part. Time: N^2 / 2 dot products, 3 s on one core for 14,002 images."""
    chosen = np.array(sorted({key: i for i, key in reversed(list(enumerate(keys)))}.values()), np.int64)
    tall = np.log([shapes[i][0] / shapes[i][1] for i in chosen])
    pairs: dict[tuple[int, int], tuple[float, bool]] = {}
    for reduced, shape, least, is_turned in ((upright, tall, NEAR, False), (turned, np.abs(tall), NEAR_TURNED, True)):
        rows = np.stack([reduced[i] for i in chosen])
        for start in range(0, len(rows), block):
            a, b = np.nonzero(rows[start : start + block] @ rows[start:].T >= least)
            a, b = a[a < b] + start, b[a < b] + start
            close = np.abs(shape[a] - shape[b]) < 0.1
            for i, j in zip(a[close], b[close], strict=True):
                pairs.setdefault((int(chosen[i]), int(chosen[j])), (min(1.0, float(rows[i] @ rows[j])), is_turned))
    return sorted(((i, j, value, is_turned) for (i, j), (value, is_turned) in pairs.items()), key=lambda pair: (-pair[2], pair[:2]))


def shared_files(one: str | Path, other: str | Path) -> str:
    """How many images stand in both folders, in words; '' where none does. Compared as decoded, polarity undone and frames cut off, before
    anything is scaled: two sets may be scaled by different factors."""
    found = []
    for folder in (Path(one), Path(other)):
        files = list_folder(folder).files
        keys = each(_foreground_key, [folder / name for name in files])
        found.append({key: name for key, name in zip(keys, files, strict=True) if key})
    both = [(found[0][key], name) for key, name in found[1].items() if key in found[0]]
    return f"{count(len(both))} in both sets: {few([f'{mine} = {theirs}' for mine, theirs in both], 3)}" if both else ""


def _foreground_key(path: Path) -> bytes:
    """16 bytes, equal where the foreground is; empty for an image without any, or one that cannot be read."""
    try:
        gray = foreground_box(decode(path).gray)
    except UnreadableError:
        return b""
    head = f"{gray.shape}".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(gray).tobytes(), digest_size=16).digest() if gray.any() else b""


def shared_images(one: Pack, other: Pack) -> str:
    """How many images stand in both sets, pixel by pixel, in words; '' where none does. An image without any foreground does not count."""
    mine = {key: file for key, file, image in zip(pixel_keys(one.images), one.files, one.images, strict=True) if image.any()}
    both = [(mine[key], file) for key, file in zip(pixel_keys(other.images), other.files, strict=True) if key in mine]
    return f"{count(len(both))} in both sets: {few([f'{mine} = {theirs}' for mine, theirs in both], 3)}" if both else ""
