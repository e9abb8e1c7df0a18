"""QuPath's objects, exported as GeoJSON beside the images that they were drawn on.
Comes in: a folder of images and .geojson files. Goes out: `Tile`s. Exists so that cells found or drawn in QuPath are cut out without a
script of one's own."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from trainables.data.crops import Cell, Tile, not_one, without_doubled
from trainables.data.downloads import Download, cut_tile
from trainables.data.placed import Region, region_of, slide_of
from trainables.data.tree import walk
from trainables.data.words import count, same, shown

ENDINGS = (".geojson", ".geojson.gz", ".json")
FACTOR = 2  # the window's side in sides of the cell, as CoNSeP's
OBJECTS = ("cell", "detection", "annotation")
WIDEST, PART = 256, 0.25  # pixels of its longer side, part of the image: what is larger is a region of many cells and no cell
CELLS = ("cell", "detection")  # what QuPath found or imported; an annotation is a region wherever one of these is there
OLD_IDS = {"pathcellobject": "cell", "pathdetectionobject": "detection", "pathannotationobject": "annotation", "pathtileobject": "tile"}
# What the words of a classification mean, as an index of CONSEP_CLASSES; the first word that is known decides ("Tumor: Positive").
MEANS = {
    0: ("other", "miscellaneous", "misc", "dead", "necrosis", "necrotic", "apoptotic", "apoptosis", "apoptotic body"),
    1: (
        "inflammatory", "inflammation", "immune", "immune cell", "lymphocyte", "lymphoid", "til", "stil", "plasma cell", "neutrophil",
        "eosinophil", "macrophage", "leukocyte", "leucocyte", "granulocyte", "t cell", "b cell",
    ),
    2: (
        "epithelial", "epithelium", "epithelial cell", "tumor", "tumour", "tumor cell", "tumour cell", "neoplastic", "malignant", "cancer",
        "carcinoma", "normal epithelium", "malignant epithelial", "healthy epithelial", "dysplastic", "gland",
    ),
    3: (
        "spindle", "spindle shaped", "stroma", "stromal", "stromal cell", "connective", "connective tissue", "fibroblast", "endothelial",
        "endothelium", "endothelial cell", "muscle", "smooth muscle", "myofibroblast",
    ),
}  # fmt: skip
KINDS = {word: kind for kind, words in MEANS.items() for word in words}


class UnknownType(str):
    """A fault by a type that is not known, so that a thousand cells of it are one line."""


def find_pairs(folder: Path) -> list[tuple[str, Path | None, Path | None]]:
    """(name, image, objects) of all object files at or below a folder and their images, by stem without case; None for what is missing. An
    image without objects has None too, where its folder or any other holds objects."""
    tree = walk(folder)
    objects = [name for name in tree.others if name.casefold().endswith(ENDINGS)]
    if not any(name.casefold().endswith(ENDINGS[:2]) for name in objects):
        objects = [name for name in objects if _is_geojson(folder / name)]
    images: dict[str, list[str]] = {}
    for name in tree.images:
        images.setdefault(_stem(name), []).append(name)
    found, used = [], set[str]()
    for name in objects:
        near = images.get(_stem(name), [])
        if not near and (of_slide := [image for image in tree.images if region_of(image) and _stem(slide_of(image)) == _stem(name)]):
            used.update(of_slide)
            found += [(shown(PurePosixPath(i).with_suffix("").as_posix()), folder / i, folder / name) for i in of_slide]
            continue
        beside = [image for image in near if PurePosixPath(image).parent == PurePosixPath(name).parent] or near
        image = beside[0] if len(beside) == 1 else None
        used.update([image] if image else [])
        path = PurePosixPath(image or name)
        found.append((shown(path.with_suffix("").as_posix()), folder / image if image else None, folder / name))
    if objects:
        found += [(shown(PurePosixPath(i).with_suffix("").as_posix()), folder / i, None) for i in tree.images if i not in used]
    return sorted(found, key=lambda job: job[0])


def _stem(name: str) -> str:
    """tile1 of a/Tile1.png, b/tile1.png.geojson, c/tile1.ome.tif and tile1_annotations.geojson."""
    stem = PurePosixPath(name).name.casefold()
    while (cut := re.sub(r"\.(?:geojson|json|gz|png|jpe?g|tiff?|bmp|ome|svs|ndpi)$", "", stem)) != stem:
        stem = cut
    return re.sub(r"[ _\-](?:annotations?|detections?|cells?|objects?|labels?)$", "", stem)


def _is_geojson(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    return b'"Feature' in head or b'"geometry"' in head


def _features(path: Path) -> list[Any]:
    """ValueError or OSError where it holds no list of features."""
    about = path.stat()
    return _read(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=2)  # the objects of a slide are asked for by each of its tiles
def _read(path: Path, _changed: int, _size: int) -> list[Any]:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    found = json.loads(text.decode("utf-8-sig"))
    if isinstance(found, dict):
        found = found["features"] if isinstance(found.get("features"), list) else [found] if found.get("type") == "Feature" else None
    if not isinstance(found, list):
        raise ValueError("no FeatureCollection and no list of features")
    return found


def object_type(feature: dict[str, Any]) -> str:
    """cell, detection, annotation, tile, ...; files of before 0.3 say it in their id, and one that says nothing holds annotations."""
    properties = feature.get("properties") or {}
    said = str(properties.get("objectType") or properties.get("object_type") or OLD_IDS.get(str(feature.get("id")).casefold(), ""))
    return said.casefold() or "annotation"


def class_name(properties: dict[str, Any]) -> str:
    """The words of a classification, as QuPath shows them; '' for none."""
    given = properties.get("classification")
    if isinstance(given, dict):
        names = given.get("names")
        return ": ".join(map(str, names)) if isinstance(names, list) else str(given.get("name") or "")
    return str(given or "")


def kind_of(name: str) -> int | None:
    """An index of CONSEP_CLASSES; None where no word of it is known."""
    words = [same(word) for word in re.split(r"[:;,/|]", name)]
    singular = [re.sub(r"(?<=\w)s$", "", word) for word in words]
    return next((KINDS[word] for pair in zip(words, singular, strict=True) for word in pair if word in KINDS), None)


def cut_placed(name: str, image: Path | None, objects: Path | None, on_slide: bool = False) -> Tile:
    """`cut_tile` of an image and its objects, which lie where its name says on the slide (on_slide) or in the image itself."""
    region = region_of(image.name) if image is not None and on_slide else None
    return cut_tile(replace(OBJECT_FILES, read=partial(qupath_cells, region=region)), name, image, objects)


def drawn_on_slides(jobs: Sequence[tuple[str, Path | None, Path | None]]) -> bool:
    """Whether objects of tiles lie at their places on the slide, as QuPath exports them, and not at those in the tiles: asked of all tiles
    together, for the first one of a slide lies at 0, 0 in both."""
    inside = outside = 0
    for _, image, objects in jobs:
        if image is None or objects is None or (region := region_of(image.name)) is None:
            continue
        try:
            with Image.open(image) as opened:
                size = opened.size
            middles = [middle for feature in _features(objects) if (middle := _middle(feature)) is not None]
        except (OSError, ValueError, EOFError, RecursionError, Image.DecompressionBombError):
            continue  # the cut says what is wrong with it
        outside += sum(region.holds(x, y, *size) for x, y in middles)
        inside += sum(0 <= x < size[0] and 0 <= y < size[1] for x, y in middles)
    return outside >= inside


def _middle(feature: Any) -> tuple[float, float] | None:
    try:
        points = np.array([point for ring, _ in _rings(feature["geometry"]) for point in ring])
    except (TypeError, ValueError, KeyError, IndexError):
        return None
    return tuple(((points.min(0) + points.max(0)) / 2).tolist()) if len(points) else None


def qupath_cells(path: Path, height: int, width: int, typed: bool = True, region: Region | None = None) -> Tile:
    """Cells of an object file for an image of this size; `kind` indexes CONSEP_CLASSES. typed False: all of them, `kind` is 0. region: the
    part of the slide that the image shows, where the objects lie on the slide; those of other parts are passed over."""
    tile = Tile(path.stem)
    try:
        features = _features(path)
    except (OSError, ValueError, EOFError, RecursionError) as fault:
        tile.faults.append(f"not a readable GeoJSON file ({(str(fault).splitlines() or ['damaged'])[0][:80]})")
        return tile
    known = [(i, f) for i, f in enumerate(features, 1) if isinstance(f, dict)]
    objects = [(i, f) for i, f in known if object_type(f) in OBJECTS]
    tile.others = Counter(object_type(f) for _, f in known if object_type(f) not in OBJECTS)
    names: list[str] = []  # of the classes, as they stand
    tile.found = any(object_type(feature) in CELLS for _, feature in objects)
    for number, feature in objects:
        properties = feature.get("properties") if isinstance(feature.get("properties"), dict) else {}
        assert isinstance(properties, dict)
        if tile.found and object_type(feature) not in CELLS:
            tile.regions += 1
            continue
        name = class_name(properties)
        kind = kind_of(name) if typed else 0
        if typed and (
            not name or name.endswith("*") or same(name) in ("unclassified", "ignore")
        ):  # a star: QuPath's own mark for "ignored"
            tile.untyped += 1
            continue
        if kind is None:
            tile.faults.append(UnknownType(f"unknown type '{shown(name)}'"))
            continue
        try:
            rings = list(_rings(feature.get("nucleusGeometry") or feature.get("geometry"), region, width, height))
            points = [point for ring, _ in rings for point in ring]
            left, top = (min(point[axis] for point in points) for axis in (0, 1))
            right, bottom = (max(point[axis] for point in points) for axis in (0, 1))
        except (TypeError, ValueError, KeyError, IndexError) as fault:
            tile.faults.append(f"object {number}: {fault if isinstance(fault, ValueError) and str(fault) else 'its outline is damaged'}")
            continue
        if region is not None and not (0 <= (left + right) / 2 < width and 0 <= (top + bottom) / 2 < height):
            continue  # of the tile in which its middle lies
        longer = max(right - left, bottom - top)
        if not tile.found and (longer > WIDEST or (right - left) * (bottom - top) > PART * width * height):
            tile.regions += 1
            continue
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            tile.outside += 1
            tile.faults.append(
                f"object {number}: {left:g}, {top:g} to {right:g}, {bottom:g} lies outside of the image ({width} x {height}); was "
                "it drawn on another one?"
            )
            continue
        tile.clipped += left < 0 or top < 0 or right > width or bottom > height
        box = (math.floor(max(top, 0)), math.floor(max(left, 0)), math.ceil(min(bottom, height)), math.ceil(min(right, width)))
        box = (*box[:2], max(box[2], box[0] + 1), max(box[3], box[1] + 1))
        mask = _mask(rings, *box)
        if sum(not is_hole for _, is_hole in rings) > 1 and (why := not_one(mask, math.inf)):
            tile.faults.append(f"object {number}: {why}, which are no single cell; split it in QuPath (Objects > Annotations)")
            continue
        names.append(name)
        tile.cells.append(Cell(str(number), kind, *box, _area(rings), mask))
    kept = range(len(tile.cells)) if tile.found else _without_regions(tile)
    names = [names[i] for i in kept]
    tile.types = dict(Counter(names[i] for i in without_doubled(tile)))
    return tile


def _without_regions(tile: Tile) -> list[int]:
    """Takes out of annotations those in which the middles of two others lie: an outline around cells is none. Which are left."""
    middles = np.array([((c.top + c.bottom) / 2, (c.left + c.right) / 2) for c in tile.cells]).reshape(-1, 2)
    kept = [
        i
        for i, cell in enumerate(tile.cells)
        if np.count_nonzero((middles > (cell.top, cell.left)).all(1) & (middles < (cell.bottom, cell.right)).all(1)) <= 2  # and its own
    ]
    tile.regions += len(tile.cells) - len(kept)
    tile.cells = [tile.cells[i] for i in kept]
    if not tile.cells and tile.regions:
        tile.faults.append(
            f"no cell: {count(tile.regions, 'annotation')} of more than {WIDEST} pixels, of more than {PART:.0%} of the image, or around "
            "others are regions; detect the cells in QuPath and export these"
        )
    return kept


def _rings(
    geometry: Any, region: Region | None = None, width: int = 1, height: int = 1
) -> Iterator[tuple[list[tuple[float, float]], bool]]:
    """(ring, whether it is a hole) of a polygon or several, in pixels of the image (of this size), which shows a region of the slide or all
    of it. ValueError in words for what has no area."""
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _rings(part, region, width, height)
        return
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a {kind} has no size; draw outlines")
    for polygon in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
        for i, ring in enumerate(polygon):
            points = [(float(point[0]), float(point[1])) for point in ring]
            if region is not None:
                across, down = region.steps(width, height)
                points = [((x - region.left) / across, (y - region.top) / down) for x, y in points]
            if len(points) < 3 or not all(math.isfinite(v) for point in points for v in point):
                raise ValueError("its outline is damaged")
            yield points, i > 0


def _mask(rings: Sequence[tuple[list[tuple[float, float]], bool]], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """bool (height, width) of a box: what lies within the outline, drawn as Pillow draws polygons."""
    drawn = Image.new("1", (right - left, bottom - top))
    pen = ImageDraw.Draw(drawn)
    for ring, is_hole in rings:
        pen.polygon([(x - left - 0.5, y - top - 0.5) for x, y in ring], fill=0 if is_hole else 1)  # a pixel's middle is half of one away
    return np.asarray(drawn)


def _area(rings: Sequence[tuple[list[tuple[float, float]], bool]]) -> float:
    """Pixels, at least 1."""
    area = 0.0
    for ring, is_hole in rings:
        own = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))) / 2
        area += -own if is_hole else own
    return max(1.0, area)


OBJECT_FILES = Download("the folder", "", ".geojson", qupath_cells, FACTOR, 0, 0)
