"""A folder of images -> a `Pack` of gray images on black.
Comes in: a folder, the canvas, the size. Goes out: a `Pack`; or every fault of the folder. Exists so that each image is decoded once, in the same way for training, testing and prediction."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.find import list_folder
from trainables.data.listing import class_faults, class_order
from trainables.data.open import TOLERANCE, Decoded, UnreadableError, decode
from trainables.data.pack import Pack, make_pack
from trainables.data.scale import common_scale, foreground_box, on_canvas, rescale
from trainables.data.words import count, few, them
from trainables.parts.errors import RequestError
from trainables.parts.machine import cpus


def read_images(
    paths: Sequence[Path],
    canvas: int = 224,
    size: int = 224,
    tolerance: int = TOLERANCE,
    names: Sequence[str] | None = None,
    scale: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Files -> images (N, size, size), areas (N, 2), notes, faults. `names`: how the faults call the files.
    scale above 0: each image is cropped to its foreground and scaled by this factor; 0: taken as it is."""
    if not 1 <= size <= canvas:
        raise RequestError(f"size must lie between 1 and the canvas ({canvas}), got {size}; choose a smaller size or a larger canvas")
    names = [str(path) for path in paths] if names is None else names
    images = np.zeros((len(paths), size, size), np.uint8)
    areas = np.zeros((len(paths), 2))

    def one(i: int) -> Decoded | str:
        try:
            decoded = decode(paths[i], tolerance)
        except UnreadableError as error:
            return str(error)
        gray = decoded.gray
        areas[i] = gray.size, np.count_nonzero(gray)
        if scale:
            gray = rescale(foreground_box(gray), scale)
        images[i] = on_canvas(gray, canvas, size)
        largest[i] = max(gray.shape)
        return Decoded(gray[:0], decoded.inverted, decoded.deep, decoded.pages)

    largest = np.zeros(len(paths), np.int64)
    with warnings.catch_warnings():  # one filter around all threads: Pillow warns about metadata, which is not used
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor(min(8, cpus())) as pool:
            results = list(pool.map(one, range(len(paths))))
    unreadable = [f"{names[i]} ({result})" for i, result in enumerate(results) if isinstance(result, str)]
    blank = [names[i] for i, result in enumerate(results) if isinstance(result, Decoded) and not images[i].any()]
    faults = [*unreadable_fault(unreadable), *blank_fault(blank, tolerance)]
    good = [result for result in results if isinstance(result, Decoded)]
    white, deep = sum(g.inverted for g in good), sum(g.deep for g in good)
    paged, large = sum(g.pages > 1 for g in good), int((largest > canvas).sum())
    notes = []
    if white:
        notes.append(
            f"{count(white)} with a white background inverted"
            + (f", {len(good) - white} with a black one kept" if white < len(good) else "")
        )
    if scale:
        notes.append(f"cropped to the foreground and scaled by {scale:.2f}")
    if large:
        notes.append(f"{count(large)} larger than {canvas} px scaled down")
    if deep:
        notes.append(f"{count(deep)} of more than 8 bits scaled from their own range to 0..255")
    if paged:
        notes.append(f"{count(paged)} with several pages: the first was taken")
    return images, areas, notes, faults


def unreadable_fault(unreadable: Sequence[str]) -> list[str]:
    """The one fault of all files, each "name (reason)", that cannot be read; none where there are none."""
    if not unreadable:
        return []
    return [f"every image must be readable, {len(unreadable)} cannot be read: {few(unreadable)}; replace or remove {them(unreadable)}"]


def blank_fault(blank: Sequence[str], tolerance: int) -> list[str]:
    """The one fault of all files that show nothing; none where there are none."""
    if not blank:
        return []
    return [
        f"every image must show something, {len(blank)} hold nothing but background (within {tolerance} gray levels): {few(blank)}; "
        f"replace or remove {them(blank)}"
    ]


def read_folder(
    folder: str | Path,
    canvas: int = 224,
    size: int = 224,
    classes: Sequence[str] | None = None,
    group: str = "patient",
    tolerance: int = TOLERANCE,
    normal_side: float = 0.0,
    scale: float = 0.0,
    fewest: int = 0,
) -> Pack:
    """A folder per class (or a manifest.csv with file, label, patient) -> Pack; RequestError with every fault of the folder at once.

    canvas: side of the square, in pixels, that images are padded to. size: side that this square is averaged down to.
    classes: names and order that are expected; a missing one becomes a note, an unknown one a fault. Without it the classes are what
    the folder holds, at least two, each with at least two images. group: the manifest's column that may not stand on two sides.
    normal_side: see `common_scale`; 0 takes images as they are. scale: of fewer than `fewest` images; 0: their own."""
    listing = list_folder(folder, group)
    faults, notes = list(listing.faults), list(listing.notes)
    if listing.parts is not None:
        notes.append("the manifest's column split is not used: a study draws its own split, by patient, and writes it under splits/")
    present = class_order(listing.labels)
    if classes is None:
        order = present
        faults += class_faults(listing.labels, folder)
    else:
        order = list(classes)
        unknown = [name for name in present if name not in order]
        if unknown:
            faults.append(f"classes must be among {', '.join(order)}, unknown: {few(unknown)}; rename or remove {them(unknown)}")
        gone = [name for name in order if name not in present]
        if gone and listing.files:
            notes.append(f"no image of class {', '.join(gone)}")
    paths = [Path(folder) / name for name in listing.files]
    own = not scale or len(paths) >= fewest
    if not normal_side:
        scale = 0.0
    elif own:
        scale = common_scale(paths, normal_side, tolerance)
    images, areas, said, broken = read_images(paths, canvas, size, tolerance, listing.files, scale)
    faults += broken
    if faults:
        raise RequestError(*faults)
    if scale:
        all_by_one = f"scaled by one factor for all, so that half of them are longer than {normal_side:g} px"
        notes.append(all_by_one if own else "scaled as the training set was, which is right for the same magnification")
    labels = [order.index(name) for name in listing.labels]
    return replace(make_pack(images, labels, order, listing.files, listing.patients, areas, [*said, *notes]), scale=scale)
