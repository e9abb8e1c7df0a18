"""Tables as programs save them: rows of text out of CSV in any dialect, and out of spreadsheets.
Comes in: a file. Goes out: rows of cells, or why there are none with what to do. Exists so that a spreadsheet's habits stop nobody and
drop nothing."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from python_calamine import CalamineError, CalamineWorkbook

from trainables.data.words import few, same, shown

TEXT = (".csv", ".tsv", ".tab", ".txt")
SHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
KNOWN = ("file", "label", "patient", "split")
FILE_WORDS = ("file", "files", "filename", "file name", "filepath", "file path", "path", "image", "image name", "image id", "img", "name")
LABEL_WORDS = ("label", "labels", "class", "type", "category", "target", "diagnosis", "class name", "kind")
PATIENT_HEADS = (
    "patient id", "patientid", "patients", "patient no", "patient number", "patient name", "pat id", "pid", "case", "case id", "subject",
    "subject id", "donor", "donor id", "individual", "individual id", "person", "participant",
    "participant id", "animal", "mouse", "proband", "mrn", "medical record number", "patient barcode", "bcr patient barcode",
    "patient code", "case no", "case number", "case submitter id", "accession", "accession no", "accession number", "pseudonym",
    "patient nr", "patienten id", "patientennummer", "fallnummer",
)  # fmt: skip
METAPHASES = re.compile(  # heads that name the cell
    r"(?:m[eé]ta(?:ph|f)ase|spread|kar[iy]ogramm?)[esn]? ?(?:id|no|nr|num|number|nummer|numero|numéro|name|code|barcode|#)?\.?"
)
SPLIT_WORDS = ("set", "subset", "data set", "dataset", "partition")
HEAD_WITHIN = 20  # rows: titles and dates that stand above a table's head are fewer
LARGEST = 256 << 20  # bytes of a table that is looked into


class TableError(ValueError):
    """Why a table cannot be read, with what to do."""


def read_table(path: Path) -> list[list[str]]:
    """Rows of stripped cells, those without any left out, from the head on: commas, semicolons, tabs, bars or spaces; UTF-8 or UTF-16; with
    `sep=` or without; or the one sheet of a spreadsheet that names files, by its content and not by its ending."""
    return [[cell.strip() for cell in row] for row in read_cells(path)]


def read_cells(path: Path) -> list[list[str]]:
    """The same with cells as they stand, for a file's name may begin with a space."""
    try:
        raw = path.read_bytes()
    except OSError as fault:
        raise TableError(f"cannot be read ({fault.strerror}); check its rights") from None
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return _headed(_sheet(raw))
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as fault:
        raise TableError(f"must be a comma-separated table in UTF-8, this one is not ({fault}); save it again as CSV UTF-8") from None
    if "\0" in text:
        raise TableError(
            "must be a comma-separated table in UTF-8, this one holds zeros (UTF-16 without a mark?); save it again as CSV UTF-8"
        )
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    given = re.match(r'"?sep=(.)"?[^\n]*\n', lines)
    if given:
        lines = lines[given.end() :]
    head = lines.lstrip("\n").partition("\n")[0]
    spaced = [line.split() for line in lines.splitlines() if line.strip()]
    if not given and not re.search(r"[,;\t|]", head) and len({len(row) for row in spaced}) == 1 and len(spaced[0]) > 1:
        return _headed(spaced)  # every line has as many words: no text
    separator = given[1] if given else max(",;\t|", key=lambda mark: (_names_both(head, mark), head.count(mark), mark == ","))
    try:
        table = list(csv.reader(io.StringIO(lines, newline=""), delimiter=separator))
    except csv.Error as fault:
        raise TableError(f"must be a comma-separated table in UTF-8, this one is not ({fault}); save it again as CSV UTF-8") from None
    return _headed(_filled(table))


def _names_both(head: str, mark: str) -> bool:
    """Whether a head's words between these marks are those of a table of images: in `file;label;size, width` commas stand within words."""
    return {"file", "label"} <= set(heads([cell.strip().strip('"') for cell in head.split(mark)]))


def _filled(table: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(row) for row in table if any(cell.strip() for cell in row)]


def _headed(rows: list[list[str]]) -> list[list[str]]:
    """The rows from the head on: what stands above it is a title."""
    for i, row in enumerate(rows[:HEAD_WITHIN]):
        if {"file", "label"} <= set(heads(row)):
            return rows[i:]
        joined = [low.strip() or high.strip() for high, low in zip_longest(row, rows[i + 1] if i + 1 < len(rows) else (), fillvalue="")]
        if {"file", "label"} <= set(heads(joined)) and {"file", "label"} & set(heads(row)):
            return [joined, *rows[i + 2 :]]  # cells that were merged over two lines stand in the upper one
    return rows


def _sheet(raw: bytes) -> list[list[str]]:
    """The rows of the sheet that names files; of one sheet alone those of that."""
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(raw)) as book:
            sheets = {
                name: _filled([[_cell(cell) for cell in row] for row in book.get_sheet_by_name(name).to_python()])
                for name in book.sheet_names
            }
    except (CalamineError, OSError, ValueError, zipfile.BadZipFile) as fault:
        raise TableError(
            f"cannot be read as a spreadsheet ({(str(fault).splitlines() or ['damaged'])[0][:80]}); save it again, or as CSV UTF-8"
        ) from None
    filled = {name: rows for name, rows in sheets.items() if rows}
    naming = [name for name, rows in filled.items() if {"file", "label"} <= set(heads(_headed(rows)[0]))]
    if len(naming) > 1:
        raise TableError(f"has {len(naming)} sheets with file and label, {few([shown(name) for name in naming])}; keep one")
    if not naming:
        return next(iter(filled.values()), [])
    rows = filled.pop(naming[0])
    head = heads(_headed(rows)[0])
    files = {row[i] for row in _headed(rows)[1:] for i in [head.index("file")] if i < len(row)}
    for name, other in filled.items():
        more = says_more(heads(_headed(other)[0])) - says_more(head)
        if more and any(sum(cell in files for cell in column) > 1 for column in zip_longest(*other)):
            raise TableError(
                f"has a sheet {shown(name)} that names the files again, with their {' and '.join(sorted(more))}: one sheet is read; "
                f"write them into a column of {shown(naming[0])}"
            )
    return rows


def says_more(columns: Sequence[str]) -> set[str]:
    """Which of patient and split a table's columns hold, by their heads."""
    words = {same(column) for column in columns}
    return ({"patient"} if words & {"patient", *PATIENT_HEADS} else set()) | ({"split"} if words & {"split", *SPLIT_WORDS} else set())


def _cell(value: object) -> str:
    """A cell as a person sees it: 1 and not 1.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def heads(columns: Sequence[str], group: str = "patient") -> list[str]:
    """A table's columns with those that have a meaning in our spelling."""
    meant = {same(name): name for name in (*KNOWN, group)}
    return [meant.get(same(name), name.strip()) for name in columns]


def plain(name: str) -> str:
    """A file's name as tables may spell it: in another case, in another Unicode form."""
    return unicodedata.normalize("NFC", shown(name)).casefold()
