"""Images that show the same thing: equal pixels, and near duplicates by correlation.
Comes in: images, or two folders. Goes out: pairs. Exists so that a copy on two sides of a split makes a score untrue."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.burnt import Corners
from trainables.data.find import list_folder
from trainables.data.listing import UNKNOWN
from trainables.data.open import Decoded, UnreadableError, decode
from trainables.data.overlaps import NO_MARKS, landmarks_of, overlapping
from trainables.data.pack import Pack, pixel_keys
from trainables.data.readers import each
from trainables.data.rotation import agree, polar, polar_frame, turned_pairs
from trainables.data.scale import area_weights, foreground_box
from trainables.data.stems import named_pairs
from trainables.data.words import count, few

SIDE = 24  # px of the reduced image that near duplicates are compared on
# Correlations above which two images count as near duplicates. Looked at by eye on 4,000 clusters and 14,002 chromosomes (Tseng et al.
# 2023) and 5,474 Q-banded ones (Poletti et al. 2012): all 10 + 37 + 13 pairs above are the same object; the best of different ones had
# 0.983 (G) and 0.9897 (Q) upright, 0.990 turned.
NEAR, NEAR_TURNED = 0.99, 0.992
SURE = (
    0.9965  # correlation that no two different objects of any of these sets reached, those that are drawn from one description among them
)
NAMED = 0.8  # correlation at the best turn of an image and one that its name says is a copy of it
FILLED = 0.1  # of a frame's border: where so much is no ground, the picture may go on beyond it
SQUASHED = 0.9925  # correlation of two frames of unlike shape: copies that were squashed have 0.993 and more, the best of others 0.991 (Q)
ONE_SIZE = 0.05  # of a set's files, from which on their size is one that they were brought to
MOST_TURNED = 50_000_000  # pairs, up to which they are compared in all eight positions: a minute
AT_ONCE = 16_000_000  # correlations in memory
PROPORTION = 0.1  # by which the sides of two boxes may differ, as a logarithm
SAME_SET = 0.05  # of an external set's images that are near duplicates of the study's own: it is not external


@dataclass(frozen=True)
class Framed:
    """An image as its own frame shows it, for copies that were turned in it."""

    turns: np.ndarray  # float16, see `rotation.polar_frame`
    cut: bool  # its object reaches the frame, or lay in one that was cut away: a turn may have taken its ends
    size: tuple[int, int]  # height, width
    whole: np.ndarray  # float16, all of the frame, see `reduced`
    tissue: np.ndarray | None  # the same by the file's own gray, where the frame holds no ground that tells an object from it
    marks: np.ndarray  # where it may be a part of a field, see `overlaps.landmarks_of`; none where it is one object
    corners: Corners  # what may be burnt into it

    @classmethod
    def of(cls, decoded: Decoded) -> Framed:
        gray = decoded.gray
        border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
        whole = decoded.luma is not None and np.count_nonzero(border) >= FILLED * len(border)
        tissue = polar_frame(decoded.luma, ground=False) if whole else None
        marks = landmarks_of(decoded.luma) if whole else NO_MARKS
        cut = decoded.framed or bool(border.any())
        return cls(polar_frame(gray), cut, (gray.shape[0], gray.shape[1]), reduced(gray), tissue, marks, Corners.of(decoded))

    @property
    def tall(self) -> float:
        """How much higher it is than wide, as a logarithm."""
        return float(np.log(self.size[0] / self.size[1]))


def framed_pairs(frames: Sequence[Framed], others: Sequence[Framed] | None = None) -> list[tuple[int, int, float]]:
    """(i, j, correlation) of images of which one is the other turned in its frame: of alike frames, and at least one of them cut; or both
    of tissue that fills them."""
    second = frames if others is None else others
    cut, against = ([i for i, frame in enumerate(some) if frame.cut and frame.turns.any()] for some in (frames, second))
    filled, filling = ([i for i, frame in enumerate(some) if frame.tissue is not None and frame.tissue.any()] for some in (frames, second))
    everything = range(len(frames)), range(len(second))
    found: dict[tuple[int, int], float] = {}

    def add(mine: Sequence[int], theirs: Sequence[int], looks: Sequence[np.ndarray], of: Sequence[np.ndarray] | None) -> None:
        for a, b, value in turned_pairs(np.stack(looks), None if of is None else np.stack(of)):
            i, j = mine[a], theirs[b]
            if abs(abs(frames[i].tall) - abs(second[j].tall)) < PROPORTION and (others is not None or i != j):
                found.setdefault((min(i, j), max(i, j)) if others is None else (i, j), value)

    for mine, theirs in ((cut, everything[1]), *(() if others is None else ((everything[0], against),))):
        if len(mine) and len(theirs):
            add(mine, theirs, [frames[i].turns for i in mine], [second[j].turns for j in theirs])
    if filled and filling:
        own = [frame.tissue for frame in frames if frame.tissue is not None and frame.tissue.any()]
        their = [frame.tissue for frame in second if frame.tissue is not None and frame.tissue.any()]
        add(filled, filling, own, None if others is None else their)
    for i, j, value in _squashed(frames, second):
        if others is not None or i != j:
            found.setdefault((min(i, j), max(i, j)) if others is None else (i, j), value)
    return [(i, j, value) for (i, j), value in found.items()]


def _squashed(frames: Sequence[Framed], second: Sequence[Framed]) -> Iterator[tuple[int, int, float]]:
    """(i, j, correlation) of images of which one was resized to another shape, as networks ask for, and perhaps turned by 90 degrees or
    mirrored then: all its set's have that size, or it is square."""
    for mine, theirs, swapped in ((frames, second, False), (second, frames, True)):
        numbers = Counter(frame.size for frame in mine)
        shapes: dict[float, list[int]] = {}
        for i, frame in enumerate(mine):
            if frame.size[0] == frame.size[1] or numbers[frame.size] >= max(3, ONE_SIZE * len(mine)):
                shapes.setdefault(frame.tall, []).append(i)
        if swapped and frames is second:
            return
        tall = np.array([frame.tall for frame in theirs])
        for own, resized in shapes.items():
            for turn in range(4):
                unlike = np.flatnonzero(np.abs((-own if turn % 2 else own) - tall) >= PROPORTION)  # in a set of one shape there is none
                if not len(unlike) or (turn and len(unlike) * len(resized) > MOST_TURNED):
                    continue
                other = np.stack([theirs[j].whole for j in unlike]).astype(np.float32)
                for i, b, value in _alike([mine[i].whole for i in resized], other, turn):
                    yield (int(unlike[b]), resized[i], value) if swapped else (resized[i], int(unlike[b]), value)


def _alike(some: Sequence[np.ndarray], other: np.ndarray, turn: int) -> Iterator[tuple[int, int, float]]:
    """(i, j, correlation) of reduced images, the first turned by so many times 90 degrees, mirrored or not."""
    block = max(1, min(1024, AT_ONCE // len(other)))
    for start in range(0, len(some), block):
        looks = np.stack(some[start : start + block]).reshape(-1, SIDE, SIDE).astype(np.float32)
        for mirrored in (False, True):
            values = np.rot90(looks[:, :, ::-1] if mirrored else looks, turn, (1, 2)).reshape(len(looks), -1) @ other.T
            for a, b in np.argwhere(values >= (SURE if turn or mirrored else SQUASHED)).tolist():
                yield start + a, b, float(values[a, b])


@dataclass(frozen=True)
class NearPair:
    """Two files that show the same thing with other pixels."""

    first: str
    second: str
    correlation: float
    turned: bool  # only after a quarter turn or a mirroring


def reduced(box: np.ndarray) -> np.ndarray:
    """(h, w) -> float16 (SIDE * SIDE,) with mean 0 and length 1, so that a dot product is a correlation; all 0 for a flat box."""
    small = area_weights(box.shape[0], SIDE) @ box.astype(np.float32) @ area_weights(box.shape[1], SIDE).T
    small = (small - small.mean()).ravel()
    length = float(np.linalg.norm(small))
    return (small / length if length > 1e-3 else np.zeros_like(small)).astype(np.float16)


def in_one_position(box: np.ndarray) -> np.ndarray:
    """Lying, with its weight to the right and below: the same for the 8 turns and mirrorings, except where the weights nearly balance."""
    box = box.T if box.shape[0] > box.shape[1] else box
    across, down = box.sum(0, dtype=float), box.sum(1, dtype=float)
    if (across * (np.arange(len(across)) - (len(across) - 1) / 2)).sum() < 0:
        box = box[:, ::-1]
    return box[::-1] if (down * (np.arange(len(down)) - (len(down) - 1) / 2)).sum() < 0 else box


def near_duplicates(images: np.ndarray, files: Sequence[str] = ()) -> list[tuple[int, int, float, bool]]:
    """(i, j, correlation, turned) of images (N, S, S) on black that show the same without having the same pixels, best first; the pairs are
    what `split` takes as `ties`. files: their names, which say of some what they are copies of. See `near_pairs`."""
    upright, turned, shapes, turns = zip(*each(_packed_look, images), strict=True) if len(images) else ((), (), (), ())
    return near_pairs(upright, turned, shapes, pixel_keys(images), turns, files)


def _packed_look(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], np.ndarray]:
    """What `near_pairs` compares of a packed image: upright, turned, the shape of its box, turns."""
    box = foreground_box(np.asarray(image))
    return reduced(box), reduced(in_one_position(box)), box.shape, polar(box)


def ties_of(close: Sequence[tuple[int, int, float, bool]], patients: Sequence[str] | None) -> tuple[tuple[int, int], ...]:
    """Which near duplicates a split keeps on one side. A tie between two patients joins them with all their images, so that it takes more
    than looking alike: homologues do. An image whose patient nobody knows may be anybody's."""

    def others(i: int, j: int) -> bool:
        return patients is not None and patients[i] != patients[j] and not any(patients[k].startswith(UNKNOWN) for k in (i, j))

    return tuple((i, j) for i, j, value, _ in close if value >= SURE or not others(i, j))


def near_pairs(
    upright: Sequence[np.ndarray],
    turned: Sequence[np.ndarray],
    shapes: Sequence[tuple[int, ...]],
    keys: Sequence[bytes],
    turns: Sequence[np.ndarray],
    files: Sequence[str] = (),
    frames: Sequence[Framed] = (),
    block: int = 2048,
) -> list[tuple[int, int, float, bool]]:
    """Boxes of the foreground, reduced to SIDE x SIDE and correlated, as they stand and in a position chosen by their moments; blind
    to gray level, contrast, padding and scale. The sides of two boxes may differ in proportion by 10 %. Then their pictures in polar
    coordinates (`rotation`), at every turn, those of their frames too where these are given; and those that are copies by their names,
    where they agree by NAMED. Of exact duplicates (equal keys) only the first takes part."""
    chosen = np.array(sorted({key: i for i, key in reversed(list(enumerate(keys)))}.values()), np.int64)
    tall = np.log([shapes[i][0] / shapes[i][1] for i in chosen])
    pairs: dict[tuple[int, int], tuple[float, bool]] = {}
    for looks, shape, least, is_turned in ((upright, tall, NEAR, False), (turned, np.abs(tall), NEAR_TURNED, True)):
        order = np.argsort(shape, kind="stable")  # so that most blocks are too unlike in shape to be compared
        rows, sides = np.stack([looks[chosen[i]] for i in order]), shape[order]
        for start, other in ((s, o) for s in range(0, len(rows), block) for o in range(s, len(rows), block)):
            if sides[other] - sides[min(start + block, len(rows)) - 1] >= PROPORTION:
                continue
            values = rows[start : start + block].astype(np.float32) @ rows[other : other + block].astype(np.float32).T
            a, b = np.nonzero(values >= least)
            value, a, b = values[a, b], a + start, b + other
            close = (a < b) & (sides[b] - sides[a] < PROPORTION)
            for i, j, v in zip(chosen[order[a[close]]].tolist(), chosen[order[b[close]]].tolist(), value[close].tolist(), strict=True):
                pairs.setdefault((min(i, j), max(i, j)), (min(1.0, v), is_turned))
    pictures = np.stack([turns[i] for i in chosen])
    for i, j, value in turned_pairs(pictures):
        pairs.setdefault((int(chosen[i]), int(chosen[j])), (value, True))
    for i, j, value in framed_pairs([frames[i] for i in chosen]) if frames else ():
        pairs.setdefault((int(chosen[i]), int(chosen[j])), (value, True))
    for i, j in named_pairs(files):
        if keys[i] == keys[j] or (i, j) in pairs:
            continue
        filled = [frames[k].tissue for k in (i, j) if frames and frames[k].tissue is not None]
        value = max(agree(turns[i], turns[j]), agree(*filled) if len(filled) == 2 else 0.0)  # type: ignore[arg-type]
        if value >= NAMED:
            pairs[i, j] = (value, True)
    return sorted(((i, j, value, is_turned) for (i, j), (value, is_turned) in pairs.items()), key=lambda pair: (-pair[2], pair[:2]))


@dataclass(frozen=True)
class Shared:
    """Images that stand in two sets, in words."""

    refused: str = ""  # so many, or so equal, that the second is not external
    doubtful: str = ""  # a few that look alike


def shared_files(one: str | Path, other: str | Path) -> Shared:
    """Images in both folders: as decoded, polarity undone and frames cut off, before anything is scaled (two sets may be scaled by
    different factors); and those that are the same but for size, compression and turn."""
    sets = []
    for folder in (Path(one), Path(other)):
        listing = list_folder(folder)
        looks = each(_foreground, [folder / name for name in listing.files])
        sets.append([_Look(name, *look) for name, look in zip(listing.names, looks, strict=True) if look is not None])
    return _shared(*sets)


@dataclass(frozen=True)
class _Look:
    name: str
    key: bytes  # equal where the foreground is
    turns: np.ndarray  # see `rotation.polar`
    frame: Framed | None = None  # None where it is not known any more


def _foreground(path: Path) -> tuple[bytes, np.ndarray, Framed] | None:
    """What `_Look` holds of a file; None for an image without any foreground, or one that cannot be read."""
    try:
        decoded = decode(path)
    except UnreadableError:
        return None
    gray = foreground_box(decoded.gray)
    head = f"{gray.shape}".encode()
    key = hashlib.blake2b(head + np.ascontiguousarray(gray).tobytes(), digest_size=16).digest()
    return (key, polar(gray), Framed.of(decoded)) if gray.any() else None


def shared_images(one: Pack, other: Pack) -> Shared:
    """Images in both sets, as they are packed. One without any foreground does not count."""
    sets = []
    for pack in (one, other):
        gray = pack.images if pack.images.ndim == 3 else 255 - pack.images.mean(3).astype(np.uint8)
        shown = [i for i in range(len(pack)) if pack.images[i].any()]
        looks = each(_packed_turns, [gray[i] for i in shown])
        keys = pixel_keys(pack.images)
        sets.append([_Look(pack.files[i], keys[i], look) for i, look in zip(shown, looks, strict=True)])
    return _shared(*sets)


def _packed_turns(gray: np.ndarray) -> np.ndarray:
    return polar(foreground_box(np.asarray(gray)))


def _shared(mine: Sequence[_Look], theirs: Sequence[_Look]) -> Shared:
    known = {look.key: look.name for look in mine}
    both = [f"{known[look.key]} = {look.name}" for look in theirs if look.key in known]
    if both:
        return Shared(f"{count(len(both))} in both sets: {few(both, 3)}")
    if not mine or not theirs:
        return Shared()
    pairs = turned_pairs(np.stack([look.turns for look in theirs]), np.stack([look.turns for look in mine]))
    frames = [[look.frame for look in some if look.frame is not None] for some in (theirs, mine)]
    if all(frames):
        pairs += framed_pairs(*frames)
        pairs += [(i, j, 1.0) for i, j in overlapping([frame.marks for frame in frames[0]], [frame.marks for frame in frames[1]])]
    near = sorted({i: f"{mine[j].name} ~ {theirs[i].name}" for i, j, _ in pairs}.values())
    words = (
        f"{count(len(near))} of {len(theirs):,} are near duplicates of images in the study's own set, or show a part of one: {few(near, 3)}"
        if near
        else ""
    )
    return Shared(words) if len(near) >= max(2, SAME_SET * len(theirs)) else Shared("", words)
