"""Which of the tables at a folder's root names the images, or the folders that they lie in.
Comes in: the names of a folder's files. Goes out: the one table; faults for tables that look like it. Exists so that labels and patients
that somebody wrote down are never passed over without a word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from trainables.data.folder_rows import folder_column, label_column, owners_by_folder
from trainables.data.listing import MANIFEST, Listing
from trainables.data.table import (
    FILE_WORDS,
    LABEL_WORDS,
    LARGEST,
    PATIENT_HEADS,
    SHEETS,
    TEXT,
    TableError,
    heads,
    plain,
    read_table,
    says_more,
)
from trainables.data.words import count, few, part_in, same, shown

MEASURED = {
    "width", "height", "area", "size", "bytes", "pixels", "channels", "depth", "bits", "dpi", "perimeter", "perim", "x", "y", "w", "h",
    "left", "top", "right", "bottom", "xm", "ym", "bx", "by", "major", "minor", "angle", "circ", "feret", "ar", "round", "solidity",
    "mean", "std", "stddev", "dev", "mode", "min", "max", "median", "skew", "kurt", "int", "den", "rawintden", "intden", "count", "length",
    "diameter", "slice", "index", "row", "mtime", "time", "px", "um", "intensity", "eccentricity", "orientation",
}  # fmt: skip
PREDICTED = {"prediction", "predictions", "predicted", "pred", "probability", "prob", "score", "confidence", "logit", "softmax"}
ABOUT = {"age", "sex", "gender", "ethnicity", "race", "metadata", "url", "path", "pathname", "plate", "well", "objective", "scanner"}
FEW_LINES = 5  # up to which it may be chance that all cells are equal or none is
LOOKED_AT = 200  # lines
DEEP = 50  # tables below the root that are looked into


def choose_tables(folder: Path, others: Sequence[str], images: Sequence[str], listing: Listing) -> list[str]:
    """The one table at the root that names files and labels, or one for each part of a split (train.csv, test.csv); [] where there is none.
    More than one, or one that cannot be read, is a fault; so is one that names images in columns of other names, in whatever language. One
    that says nothing of the classes and the patients of images that lie in folders is passed over with a warning."""
    sorted_by_folder = all("/" in name for name in images) and len({name.split("/")[0] for name in images}) > 1
    known = {word for name in images for word in _words_of(name)}
    tops = {word: same(name.split("/")[0]) for name in images for word in (*_words_of(name), plain(name))}
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
        elif named and rows:
            _beside(folder / named[0], name, rows, known, images, listing)
        elif rows:
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
            elif sorted_by_folder and (naming := _says_nothing(name, rows, known, tops)):
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
                step = (
                    f"its columns {few(each, 4)} hold 1 for a class and 0 for the others: write the class's word into one column label"
                    if (each := _column_a_class(rows))
                    else "rename these two"
                )
                listing.faults.append(
                    f"{shown(name)} looks like a table of the images and has no columns file and label, it has "
                    f"{few([head or '(no head)' for head in rows[0]], 8)}; {step}, or move it out of the data"
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


def _words_of(name: str) -> tuple[str, str]:
    return plain(PurePosixPath(name).name), plain(PurePosixPath(name).stem)


def _beside(manifest: Path, name: str, rows: Sequence[Sequence[str]], known: set[str], images: Sequence[str], listing: Listing) -> None:
    """Patients and parts in a table beside the manifest, which has none: of folders they are taken, of images a fault."""
    try:
        table = read_table(manifest)
    except TableError:
        return  # said where it is read
    columns = heads(rows[0])
    more = says_more(columns) - says_more(table[0] if table else [])
    if not more or any(PREDICTED & set(_words(column)) for column in columns):
        return
    of_folders = folder_column(rows, images)
    if of_folders is not None and (owner := _owner_column(columns, of_folders)) is not None:
        listing.owned = owners_by_folder(rows, of_folders, owner, images), f"the column {rows[0][owner]} of {shown(name)}"
    elif of_folders is not None or _names_images(rows[1:], known):
        listing.faults.append(
            f"{shown(name)} holds the {' and '.join(sorted(more))} of images and {shown(manifest.name)} does not, which alone is read; "
            f"write them into a column of {shown(manifest.name)}, or move {shown(name)} out of the data"
        )


def _says_nothing(table: str, rows: Sequence[Sequence[str]], known: set[str], tops: Mapping[str, str]) -> int:
    """How many images a table names, where it says nothing else of them than sizes, measures, checksums, a model's predictions and the
    folders that they lie in; 0 where it may say more. A list that is called as a part of a split says that."""
    headed = not _names_images(rows[:1], known, 1)
    head, lines = (rows[0], rows[1:]) if headed else ([""] * len(rows[0]), rows)
    if not lines:
        return 0
    width = max(map(len, rows))
    columns = [[row[i] if i < len(row) else "" for row in lines] for i in range(width)]
    naming = [i for i, cells in enumerate(columns) if _names_images([[cell] for cell in cells], known)]
    if len(naming) > 1:
        naming = [i for i in naming if not all(cell.isdecimal() for cell in columns[i])]  # counts, where images are called 0 to 9
    if len(naming) != 1:
        return 0
    heads_ = [*head, *[""] * (width - len(head))]
    of = [tops.get(word, tops.get(word.rpartition("/")[2], "")) for word in (plain(c.replace("\\", "/")) for c in columns[naming[0]])]
    if not all(_is_measure(heads_[i], cells) or list(map(same, cells)) == of for i, cells in enumerate(columns) if i not in naming):
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
    if same(head) in (*PATIENT_HEADS, *LABEL_WORDS, "patient"):
        return False
    if words & ABOUT or (
        head.strip() and len(given) > FEW_LINES and (len(set(given)) == 1 or (len(set(given)) == len(given) and not given[0].isdecimal()))
    ):
        return True  # what all have in common, or each for itself
    numbers = [re.fullmatch(r"[-+]?\d*[.,]?\d+(?:[eE][-+]?\d+)?", cell.strip()) for cell in given]
    if not all(numbers):
        return False
    if not words & MEASURED and {float(cell.replace(",", ".")) for cell in given} == {0, 1}:
        return False  # a class a column
    whole = all(re.fullmatch(r"\d+", cell.strip()) for cell in given)
    running = [cell.strip() for cell in given] in ([str(i + first) for i in range(len(given))] for first in (0, 1))
    return not whole or running or bool(words & MEASURED)


def _column_a_class(rows: Sequence[Sequence[str]]) -> list[str]:
    """The heads of the columns that say of each line, together, which one class it has; []."""
    columns = list(zip_longest(*rows[1:], fillvalue=""))[: len(rows[0])]
    flags = [i for i, cells in enumerate(columns) if set(map(same, cells)) == {"0", "1"}]
    alone = len(flags) > 1 and all(sum(same(columns[i][line]) == "1" for i in flags) == 1 for line in range(len(rows) - 1))
    return [rows[0][i] for i in flags] if alone else []


def _words(head: str) -> list[str]:
    return re.sub(r"[\W_\d]+|(?<=[a-z])(?=[A-Z])", " ", head).casefold().split()


def _owner_column(columns: Sequence[str], of_folders: int) -> int | None:
    """The one column of patients beside the one of folders."""
    called = [i for i, name in enumerate(columns) if i != of_folders and (name == "patient" or same(name) in PATIENT_HEADS)]
    return called[0] if len(called) == 1 else None


def _names_images(rows: Sequence[Sequence[str]], known: set[str], least: int = 2) -> bool:
    """Whether a column holds names of images, most of them: a table of them, whatever its head is called. A bare number is one where most
    of the images that are called so stand there."""
    some = rows[:LOOKED_AT]
    numbers = {word for word in known if word.isdecimal()}
    for i in range(max(map(len, some))):
        cells = [row[i].replace("\\", "/") for row in some if i < len(row)]
        for words in (cells, [cell.rpartition(" ")[0] or cell for cell in cells]):  # a name, a space, a label
            names = [plain(PurePosixPath(word).name) for word in words]
            hits = set(names) & known
            if len(some) == 1 or 2 * len(hits & numbers) < min(len(numbers), LOOKED_AT):
                hits -= numbers
            if len(hits) >= least and sum(name in hits for name in names) >= len(names) / 2:
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
