"""Tables with a row for each folder of images, as a list of patients is.
Comes in: a table's rows and the images. Goes out: a row for each image. Exists because a diagnosis belongs to a patient, and whoever
writes a table of patients has written down the labels of all their images."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainables.data.no_classes import NO_CLASSES
from trainables.data.shape import kind_of_level
from trainables.data.table import LABEL_WORDS, heads
from trainables.data.words import class_order, part_of, same

LOOKED_AT = 100  # cells of a column, of which one must name a folder, before all are looked at


def _by_folder(images: Sequence[str]) -> dict[str, list[str]]:
    """Each folder, by its path and by its name alone in any spelling -> the images at or below it."""
    inside: dict[str, list[str]] = {}
    for image in images:
        inside.setdefault(image.rpartition("/")[0], []).append(image)
    found: dict[str, list[str]] = {}
    for folder, own in inside.items():
        names = folder.split("/") if folder else []
        for key in dict.fromkeys([*map(same, names), *(same("/".join(names[: i + 1])) for i in range(len(names)))]):
            found.setdefault(key, []).extend(own)
    return found


def folder_column(rows: Sequence[Sequence[str]], images: Sequence[str]) -> int | None:
    """The column that names folders, each in one row and most of its cells; None where there is none."""
    folders = _by_folder(images)
    for i in range(len(rows[0]) if rows else 0):
        given = [row[i] for row in rows[1:] if i < len(row) and row[i].strip()]
        if not any(same(cell) in folders for cell in given[:LOOKED_AT]):
            continue
        cells = [same(cell) for cell in given]
        hits = [cell for cell in cells if cell in folders]
        if len(hits) > 1 and len(set(hits)) == len(hits) >= len(cells) / 2:
            return i
    return None


def owners_by_folder(rows: Sequence[Sequence[str]], place: int, owner: int, images: Sequence[str]) -> dict[str, str]:
    """Image -> patient, of a table with a column for each: folders, their patients."""
    folders = _by_folder(images)
    pairs = [(row[place], row[owner]) for row in rows[1:] if max(place, owner) < len(row)]
    return {image: patient for name, patient in pairs for image in folders.get(same(name), ())}


def label_column(columns: Sequence[str]) -> int | None:
    """The one column of labels; None where there is none, or more than one."""
    found = [i for i, name in enumerate(columns) if name == "label"] or [i for i, name in enumerate(columns) if same(name) in LABEL_WORDS]
    return found[0] if len(found) == 1 else None


def other_classes(rows: Sequence[Sequence[str]], images: Sequence[str], patients: Sequence[str]) -> list[str]:
    """Folders that may be the classes as well as a table's labels: those that it names, where no word and no number says that they are
    patients (naevus, benign); those above or below them, as normal and tumour are beside a list of patients with their diagnoses. [] where
    there are none, or where they are called as the labels are. patients: words for columns of patients."""
    place, label = folder_column(rows, images), label_column(heads(rows[0]))
    if place is None or label is None:
        return []
    said = {same(row[i]) for row in rows[1:] for i in (place, label) if i < len(row)}
    head, cells = heads(rows[0]), [row[place] for row in rows[1:] if place < len(row) and row[place].strip()]
    if head[place] != "patient" and same(head[place]) not in patients and not any(re.search(r"\d", cell) for cell in cells):
        return class_order(cells)
    levels = [image.split("/")[:-1] for image in images]
    for i in range(min(map(len, levels), default=0)):
        names = {level[i] for level in levels}
        words = set(map(same, names))
        nothing = len(names) < 2 or words & said or words <= NO_CLASSES or all(map(part_of, names))
        if not nothing and kind_of_level(names) != "patient":
            return class_order(names)
    return []


def row_an_image(rows: Sequence[Sequence[str]], images: Sequence[str], patients: Sequence[str]) -> tuple[list[list[str]], str]:
    """The table with a row for each image, and what was taken for what in words; as it is, and '', where it does not name folders.
    patients: words for columns of patients. Where none is called so, a folder counts as a patient if there are more of them than labels."""
    place = folder_column(rows, images) if rows else None
    label = label_column(heads(rows[0])) if place is not None else None
    if place is None or label is None or label == place:
        return [list(row) for row in rows], ""
    head = heads(rows[0])
    said = f"the column {rows[0][label].strip()}, a row for each folder of its column {rows[0][place].strip()}"
    owns = head[place] == "patient" or same(head[place]) in patients
    own = owns or (
        not any(name == "patient" or same(name) in patients for name in head)
        and len(rows) - 1 > len({same(row[label]) for row in rows[1:] if label < len(row)})
        and all(re.search(r"\d", row[place]) for row in rows[1:] if place < len(row))  # melanoma and naevus are no patients
    )
    folders = _by_folder(images)
    rest = [i for i in range(len(head)) if i not in (place, label)]
    found = [["file", "label", *(["patient"] if own else []), *(head[i] for i in rest)]]
    for row in rows[1:]:
        cells = [row[i] if i < len(row) else "" for i in range(len(head))]
        for image in folders.get(same(cells[place]), [cells[place]]):
            found.append([image, cells[label], *([cells[place]] if own else []), *(cells[i] for i in rest)])
    return found, said
