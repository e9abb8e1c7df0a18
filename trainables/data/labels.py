"""Label files of tiles: CoNSeP's instance masks (.mat) and NuCLS's boxes (.csv).
Comes in: a label file. Goes out: the cells in it, and what is wrong by cell. Exists so that the rest of a download goes on."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.io
from scipy.ndimage import find_objects

from trainables.data.crops import Cell, Tile, not_one
from trainables.data.open import UnreadableError

CONSEP_CLASSES = ("miscellaneous", "inflammatory", "epithelial", "spindle")
# The published label files know seven types: 1 other, 2 inflammatory, 3 healthy epithelial, 4 malignant epithelial, 5 fibroblast, 6 muscle,
# 7 endothelial (Graham et al. 2019). Files that were merged before know four.
CONSEP_SCHEMES = {
    7: {1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3},
    5: {1: 2, 2: 1, 3: 3, 4: 0, 5: 2},  # PanNuke's numbers in files of this form, as HoVer-Net writes them
    4: {1: 0, 2: 1, 3: 2, 4: 3},
}
NUCLS_CLASSES = ("tumor", "stromal", "sTILs", "apoptotic", "other")
NUCLS_TYPES = {  # raw, main and super classification of the published tables; `correction_` before a raw type is the same type
    "tumor": 0, "mitotic_figure": 0, "fibroblast": 1, "vascular_endothelium": 1, "macrophage": 1, "lymphocyte": 2, "plasma_cell": 2,
    "apoptotic_body": 3, "myoepithelium": 4, "neutrophil": 4, "ductal_epithelium": 4, "eosinophil": 4,
    "tumor_nonmitotic": 0, "tumor_mitotic": 0, "nontilnonmq_stromal": 1, "other_nucleus": 4,
    "tumor_any": 0, "nontil_stromal": 1, "stil": 2,
}  # fmt: skip
NUCLS_WITHOUT = ("unlabeled", "ambiguous")  # cells that nobody gave a type; they are counted and left out
NUCLS_COLUMNS = ("raw_classification", "main_classification", "super_classification")


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """The numeric arrays of CoNSeP's keys in a .mat file (MATLAB 4 to 7.2). UnreadableError where it cannot be read or a key holds
    something else than numbers."""
    keys = ("inst_map", "inst_type", "type_map")
    try:
        found = scipy.io.loadmat(path, variable_names=keys)
    except NotImplementedError:
        raise UnreadableError("a MATLAB 7.3 file; save it again with -v7") from None
    except Exception as fault:  # noqa: BLE001 (a flipped byte fails in SciPy in a dozen ways, ZeroDivisionError among them)
        raise UnreadableError(f"not a readable .mat file ({(str(fault).splitlines() or ['damaged'])[0][:60]})") from None
    arrays = {key: found[key] for key in keys if key in found}
    odd = [key for key, value in arrays.items() if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb"]
    if odd:
        raise UnreadableError(f"{', '.join(odd)} must hold numbers")
    if "inst_map" not in arrays:
        raise UnreadableError("inst_map is missing")
    return arrays


def consep_cells(path: Path, height: int, width: int, typed: bool = True) -> Tile:
    """Cells of a CoNSeP label file for a tile of this size, with the types that the file gives (1 to 7); crops are not cut yet.
    typed False: its types are not looked at, it need not have any, and `kind` is 0."""
    tile = Tile(path.stem)
    try:
        arrays = read_mat(path)
    except UnreadableError as fault:
        tile.faults.append(str(fault))
        return tile
    mask = arrays["inst_map"]
    if mask.shape != (height, width):
        tile.faults.append(f"inst_map must have the tile's {height} x {width} pixels, it has {' x '.join(map(str, mask.shape))}")
        return tile
    if not np.isfinite(mask).all() or (mask < 0).any() or (mask % 1 != 0).any() or mask.max() > mask.size:
        tile.faults.append("inst_map must hold 0 and the numbers of cells, it holds others")
        return tile
    mask = mask.astype(np.int32)
    areas = np.bincount(mask.ravel())
    numbers = np.flatnonzero(areas)
    numbers = numbers[numbers > 0]
    kinds, wrong = _kinds(arrays, mask, numbers) if typed else (dict.fromkeys(numbers.tolist(), 0.0), "")
    if wrong:
        tile.faults.append(wrong)
        return tile
    places = find_objects(mask)
    for number in sorted(kinds):
        if number not in numbers:
            tile.faults.append(f"cell {number}: no pixel of inst_map belongs to it")
            continue
        kind = kinds[number]
        if typed and (kind % 1 != 0 or not 1 <= kind <= 7):
            tile.faults.append(f"cell {number}: type must be 1 to 7, got {kind:g}")
            continue
        rows, columns = places[number - 1]
        inside = mask[rows, columns] == number
        if why := not_one(inside, mask.size):
            tile.joined += 1
            tile.faults.append(f"cell {number}: {why}, which are no single cell")
            continue
        tile.cells.append(Cell(str(number), int(kind), rows.start, columns.start, rows.stop, columns.stop, float(areas[number]), inside))
    return tile


def _kinds(arrays: Mapping[str, np.ndarray], mask: np.ndarray, numbers: np.ndarray) -> tuple[dict[int, float], str]:
    """Number of each cell -> its type, and a fault. inst_type has a row a cell in the order of the numbers, or a row a number; without it
    a cell has the type that most of its pixels have in type_map."""
    if "inst_type" in arrays:
        given = arrays["inst_type"].ravel().astype(float)
        if len(given) == len(numbers):
            return dict(zip(numbers.tolist(), given.tolist(), strict=True)), ""
        if len(numbers) and len(given) >= numbers[-1]:
            return dict(enumerate(given.tolist(), 1)), ""
        if "type_map" not in arrays:
            return {}, f"inst_type must have a row for each cell, it has {len(given)} for {len(numbers)}"
    if "type_map" not in arrays:
        return {}, "inst_type and type_map are missing: one of them must give the types"
    types = arrays["type_map"]
    if types.shape != mask.shape or not np.isfinite(types).all() or (types < 0).any() or (types % 1 != 0).any() or types.max() > 1000:
        return {}, "type_map must have inst_map's size and hold whole numbers"
    inside = mask > 0
    table = np.zeros((int(mask.max()) + 1, int(types.max()) + 1), np.int64)
    np.add.at(table, (mask[inside], types[inside].astype(np.int64)), 1)
    return {number: float(table[number].argmax()) for number in numbers.tolist()}, ""


def nucls_cells(path: Path, height: int, width: int, typed: bool = True) -> Tile:
    """Cells of a NuCLS table for a tile of this size; `kind` indexes NUCLS_CLASSES. A cell's name is its line, counted from 1 below the
    head. typed False: all its boxes, whatever it says of their types; `kind` is 0."""
    tile = Tile(path.stem)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
            columns = rows[0].keys() if rows else ()
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        tile.faults.append(f"not a readable table ({fault})")
        return tile
    if not rows:
        tile.faults.append("the table has no cell")
        return tile
    missing = [name for name in ("xmin", "ymin", "xmax", "ymax") if name not in columns]
    if typed and not any(name in columns for name in NUCLS_COLUMNS):
        missing.append(NUCLS_COLUMNS[0])
    if missing:
        tile.faults.append(f"columns missing: {', '.join(missing)}")
        return tile
    for number, row in enumerate(rows, 1):
        words = [str(row[name]).strip().lower().removeprefix("correction_") for name in NUCLS_COLUMNS if row.get(name)]
        kind = next((NUCLS_TYPES[word] for word in words if word in NUCLS_TYPES), None) if typed else 0
        without = [word for word in words if word in NUCLS_WITHOUT]
        if typed and words and (words[0] in NUCLS_WITHOUT or (kind is None and without)):
            tile.untyped += 1
            continue
        if kind is None:
            tile.faults.append(f"cell {number}: unknown type {words[0] if words else ''!r}")
            continue
        try:
            left, top, right, bottom = (float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
        except (TypeError, ValueError):
            tile.faults.append(f"cell {number}: the box must be four numbers")
            continue
        if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
            tile.faults.append(f"cell {number}: the box must have a size above 0, got {left:g} to {right:g}, {top:g} to {bottom:g}")
            continue
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            tile.faults.append(
                f"cell {number}: the box {left:g}, {top:g}, {right:g}, {bottom:g} lies outside of the tile ({width} x {height})"
            )
            continue
        tile.clipped += left < 0 or top < 0 or right > width or bottom > height
        first, last = (math.floor(max(left, 0)), math.floor(max(top, 0))), (math.ceil(min(right, width)), math.ceil(min(bottom, height)))
        area = float((last[0] - first[0]) * (last[1] - first[1]))
        tile.cells.append(Cell(str(number), kind, first[1], first[0], last[1], last[0], area))
    return tile
