"""Marks that are burnt into the images of one class: a scale bar, a label, a ruler, a logo, a border.
Comes in: how each image looks near its corners. Goes out: marks and what to say of them. Exists because a network reads the class off such
a mark, and no number shows it.

A mark is what stands at one place, with one gray value and a sharp edge, in most images of a group (a class, or a class's images of one
patient), and is ground or something else in nearly all images of other classes. What all classes bear tells none from another."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from trainables.data.open import Decoded
from trainables.data.pack import Pack
from trainables.data.words import few

LONGER = 256  # pixels that the longer side is reduced to by a whole number at least
ROWS, COLUMNS = 32, 64  # pixels around each corner that are looked at: bars and words are wide
DEPTH, SMALLEST = 5, 48  # part of the height that is looked at above and below; pixels of a side: what fills a smaller crop is its object
PLACES = ("top left", "top right", "bottom left", "bottom right")
FROM_CLASS, FROM_PATIENT = 400, 30  # images that are looked at
FEWEST = 8  # images of a group, below which what they have in common may be chance
AS = 16  # gray levels by which one mark differs in two files: JPEG's ringing
EXACTLY, HALF = 4, 0.5  # gray levels within which at least half of a group is: dark nuclei that fill small crops are not so equal
EDGE = 24  # gray levels of a step within two pixels, as drawn things have and smooth ones have not
IN_GROUP, IN_OTHERS = 0.7, 0.15  # part of the images that have it
LEAST, MOST = 10, 0.5  # pixels of a mark; part of those looked at
BEARS = 0.8  # of a mark's pixels, from which on an image bears it
TELLS = 4  # times as frequent in one class as in the others
NO_GROUND = 256
AROUND = 24  # gray levels around a ground that are ground


@dataclass(frozen=True)
class Mark:
    """What stands at one place of the images of one class."""

    label: str
    place: str  # one of PLACES
    bearing: tuple[int, ...]  # images that were looked at and bear it
    words: str


@dataclass(frozen=True)
class Corners:
    """What lies around an image's corners."""

    packed: bytes  # uint8 (4, ROWS, COLUMNS), the corner at [0, 0]; 0 where the image has no pixel, else its gray value
    ground: int  # gray value of its ground, NO_GROUND where none tells an object from it

    @classmethod
    def of(cls, decoded: Decoded) -> Corners:
        luma, ground = decoded.gray, 0  # where a frame was cut away, what is left
        if decoded.luma is not None and not decoded.framed:
            border = np.concatenate([decoded.gray[0], decoded.gray[-1], decoded.gray[:, 0], decoded.gray[:, -1]])
            luma = decoded.luma
            ground = int(np.median(luma[decoded.gray == 0])) if 2 * np.count_nonzero(border) < len(border) else NO_GROUND
        height, width = luma.shape
        step = -(-max(height, width) // LONGER)
        down, across = min(ROWS, height // step // DEPTH), min(COLUMNS, width // step // 2)
        if min(height, width) < SMALLEST:
            down = 0
        found = np.zeros((4, ROWS, COLUMNS), np.uint8)
        for k in range(4 if down and across else 0):
            turned = luma[:: -1 if k // 2 else 1, :: -1 if k % 2 else 1][: down * step, : across * step]
            seen = turned[step // 2 :: step, step // 2 :: step]  # a mean would fade thin lines
            found[k, :down, :across] = np.clip(seen, 1, 255)
        found &= 0xFC  # what AS does not see packs badly
        found[:, :down, :across] |= 2
        return cls(zlib.compress(found.tobytes(), 1), ground)

    def pixels(self) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(4, ROWS, COLUMNS)


def burnt_in(corners: Mapping[int, Corners], pack: Pack) -> list[Mark]:
    """Marks that tell a class. corners: of images of the pack."""
    if not corners:
        return []
    patients = np.unique(pack.patients, return_inverse=True)[1] if pack.patients else np.zeros(len(pack), int)
    chosen, groups = _groups(np.array(sorted(corners)), pack.labels, patients)
    seen, labels = np.stack([corners[i].pixels() for i in chosen]), pack.labels[chosen]
    grounds = [corners[i].ground for i in chosen if corners[i].ground != NO_GROUND]
    ground = sorted({int(np.median(some)) for side in (0, 1) if (some := [g for g in grounds if (g >= 128) == side])})
    if 2 * len(grounds) < len(chosen):
        ground = []  # tissue, in which white and black are as good as any other gray
    found: list[Mark] = []
    for place in range(4):
        here, known = seen[:, place], list[np.ndarray]()
        for group in groups:
            middle, where = _common(here[group], ground)
            if where.sum() < LEAST:
                continue
            others = here[labels != labels[group[0]]][:, where]
            where[where] = _like(others, middle[where]).mean(0) <= IN_OTHERS if len(others) else False
            if not LEAST <= where.sum() <= MOST * where.size:
                continue
            bears = _like(here[:, where], middle[where]).mean(1) >= BEARS
            if bears.sum() < FEWEST or any((bears & one).sum() >= 0.5 * bears.sum() for one in known):
                continue
            known.append(bears)
            label = int(np.bincount(labels[bears], minlength=len(pack.classes)).argmax())
            own, rest = float(bears[labels == label].mean()), float(bears[labels != label].mean())
            if own >= TELLS * rest:
                bearing = tuple(int(i) for i in chosen[bears])
                found.append(Mark(pack.classes[label], PLACES[place], bearing, _words(pack, label, place, own, rest, bearing)))
    return found


def _like(pixels: np.ndarray, middle: np.ndarray, reach: int = AS) -> np.ndarray:
    return (np.abs(pixels.astype(np.int16) - middle) <= reach) & (pixels > 0)


def _common(own: np.ndarray, ground: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(int16 (ROWS, COLUMNS) the median of a group's images; bool: where most of them have this gray value, which is no ground, and what is
    drawn there ends within two pixels)."""
    middle = np.median(own, axis=0).astype(np.int16)
    where = (middle > 0) & (maximum_filter(middle, 5) - minimum_filter(middle, 5) >= EDGE)
    for level in ground:
        where &= np.abs(middle - level) > AROUND
    for reach, least in ((AS, IN_GROUP), (EXACTLY, HALF)):
        where[where] = _like(own[:, where], middle[where], reach).mean(0) >= least
    return middle, where


def _words(pack: Pack, label: int, place: int, own: float, rest: float, bearing: Sequence[int]) -> str:
    of = sorted({pack.patients[i] for i in bearing}) if pack.patients else []
    patients = f", of {few(of, 3)} alone" if 0 < len(of) <= 3 else ""
    said = (
        f"{own:.0%} of {pack.classes[label]}{patients}, {rest:.0%} of the other classes, such as {few([pack.files[i] for i in bearing], 2)}"
    )
    return f"at the {PLACES[place]} ({said})"


def said_of_marks(marks: Sequence[Mark]) -> list[str]:
    """The one warning of all marks; none where there are none."""
    if not marks:
        return []
    return [
        f"something is burnt into the images of one class, at one place and with one gray value, as a scale bar, a label, a ruler or a "
        f"border is: {'; '.join(mark.words for mark in marks)}; a network reads the class from it: export the images anew without it, cut "
        "it off, or test on images where each class has it"
    ]


def _groups(known: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(images that are looked at, evenly of each class; groups of positions among them: classes, then the patients of each)."""
    picked = [own[:: -(-len(own) // FROM_CLASS)] for own in (known[labels[known] == c] for c in np.unique(labels[known]))]
    chosen = np.concatenate(picked)
    classes = np.split(np.arange(len(chosen)), np.cumsum([len(own) for own in picked])[:-1])
    parts = [own[patients[chosen[own]] == p] for own in classes for p in np.unique(patients[chosen[own]])]
    return chosen, [group for group in (*classes, *(part[:FROM_PATIENT] for part in parts)) if len(group) >= FEWEST]
