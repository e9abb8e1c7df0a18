"""Which of the tables at a folder's root names the images, or the folders that they lie in.
Comes in: the names of a folder's files. Goes out: the one table; faults for tables that look like it. Exists so that labels and patients
that somebody wrote down are never passed over without a word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainables.data.folder_rows import folder_column, label_column
from trainables.data.listing import MANIFEST, Listing
from trainables.data.table import FILE_WORDS, LABEL_WORDS, LARGEST, SHEETS, TEXT, TableError, heads, plain, read_table
from trainables.data.words import few, same, shown

DEEP = 50  # tables below the root that are looked into


def choose_table(folder: Path, others: Sequence[str], images: Sequence[str], listing: Listing) -> str | None:
    """The one table at the root that names files and labels; None where there is none. More than one, or one that cannot be read, is a
    fault; so is one that names images in columns of other names, in whatever language."""
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
            elif of_folders is not None:
                listing.warnings.append(
                    f"{shown(name)} names folders in its column {rows[0][of_folders]} and is not read, it has {few(columns, 8)}; "
                    "where one of these holds their labels, call it label"
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
    if len(found) > 1:
        if len(named) == 1:
            listing.warnings.append(
                f"{few([shown(name) for name in found if name not in named])} is not read: {shown(named[0])} names the images"
            )
            return named[0]
        listing.faults.append(
            f"one table may name the images, there are {len(found)}: {few([shown(n) for n in found])}; keep one at the root"
        )
        return None
    return found[0] if found else None


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
    if naming:
        listing.warnings.append(
            f"a table of images is read at the root alone, {few([shown(name) for name in naming])} is not read; "
            f"move it there, with files named from there and the columns file, label, patient"
        )
