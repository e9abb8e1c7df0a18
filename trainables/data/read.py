"""A folder of images -> a `Pack` of gray images on black.
Comes in: a folder, the canvas, the size. Goes out: a `Pack`; or every fault of the folder. Exists so that each image is decoded once, in
the same way for training, testing and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data.copies import Framed, framed_pairs, near_duplicates, ties_of
from trainables.data.equals import copied_classes, equal_sets, with_two_labels
from trainables.data.find import list_folder
from trainables.data.given_away import given_away
from trainables.data.ground import TOLERANCE, on_black
from trainables.data.laboratory import Laboratory, seen_by
from trainables.data.listing import Listing, class_faults, part_faults
from trainables.data.normal import AS_IT_IS, Normal, brought
from trainables.data.open import Decoded, UnreadableError, blank_fault, decode, kinds_of, unreadable_fault
from trainables.data.pack import Pack, make_pack
from trainables.data.readers import each
from trainables.data.straighten import straightened
from trainables.data.words import class_order, count, few, same, shown, them
from trainables.parts.errors import RequestError

UNLIKE = 4  # times: what one exposure gives to the highest values of its images is less


@dataclass
class Elsewhere:
    """The same files as another laboratory would show them, of one reading. Filled by `read_images`."""

    laboratory: Laboratory
    images: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), np.uint8))  # uint8 (N, size, size)
    areas: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # float64 (N, 2), pixels of its files


def read_images(
    paths: Sequence[Path],
    canvas: int = 224,
    size: int = 224,
    tolerance: int = TOLERANCE,
    names: Sequence[str] | None = None,
    normal: Normal = AS_IT_IS,
    frames: list[tuple[Framed, Decoded]] | None = None,
    elsewhere: Elsewhere | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Files -> images (N, size, size), areas (N, 2), notes, faults. `names`: how the faults call the files. normal: what each image is
    brought to by itself: what becomes of one image depends on no other. frames: filled with what each file's own frame shows, which its
    packed image does not know any more, and how it was read. elsewhere: filled with what another laboratory's files would show."""
    if not 1 <= size <= canvas:
        raise RequestError(f"size must lie between 1 and the canvas ({canvas}), got {size}; choose a smaller size or a larger canvas")
    names = [shown(str(path)) for path in paths] if names is None else names
    images = np.zeros((len(paths), size, size), np.uint8)
    areas = np.zeros((len(paths), 2))
    factors = np.zeros(len(paths))
    large, straight = np.zeros(len(paths), bool), np.zeros(len(paths), bool)
    results: list[Decoded | str] = []
    laboratory = None if elsewhere is None else elsewhere.laboratory
    if elsewhere is not None:
        elsewhere.images, elsewhere.areas = np.zeros_like(images), np.zeros_like(areas)
    read = partial(
        _read_one, canvas=canvas, size=size, tolerance=tolerance, normal=normal, laboratory=laboratory, framed=frames is not None
    )
    for i, found in enumerate(each(read, paths)):
        if isinstance(found, str):
            results.append(found)
            continue
        images[i], areas[i], factors[i], large[i], straight[i] = found.image, found.area, found.factor, found.large, found.straight
        results.append(found.said)
        if elsewhere is not None and found.elsewhere is not None:
            elsewhere.images[i], elsewhere.areas[i] = found.elsewhere
        if frames is not None and found.frame is not None:
            frames.append((found.frame, found.said))
    unreadable = [(names[i], result) for i, result in enumerate(results) if isinstance(result, str)]
    blank = [names[i] for i, result in enumerate(results) if isinstance(result, Decoded) and not images[i].any()]
    faults = [*unreadable_fault(unreadable), *blank_fault(blank, tolerance)]
    good = {names[i]: result for i, result in enumerate(results) if isinstance(result, Decoded)}
    notes = []
    white = sum(g.inverted for g in good.values())
    if white:
        kept = f", {len(good) - white} with a black one kept" if white < len(good) else ""
        notes.append(f"{count(white)} with a white background inverted{kept}")
    if normal.words:
        notes.append(normal.words)
    if normal.straight and good:
        notes.append(
            f"{len(good) - int(straight.sum()):,} of {count(len(good))} left as they are: short, touching themselves, "
            "or without a single axis"
        )
    if normal.width and good:
        least, middle, most = np.quantile(factors[[isinstance(result, Decoded) for result in results]], (0.05, 0.5, 0.95))
        notes.append(f"scaled by {middle:.2f} in the middle, nine in ten by {least:.2f} to {most:.2f}")
    if large.any():
        notes.append(f"{count(int(large.sum()))} larger than {canvas} px scaled down")
    return images, areas, [*notes, *said_of(good)], faults


@dataclass(frozen=True)
class _Read:
    """What one file gives to a set."""

    said: Decoded  # how it was read, without its pixels
    image: np.ndarray  # uint8 (size, size)
    area: tuple[int, int]  # of the file and of what it shows, pixels
    factor: float  # by which it was scaled
    large: bool  # it was larger than the canvas
    straight: bool  # it was straightened
    frame: Framed | None
    elsewhere: tuple[np.ndarray, tuple[int, int]] | None  # image and area of what another laboratory's file would show


def _read_one(
    path: Path, *, canvas: int, size: int, tolerance: int, normal: Normal, laboratory: Laboratory | None, framed: bool
) -> _Read | str:
    """One file as `read_images` asks; the reason where it cannot be read."""
    try:
        decoded = decode(path, tolerance)
    except UnreadableError as error:
        return str(error)
    frame = Framed.of(decoded) if framed else None
    image, area, factor, large, straight = _packed(decoded.gray, canvas, size, normal)
    elsewhere = None
    if laboratory is not None and decoded.gray.any():
        black = on_black(seen_by(laboratory, decoded.gray).astype(np.float32), tolerance=tolerance).black
        elsewhere = _packed(black, canvas, size, normal)[:2]
    return _Read(decoded.without_pixels, image, area, factor, large, straight, frame, elsewhere)


def _packed(gray: np.ndarray, canvas: int, size: int, normal: Normal) -> tuple[np.ndarray, tuple[int, int], float, bool, bool]:
    """Image, area, factor, large, straight of `_Read`."""
    area = gray.size, int(np.count_nonzero(gray))
    straight = False
    if normal.straight:
        gray, straight = straightened(gray)
    image, factor, large = brought(gray, replace(normal, straight=False), canvas, size)
    return image, area, factor, large, straight


def said_of(good: dict[str, Decoded]) -> list[str]:
    """What was done to files beside reading them, by name, in words."""
    found = []
    if coloured := [name for name, g in good.items() if g.deep and not g.most]:
        found.append(f"{count(len(coloured))} in colours of more than 8 bits scaled to 0..255 by their depth (10, 12, 14 or 16 bits)")
    if deep := [name for name, g in good.items() if g.deep and g.most]:
        tops = np.array([good[name].most for name in deep])
        low, high = np.quantile(tops, (0.05, 0.95))
        words = f"{count(len(deep))} of more than 8 bits scaled from their own range to 0..255"
        if high > UNLIKE * max(low, 1e-9):
            words += (
                f", though their highest values differ: nine in ten lie between {low:,.6g} and {high:,.6g}; "
                "where brightness means something, save them as 8 bits with one range"
            )
        found.append(words)
    if framed := [name for name, g in good.items() if g.framed]:
        found.append(f"{count(len(framed))} in a frame or on a padding of another ground, which was cut away: {few(framed, 3)}")
    other = {name: kind for name, g in good.items() if g.traits and (kind := g.traits[0]) not in kinds_of(name)}
    if other:
        kinds = ", ".join(sorted(set(other.values())))
        found.append(
            f"{count(len(other))} of another kind than their names end in ({kinds}): {few(list(other), 3)}; read as what they are, which "
            "may be compressed with losses"
        )
    if turned := [name for name, g in good.items() if g.turned]:
        found.append(f"{count(len(turned))} turned upright, as the file says (EXIF orientation)")
    if paged := [name for name, g in good.items() if g.pages > 1]:
        found.append(
            f"{count(len(paged))} with several pages: the first was taken ({few(paged, 3)}); to have another, save it as a file of its own"
        )
    if unsure := [f"{name} ({g.unsure})" for name, g in good.items() if g.unsure]:
        found.append(
            f"{count(len(unsure))} whose ground is unsure: {few(unsure, 3)}; look at them (data check --html), "
            "and even their ground out, or cut the objects out on plain black or white"
        )
    return found


def class_indices(listing: Listing, classes: Sequence[str] | None, folder: str | Path) -> tuple[list[str], list[int], list[str], list[str]]:
    """(classes in order, the index of each image's, faults, notes). classes: those expected, in any spelling; None: what the folder
    holds."""
    present = class_order(listing.labels)
    if classes is None:
        return present, [present.index(name) for name in listing.labels], class_faults(listing.labels, folder), []
    order = list(classes)
    known = {same(name): name for name in reversed(order)} | {name: name for name in order}
    meant = {name: known.get(name) or known.get(same(name)) or "" for name in present}
    unknown = [name for name, to in meant.items() if not to]
    faults = [f"classes must be among {', '.join(order)}, unknown: {few(unknown)}; rename or remove {them(unknown)}"] if unknown else []
    gone = [name for name in order if name not in meant.values()]
    notes = [f"no image of class {', '.join(gone)}"] if gone and listing.files else []
    place = {name: order.index(to) if to else -1 for name, to in meant.items()}
    return order, [place[name] for name in listing.labels], faults, notes


def said_first(listing: Listing) -> list[str]:
    """What was taken for class, patient and part, and from where; then warnings and notes."""
    without = [word for word, column in (("patient", listing.patients), ("part", listing.parts)) if column is None]
    taken = [f"taken as {'; '.join([*listing.levels, *(f'{word}: not named' for word in without)])}"] if listing.levels else []
    return [*taken, *listing.warnings, *listing.notes]


def equal_images(pack: Pack) -> list[str]:
    """What to say of equal images under two labels; a split keeps them on one side. RequestError where a split that came with the data
    parts equal images, or a class holds nothing but images of others."""
    sets, labels = equal_sets(pack.keys), [pack.classes[label] for label in pack.labels]
    faults = copied_classes(sets, labels)
    if pack.parts is not None:
        parts = pack.parts
        torn = [own for own in sets if len({parts[i] for i in own}) > 1]
        named = [" = ".join(f"{pack.files[i]} ({parts[i]})" for i in own) for own in torn]
        if torn:
            faults.append(
                f"the split that comes with the data: equal images must stand on one side, {count(len(torn), 'set')} of them on two: "
                f"{few(named, 3)}; keep one of them, or drop the split"
            )
    if faults:
        raise RequestError(*faults)
    odd = [" = ".join(names) for names in with_two_labels(sets, pack.files, labels)]
    return [f"one image, two labels, {count(len(odd), 'set')}: {few(odd, 3)}; one of the labels is wrong: correct it"] if odd else []


def read_folder(
    folder: str | Path,
    canvas: int = 224,
    size: int = 224,
    classes: Sequence[str] | None = None,
    group: str = "patient",
    tolerance: int = TOLERANCE,
    normal: Normal = AS_IT_IS,
    elsewhere: Elsewhere | None = None,
) -> Pack:
    """A folder per class (or a table with file, label, patient, split) -> Pack; RequestError with every fault of the folder at once.

    canvas: side of the square, in pixels, that images are padded to. size: side that this square is averaged down to.
    classes: names and order that are expected; a missing one becomes a note, an unknown one a fault. Without it the classes are what
    the folder holds, at least two, each with at least two images, and a split that comes with the data is the pack's `parts`. group: the
    table's column that may not stand on two sides. normal: what each image is brought to by itself. elsewhere: see `read_images`."""
    listing = list_folder(folder, group)
    order, labels, wrong, missing = class_indices(listing, classes, folder)
    faults, notes = [*listing.faults, *wrong], [*said_first(listing), *missing]
    parts = listing.parts if classes is None else None
    if parts is not None:
        faults += part_faults(listing)
        notes.append("the split that comes with the data is used as it is")
    paths = [Path(folder) / name for name in listing.files]
    frames: list[tuple[Framed, Decoded]] = []
    images, areas, said, broken = read_images(paths, canvas, size, tolerance, listing.names, normal, frames, elsewhere)
    faults += broken
    if faults:
        raise RequestError(*faults)
    pack = make_pack(images, labels, order, listing.names, listing.patients, areas, [*said, *notes], parts)
    pack = replace(pack, metaphases=None if listing.metaphases is None else tuple(listing.metaphases))
    words = equal_images(pack)
    if classes is not None:
        return pack
    turned = [(i, j, value, True) for i, j, value in framed_pairs([frame for frame, _ in frames])]
    looks = {i: (frame, decoded.traits) for i, (frame, decoded) in enumerate(frames)}
    told = given_away(pack, looks, before=ties_of(turned, pack.patients), after=listing.series)
    return replace(told.pack, notes=(*pack.notes, *words, *told.words))


def tied(pack: Pack) -> tuple[tuple[tuple[int, int], ...], list[str]]:
    """(the pack's ties and those of its near duplicates, the note of how many; none where there are none)."""
    ties = tuple(dict.fromkeys((*pack.ties, *ties_of(near_duplicates(pack.images, pack.files), pack.patients))))
    note = f"{len(ties)} pairs of copies, views and parts of one kept on one side of each split (see `python -m search data check`)"
    return ties, [note] if ties else []
