"""Single cells of H&E tiles: the downloads of CoNSeP and NuCLS -> one packed set of 32 x 32 colour crops; and cells that are drawn.
Comes in: tiles with instance masks (.mat) or boxes (.csv). Goes out: a `Pack` with crops, types and tiles. Exists so that every cell
is cut out once and in one way, and so that what is wrong with a download is said by file and cell while the rest goes on."""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from scipy.ndimage import find_objects, gaussian_filter

from trainables.parts.data import (
    SUFFIXES,
    Pack,
    UnreadableError,
    class_faults,
    class_order,
    count,
    few,
    list_folder,
    load_pack,
    make_pack,
    save_pack,
    unreadable_fault,
)
from trainables.parts.errors import RequestError
from trainables.parts.machine import cpus

SIDE = 32  # pixels of a crop (Nakhli et al., section 4.3)

CONSEP_CLASSES = ("miscellaneous", "inflammatory", "epithelial", "spindle")
# The published label files know seven types: 1 other, 2 inflammatory, 3 healthy epithelial, 4 malignant epithelial, 5 fibroblast, 6 muscle,
# 7 endothelial (Graham et al. 2019). Files that were merged before know four.
CONSEP_SCHEMES = {7: {1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3}, 4: {1: 0, 2: 1, 3: 2, 4: 3}}

NUCLS_CLASSES = ("tumor", "stromal", "sTILs", "apoptotic", "other")
NUCLS_TYPES = {  # raw, main and super classification of the published tables; `correction_` before a raw type is the same type
    "tumor": 0, "mitotic_figure": 0, "fibroblast": 1, "vascular_endothelium": 1, "macrophage": 1, "lymphocyte": 2, "plasma_cell": 2,
    "apoptotic_body": 3, "myoepithelium": 4, "neutrophil": 4, "ductal_epithelium": 4, "eosinophil": 4,
    "tumor_nonmitotic": 0, "tumor_mitotic": 0, "nontilnonmq_stromal": 1, "other_nucleus": 4,
    "tumor_any": 0, "nontil_stromal": 1, "stil": 2,
}  # fmt: skip
NUCLS_WITHOUT = ("unlabeled", "ambiguous")  # cells that nobody gave a type; they are counted and left out
NUCLS_COLUMNS = ("raw_classification", "main_classification", "super_classification")


@dataclass(frozen=True)
class Cell:
    """A cell on its tile: rows top <= y < bottom, columns left <= x < right."""

    name: str  # as its file calls it
    kind: int  # as its file calls it; an index of NUCLS_CLASSES there
    top: int
    left: int
    bottom: int
    right: int
    area: float  # pixels of the mask; of the box where there is none


@dataclass
class Tile:
    """What a tile gave: crops (n, 32, 32, 3), its cells, and what was wrong with it."""

    name: str
    crops: np.ndarray = field(default_factory=lambda: np.zeros((0, SIDE, SIDE, 3), np.uint8))
    cells: list[Cell] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # "cell 12: why", or why the whole tile is left out
    untyped: int = 0  # cells without a type, left out
    clipped: int = 0  # boxes that reached beyond the tile


# ---------------------------------------------------------------------------------------------------------------- one cell


def window(cell: Cell, factor: int) -> tuple[int, int, int]:
    """(top, left, side) of the square around a cell whose side is `factor` times the longer side of its box. It may reach beyond the tile."""
    side = factor * max(cell.bottom - cell.top, cell.right - cell.left)
    return (cell.top + cell.bottom - side) // 2, (cell.left + cell.right - side) // 2, side


def mirrored(first: int, length: int, size: int) -> np.ndarray:
    """(length,) indices first, first + 1, ... into an axis of `size`, those beyond its ends reflected without repeating the edge."""
    period = max(2 * (size - 1), 1)
    place = np.arange(first, first + length) % period
    return np.minimum(place, period - place) if size > 1 else np.zeros(length, np.int64)


def crop(image: np.ndarray, top: int, left: int, side: int, size: int = SIDE) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (size, size, 3): the window, reflected where it leaves the image, scaled bilinearly; when it becomes
    smaller, averaged over the area that a pixel covers."""
    height, width = image.shape[:2]
    rows, columns = mirrored(top, side, height), mirrored(left, side, width)
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        part = image[top : top + side, left : left + side]
    else:
        part = image[rows[:, None], columns]
    return np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((size, size), Image.Resampling.BILINEAR))


def read_picture(path: Path) -> np.ndarray:
    """uint8 (H, W, 3); what is transparent becomes white. UnreadableError with the reason in a few words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used
            with Image.open(path) as file:
                opened: Image.Image = file
                if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
                    rgba = opened.convert("RGBA")
                    opened = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
                return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, Image.DecompressionBombError) as fault:
        reason = "not an image" if "cannot identify" in str(fault) else (str(fault).splitlines() or ["damaged"])[0][:80]
        raise UnreadableError(reason) from None


# ---------------------------------------------------------------------------------------------------------------- label files


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """The numeric arrays of CoNSeP's keys in a .mat file (MATLAB 4 to 7.2). UnreadableError where it cannot be read or a key holds
    something else than numbers."""
    keys = ("inst_map", "inst_type", "type_map")
    try:
        found = scipy.io.loadmat(path, variable_names=keys)
    except NotImplementedError:
        raise UnreadableError("a MATLAB 7.3 file; save it again with -v7") from None
    except Exception as fault:  # noqa: BLE001 (a flipped byte fails in SciPy in a dozen ways, ZeroDivisionError and UnboundLocalError among them)
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
        tile.cells.append(Cell(str(number), int(kind), rows.start, columns.start, rows.stop, columns.stop, float(areas[number])))
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
    """Cells of a NuCLS table for a tile of this size; `kind` indexes NUCLS_CLASSES. A cell's name is its line, counted from 1 below the head.
    typed False: all its boxes, whatever it says of their types; `kind` is 0."""
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


# ---------------------------------------------------------------------------------------------------------------- downloads


@dataclass(frozen=True)
class Download:
    """How a published data set lies on disk, and how its cells are cut out."""

    images: str  # folder of the tiles
    labels: str  # folder of the label files, beside it
    ending: str  # of label files
    read: Callable[..., Tile]  # (label file, height, width, typed=True)
    factor: int  # the window's side in sides of the cell (section 4.3)
    cells: int  # in the publication
    tiles: int


DOWNLOADS = {
    "consep": Download("Images", "Labels", ".mat", consep_cells, 2, 24319, 41),
    "nucls": Download("rgb", "csv", ".csv", nucls_cells, 1, 51986, 1744),
}


def find_tiles(folder: Path, download: Download) -> list[tuple[str, Path | None, Path | None]]:
    """(name, image, labels) of all tiles at or below a folder, sorted; None for what is missing. None at all where no folder has both."""
    found: dict[tuple[str, str], list[Path | None]] = {}
    whole = False
    for root, inside, _ in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith((".", "__")))
        whole |= {download.images, download.labels} <= set(inside)
        base = Path(root)
        for place, endings, index in ((download.images, SUFFIXES, 0), (download.labels, (download.ending,), 1)):
            for path in (base / place).iterdir() if place in inside else ():
                if path.suffix.lower() in endings and not path.name.startswith("."):
                    found.setdefault((base.relative_to(folder).as_posix(), path.stem), [None, None])[index] = path
    order = sorted(
        found if whole else (), key=lambda key: (key[0], [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", key[1])])
    )
    return [((f"{key[0]}/" if key[0] != "." else "") + key[1], found[key][0], found[key][1]) for key in order]


def cut_tile(download: Download, name: str, image: Path | None, labels: Path | None, typed: bool = True) -> Tile:
    """All cells of a tile, cut out; typed False: of those without a type too. What is wrong stands in the tile; nothing is raised."""
    if image is None or labels is None:
        return Tile(name, faults=[f"no label file {download.labels}/*{download.ending} of this name" if labels is None else f"no image of this name in {download.images}"])  # fmt: skip
    try:
        picture = read_picture(image)
    except UnreadableError as fault:
        return Tile(name, faults=[f"the image cannot be read ({fault})"])
    tile = download.read(labels, *picture.shape[:2], typed=typed)
    crops = [crop(picture, *window(cell, download.factor)) for cell in tile.cells]
    return replace(tile, name=name, crops=np.stack(crops) if crops else tile.crops)


def prepare_consep(source: Path, out: Path, types: int | None = None) -> int:
    """CoNSeP's download -> a packed set in `out`; 0, 1 if anything was left out as wrong, 2 if nothing could be packed.
    types: 7 (the published label files) or 4 (already merged); None: what the label files hold, all tiles together, decides."""
    tiles, status = _cut_all(source, DOWNLOADS["consep"])
    if tiles is None:
        return status
    seen = {cell.kind for tile in tiles for cell in tile.cells}
    scheme = types or (7 if max(seen, default=0) > 4 else 4)
    how = "as asked for" if types else "types above 4 are there" if scheme == 7 else "no tile has a type above 4"
    print(f"labels: {'the seven published types, merged to four' if scheme == 7 else 'four types, merged already'} ({how}; consep7 or consep4 in place of consep decides it)")  # fmt: skip
    groups = CONSEP_SCHEMES[scheme]
    above = [tile.name for tile in tiles for cell in tile.cells if cell.kind > 4]
    for tile in tiles:
        for i in reversed([i for i, cell in enumerate(tile.cells) if cell.kind not in groups]):
            tile.faults.append(f"cell {tile.cells[i].name}: type must be 1 to {scheme}, got {tile.cells[i].kind}")
            del tile.cells[i]
            tile.crops = np.delete(tile.crops, i, 0)
        tile.cells = [replace(cell, kind=groups[cell.kind]) for cell in tile.cells]
    notes = ["the patient of a tile is not published: each tile counts as a patient of its own"]
    if above and types is None:
        few_words = (
            f"types above 4, which made it seven: {count(len(above), 'cell')} in {few(sorted(set(above)))}, of {count(len(tiles), 'tile')}"
        )
        notes.append(f"{few_words}; where the set is merged already and these are faults, prepare it as consep4")
    return _pack(tiles, DOWNLOADS["consep"], CONSEP_CLASSES, lambda name: name, notes, out)


def prepare_nucls(source: Path, out: Path) -> int:
    """NuCLS's download -> a packed set in `out`; exit status as `prepare_consep`. A patient is the first three parts of a TCGA name."""
    tiles, status = _cut_all(source, DOWNLOADS["nucls"])
    if tiles is None:
        return status
    notes = []
    if untyped := sum(tile.untyped for tile in tiles):
        notes.append(f"{count(untyped, 'cell')} without a type (unlabeled, ambiguous) left out")
    if clipped := sum(tile.clipped for tile in tiles):
        notes.append(f"{count(clipped, 'box').replace('boxs', 'boxes')} that reached beyond the tile cut at its border")
    return _pack(tiles, DOWNLOADS["nucls"], NUCLS_CLASSES, patient_of, notes, out)


def patient_of(tile: str) -> str:
    """The TCGA participant in a tile's name, TCGA-A1-A0SP of TCGA-A1-A0SP-DX1_id-..._left-...; the tile itself where there is none."""
    found = re.search(r"TCGA-[A-Za-z0-9]+-[A-Za-z0-9]+", tile)
    return found[0] if found else tile


def _cut_all(source: Path, download: Download) -> tuple[list[Tile] | None, int]:
    found = find_tiles(source, download)
    if not found:
        print(
            f"no folder {download.images} with {download.labels} beside it at or below {source}; give the unpacked download",
            file=sys.stderr,
        )
        return None, 2
    return _apart(partial(cut_tile, download), found), 0


def _apart(work: Callable[..., Tile], jobs: Sequence[tuple[str, Path | None, Path | None]]) -> list[Tile]:
    """work(*job) of each job, in processes beside this one: one changed byte of a label file can end SciPy's reader, and its process with it.
    A tile whose process dies alone too has that as its fault."""
    results: list[Tile | None] = [None] * len(jobs)

    def attempt(some: Sequence[int], processes: int) -> None:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
            waiting = {index: pool.submit(work, *jobs[index]) for index in some}
            for index, future in waiting.items():
                with suppress(BrokenProcessPool):
                    results[index] = future.result()

    attempt(range(len(jobs)), max(1, min(32, cpus(), len(jobs))))
    for index in [index for index, result in enumerate(results) if result is None]:
        attempt([index], 1)
    return [
        Tile(job[0], faults=["its files are damaged so that reading them ended the reader (SciPy); replace the label file"])
        if result is None
        else result
        for job, result in zip(jobs, results, strict=True)
    ]


def _pack(
    tiles: Sequence[Tile], download: Download, classes: tuple[str, ...], patient: Callable[[str], str], notes: list[str], out: Path
) -> int:
    """Write the packed set and say what is in it; faults go to stderr. The exit status."""
    faults = [f"{tile.name}: {fault}" for tile in tiles for fault in tile.faults]
    for fault in faults:
        print(fault, file=sys.stderr)
    cells = [(tile.name, cell) for tile in tiles for cell in tile.cells]
    if not cells:
        print(f"no cell could be packed; {count(len(faults), 'fault')} above", file=sys.stderr)
        return 2
    whole = sum(1 for tile in tiles if tile.cells)
    notes = [f"cells cut out of {count(whole, 'tile')}, window {download.factor} x the cell's size, scaled to {SIDE} x {SIDE}", *notes]
    if faults:
        notes.append(f"{count(len(faults), 'fault')} of files and cells left out")
    areas = np.array([(window(cell, download.factor)[2] ** 2, cell.area) for _, cell in cells], np.float64)
    pack = make_pack(
        np.concatenate([tile.crops for tile in tiles]),
        [cell.kind for _, cell in cells],
        classes,
        [f"{name}.png#{cell.name}" for name, cell in cells],
        [patient(name) for name, _ in cells],
        areas,
        notes,
    )
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    save_pack(pack, out)
    for name, number in pack.counts.items():
        print(f"  {name:<16}{number:>8,}")
    print(f"  {'cells':<16}{len(pack):>8,}   published: {download.cells:,}")
    print(f"  {'tiles':<16}{whole:>8,}   published: {download.tiles:,}")
    for note in notes:
        print(f"note: {note}")
    print(f"{out}: packed, {count(len(faults), 'fault')}; use it with --data")
    return 1 if faults else 0


PREPARE: Mapping[str, Callable[[Path, Path], int]] = {
    "consep": prepare_consep,
    "consep7": partial(prepare_consep, types=7),
    "consep4": partial(prepare_consep, types=4),
    "nucls": prepare_nucls,
}


# ---------------------------------------------------------------------------------------------------------------- sets and files


def read_cells(folder: Path, classes: Sequence[str] | None = None) -> Pack:
    """A packed set of crops, or a folder per type of images of one cell each (any size: made square by reflection, scaled to 32 x 32).
    classes: names and order that are expected; a missing one becomes a note. RequestError with every fault."""
    if (folder / "data.json").is_file() and (folder / "images.npy").is_file():
        pack = load_pack(folder)
        if pack.images.shape[1:] != (SIDE, SIDE, 3):
            raise RequestError(
                f"cells are {SIDE} x {SIDE} pixels in colour, '{folder}' holds {pack.images.shape[1:]}; prepare the download again"
            )
        return pack if classes is None or tuple(classes) == pack.classes else _ordered(pack, classes, folder)
    for name, download in DOWNLOADS.items():
        if folder.is_dir() and find_tiles(folder, download):
            raise RequestError(f"'{folder}' is a download of whole tiles ({download.images}, {download.labels}); cut its cells out first: python -m search data prepare {name} {folder} OUT")  # fmt: skip
    listing = list_folder(folder)
    faults = list(listing.faults)
    order = class_order(listing.labels) if classes is None else list(classes)
    if classes is None and listing.files:
        faults += class_faults(listing.labels, folder)
    if unknown := [name for name in class_order(listing.labels) if name not in order]:
        faults.append(f"classes must be among {', '.join(order)}, unknown: {few(unknown)}; rename or remove them")
    images, areas, broken = _pictures([folder / name for name in listing.files], listing.files)
    faults += broken
    if faults:
        raise RequestError(*faults)
    notes = [*listing.notes, *_missing(order, listing.labels)]
    return make_pack(images, [order.index(name) for name in listing.labels], order, listing.files, listing.patients, areas, notes)


def _missing(order: Iterable[str], present: Iterable[str]) -> list[str]:
    gone = [name for name in order if name not in set(present)]
    return [f"no cell of type {', '.join(gone)}"] if gone else []


def _ordered(pack: Pack, classes: Sequence[str], folder: Path) -> Pack:
    present = [name for name, number in pack.counts.items() if number]
    if unknown := [name for name in present if name not in classes]:
        raise RequestError(f"classes must be among {', '.join(classes)}, '{folder}' has others: {', '.join(unknown)}")
    labels = np.array([classes.index(name) if name in classes else -1 for name in pack.classes])[pack.labels]
    return make_pack(pack.images, labels, classes, pack.files, pack.patients, pack.areas, [*pack.notes, *_missing(classes, present)])


def _pictures(paths: Sequence[Path], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Files of one cell each -> crops (N, 32, 32, 3), areas (N, 2), faults."""
    images, areas, broken = np.zeros((len(paths), SIDE, SIDE, 3), np.uint8), np.ones((len(paths), 2)), []
    for i, path in enumerate(paths):
        try:
            picture = read_picture(path)
        except UnreadableError as fault:
            broken.append(f"{names[i]} ({fault})")
            continue
        height, width = picture.shape[:2]
        images[i] = crop(picture, *window(Cell("", 0, 0, 0, height, width, 0.0), 1))
        areas[i] = height * width
    return images, areas, unreadable_fault(broken)


def read_any(paths: Sequence[Path]) -> tuple[np.ndarray, dict[str, list[object]], list[str]]:
    """Files -> crops (N, 32, 32, 3), columns file, cell, x, y (the middle of the cell's box on its tile, pixels), faults.
    A tile that lies as in a download, its label file beside it, gives one row a cell, whether the file knows its type or not; any other
    image is one cell."""
    parts: list[np.ndarray] = [np.zeros((0, SIDE, SIDE, 3), np.uint8)]
    columns: dict[str, list[object]] = {"file": [], "cell": [], "x": [], "y": []}
    faults: list[str] = []
    for path in paths:
        for download in DOWNLOADS.values():
            labels = path.parent.parent / download.labels / (path.stem + download.ending)
            if path.parent.name == download.images and labels.parent.is_dir():  # a tile, which is no cell even where its file is missing
                tile = cut_tile(download, str(path), path, labels if labels.is_file() else None, typed=False)
                faults += [f"{path}: {fault}" for fault in tile.faults]
                parts.append(tile.crops)
                rows = [(cell.name, (cell.left + cell.right) / 2, (cell.top + cell.bottom) / 2) for cell in tile.cells]
                break
        else:
            images, _, broken = _pictures([path], [str(path)])
            faults += broken
            parts.append(images)
            rows = [("", "", "")]  # type: ignore[list-item]
        for row in rows:
            for name, value in zip(columns, (str(path), *row), strict=True):
                columns[name].append(value)
    return np.concatenate(parts), columns, faults


# ---------------------------------------------------------------------------------------------------------------- drawn cells

# Optical density of full stain in red, green, blue: haematoxylin and eosin (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
SHARES = (0.1, 0.25, 0.35, 0.3)  # of CONSEP_CLASSES; unbalanced, as real tissue is


@dataclass(frozen=True)
class _Look:
    """How nuclei of a type look; each value is (mean, standard deviation)."""

    length: tuple[float, float]  # longer side, pixels
    aspect: tuple[float, float]  # longer / shorter side
    stain: tuple[float, float]  # haematoxylin, 1 = full
    grain: float  # strength of the chromatin's clumps
    clump: float  # their size, pixels
    ragged: float  # how far the outline leaves the ellipse, 1 = its radius
    fibres: float  # strength of eosin streaks around it
    nucleoli: int


LOOKS = (
    _Look((20, 3.0), (1.2, 0.1), (1.1, 0.15), 0.8, 1.8, 0.25, 0.1, 0),
    _Look((12, 1.2), (1.1, 0.05), (1.2, 0.12), 0.15, 1.0, 0.03, 0.15, 0),
    _Look((25, 3.0), (1.35, 0.12), (0.6, 0.10), 0.45, 1.4, 0.05, 0.1, 2),
    _Look((28, 3.5), (2.8, 0.35), (0.85, 0.12), 0.3, 1.2, 0.05, 0.6, 0),
)


def _nucleus(
    chance: np.random.Generator, look: _Look, side: int, middle: tuple[float, float], angle: float, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin (side, side) of one nucleus, 0 outside, and its mask's soft edge 0..1."""
    y, x = np.mgrid[:side, :side] - np.array(middle)[:, None, None]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    aspect = max(1.0, chance.normal(*look.aspect))
    turn = np.arctan2(across * aspect, along)
    outline = 1 + look.ragged * sum(chance.normal(0, 0.5) * np.cos(k * turn + chance.uniform(0, 6.28)) for k in (2, 3, 5))
    radius = np.hypot(along, across * aspect) / (length / 2) / np.maximum(outline, 0.4)
    soft = 1 / (1 + np.exp((radius - 1) * length / 2))  # the edge is about two pixels wide at every size
    texture = gaussian_filter(chance.standard_normal((side, side)), look.clump)
    texture = 1 + look.grain * texture / max(float(texture.std()), 1e-6) * 0.5
    for _ in range(chance.integers(look.nucleoli + 1) if look.nucleoli else 0):
        spot = (chance.normal(0, length / 10), chance.normal(0, length / 10))
        texture = texture + 1.2 * np.exp(-((along - spot[0]) ** 2 + (across - spot[1]) ** 2) / 5)
    stain = max(0.2, chance.normal(*look.stain)) * np.clip(texture, 0.2, 3)
    return soft * stain, soft


def _draw(chance: np.random.Generator, kind: int, haematoxylin: float, eosin: float) -> tuple[np.ndarray, tuple[float, float]]:
    """A crop uint8 (32, 32, 3) of a cell of this type, window twice its size, and (window, mask) areas in pixels before it was scaled."""
    look = LOOKS[kind]
    length = max(7.0, chance.normal(*look.length))
    side, angle = 2 * round(length), chance.uniform(0, math.pi)
    middle = (side / 2 + chance.normal(0, 0.5), side / 2 + chance.normal(0, 0.5))
    stain, soft = _nucleus(chance, look, side, middle, angle, length)
    area = float((soft > 0.5).sum())
    for _ in range(chance.integers(4)):  # parts of neighbours, most of them of the same type
        other = LOOKS[kind if chance.random() < 0.6 else chance.integers(len(LOOKS))]
        where, far = chance.uniform(0, 2 * math.pi), side * chance.uniform(0.45, 0.7)
        place = (side / 2 + far * math.sin(where), side / 2 + far * math.cos(where))
        beside, cover = _nucleus(chance, other, side, place, chance.uniform(0, math.pi), max(7.0, chance.normal(*other.length)))
        stain = stain + beside * (1 - soft)
        soft = np.maximum(soft, cover)
    y, x = np.mgrid[:side, :side]
    across = y * math.cos(angle) - x * math.sin(angle) + gaussian_filter(chance.standard_normal((side, side)), 5) * 8
    fibres = np.sin(across * chance.uniform(0.7, 1.2) + chance.uniform(0, 6.28))
    pink = (0.35 + 0.25 * look.fibres * fibres + 0.5 * gaussian_filter(chance.standard_normal((side, side)), 1.5)) * (1 - 0.6 * soft)
    density = np.stack([haematoxylin * (stain + 0.08), eosin * np.clip(pink, 0.02, 2)], -1) @ STAINS
    density = gaussian_filter(density, (0.7, 0.7, 0))
    image = 245 * np.exp(-density) + chance.normal(0, 3, (side, side, 3))
    small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small), (float(side * side), area)


def cell_set(images: int = 400, seed: int = 0, tiles: int | None = None) -> Pack:
    """Drawn H&E cells of CoNSeP's four types as a `Pack`, the same for equal arguments; unbalanced (SHARES). They differ in size, shape,
    chromatin and surroundings; each tile has a stain of its own. RequestError where a type would have fewer than 6 cells."""
    numbers = [round(images * share) for share in SHARES]
    numbers[2] += images - sum(numbers)
    if min(numbers) < 6:
        raise RequestError(f"the built-in cells need at least 60 images, so that each type has 6, got {images}; set a number of 60 or more")
    tiles = tiles or min(30, max(6, images // 30))
    stain = np.random.default_rng([seed, 1 << 32])
    colours = np.clip(stain.normal((1.25, 0.9), (0.15, 0.12), (tiles, 2)), 0.5, 2)
    crops, areas, files, owners = [], [], [], []
    labels = np.repeat(np.arange(len(numbers)), numbers)
    for i, kind in enumerate(labels):
        tile = i % tiles
        image, area = _draw(np.random.default_rng([seed, i]), int(kind), *colours[tile])
        crops.append(image)
        areas.append(area)
        files.append(f"{CONSEP_CLASSES[kind]}/{i:06d}.png")
        owners.append(f"tile-{tile:03d}")
    return make_pack(
        np.stack(crops), labels, CONSEP_CLASSES, files, owners, np.array(areas), [f"synthetic: seed {seed}, {count(tiles, 'tile')}"]
    )
