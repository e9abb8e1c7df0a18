"""`data prepare`: tiles with their cells -> a packed set of crops.
Comes in: the folder of a download, or of images with QuPath's objects. Goes out: a packed set, an exit status. Exists so that types,
patients and faults of each kind are told in one way."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data import pannuke, qupath
from trainables.data.crops import SIDE, SMALLEST, Tile, joined_fault, window
from trainables.data.downloads import DOWNLOADS, Download, _apart, cut_tile, find_tiles, patient_of
from trainables.data.labels import CONSEP_CLASSES, CONSEP_SCHEMES, NUCLS_CLASSES
from trainables.data.pack import Masks, make_pack, save_pack
from trainables.data.read import said_of
from trainables.data.tree import walk
from trainables.data.words import class_order, count, few, shown


def prepare_consep(source: Path, out: Path, types: int | None = None) -> int:
    """CoNSeP's download -> a packed set in `out`; 0, 1 if anything was left out as wrong, 2 if nothing could be packed.
    types: 7 (the published label files), 5 (PanNuke's) or 4 (already merged); None: what the label files
    hold, all tiles together, decides."""
    tiles, status = _cut_all(source, DOWNLOADS["consep"])
    if tiles is None:
        return status
    seen = {cell.kind for tile in tiles for cell in tile.cells}
    if types is None and max(seen, default=0) == 5:
        print(
            "warning: types 1 to 5, and none of 6 and 7, are CoNSeP's first five or PanNuke's (1 neoplastic, 2 inflammatory, 3 connective, "
            "4 dead, 5 epithelial), which mean others; taken as CoNSeP's: where they are PanNuke's say consep5 in place of consep, "
            "consep4 where 5 is a fault",
            file=sys.stderr,
        )
    scheme = types or (7 if max(seen, default=0) > 4 else 4)
    how = "as asked for" if types else "types above 4 are there" if scheme == 7 else "no tile has a type above 4"
    scheme_words = {7: "the seven published types, merged to four", 5: "PanNuke's five, merged to four", 4: "four types, merged already"}
    print(f"labels: {scheme_words[scheme]} ({how}; consep7, consep5 or consep4 in place of consep decides it)")
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
    return _pack(tiles, CONSEP_CLASSES, lambda name: name, notes, out, DOWNLOADS["consep"])


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
    return _pack(tiles, NUCLS_CLASSES, patient_of, notes, out, DOWNLOADS["nucls"])


def prepare_pannuke(source: Path, out: Path) -> int:
    """PanNuke's folds -> a packed set of CoNSeP's four types in `out`; exit status as `prepare_consep`."""
    folds, faults = pannuke.find_folds(source)
    for fault in faults:
        print(fault, file=sys.stderr)
    if not folds:
        print(
            f"no images.npy with masks.npy at or below {shown(str(source))}, {_what_lies(source)}; give the unpacked folds",
            file=sys.stderr,
        )
        return 2
    tiles = [tile for fold in folds for tile in pannuke.read_fold(fold)]
    planes = Counter(cell.kind for tile in tiles for cell in tile.cells)
    print(f"labels: {', '.join(f'{word} {planes[i]:,} = {CONSEP_CLASSES[pannuke.TO_OURS[i]]}' for i, word in enumerate(pannuke.PLANES))}")
    for tile in tiles:
        tile.cells = [replace(cell, kind=pannuke.TO_OURS[cell.kind]) for cell in tile.cells]
    notes = ["the patient of an image is not published: each image counts as a patient of its own, and those of one slide may be parted"]
    notes += [note for note in (pannuke.said_of_tissues(tiles),) if note]
    if small := sum(tile.untyped for tile in tiles):
        notes.append(f"{count(small, 'cell')} of fewer than {SMALLEST} pixels left out")
    return _pack(tiles, CONSEP_CLASSES, lambda name: name, notes, out, pannuke.PUBLISHED, len(faults))


def prepare_qupath(source: Path, out: Path) -> int:
    """Images with QuPath's objects beside them (GeoJSON) -> a packed set of CoNSeP's four types; exit status as `prepare_consep`."""
    found = qupath.find_pairs(source)
    if not found:
        print(
            f"no objects of QuPath (.geojson) at or below {shown(str(source))}, {_what_lies(source)}; "
            "export them (File > Export objects as GeoJSON) beside the images that they were drawn on, under the images' names",
            file=sys.stderr,
        )
        return 2
    files: dict[Path, list[str]] = {}
    for _, image, objects in found:
        if image is not None and objects is not None:
            files.setdefault(image, []).append(shown(objects.relative_to(source).as_posix()))
    twice = {image: names for image, names in files.items() if len(names) > 1}
    jobs = [job for job in found if job[1] not in twice]
    placed = any(image is not None and qupath.region_of(image.name) for _, image, _ in jobs)
    on_slide = placed and qupath.drawn_on_slides(jobs)
    tiles = _apart(partial(qupath.cut_placed, on_slide=on_slide), jobs)
    if (outside := sum(tile.outside for tile in tiles)) > sum(len(tile.cells) for tile in tiles):
        print(
            f"objects must lie in their images, {outside:,} lie outside: where QuPath exported them on the slide, a tile's name must say "
            "where it lies there, `slide [d=2,x=1024,y=0,w=512,h=512].png` (d: downsampling), as QuPath names the tiles that it exports",
            file=sys.stderr,
        )
        return 2
    tiles += [
        Tile(
            shown(image.relative_to(source).with_suffix("").as_posix()),
            faults=[
                f"{len(names)} files of objects for one image, {few(names)}; keep the one that holds its cells, or join them in QuPath"
            ],
        )
        for image, names in twice.items()
    ]
    types = sum((Counter(tile.types) for tile in tiles), Counter())
    known = [(name, number, kind) for name, number in types.most_common() if (kind := qupath.kind_of(name)) is not None]
    print(f"labels: {', '.join(f'{shown(name)} {number:,} = {CONSEP_CLASSES[kind]}' for name, number, kind in known) or 'none'}")
    notes = ["the patient of an image is the TCGA participant in its name, else its slide ([x=..,y=..]), else the image itself"]
    if placed:
        where = "on the slide, where QuPath writes them: those of each tile are brought to it" if on_slide else "in the tiles"
        notes.append(f"tiles are called by their places on slides, and the objects lie {where}")
    if regions := sum(tile.regions for tile in tiles):
        notes.append(
            f"{count(regions, 'annotation')} left out as regions: detections or cells lie beside them, or they are too large for one"
        )
    if others := sum((tile.others for tile in tiles), Counter()):
        notes.append(f"objects that are no cells left out: {', '.join(f'{shown(kind)} {number:,}' for kind, number in others.items())}")
    if drawn := [tile for tile in tiles if tile.cells and not tile.found]:
        notes.append(
            f"{few([tile.name for tile in drawn])}: annotations and no detection, each taken as a cell; remove the file if they are regions"
        )
    if doubled := sum(tile.doubled for tile in tiles):
        notes.append(f"{count(doubled, 'object')} left out, each of which lies on another one, as where nuclei were detected twice")
    if untyped := sum(tile.untyped for tile in tiles):
        notes.append(f"{count(untyped, 'object')} without a class, or of a class that QuPath ignores (*), left out")
    if clipped := sum(tile.clipped for tile in tiles):
        notes.append(f"{count(clipped, 'outline')} that reached beyond the image cut at its border")
    for tile in tiles:  # a thousand cells of one type are one line
        unknown = Counter(fault for fault in tile.faults if isinstance(fault, qupath.UnknownType))
        words = "; ".join(f"{name}: {', '.join(qupath.MEANS[i][:6])}" for i, name in enumerate(CONSEP_CLASSES))
        tile.faults = [fault for fault in tile.faults if not isinstance(fault, qupath.UnknownType)] + [
            f"{fault}, {count(number, 'object')}; rename it in QuPath to a word that is known ({words})"
            for fault, number in unknown.items()
        ]
    return _pack(tiles, CONSEP_CLASSES, patient_of, notes, out, qupath.OBJECT_FILES)


def _what_lies(source: Path) -> str:
    """What is there instead of a download, in words."""
    tree = walk(source)
    names = [*tree.images, *tree.others]
    kinds = class_order(Path(name).suffix.casefold() for name in names if Path(name).suffix)
    if not names:
        return "it is empty"
    found = f"it holds {count(len(names), 'file')} ({few(kinds)}) in {few([shown(name) for name in tree.folders], 3) or 'no folders'}"
    for kind, name in ((".npy", "pannuke"), (".geojson", "qupath")):
        if kind in kinds:
            found += f": to be read as {name}? python -m search data prepare {name} {shlex.quote(shown(str(source)))} OUT"
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
    tiles: Sequence[Tile],
    classes: tuple[str, ...],
    patient: Callable[[str], str],
    notes: list[str],
    out: Path,
    download: Download,
    wrong: int = 0,
) -> int:
    """Write the packed set and say what is in it; faults go to stderr. The exit status."""
    if fault := joined_fault(tiles):
        print(fault, file=sys.stderr)
        return 2
    faults = [f"{tile.name}: {fault}" for tile in tiles for fault in tile.faults]
    for fault in faults:
        print(fault, file=sys.stderr)
    wrong += len(faults)
    cells = [(tile.name, cell) for tile in tiles for cell in tile.cells]
    if not cells:
        print(f"no cell could be packed; {count(wrong, 'fault')} above", file=sys.stderr)
        return 2
    whole = sum(1 for tile in tiles if tile.cells)
    notes = [f"cells cut out of {count(whole, 'tile')}, window {download.factor} x the cell's size, scaled to {SIDE} x {SIDE}", *notes]
    notes += said_of({tile.name: tile.said for tile in tiles if tile.said is not None and tile.cells})
    if wrong:
        notes.append(f"{count(wrong, 'fault')} of files and cells left out")
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
    for word, number, published in (("cells", len(pack), download.cells), ("tiles", whole, download.tiles)):
        print(f"  {word:<16}{number:>8,}" + (f"   published: {published:,}" if published else ""))
    for note in notes:
        print(f"note: {note}")
    print(f"{out}: packed, {count(wrong, 'fault')}; use it with --data")
    return 1 if wrong else 0


PREPARE: Mapping[str, Callable[[Path, Path], int]] = {
    "consep": prepare_consep,
    "consep7": partial(prepare_consep, types=7),
    "consep5": partial(prepare_consep, types=5),
    "consep4": partial(prepare_consep, types=4),
    "nucls": prepare_nucls,
    "pannuke": prepare_pannuke,
    "qupath": prepare_qupath,
}
