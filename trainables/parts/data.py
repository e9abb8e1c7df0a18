"""Images on disk -> one uint8 array that every run of a node maps without a copy, and the split of it into three parts.
Comes in: a folder per class, with or without manifest.csv. Goes out: a `Pack` and index arrays. Exists so that each image is
decoded once, so that all faults of a folder are said at once, and so that no patient and no duplicate stands on two sides."""

from __future__ import annotations

import csv
import difflib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from trainables.parts.checkpoint import sealed, set_mode, unsealed
from trainables.parts.errors import RequestError
from trainables.parts.failpoints import failpoint
from trainables.parts.machine import cpus

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MANIFEST = "manifest.csv"
TOLERANCE = 8  # grey levels of 255 above the background that still count as background: JPEG's ringing on a flat field stays below it
PARTS = ("train", "val", "test")
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Pack:
    """A data set as training sees it. Image i is images[i], of class classes[labels[i]]."""

    images: np.ndarray  # uint8 (N, S, S), background exactly 0; or (N, S, S, 3)
    labels: np.ndarray  # int64 (N,)
    classes: tuple[str, ...]
    files: tuple[str, ...]  # relative to the folder, with forward slashes
    patients: tuple[str, ...] | None  # None where unknown for all
    hash: str  # sha256, see `make_pack`
    notes: tuple[str, ...]  # what was done to the images, in words
    areas: np.ndarray  # float64 (N, 2): image area and foreground area, in pixels of the original file
    ties: tuple[tuple[int, int], ...] = ()  # pairs that show the same thing: a split keeps them on one side
    scale: float = 0.0  # the factor by which all were scaled, see `common_scale`; 0: taken as they are, or not known

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> dict[str, int]:
        """Images per class, in the order of the classes."""
        return dict(zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))


def make_pack(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    files: Sequence[str],
    patients: Sequence[str] | None,
    areas: np.ndarray,
    notes: Sequence[str] = (),
) -> Pack:
    """Pack with its hash: sha256 over shape, classes, labels, patients, files and pixels. Notes and areas are not part of it."""
    labels = np.asarray(labels, dtype=np.int64)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(f"images must be uint8 of shape (N, S, S) or (N, S, S, 3), got {images.dtype} {images.shape}")
    if not len(images) == len(labels) == len(files) == len(areas) or (patients is not None and len(patients) != len(labels)):
        raise ValueError(
            f"images, labels, files, areas and patients must have one length, got {len(images)}, {len(labels)}, {len(files)}, {len(areas)}"
        )
    head = [list(images.shape), list(classes), labels.tolist(), None if patients is None else list(patients), list(files)]
    digest = hashlib.sha256(json.dumps(head, ensure_ascii=True, separators=(",", ":")).encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return Pack(
        images,
        labels,
        tuple(classes),
        tuple(files),
        None if patients is None else tuple(patients),
        digest.hexdigest(),
        tuple(notes),
        np.asarray(areas, dtype=np.float64).reshape(len(labels), 2),
    )


# ---------------------------------------------------------------------------------------------------------------- one image


@dataclass(frozen=True)
class Decoded:
    """One image as gray on black, in its own size."""

    gray: np.ndarray  # uint8 (h, w), background exactly 0
    inverted: bool  # its background was white
    deep: bool  # had more than 8 bits per pixel
    pages: int  # a TIFF may hold several; the first is taken


class UnreadableError(ValueError):
    """Why an image cannot be used, in a few words."""


def decode(path: Path, tolerance: int = TOLERANCE) -> Decoded:
    """The image at `path` as gray values on a background of exactly 0; UnreadableError where that cannot be had.

    More than 8 bits: scaled from the image's own minimum and maximum to 0..255. Colour: luma (ITU-R 601). Transparency: composited
    on the background. Polarity: a median of the border pixels of 128 or more is a white background, and the image is inverted.
    Where most of the border is transparent, a dark foreground stood on white and a bright one on black. Then every pixel at most
    `tolerance` levels above the border's median becomes 0; the others keep their value."""
    try:
        if path.stat().st_size == 0:
            raise UnreadableError("empty file")
        with Image.open(path) as opened:
            pages = int(getattr(opened, "n_frames", 1))
            gray, alpha, deep = _gray_and_alpha(opened)
    except UnreadableError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableError("too many pixels") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        TypeError,
        KeyError,
        IndexError,
    ) as error:  # what Pillow's readers raise on damaged files
        reason = "not an image" if "cannot identify" in str(error) else (str(error).splitlines() or ["damaged"])[0][:80]
        raise UnreadableError(reason) from None
    border = np.concatenate([gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]])
    if alpha is not None:
        seen = np.concatenate([alpha[0], alpha[-1], alpha[1:-1, 0], alpha[1:-1, -1]]) >= 0.5
        if seen.mean() >= 0.5:
            level = float(np.median(border[seen]))
        else:
            visible = gray[alpha >= 0.5]
            level = 255.0 if visible.size and np.median(visible) < 128 else 0.0
        gray = alpha * gray + (1 - alpha) * level
    else:
        level = float(np.median(border))
    inverted = level >= 128
    if inverted:
        gray, level = 255 - gray, 255 - level
    gray = np.where(gray <= level + tolerance, 0, gray)
    return Decoded(np.rint(gray).astype(np.uint8), inverted, deep, pages)


def _gray_and_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """float32 (h, w) in 0..255, alpha in 0..1 or None, and whether it had more than 8 bits."""
    if image.mode.startswith(("I", "F")):
        raw = np.asarray(image, dtype=np.float64)
        if not np.isfinite(raw).all():
            raise UnreadableError("holds values that are not finite")
        low, high = raw.min(), raw.max()
        scaled = (raw - low) * (255.0 / (high - low)) if high > low else np.zeros_like(raw)
        return scaled.astype(np.float32), None, True
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"), dtype=np.float32) / 255
        gray = np.asarray(rgba.convert("RGB").convert("L"), dtype=np.float32)
        return gray, (None if alpha.min() == 1 else alpha), False
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"), dtype=np.float32), None, False


@functools.lru_cache(maxsize=256)
def area_weights(given: int, wanted: int) -> np.ndarray:
    """float32 (wanted, given): row i averages the stretch [i, i + 1) * given / wanted, partly covered pixels by their covered part."""
    edges = np.arange(wanted + 1) * (given / wanted)
    pixels = np.arange(given)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: np.ndarray = np.clip(covered, 0, None) * (wanted / given)
    return weights.astype(np.float32)


def shrink(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) -> uint8 (height, width) by exact area averaging."""
    if image.shape == (height, width):
        return image.astype(np.uint8)
    mean: np.ndarray = area_weights(image.shape[0], height) @ image.astype(np.float32) @ area_weights(image.shape[1], width).T
    return np.asarray(np.clip(np.rint(mean), 0, 255), np.uint8)


def on_canvas(gray: np.ndarray, canvas: int, size: int) -> np.ndarray:
    """uint8 (h, w) on black -> uint8 (size, size): centred on a square of `canvas` pixels, never cropped (a larger image is scaled
    down to it, its aspect kept), and the whole square averaged down to `size`, so that relative sizes of images stay true."""
    height, width = gray.shape
    largest = max(height, width)
    if largest > canvas:
        gray = shrink(gray, max(1, round(height * canvas / largest)), max(1, round(width * canvas / largest)))
        height, width = gray.shape
    top, left = (canvas - height) // 2, (canvas - width) // 2
    if size == canvas:
        square = np.zeros((canvas, canvas), np.uint8)
        square[top : top + height, left : left + width] = gray
        return square
    weights = area_weights(canvas, size)  # the rest of the square is 0 and need not be multiplied
    mean: np.ndarray = weights[:, top : top + height] @ gray.astype(np.float32) @ weights[:, left : left + width].T
    return np.asarray(np.clip(np.rint(mean), 0, 255), np.uint8)


# ------------------------------------------------------------------------------------------------------------- many images


def few(names: Sequence[str], shown: int = 5) -> str:
    """The first few of a long list and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def foreground_box(gray: np.ndarray) -> np.ndarray:
    """The smallest part of (h, w) that holds all foreground; (h, w) itself where there is none."""
    rows, columns = np.flatnonzero(gray.any(1)), np.flatnonzero(gray.any(0))
    return gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else gray


def rescale(gray: np.ndarray, factor: float) -> np.ndarray:
    """(h, w) -> uint8 of `factor` times its sides, at least 1 px, by area averaging."""
    return shrink(gray, max(1, round(gray.shape[0] * factor)), max(1, round(gray.shape[1] * factor)))


def common_scale(paths: Sequence[Path], normal_side: float, tolerance: int = TOLERANCE) -> float:
    """The one factor by which a set must be scaled so that half of its images, cropped to their foreground, have a longer side than
    `normal_side` pixels, whatever the magnification of the set and the frames of its images; blind to labels. 1 where none shows anything."""

    def side(path: Path) -> int:
        try:
            gray = decode(path, tolerance).gray
        except UnreadableError:
            return 0  # `read_images` names it
        return max(foreground_box(gray).shape) if gray.any() else 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor(min(8, cpus())) as pool:
            known = [length for length in pool.map(side, paths) if length]
    return normal_side / float(np.median(known)) if known else 1.0


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


def count(number: int, noun: str = "image") -> str:
    """1 image, 2,000 images."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def unreadable_fault(unreadable: Sequence[str]) -> list[str]:
    """The one fault of all files, each "name (reason)", that cannot be read; none where there are none."""
    if not unreadable:
        return []
    return [f"every image must be readable, {len(unreadable)} cannot be read: {few(unreadable)}; replace or remove {_them(unreadable)}"]


def blank_fault(blank: Sequence[str], tolerance: int) -> list[str]:
    """The one fault of all files that show nothing; none where there are none."""
    if not blank:
        return []
    return [
        f"every image must show something, {len(blank)} hold nothing but background (within {tolerance} gray levels): {few(blank)}; "
        f"replace or remove {_them(blank)}"
    ]


def class_faults(labels: Sequence[str], folder: str | Path) -> list[str]:
    """What keeps these class names, one per image, from being a data set to train on."""
    present = class_order(labels)
    faults = []
    if len(present) == 1:
        faults.append(f"a data set needs at least two classes, '{folder}' has one ('{present[0]}'); add a folder for each of the others")
    single = [name for name in present if list(labels).count(name) == 1]
    if single:
        faults.append(f"a class needs at least two images, one image in: {few(single)}; add images or remove the class")
    return faults


# ---------------------------------------------------------------------------------------------------------------- a folder


@dataclass(frozen=True)
class Listing:
    """What a folder says before a pixel is read."""

    files: list[str]
    labels: list[str]  # class names
    patients: list[str] | None
    parts: list[str] | None  # the manifest's `split` column, as written
    columns: list[str]
    notes: list[str]
    faults: list[str]


def class_order(names: Iterable[str]) -> list[str]:
    """Numbers by value, then names: 1 .. 22, X, Y."""
    return sorted(set(names), key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def list_folder(folder: str | Path, group: str = "patient") -> Listing:
    """Files and labels of a folder of class folders; a manifest.csv, where there is one, decides over the folders' names."""
    folder = Path(folder)
    empty = Listing([], [], None, None, [], [], [])
    if not folder.exists():
        parent = next((p for p in folder.parents if p.is_dir()), Path("."))
        near = difflib.get_close_matches(
            folder.name, [p.name for p in parent.iterdir() if p.is_dir()] if parent == folder.parent else [], 1
        )
        hint = f"did you mean '{parent / near[0]}'?" if near else "check the path"
        empty.faults.append(f"the data must be a folder, there is none at '{folder}'; {hint}")
        return empty
    if not folder.is_dir():
        empty.faults.append(
            f"the data must be a folder, '{folder}' is a file; name the folder that holds the class folders (an archive must be unpacked first)"
        )
        return empty
    found, skipped = _images_in(folder)
    manifest = folder / MANIFEST
    if not found and not manifest.is_file():
        inside = f"it holds {few(sorted(skipped))}" if skipped else "it is empty"
        empty.faults.append(f"'{folder}' must hold images ({' '.join(SUFFIXES)}), {inside}; put them there, a folder per class")
        return empty
    listing = _from_manifest(manifest, found, group) if manifest.is_file() else _from_folders(folder, found)
    if skipped:
        kinds = class_order(PurePosixPath(name).suffix.lower() or "no ending" for name in skipped)
        listing.notes.append(f"{len(skipped)} other file{'s' if len(skipped) != 1 else ''} skipped ({few(kinds)})")
    return listing


def _images_in(folder: Path) -> tuple[list[str], list[str]]:
    """Relative names of the images below a folder and of the other files in it, sorted; hidden ones are passed over."""
    images: list[str] = []
    others: list[str] = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in files:
            relative = (Path(root) / name).relative_to(folder).as_posix()
            if name.startswith(".") or relative == MANIFEST or name.lower() in ("thumbs.db", "desktop.ini"):
                continue
            (images if name.lower().endswith(SUFFIXES) else others).append(relative)
    return sorted(images), sorted(others)


def _from_folders(folder: Path, found: list[str]) -> Listing:
    loose = [name for name in found if "/" not in name]
    faults = []
    if len(loose) == len(found):
        faults.append(
            f"'{folder}' must hold a folder per class, it has {count(len(found))} and no class folders; make them, or add a {MANIFEST} (file,label,patient)"
        )
    elif loose:
        faults.append(
            f"every image must lie in a class folder, {len(loose)} lie beside them: {few(loose)}; move {_them(loose)} or add a {MANIFEST}"
        )
    filled = {name.split("/")[0] for name in found if "/" in name}
    void = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith((".", "__")) and p.name not in filled]
    if void and filled:
        faults.append(f"a class needs images, {len(void)} class folders have none: {few(void)}; fill or remove {_them(void)}")
    files = [name for name in found if "/" in name]
    return Listing(files, [name.split("/")[0] for name in files], None, None, [], [], faults)


def _from_manifest(manifest: Path, found: list[str], group: str) -> Listing:
    listing = Listing([], [], None, None, [], [], [])
    faults = listing.faults
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            table = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        faults.append(f"{MANIFEST} must be a comma-separated table in UTF-8, this one is not ({error}); save it again as CSV UTF-8")
        return listing
    rows = [row for row in table if any(cell.strip() for cell in row)]
    if not rows:
        faults.append(f"{MANIFEST} must name the images, it is empty; write file,label,patient and a line per image, or remove it")
        return listing
    columns = [cell.strip() for cell in rows[0]]
    listing.columns.extend(columns)
    missing = [name for name in ("file", "label") if name not in columns]
    if missing:
        faults.append(
            f"{MANIFEST} needs the columns file and label, {' and '.join(missing)} missing among {', '.join(columns)}; rename or add {_them(missing)}"
        )
    if group != "patient" and group not in columns:
        faults.append(f"the group column must stand in {MANIFEST}, there is no '{group}' among {', '.join(columns)}; name one of these")
    for column in columns:
        near = difflib.get_close_matches(
            column.lower(), [name for name in ("file", "label", "patient", "split") if name not in columns], 1, 0.8
        )
        if near and column not in ("file", "label", "patient", "split", group):
            faults.append(
                f"{MANIFEST}: unknown column '{column}'; did you mean '{near[0]}'? rename it, or name it unlike a column that has a meaning"
            )
    twice = class_order(name for name in columns if columns.count(name) > 1)
    if twice:
        faults.append(f"{MANIFEST}: a column may stand once, {', '.join(twice)} stand{'s' if len(twice) == 1 else ''} twice; remove one")
    if missing or twice:
        return listing
    unused = [column for column in columns if column not in ("file", "label", "split")]
    if unused and group not in columns:  # a patient under another name would be parted without a word
        listing.notes.append(
            f"{MANIFEST} has no column {group}, so that a split may part a patient; if one of its other columns ({few(unused)}) names the patient, call it {group}"
        )
    ragged = [str(i + 1) for i, row in enumerate(rows) if len(row) != len(columns)]
    if ragged:
        faults.append(
            f"{MANIFEST}: every line must have {len(columns)} cells, {len(ragged)} have not: line {few(ragged)}; correct {_them(ragged)}"
        )
        return listing
    entries = [dict(zip(columns, (cell.strip() for cell in row), strict=True)) for row in rows[1:]]
    if not entries:
        faults.append(f"{MANIFEST} must name the images, it has a head and no line; write a line per image, or remove it")
        return listing
    names = [entry["file"].replace("\\", "/").removeprefix("./") for entry in entries]
    outside = [name for name in names if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name.split("/")[0]]
    if outside:
        faults.append(
            f"{MANIFEST}: a file is named relative to the folder, {len(outside)} are not: {few(outside)}; write for example class/image.png"
        )
    known, kept, absent, again, nameless = set(found), [], [], [], []
    seen: set[str] = set()
    for name, entry in zip(names, entries, strict=True):
        if name in seen:
            again.append(name)
            continue
        seen.add(name)
        if name not in known:
            if name not in outside:
                absent.append(name or "(no name)")
            continue
        if not entry["label"]:
            nameless.append(name)
            continue
        kept.append((name, entry))
    if again:
        faults.append(f"{MANIFEST}: a file may stand once, {len(again)} stand again: {few(again)}; remove the second line")
    if absent:
        odd = [name for name in absent if (manifest.parent / name).is_file()]
        step = (
            f"images end in {' '.join(SUFFIXES)}"
            if odd
            else f"correct the name{'s' if len(absent) > 1 else ''} or remove the line{'s' if len(absent) > 1 else ''}"
        )
        faults.append(f"{MANIFEST}: every file must be an image in the folder, {len(absent)} are not: {few(absent)}; {step}")
    if nameless:
        faults.append(f"{MANIFEST}: every file needs a label, {len(nameless)} have none: {few(nameless)}; fill the label column")
    unnamed = [name for name in found if name not in seen]
    if unnamed:
        faults.append(
            f"{MANIFEST} must name every image of the folder, {len(unnamed)} are not in it: {few(unnamed)}; add or remove {_them(unnamed)}"
        )
    kept.sort(key=lambda pair: pair[0])
    listing.files.extend(name for name, _ in kept)
    listing.labels.extend(entry["label"] for _, entry in kept)
    tops = set(listing.labels)
    other = sum(1 for name, entry in kept if "/" in name and name.split("/")[0] in tops and name.split("/")[0] != entry["label"])
    if other:
        listing.notes.append(f"{count(other)} with a label in {MANIFEST} unlike the folder's name: the manifest's was taken")
    patients = None
    if group in columns:
        blank = sum(1 for _, entry in kept if not entry[group])
        if blank < len(kept):
            patients = [entry[group] or f"unknown: {name}" for name, entry in kept]
        if blank:
            listing.notes.append(f"{count(blank)} without a {group}: each counts as a {group} of its own")
    parts = [entry["split"] for _, entry in kept] if "split" in columns else None
    return Listing(listing.files, listing.labels, patients, parts, columns, listing.notes, faults)


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
            faults.append(f"classes must be among {', '.join(order)}, unknown: {few(unknown)}; rename or remove {_them(unknown)}")
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


# ----------------------------------------------------------------------------------------------------------------- on disk


def save_pack(pack: Pack, folder: str | Path) -> Path:
    """images.npy and data.json in `folder`, written under a temporary name and renamed, so that a reader sees all or nothing.
    The same pack again changes nothing; another one in its place is a RequestError."""
    folder = Path(folder)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            with (building / "images.npy").open("wb") as stream:
                np.save(stream, pack.images, allow_pickle=False)
                stream.flush()
                os.fsync(stream.fileno())
            about = {
                "schema": SCHEMA,
                "hash": pack.hash,
                "shape": list(pack.images.shape),
                "classes": pack.classes,
                "labels": pack.labels.tolist(),
                "files": pack.files,
                "patients": pack.patients,
                "notes": pack.notes,
                "areas": pack.areas.tolist(),
                "ties": pack.ties,
                "scale": pack.scale,
            }
            with (building / "data.json").open("w", encoding="utf-8") as stream:
                json.dump(sealed(about), stream)
                stream.flush()
                os.fsync(stream.fileno())
            set_mode(building, 0o755)
            failpoint("data.written")
            building.rename(folder)
            failpoint("data.renamed")
            return folder
        except OSError:
            if not (folder / "data.json").exists():
                raise
            # another writer was first; what it wrote is compared below
        finally:
            shutil.rmtree(building, ignore_errors=True)
    there = _read_about(folder)["hash"]
    if there != pack.hash:
        raise RequestError(
            f"'{folder}' must be free or hold the same data, it holds {there[:12]} and this is {pack.hash[:12]}; choose another folder"
        )
    return folder


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        if isinstance(about, dict) and about.get("schema") == SCHEMA:
            about = unsealed(about)
            if missing := {"hash", "shape", "classes", "labels", "files", "patients", "notes", "areas", "ties"} - about.keys():
                raise ValueError(f"{', '.join(sorted(missing))} missing")
    except FileNotFoundError:
        raise RequestError(f"packed data must have a data.json, '{folder}' has none; read the images again") from None
    except ValueError as error:
        raise RequestError(f"data.json must be readable, '{folder / 'data.json'}' is not ({error}); read the images again") from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        given = about.get("schema") if isinstance(about, dict) else None
        raise RequestError(f"packed data must have schema {SCHEMA}, '{folder}' has {given}; read the images again")
    return about


def load_pack(folder: str | Path, verify: bool = False) -> Pack:
    """What `save_pack` wrote, its images mapped read-only: all processes of a node share the pages. verify: compute the hash anew."""
    folder = Path(folder)
    about = _read_about(folder)
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if not isinstance(images, np.ndarray):
            raise ValueError("an archive")
    except Exception as error:  # noqa: BLE001 (a damaged header fails in NumPy in any of a dozen ways, TokenError and TypeError among them)
        raise RequestError(
            f"images.npy must be a readable array, '{folder / 'images.npy'}' is not ({error}); read the images again"
        ) from None
    if list(images.shape) != about["shape"] or images.dtype != np.uint8:
        raise RequestError(
            f"images.npy must be uint8 {about['shape']}, '{folder / 'images.npy'}' is {images.dtype} {list(images.shape)}; read the images again"
        )
    patients = None if about["patients"] is None else tuple(about["patients"])
    pack = Pack(
        images,
        np.asarray(about["labels"], np.int64),
        tuple(about["classes"]),
        tuple(about["files"]),
        patients,
        about["hash"],
        tuple(about["notes"]),
        np.asarray(about["areas"], np.float64).reshape(-1, 2),
        tuple((int(i), int(j)) for i, j in about["ties"]),
        float(about.get("scale", 0.0)),  # sets packed before it was kept have none
    )
    if verify and make_pack(images, pack.labels, pack.classes, pack.files, patients, pack.areas).hash != pack.hash:
        raise RequestError(f"packed data must agree with its hash, '{folder}' does not; read the images again")
    return pack


# ------------------------------------------------------------------------------------------------------------------- split


def pixel_keys(images: np.ndarray) -> list[bytes]:
    """16 bytes per image; equal where all pixels are equal."""
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]


def groups_of(pack: Pack, ties: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """int64 (N,): equal numbers must stay on one side: images of one patient, exact duplicates, pairs of the pack's `ties` and of `ties`, and
    what these connect."""
    parent = list(range(len(pack)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    pixels: dict[bytes, int] = {}
    for i, key in enumerate(pixel_keys(pack.images)):
        parent[root(i)] = root(pixels.setdefault(key, i))
    owners: dict[str, int] = {}
    for i, owner in enumerate(pack.patients or ()):
        parent[root(i)] = root(owners.setdefault(owner, i))
    for i, j in (*pack.ties, *ties):
        parent[root(i)] = root(j)
    return np.unique([root(i) for i in range(len(pack))], return_inverse=True)[1].astype(np.int64)


def split(
    pack: Pack, fractions: Sequence[float] = (0.6, 0.1, 0.3), seed: int = 0, ties: Iterable[tuple[int, int]] = ()
) -> dict[str, np.ndarray]:
    """{"train", "val", "test"} -> sorted int64 indices; each image in exactly one part, no group (see `groups_of`) in two.
    ties: further pairs to keep on one side, such as near duplicates.

    Groups are dealt from large to small, equal ones in an order drawn from `seed`, each to the part where it lowers most
    sum over parts and classes of (images - wanted)^2 / wanted; for groups of one image this is Webster's apportionment. Then single
    groups are moved as long as that sum falls or a class that a part lacks is gained. RequestError where a class stays out of a part."""
    wanted = np.asarray(fractions, dtype=np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or (wanted < 0).any() or abs(wanted.sum() - 1) > 1e-6 or wanted[0] == 0:
        raise RequestError(
            f"fractions must be three numbers for {', '.join(PARTS)} with sum 1 and train above 0, got {tuple(fractions)}; for example 0.6, 0.1, 0.3"
        )
    groups = groups_of(pack, ties)
    held = np.flatnonzero(np.bincount(pack.labels, minlength=len(pack.classes)))  # an expected class without images asks for nothing
    column = np.searchsorted(held, pack.labels)
    table = np.zeros((groups.max() + 1 if len(groups) else 0, len(held)))  # (G, C) images of a class in a group
    np.add.at(table, (groups, column), 1)
    asked = np.flatnonzero(wanted > 0)
    target = wanted[asked, None] * table.sum(0)  # (P, C)
    order = np.random.default_rng(seed).permutation(len(table))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]
    have, part = np.zeros_like(target), np.full(len(table), -1)
    for g in order:
        part[g] = int(np.argmin((((2 * (have - target) + table[g]) * table[g]) / target).sum(1)))
        have[part[g]] += table[g]
    lacking = float(len(pack) + 1) ** 2  # dearer than any sum of squares can be
    for _ in range(20):
        moved = False
        for g in order:
            row, home = table[g], part[g]
            without = have.copy()
            without[home] -= row
            cost = ((2 * (without - target) + row) * row / target).sum(1) - lacking * ((without == 0) & (row > 0)).sum(1)
            best = int(np.argmin(cost))
            if cost[best] < cost[home] - 1e-9:
                part[g], moved = best, True
                without[best] += row
                have = without
        if not moved:
            break
    faults = []
    for c, name in enumerate(held):
        without_it = [PARTS[asked[p]] for p in range(len(asked)) if have[p, c] == 0]
        if without_it:
            owners = int((table[:, c] > 0).sum())
            faults.append(
                f"every part needs an image of every class, class '{pack.classes[name]}' is missing in {' and '.join(without_it)} "
                f"({count(int(table[:, c].sum()))} in {owners} group{'s' if owners != 1 else ''} of patient or duplicate); add images or change the fractions"
            )
    if faults:
        raise RequestError(*faults)
    result = {name: np.zeros(0, np.int64) for name in PARTS}
    for p, which in enumerate(asked):
        result[PARTS[which]] = np.flatnonzero(part[groups] == p).astype(np.int64)
    return result
