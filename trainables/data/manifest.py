"""A table that says more of the images than the folders do: file, label, patient, split.
Comes in: the tables at a folder's root and the images below it. Goes out: a `Listing`. Exists so that a table of any dialect is read, or
the command stops: patients are never dropped because a spreadsheet has a habit of its own."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainables.data.listing import MANIFEST, Listing
from trainables.data.open import SUFFIXES
from trainables.data.table import KNOWN, LARGEST, SHEETS, TEXT, TableError, heads, read_table
from trainables.data.words import class_order, count, few, is_missing, part_of, same, shown, them

DEEP = 50  # tables below the root that are looked into
FILE_WORDS = ("file", "files", "filename", "file name", "filepath", "file path", "path", "image", "image name", "image id", "img", "name")
PATIENT_WORDS = (
    "patient id", "patientid", "patients", "patient no", "patient number", "patient name", "pat id", "pid", "case", "case id", "subject",
    "subject id", "donor", "donor id", "individual", "individual id", "person", "participant",
    "participant id", "animal", "mouse", "proband",
)  # fmt: skip
LABEL_WORDS = ("label", "labels", "class", "type", "category", "target", "diagnosis", "class name", "kind")


def choose_table(folder: Path, others: Sequence[str], images: Sequence[str], listing: Listing) -> str | None:
    """The one table at the root that names files and labels; None where there is none. More than one, or one that cannot be read, is a
    fault; so is one that names images in columns of other names, in whatever language."""
    known = {word for name in images for word in (_plain(PurePosixPath(name).name), _plain(PurePosixPath(name).stem))}
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
            if meant or _names_images(rows, known):
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


def _names_images(rows: Sequence[Sequence[str]], known: set[str]) -> bool:
    """Whether a column holds names of images, most of them: a table of them, whatever its head is called."""
    some = rows[:200]
    for i in range(max(map(len, some))):
        cells = [_plain(PurePosixPath(row[i].replace("\\", "/")).name) for row in some if i < len(row)]
        if len(hits := set(cells) & known) >= 2 and sum(cell in hits for cell in cells) >= len(cells) / 2:
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


def from_manifest(folder: Path, table: str, found: Sequence[str], group: str, listing: Listing) -> None:
    """Fills the listing from a table. found: the images below the folder."""
    faults, title = listing.faults, shown(table)
    try:
        rows = read_table(folder / table)
    except TableError as error:
        faults.append(f"{title} {error}")
        return
    if not rows:
        faults.append(f"{title} must name the images, it is empty; write file,label,patient and a line per image, or remove it")
        return
    columns = _meant(heads(rows[0], group), rows[1:], group, listing)
    used = max((i + 1 for row in rows for i, cell in enumerate(row) if cell), default=0)
    columns = columns[:used] + [""] * (used - len(columns))  # a spreadsheet leaves columns without a head or a cell
    listing.columns = [column for column in columns if column]
    if not _sound_head(title, columns, group, listing):
        return
    width = max(i + 1 for i, column in enumerate(columns) if column)
    rows = [row[:used] for row in rows]
    ragged = [str(i + 1) for i, row in enumerate(rows) if len(row) < width]
    if ragged or used > width:
        wrong = ragged or [str(i + 1) for i, row in enumerate(rows) if len(row) > width and any(row[width:])]
        faults.append(f"{title}: every line must have {width} cells, {len(wrong)} have not: line {few(wrong)}; correct {them(wrong)}")
        return
    entries = [{column: row[i] for i, column in enumerate(columns) if column} for row in rows[1:]]
    if not entries:
        faults.append(f"{title} must name the images, it has a head and no line; write a line per image, or remove it")
        return
    kept = _matched(folder, title, entries, found, listing)
    kept.sort(key=lambda pair: pair[0])
    listing.files = [name for name, _ in kept]
    listing.labels = [entry["label"] for _, entry in kept]
    listing.layout = title
    listing.levels = [f"class: the column label of {title} ({len(set(listing.labels))})"]
    tops = {same(label) for label in listing.labels}
    other = sum(1 for name, entry in kept if "/" in name and (top := same(name.split("/")[0])) in tops and top != same(entry["label"]))
    if other:
        listing.notes.append(f"{count(other)} with a label in {title} unlike the folder's name: the manifest's was taken")
    if group in columns:
        listing.patients = [entry[group] for _, entry in kept]
        listing.levels.append(f"patient: its column {rows[0][columns.index(group)]}")
        if all(is_missing(name) for name in listing.patients):
            listing.patients = None
    if "split" in columns:
        listing.parts = [entry["split"] for _, entry in kept]
        listing.levels.append(f"part: its column {rows[0][columns.index('split')]}")


def _meant(columns: Sequence[str], rows: Sequence[Sequence[str]], group: str, listing: Listing) -> list[str]:
    """The columns with `patient` where one is called so in other words, and `split` where one holds nothing but parts."""
    found = list(columns)
    if group == "patient" and group not in found:
        called = [i for i, column in enumerate(found) if same(column) in PATIENT_WORDS]
        if len(called) == 1:
            found[called[0]] = "patient"
        elif called:
            listing.faults.append(
                f"one column may name the patients, {few([found[i] for i in called])} seem to; call one of them patient, and the "
                "others otherwise"
            )
    if "split" not in found:
        holds = [i for i, c in enumerate(found) if c and c not in (*KNOWN, group) and _are_parts({r[i] for r in rows if i < len(r)})]
        if len(holds) == 1:
            found[holds[0]] = "split"
        elif holds:
            listing.faults.append(
                f"one column may hold the split, {few([found[i] for i in holds])} do; call one of them split, and remove the others"
            )
    return found


def _are_parts(values: set[str]) -> bool:
    return len(values) > 1 and all(map(part_of, values))


def _sound_head(title: str, columns: Sequence[str], group: str, listing: Listing) -> bool:
    """Whether a table can be read by its head; what is wrong with it becomes a fault."""
    faults, present = listing.faults, [column for column in columns if column]
    missing = [name for name in ("file", "label") if name not in columns]
    if missing:
        faults.append(
            f"{title} needs the columns file and label, {' and '.join(missing)} missing among {', '.join(present)}; rename or add "
            f"{them(missing)}"
        )
    if group != "patient" and group not in columns:
        faults.append(f"the group column must stand in {title}, there is no '{group}' among {', '.join(present)}; name one of these")
    for column in present:
        near = difflib.get_close_matches(column.lower(), [name for name in KNOWN if name not in columns], 1, 0.8)
        if near and column not in (*KNOWN, group):
            faults.append(
                f"{title}: unknown column '{column}'; did you mean '{near[0]}'? rename it, or name it unlike a column that has a meaning"
            )
    twice = class_order(name for name in present if present.count(name) > 1)
    if twice:
        faults.append(f"{title}: a column may stand once, {', '.join(twice)} stand{'s' if len(twice) == 1 else ''} twice; remove one")
    unused = [column for column in present if column not in ("file", "label", "split")]
    if unused and group not in columns:  # a patient under another name would be parted without a word
        listing.notes.append(
            f"{title} has no column {group}, so that a split may part a patient; "
            f"if one of its other columns ({few(unused)}) names the patient, call it {group}"
        )
    return not (missing or twice)


def _matched(
    folder: Path, title: str, entries: Sequence[dict[str, str]], found: Sequence[str], listing: Listing
) -> list[tuple[str, dict[str, str]]]:
    """(image, its line) of all lines that name one, and faults for the others. A name is taken as it stands, in another case or Unicode
    form, or without its folders, where that leaves one image alone."""
    faults = listing.faults
    known, loose, bare = set(found), _unique(found, _plain), _unique(found, lambda name: _plain(PurePosixPath(name).name))
    without = _unique(found, lambda name: _plain(PurePosixPath(name).with_suffix("").as_posix()))  # as spreadsheets name images
    stems = _unique(found, lambda name: _plain(PurePosixPath(name).stem))
    names = [entry["file"].replace("\\", "/").removeprefix("./") for entry in entries]
    outside = [name for name in names if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name.split("/")[0]]
    if outside:
        faults.append(
            f"{title}: a file is named relative to the folder, {len(outside)} are not: {few(outside)}; write for example class/image.png"
        )
    kept: list[tuple[str, dict[str, str]]] = []
    absent, again, nameless, spelt = [], [], [], 0
    seen: set[str] = set()
    for name, entry in zip(names, entries, strict=True):
        plain = _plain(name)
        image = name if name in known else loose.get(plain) or (None if "/" in name else bare.get(plain))
        if image is None and not name.lower().endswith(SUFFIXES):
            image = without.get(plain) or (None if "/" in name else stems.get(plain))
        spelt += image is not None and image != name
        key = image or name
        if key in seen:
            again.append(name)
            continue
        seen.add(key)
        if image is None:
            if name not in outside:
                absent.append(name or "(no name)")
        elif is_missing(entry["label"]):
            nameless.append(f"{shown(image)} ('{entry['label']}')" if entry["label"] else shown(image))
        else:
            kept.append((image, entry))
    if spelt:
        listing.notes.append(
            f"{title}: {count(spelt, 'file')} named in another spelling, without the folder or the ending, each taken as the one "
            "image that fits"
        )
    if again:
        faults.append(f"{title}: a file may stand once, {len(again)} stand again: {few(again)}; remove the second line")
    if absent:
        odd = [name for name in absent if (folder / name).is_file()]
        step = (
            f"images end in {' '.join(SUFFIXES)}"
            if odd
            else f"correct the name{'s' if len(absent) > 1 else ''} or remove the line{'s' if len(absent) > 1 else ''}"
        )
        faults.append(f"{title}: every file must be an image in the folder, {len(absent)} are not: {few(absent)}; {step}")
    if nameless:
        faults.append(
            f"{title}: every file needs a label, {len(nameless)} have none: {few(nameless)}; fill the label column (words such as "
            "nan, NA, unknown count as none)"
        )
    unnamed = [shown(name) for name in found if name not in seen]
    if unnamed:
        faults.append(
            f"{title} must name every image of the folder, {len(unnamed)} are not in it: {few(unnamed)}; add or remove {them(unnamed)}"
        )
    return kept


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", shown(name)).casefold()


def _unique(names: Sequence[str], key) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """key(name) -> name, of keys that one name alone has."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return {word: of[0] for word, of in found.items() if len(of) == 1}
