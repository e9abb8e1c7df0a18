"""PanNuke's folds: arrays of images, masks and tissues.
Comes in: folders with images.npy and masks.npy. Goes out: `Tile`s. Exists so that a fold of 4 GB is read an image at a time, wherever its
arrays lie (images/fold1/images.npy beside masks/fold1/masks.npy, or all in one folder)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from trainables.data.crops import SMALLEST, Cell, Tile, crop, not_one, window
from trainables.data.downloads import Download
from trainables.data.words import count, few, shown

# The mask's planes, in their order; the sixth, where there is one, is background (Gamper et al. 2020). To ours: neoplastic and other
# epithelial nuclei are one type, as healthy and malignant epithelium are in CoNSeP; connective are its spindles.
PLANES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
TO_OURS = {0: 2, 1: 1, 2: 3, 3: 0, 4: 2}  # plane -> index of CONSEP_CLASSES
FACTOR = 2  # the window's side in sides of the cell, as CoNSeP's
LOOKED_AT = 200  # images of a fold, of which each takes 3 MB of a file, for the order of its planes
FOREIGN = 0.02  # of a tile's pixels that may be background and cell at once, or neither
ARRAYS = ("images", "masks", "types")


@dataclass(frozen=True)
class Fold:
    """The arrays of one fold."""

    name: str
    images: Path
    masks: Path | None
    types: Path | None


def find_folds(folder: Path) -> tuple[list[Fold], list[str]]:
    """All folds at or below a folder, and what is wrong with the way they lie. A fold's arrays lie in one folder, or each in one that is
    called alike but for the word images, masks or types."""
    found: dict[str, dict[str, Path]] = {}
    faults = []
    for root, inside, files in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith((".", "__")))
        place = Path(root).relative_to(folder)
        own = re.sub(r"(^|/)(?:images|masks|types)(?=/|$)", "", place.as_posix().casefold()).strip("/.")
        for name in sorted(files):
            word = Path(name).stem.casefold()
            if name.casefold().endswith(".npy") and word in ARRAYS:
                arrays = found.setdefault(own, {})
                if word in arrays:
                    faults.append(f"two arrays {word} for one fold: {shown(str(arrays[word]))} and {shown(str(Path(root) / name))}")
                arrays.setdefault(word, Path(root) / name)
    folds = []
    for own, arrays in found.items():
        if "images" not in arrays:
            faults.append(f"{shown(own) or shown(str(folder))}: {', '.join(arrays)}.npy without images.npy")
            continue
        folds.append(Fold(shown(own.replace("/", "-")) or "fold", arrays["images"], arrays.get("masks"), arrays.get("types")))
    return folds, faults


def read_fold(fold: Fold) -> list[Tile]:
    """Its images as tiles, their cells cut out, the type an index of PLANES; a tile's name is fold-number-tissue."""
    arrays: dict[str, np.ndarray] = {}
    for word, path in (("images", fold.images), ("masks", fold.masks), ("types", fold.types)):
        if path is None:
            continue
        try:
            arrays[word] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as fault:
            return [Tile(fold.name, faults=[f"{path.name} cannot be read ({(str(fault).splitlines() or ['damaged'])[0][:80]})"])]
    if fault := _shapes(arrays):
        return [Tile(fold.name, faults=[fault])]
    images, masks, types = arrays["images"], arrays["masks"], arrays.get("types")
    if fault := _order(masks):
        return [Tile(fold.name, faults=[fault])]
    digits = len(str(len(images)))
    tiles = []
    for i in range(len(images)):
        tissue = "" if types is None else re.sub(r"\W+", "_", shown(str(types[i]))).strip("_")
        name = "-".join(word for word in (fold.name, f"{i:0{digits}d}", tissue) if word)
        tiles.append(_tile(name, np.asarray(images[i]), np.asarray(masks[i])))
    return tiles


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    """What keeps the arrays from being a fold's; ''."""
    if "masks" not in arrays:
        return "masks.npy is missing: the cells and their types stand there"
    images, masks, types = arrays["images"], arrays["masks"], arrays.get("types")
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype.kind not in "uif":
        return f"images.npy must hold numbers of shape (N, height, width, 3), it has {images.dtype} {images.shape}"
    if masks.ndim != 4 or masks.shape[:3] != images.shape[:3] or masks.shape[3] not in (5, 6) or masks.dtype.kind not in "uifb":
        return f"masks.npy must have the images' {images.shape[:3]} and 5 or 6 planes, it has {masks.dtype} {masks.shape}"
    if types is not None and types.shape != (len(images),):
        return f"types.npy must have a tissue for each of {count(len(images))}, it has {types.shape}"
    return ""


def _order(masks: np.ndarray) -> str:
    """What keeps the planes from being PanNuke's in their order; ''. One of one number that fills most of an image, where no cell of
    another plane lies, is the background, and stands last; the last of six holds no numbers of cells."""
    masks = masks[:: max(1, len(masks) // LOOKED_AT)]
    found, numbered = [0] * len(PLANES), 0
    for mask in masks:
        filled = np.asarray(mask) > 0
        for plane in np.flatnonzero(filled[..., : len(PLANES)].mean((0, 1)) > 0.5).tolist():
            here = filled[..., plane]
            others = np.delete(filled, plane, 2).any(2)
            found[plane] += bool((here & others).mean() <= FOREIGN and len(np.unique(mask[..., plane][here])) == 1)
        numbered += len(filled[0, 0]) > len(PLANES) and bool(set(np.unique(mask[..., len(PLANES)]).tolist()) - {0, 1, 255})
    plane = int(np.argmax(found))
    words = f"the planes of masks.npy must be {', '.join(PLANES)} and at most background behind them; "
    if found[plane] and 2 * found[plane] >= len(masks):
        return (
            f"{words}plane {plane + 1} is the background in {found[plane]:,} of {len(masks):,} images, which shifts the types: put it last"
        )
    if numbered and 2 * numbered >= len(masks):
        return f"{words}the last plane holds numbers of cells in {numbered:,} of {len(masks):,} images: put the planes in this order"
    return ""


def _tile(name: str, image: np.ndarray, mask: np.ndarray) -> Tile:
    tile = Tile(name)
    if not (np.isfinite(image).all() and np.isfinite(mask).all()):
        tile.faults.append("holds values that are not finite")
        return tile
    if image.min() < 0 or image.max() > 255 or (image.dtype.kind == "f" and 0 < image.max() <= 1):
        tile.faults.append(f"pixels must be 0 to 255, they are {image.min():g} to {image.max():g}")
        return tile
    if mask.min() < 0 or mask.max() > 65535 or (mask % 1 != 0).any():
        tile.faults.append("a mask must hold 0 and the numbers of cells, it holds others")
        return tile
    picture = np.ascontiguousarray(np.rint(image), np.uint8)
    crops = []
    for plane, kind in enumerate(PLANES):
        numbers = mask[..., plane].astype(np.int32)
        areas = np.bincount(numbers.ravel())
        for number, place in enumerate(find_objects(numbers), 1):
            if place is None:
                continue
            if areas[number] < SMALLEST:
                tile.untyped += 1
                continue
            rows, columns = place
            inside = numbers[place] == number
            if why := not_one(inside, numbers.size):
                tile.joined += 1
                tile.faults.append(f"{kind} {number}: {why}, which are no single cell")
                continue
            cell = Cell(f"{kind}{number}", plane, rows.start, columns.start, rows.stop, columns.stop, float(areas[number]), inside)
            tile.cells.append(cell)
            crops.append(crop(picture, *window(cell, FACTOR)))
    return replace(tile, crops=np.stack(crops)) if crops else tile


def said_of_tissues(tiles: list[Tile]) -> str:
    """How many tiles of each tissue there are, for a note; '' where none is known."""
    words = [found[1].replace("_", " ") for tile in tiles if (found := re.fullmatch(r".*?\d+-([A-Za-z]\w*)", tile.name))]
    numbers = sorted({word: words.count(word) for word in words}.items(), key=lambda pair: (-pair[1], pair[0]))
    return f"tissues: {few([f'{word} {number:,}' for word, number in numbers], 20)}" if numbers else ""


PUBLISHED = Download("images", "masks", ".npy", read_fold, FACTOR, 189_744, 7_901)
