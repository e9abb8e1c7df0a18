"""A table that says more of the images than the folders do: file, label, patient, split.
Comes in: the tables at a folder's root and the images below it. Goes out: a `Listing`. Exists so that a table of any dialect is read, or
the command stops: patients are never dropped because a spreadsheet has a habit of its own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from trainables.data.beside import said_by_folders
from trainables.data.folder_rows import other_classes, row_an_image
from trainables.data.listing import Listing
from trainables.data.matched import matched
from trainables.data.shape import named_patients
from trainables.data.slides import tied_by_slide
from trainables.data.table import KNOWN, METAPHASES, PATIENT_HEADS, SPLIT_WORDS, TableError, heads, read_cells
from trainables.data.words import class_order, count, few, is_missing, part_in, part_of, same, shown, them

DOUBTS = re.compile(  # what says that a line does not count, or that its label is another one
    r"(?:is )?(?:exclude[ds]?|excluded?(?: reason)?|include[ds]?|use|used|usable|keep|drop|ignore|skip|valid|qc(?: \w+)?|usability"
    r"|artefact|artifact|reject(?:ed)?|ausschluss|verwenden|exclu|consensus(?: label)?|final(?: label)?|label ?[2-9b]|class ?2"
    r"|(?:second|other|reviewed|corrected|true) label|(?:rater|reader|annotator|observer|reviewer|expert|pathologist) ?\d+)"
)
FEW_KINDS = 4
FLAGS = {"0", "1", "true", "false", "yes", "no", "y", "n", "t", "f", "x"}
MOST_PARTS = 6  # words of a column that may be a split
FOLD_WORDS = ("fold", "folds", "cv", "cv fold", "cvfold", "kfold", "k fold", "fold id", "fold no")


def from_manifest(folder: Path, tables: Sequence[str], found: Sequence[str], group: str, listing: Listing) -> None:
    """Fills the listing from a table, or from one for each part of a split. found: the images below the folder."""
    faults, title = listing.faults, ", ".join(map(shown, tables))
    try:
        rows = _in_one([(table, read_cells(folder / table)) for table in tables])
    except TableError as error:
        faults.append(f"{title} {error}")
        return
    if not rows:
        faults.append(f"{title} must name the images, it is empty; write file,label,patient and a line per image, or remove it")
        return
    said = [] if same(Path(tables[0]).stem) == "manifest" else other_classes(rows, found, PATIENT_HEADS)
    rows, of_folders = row_an_image(rows, found, PATIENT_HEADS)
    if of_folders and said:
        faults.append(
            f"the classes may be {of_folders} of {title}, or the folders {few([shown(name) for name in said], 3)}: move {title} out of the "
            "data if the folders are the classes, or call it manifest if its labels are"
        )
        return
    columns = _meant(heads(rows[0], group), rows[1:], group, title, listing)
    used = max((i + 1 for row in rows for i, cell in enumerate(row) if cell.strip()), default=0)
    columns = columns[:used] + [""] * (used - len(columns))  # a spreadsheet leaves columns without a head or a cell
    listing.columns = [column for column in columns if column]
    if not _sound_head(title, columns, group, listing):
        return
    width = max(i + 1 for i, column in enumerate(columns) if column)
    rows = [row[:used] for row in rows]
    ragged = [str(i + 1) for i, row in enumerate(rows) if len(row) < width]
    if ragged or used > width:
        wrong = ragged or [str(i + 1) for i, row in enumerate(rows) if any(cell.strip() for cell in row[width:])]
        faults.append(f"{title}: every line must have {width} cells, {len(wrong)} have not: line {few(wrong)}; correct {them(wrong)}")
        return
    entries = [{column: row[i] if column == "file" else row[i].strip() for i, column in enumerate(columns) if column} for row in rows[1:]]
    if not entries:
        faults.append(f"{title} must name the images, it has a head and no line; write a line per image, or remove it")
        return
    kept = matched(folder, title, entries, found, listing)
    kept.sort(key=lambda pair: pair[0])
    listing.files = [name for name, _ in kept]
    listing.labels = [entry["label"] for _, entry in kept]
    listing.layout = title
    if len(kinds := set(listing.labels)) > 1 and named_patients(kinds):
        faults.append(
            f"{title}: its labels are called {few(class_order(kinds), 3)}, as patients are: call that column patient, and write the class "
            "of each image into a column label; if they are classes, call them otherwise"
        )
    of = of_folders or "the column label"
    listing.levels = [f"class: {of} of {title} ({len(set(listing.labels))})"]
    tops = {same(label) for label in listing.labels}
    other = sum(1 for name, entry in kept if "/" in name and (top := same(name.split("/")[0])) in tops and top != same(entry["label"]))
    if other:
        listing.notes.append(f"{count(other)} with a label in {title} unlike the folder's name: the manifest's was taken")
    if group in columns:
        listing.patients = [entry[group] for _, entry in kept]
        head = rows[0][columns.index(group)].strip()
        if all(is_missing(name) for name in listing.patients):
            listing.patients = None
            listing.warnings.append(
                f"{title}: its column {head} names no {group} in any line ("
                f"{few(class_order({entry[group] or 'empty' for entry in entries}))}), so "
                f"that a split may part a {group}; fill it, or remove it"
            )
        else:
            listing.levels.append(f"patient: its column {head}")
            listing.warnings += _odd_patients(title, head, [entry[group] for entry in entries])
    if "split" in columns:
        listing.parts = [entry["split"] for _, entry in kept]
        of = "the names of the tables" if len(tables) > 1 else f"its column {rows[0][columns.index('split')].strip()}"
        listing.levels.append(f"part: {of}")
    cells = [column for column in columns if METAPHASES.fullmatch(same(column)) and column != group]
    if len(cells) == 1 and not all(is_missing(entry[cells[0]]) for _, entry in kept):
        listing.metaphases = ["" if is_missing(entry[cells[0]]) else same(entry[cells[0]]) for _, entry in kept]
        listing.levels.append(f"metaphase: its column {cells[0]}")
    said_by_folders(title, group, listing)
    unused = [column for column in columns if column and column not in ("file", "label", "split")]
    read = ("patient", group, *(cells if listing.metaphases is not None else ()))
    named = any(same(column) in PATIENT_HEADS for column in unused)  # of several, which are a fault
    unknown = group not in columns and listing.patients is None
    between = {column: [entry[column] for _, entry in kept] for column in unused}
    if unknown and not named and group == "patient" and listing.owned is None and tied_by_slide(title, between, listing):
        pass
    elif unused and not named and unknown:  # a patient under another name would be parted without a word
        listing.notes.append(
            f"{title} has no column {group}, so that a split may part a patient; "
            f"if one of its other columns ({few(unused)}) names the patient, call it {group}"
        )
    elif others := [column for column in unused if column not in read]:
        listing.notes.append(f"{title}: columns that are not read: {few(others)}")
    if doubts := [column for column in unused if DOUBTS.fullmatch(same(column))]:
        listing.warnings.append(
            f"{title}: its column {few(doubts)} may leave images out or give other labels, and is not read: every line counts, with its "
            "label; remove the lines that do not count, correct the labels, or remove the column"
        )


def _in_one(tables: Sequence[tuple[str, list[list[str]]]]) -> list[list[str]]:
    """The rows of tables of one head, each with its part of the split; of one table alone its own."""
    if len(tables) == 1:
        return tables[0][1]
    head = tables[0][1][0]
    other = [shown(name) for name, rows in tables if list(map(same, rows[0])) != list(map(same, head))]
    if other:
        raise TableError(f"must have one head, {few(other)} has another one than {shown(tables[0][0])}; give them the same columns")
    if "split" in heads(head):
        raise TableError("are parts of a split by their names and have a column split; join them in one table")
    return [
        [*head, "split"],
        *([*row, *[""] * (len(head) - len(row)), part_in(Path(name).stem)] for name, rows in tables for row in rows[1:]),
    ]


def _odd_patients(title: str, head: str, cells: Sequence[str]) -> list[str]:
    """What speaks against a column's being the patients, in the table's order."""
    named = [cell for cell in cells if not is_missing(cell)]
    kinds = set(named)
    said = f"{title}: its column {head}"
    if same(head) != "patient" and 1 < len(kinds) <= FEW_KINDS and len(named) > len(kinds) and not any(map(str.isdecimal, "".join(kinds))):
        return [
            f"{said} is taken as the patients and holds {few(class_order(kinds))} alone; call it otherwise if these are kinds of "
            "animals or of cases"
        ]
    in_blocks = all(one != other for one, other in pairwise(named))  # named anew in each class perhaps
    if cells[0] and in_blocks and len(named) > 1 and "" in cells and cells.count("") >= len(named):
        return [f"{said} names each patient once and leaves {cells.count('')} cells below empty, as merged cells do; fill them"]
    return []


def _meant(columns: Sequence[str], rows: Sequence[Sequence[str]], group: str, title: str, listing: Listing) -> list[str]:
    """The columns with `patient` where one is called so in other words, and `split` where one holds nothing but parts."""
    found = list(columns)
    if group == "patient" and group not in found:
        called = [i for i, column in enumerate(found) if same(column) in PATIENT_HEADS]
        if (owner := _coarsest(called, rows)) is not None:
            if len(called) > 1:
                listing.warnings.append(
                    f"{title}: its columns {few([found[i] for i in called])} may name the patients, {found[owner]} was taken: each of the "
                    "others lies within one of it; call the right one patient if it is another"
                )
            found[owner] = "patient"
        elif called:
            listing.faults.append(
                f"one column may name the patients, {few([found[i] for i in called])} seem to, and none holds the others within it; call "
                "one of them patient"
            )
    if "split" not in found:
        values = {i: {row[i].strip() for row in rows if i < len(row)} - {""} for i, c in enumerate(found) if c and c not in (*KNOWN, group)}
        holds = [i for i, words in values.items() if words and all(map(part_of, words)) and (len(words) > 1 or _called(found[i]))]
        if len(holds) == 1:
            found[holds[0]] = "split"
        elif holds:
            listing.faults.append(
                f"one column may hold the split, {few([found[i] for i in holds])} do; call one of them split, and remove the others"
            )
        other = [] if holds else [i for i, words in values.items() if _like_split(found[i], words)]
        listing.faults += [
            f"{title}: its column {found[i]} looks like a split and holds {few(class_order(values[i]))}; write train, val or test of each "
            "image into a column split, or call this one otherwise if it means something else"
            for i in other
        ]
        for name, words in ((found[i], words) for i, words in values.items() if words and i not in (*holds, *other) and _called(found[i])):
            said = f"{title}: its column {name} holds {few(class_order(words))}"
            if same(name) in FOLD_WORDS:
                listing.faults.append(
                    f"{said}: a study has one split and no folds; write train, val or test of each image into a column split, "
                    "or call this one otherwise if it means no folds"
                )
            else:
                listing.warnings.append(f"{said} and not only train, val and test, and is not taken as the split")
    return found


def _coarsest(columns: Sequence[int], rows: Sequence[Sequence[str]]) -> int | None:
    """Of columns that may name patients the one within whose values each value of the others lies, as the cases of a patient do; of equals
    the first. None where there is none. One that names nobody, or one value for all, does not count where another one does."""
    cells = {i: [row[i].strip() if i < len(row) else "" for row in rows] for i in columns}
    kinds = {i: {same(cell) for cell in own if not is_missing(cell)} for i, own in cells.items()}
    telling = [i for i in columns if len(kinds[i]) > 1 or len(columns) == 1]
    for i in telling:
        pairs = ([(same(a), same(b)) for a, b in zip(cells[j], cells[i], strict=True) if not is_missing(a)] for j in telling if j != i)
        if all(len(set(some)) == len({a for a, _ in some}) for some in pairs):
            return i
    return None


def _like_split(column: str, values: set[str]) -> bool:
    """Whether a column that is no split may be meant as one: is_train with TRUE and FALSE, or train and test among other words."""
    said = {parts[-1] for value in values if (parts := [part for part in map(part_of, _words(value)) if part])}
    flag = {value.casefold() for value in values} <= FLAGS and any(part_of(word) for word in _words(column))
    return bool(values) and (flag or (len(said) > 1 and len(values) <= MOST_PARTS))


def _words(name: str) -> list[str]:
    return re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", name).split()


def _called(column: str) -> bool:
    """Whether a column is called as one that divides the images is."""
    return same(column) in (*SPLIT_WORDS, *FOLD_WORDS)


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
        if near and column not in (*KNOWN, group) and same(column) not in PATIENT_HEADS:
            faults.append(
                f"{title}: unknown column '{column}'; did you mean '{near[0]}'? rename it, or name it unlike a column that has a meaning"
            )
    twice = class_order(name for name in present if present.count(name) > 1)
    if twice:
        faults.append(f"{title}: a column may stand once, {', '.join(twice)} stand{'s' if len(twice) == 1 else ''} twice; remove one")
    return not (missing or twice)
