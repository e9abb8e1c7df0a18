"""One image of an inspection: its numbers and what copies are compared on.
Comes in: a path. Goes out: `Seen`, or why there is none. Exists so that an inspection keeps a few kilobytes of an image and never the
image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainables.data.copies import Framed, in_one_position, near_pairs, reduced
from trainables.data.open import Decoded, UnreadableError, decode
from trainables.data.rotation import polar
from trainables.data.scale import foreground_box


@dataclass(frozen=True)
class Seen:
    height: int
    width: int
    foreground: int
    said: Decoded  # how it was read, without its pixels
    key: bytes  # equal where size and pixels are equal
    upright: np.ndarray  # float16 (SIDE * SIDE,), mean 0, length 1
    turned: np.ndarray  # the same of the image in the one of its 8 positions that its moments choose
    turns: np.ndarray  # float16, see `rotation.polar`
    shape: tuple[int, ...]  # of the foreground's box
    frame: Framed


def look(path: Path, tolerance: int) -> Seen | str | None:
    """One image; the reason where it cannot be read; None where it is all background."""
    try:
        decoded = decode(path, tolerance)
    except UnreadableError as error:
        return str(error)
    gray = decoded.gray
    foreground = int(np.count_nonzero(gray))
    if not foreground:
        return None
    key = hashlib.blake2b(f"{gray.shape}".encode() + gray.tobytes(), digest_size=16).digest()
    box = foreground_box(gray)
    height, width = gray.shape
    said = replace(decoded, gray=gray[:0].copy())  # a slice would keep the whole
    turned = reduced(in_one_position(box))
    return Seen(height, width, foreground, said, key, reduced(box), turned, polar(box), box.shape, Framed.of(decoded))


def near(seen: Sequence[Seen], files: Sequence[str]) -> list[tuple[int, int, float, bool]]:
    """Near duplicates among images and their names, see `near_pairs`."""
    shapes, keys, turns = [s.shape for s in seen], [s.key for s in seen], [s.turns for s in seen]
    return near_pairs([s.upright for s in seen], [s.turned for s in seen], shapes, keys, turns, files, [s.frame for s in seen])
