"""`data prepare`: a published download -> a packed set of crops.
Comes in: a download's folder. Goes out: a packed set, an exit status. Exists so that types, patients and faults of each download are told in one way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data.crops import SIDE, Tile, window
from trainables.data.downloads import DOWNLOADS, Download, _apart, cut_tile, find_tiles, patient_of
from trainables.data.find import walk
from trainables.data.labels import CONSEP_CLASSES, CONSEP_SCHEMES, NUCLS_CLASSES
from trainables.data.pack import Masks, make_pack, save_pack
from trainables.data.words import class_order, count, few, shown


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
    notes = ["most outlines published are boxes: a cell's mask is the largest part of its box that is dark by Otsu's threshold"]
    if untyped := sum(tile.untyped for tile in tiles):
        notes.append(f"{count(untyped, 'cell')} without a type (unlabeled, ambiguous) left out")
    if clipped := sum(tile.clipped for tile in tiles):
        notes.append(f"{count(clipped, 'box').replace('boxs', 'boxes')} that reached beyond the tile cut at its border")
    return _pack(tiles, DOWNLOADS["nucls"], NUCLS_CLASSES, patient_of, notes, out)


def _what_lies(source: Path) -> str:
    """What is there instead of a download, in words."""
    tree = walk(source)
    names = [*tree.images, *tree.others]
    kinds = class_order(Path(name).suffix.casefold() for name in names if Path(name).suffix)
    if not names:
        return "it is empty"
    found = f"it holds {count(len(names), 'file')} ({few(kinds)}) in {few([shown(name) for name in tree.folders], 3) or 'no folders'}"
    if any(kind in kinds for kind in (".npy", ".geojson", ".json")):
        found += ": arrays of PanNuke or objects of QuPath? these are not read yet; export masks as .mat or boxes as .csv, or a folder of cells per type"
    return found


def _cut_all(source: Path, download: Download) -> tuple[list[Tile] | None, int]:
    found = find_tiles(source, download)
    if not found:
        print(
            f"no folder {download.images} with {download.labels} beside it at or below {shown(str(source))}, {_what_lies(source)}; "
            "give the unpacked download",
            file=sys.stderr,
        )
        return None, 2
    return _apart(partial(cut_tile, download), found), 0


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
        masks=Masks.of([cell.mask for _, cell in cells if cell.mask is not None]),
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
