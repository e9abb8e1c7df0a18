"""Which of the tables at a folder's root names the images, or the folders that they lie in.
Comes in: the names of a folder's files. Goes out: the one table; faults for tables that look like it. Exists so that labels and patients
that somebody wrote down are never passed over without a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainables.data.folder_rows import folder_column, label_column, owners_by_folder
from trainables.data.listing import MANIFEST, Listing
from trainables.data.manifest import PATIENT_HEADS
from trainables.data.table import FILE_WORDS, LABEL_WORDS, LARGEST, SHEETS, TEXT, TableError, heads, plain, read_table
from trainables.data.words import count, few, part_in, same, shown

MEASURED = {
    "width", "height", "area", "size", "bytes", "pixels", "channels", "depth", "bits", "dpi", "perimeter", "perim", "x", "y", "w", "h",
    "left", "top", "right", "bottom", "xm", "ym", "bx", "by", "major", "minor", "angle", "circ", "feret", "ar", "round", "solidity",
    "mean", "std", "stddev", "dev", "mode", "min", "max", "median", "skew", "kurt", "int", "den", "rawintden", "intden", "count", "length",
    "diameter", "slice", "index", "row", "mtime", "time", "px", "um", "intensity", "eccentricity", "orientation",
}  # fmt: skip
PREDICTED = {"prediction", "predictions", "predicted", "pred", "probability", "prob", "score", "confidence", "logit", "softmax"}
DEEP = 50  # tables below the root that are looked into


def choose_tables(folder: Path, others: Sequence[str], images: Sequence[str], listing: Listing) -> list[str]:
    """The one table at the root that names files and labels, or one for each part of a split (train.csv, test.csv); [] where there is none.
    More than one, or one that cannot be read, is a fault; so is one that names images in columns of other names, in whatever language. One
    that says nothing of the classes and the patients of images that lie in folders is passed over with a warning."""
    sorted_by_folder = all("/" in name for name in images) and len({name.split("/")[0] for name in images}) > 1
    known = {word for name in images for word in (plain(PurePosixPath(name).name), plain(PurePosixPath(name).stem))}
    tables = [name for name in others if name.lower().endswith((*TEXT, *SHEETS)) and not PurePosixPath(name).name.startswith("~$")]
    root = [name for name in tables if "/" not in name]
    named = [name for name in root if same(Path(name).stem) == "manifest" and name.lower().endswith((*TEXT, *SHEETS))]
    found = list(named)
    for name in (name for name in root if name not in named):
        try:
            if (folder / name).stat().st_size > LARGEST:
                continue
            rows = read_table(folder / name)
        except (TableError, OSError) as fault:
            if not named and not name.lower().endswith((".tab", ".txt")):
                listing.faults.append(f"{shown(name)} {fault}, or move it out of the data")
            continue
        columns = heads(rows[0]) if rows else []
        words = {same(column) for column in columns}
        if {"file", "label"} <= set(columns):
            found.append(name)
        elif not named and rows:
            meant = words & set(FILE_WORDS) and (words & set(LABEL_WORDS) or "patient" in columns)
            of_folders = folder_column(rows, images)
            if of_folders is not None and label_column(columns) not in (None, of_folders):
                found.append(name)
            elif of_folders is not None and (owner := _owner_column(columns, of_folders)) is not None:
                listing.owned = owners_by_folder(rows, of_folders, owner, images), f"the column {rows[0][owner]} of {shown(name)}"
            elif of_folders is not None:
                listing.warnings.append(
                    f"{shown(name)} names folders in its column {rows[0][of_folders]} and is not read, it has {few(columns, 8)}; "
                    "where one of these holds their labels, call it label"
                )
            elif sorted_by_folder and (naming := _says_nothing(name, rows, known)):
                listing.warnings.append(
                    f"{shown(name)} names {count(naming)} and neither their labels nor their patients, and is not read: "
                    f"{'the folders are the classes' if naming == len(images) else 'the folders are the classes, of all images in them'}"
                )
            elif _names_images(rows[:1], known, 1):
                listing.faults.append(
                    f"{shown(name)} looks like a table of the images and its first line names none of its columns ({few(rows[0], 8)}); "
                    "write file,label above it, or move it out of the data"
                )
            elif meant or _names_images(rows, known):
                listing.faults.append(
                    f"{shown(name)} looks like a table of the images and has no columns file and label, it has {few(rows[0], 8)}; "
                    "rename these two, or move it out of the data"
                )
    _tables_not_read(folder, [name for name in tables if "/" in name], known, listing)
    if len(found) > 1 and len(named) == 1:
        listing.warnings.append(
            f"{few([shown(name) for name in found if name not in named])} is not read: {shown(named[0])} names the images"
        )
        return named
    parts = {part_in(PurePosixPath(name).stem) for name in found}
    if len(found) > 1 and ("" in parts or len(parts) < len(found)):
        listing.faults.append(
            f"one table may name the images, there are {len(found)}: {few([shown(n) for n in found])}; keep one at the root"
        )
        return []
    return found


def _says_nothing(table: str, rows: Sequence[Sequence[str]], known: set[str]) -> int:
    """How many images a table names, where it says nothing else of them than sizes, measures, checksums and a model's predictions; 0 where
    it may say more. A list that is called as a part of a split says that."""
    headed = not _names_images(rows[:1], known, 1)
    head, lines = (rows[0], rows[1:]) if headed else ([""] * len(rows[0]), rows)
    if not lines:
        return 0
    width = max(map(len, rows))
    columns = [[row[i] if i < len(row) else "" for row in lines] for i in range(width)]
    naming = [i for i, cells in enumerate(columns) if _names_images([[cell] for cell in cells], known)]
    if len(naming) != 1:
        return 0
    heads_ = [*head, *[""] * (width - len(head))]
    if not all(_is_measure(heads_[i], cells) for i, cells in enumerate(columns) if i not in naming):
        return 0
    if part_in(PurePosixPath(table).stem) and not any(PREDICTED & set(_words(word)) for word in head):
        return 0
    return len({cell for cell in columns[naming[0]] if plain(PurePosixPath(cell.replace("\\", "/")).name) in known})


def _is_measure(head: str, cells: Sequence[str]) -> bool:
    """Whether a column holds what programs write of images, and no label and no patient."""
    given = [cell for cell in cells if cell.strip()]
    words = set(_words(head))
    if words & PREDICTED or not given:
        return True
    if all(re.fullmatch(r"[0-9a-fA-F]{32,}", cell) for cell in given):
        return True
    numbers = [re.fullmatch(r"[-+]?\d*[.,]?\d+(?:[eE][-+]?\d+)?", cell.strip()) for cell in given]
    if not all(numbers):
        return False
    whole = all(re.fullmatch(r"\d+", cell.strip()) for cell in given)
    running = [cell.strip() for cell in given] in ([str(i + first) for i in range(len(given))] for first in (0, 1))
    return not whole or running or bool(words & MEASURED)


def _words(head: str) -> list[str]:
    return re.sub(r"[\W_\d]+|(?<=[a-z])(?=[A-Z])", " ", head).casefold().split()


def _owner_column(columns: Sequence[str], of_folders: int) -> int | None:
    """The one column of patients beside the one of folders."""
    called = [i for i, name in enumerate(columns) if i != of_folders and (name == "patient" or same(name) in PATIENT_HEADS)]
    return called[0] if len(called) == 1 else None


def _names_images(rows: Sequence[Sequence[str]], known: set[str], least: int = 2) -> bool:
    """Whether a column holds names of images, most of them: a table of them, whatever its head is called."""
    some = rows[:200]
    for i in range(max(map(len, some))):
        cells = [row[i].replace("\\", "/") for row in some if i < len(row)]
        for words in (cells, [cell.rpartition(" ")[0] or cell for cell in cells]):  # a name, a space, a label
            names = [plain(PurePosixPath(word).name) for word in words]
            if len(hits := set(names) & known) >= least and sum(name in hits for name in names) >= len(names) / 2:
                return True
    return False


def _tables_not_read(folder: Path, deep: Sequence[str], known: set[str], listing: Listing) -> None:
    """Warns of tables of images where none is looked for: below the root."""
    naming = [name for name in deep if PurePosixPath(name).name.casefold() == MANIFEST]
    for name in (name for name in deep[:DEEP] if name not in naming):
        try:
            if (folder / name).stat().st_size < LARGEST >> 4 and _names_images(read_table(folder / name) or [[]], known):
                naming.append(name)
        except (TableError, OSError):
            continue  # no table, whatever it is called
    if parts := [name for name in naming if part_in(PurePosixPath(name).stem) and len(naming) > 1]:
        listing.faults.append(
            f"{few([shown(name) for name in parts])} name images and are called as parts of a split: tables are read at the root alone; "
            "write train, val or test of each image into a column split of one table there, or move them out of the data"
        )
    elif naming:
        listing.warnings.append(
            f"a table of images is read at the root alone, {few([shown(name) for name in naming])} is not read; "
            f"move it there, with files named from there and the columns file, label, patient"
        )
