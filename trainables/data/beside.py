"""Patients and parts that folders name beside a table that does not.
Comes in: a `Listing` out of a table. Goes out: its patients and parts, where the folders say them. Exists because whoever sorted images by
patient and then wrote labels into a table has not forgotten the patients."""

from __future__ import annotations

from trainables.data.listing import Listing
from trainables.data.no_classes import NO_CLASSES
from trainables.data.shape import ORDINAL, kind_of_level
from trainables.data.words import class_order, few, part_of, same, shown

MOST = 0.9  # of the images: a level of folders that is called as their labels are is the classes, and says nothing else


def said_by_folders(title: str, group: str, listing: Listing) -> None:
    """Fills patients and parts that the table has no column for. What may be one and does not say so is warned of."""
    levels = [name.split("/")[:-1] for name in listing.files]
    for i in range(min(map(len, levels), default=0)):
        column = [level[i] for level in levels]
        names, pairs = set(column), set(zip(column, listing.labels, strict=True))
        if len(pairs) == len(names) == len(set(listing.labels)):
            continue  # the classes in other words
        like = sum(same(name) == same(label) for name, label in zip(column, listing.labels, strict=True))
        if len(names) < 2 or like >= MOST * len(column) or all(same(name) in NO_CLASSES for name in names):
            continue
        some = few([shown(name) for name in class_order(names)], 3)
        words = f"the {ORDINAL[i] if i < len(ORDINAL) else f'{i + 1}th'} folder ({len(names)}: {some})"
        if all(map(part_of, names)):
            if listing.parts is None:
                listing.parts = column
                listing.levels.append(f"part: {words}, for {title} has no column split")
        elif group == "patient" and listing.patients is None:
            if kind_of_level(names) == "patient":
                listing.patients = column
                listing.levels.append(f"patient: {words}, for {title} has no column patient")
            else:
                listing.warnings.append(
                    f"the images lie in folders called {some}, and {title} does not say what these are; "
                    "if they are patients, write them into a column patient"
                )
