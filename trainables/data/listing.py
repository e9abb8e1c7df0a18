"""What a folder says before a pixel is read: files, classes, patients, parts.
Comes in: names as they stand in folders and tables. Goes out: a `Listing`, with one spelling a thing. Exists so that a folder per class and
a manifest give one thing, and so that a user reads in one line what was taken for what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.misspelt import coded, measured, misspelt
from trainables.data.mixed_names import one_patient
from trainables.data.words import KARYOTYPE, PARTS, as_karyotype, class_order, count, few, is_missing, part_of, seen, shown, them, united

MANIFEST = "manifest.csv"
FEWEST = 3  # patients of a class, of which a split can give each part one
_MONTH = (  # as spreadsheets write them in English, German, French
    r"(?:jan(?:uary|uar|v)?|feb(?:ruary|ruar)?|f\u00e9vr?|mar(?:ch|s)?|m\u00e4r(?:z)?|mrz|apr(?:il)?|avr|may|mai|jun[ei]?|juin|jul[yi]?|juil"
    r"|aug(?:ust)?|ao\u00fbt|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?|d\u00e9c)\.?"
)
AS_DATE = re.compile(rf"(?i)\d{{1,2}}[. \-/]{{1,2}}{_MONTH}|{_MONTH}[ \-/]\d{{1,2}}")
UNKNOWN = "unknown: "  # before the name of a file whose patient is not known: the patient that it counts as


@dataclass
class Listing:
    """What a folder says before a pixel is read. Files, labels, patients, parts: one an image, in one order."""

    files: list[str] = field(default_factory=list)  # relative, as the system calls them
    labels: list[str] = field(default_factory=list)  # class names
    patients: list[str] | None = None
    parts: list[str] | None = None  # as written; `settled` makes them train, val, test
    metaphases: list[str] | None = None  # of chromosomes; '' where one is not known
    columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what may be otherwise than it was read
    faults: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)  # where no patient is named: what the files' names may say of it, see `stems`
    owned: tuple[dict[str, str], str] | None = None  # image -> patient, and where that is written, if a table says it of folders
    slides: list[tuple[int, int]] = field(default_factory=list)  # images of one slide, where no patient is named, see `slides`
    series: list[tuple[int, int]] = field(default_factory=list)  # images of one object by their names, see `series`
    layout: str = ""  # what the levels of the folders were taken for, "part/class/patient"; or the manifest's name
    levels: list[str] = field(default_factory=list)  # a line for each thing that was taken from somewhere

    @property
    def names(self) -> list[str]:
        """The files as they are printed and written."""
        return [shown(name) for name in self.files]


def class_faults(labels: Sequence[str], folder: str | Path) -> list[str]:
    """What keeps these class names, one per image, from being a data set to train on."""
    present = class_order(labels)
    numbers = {name: 0 for name in present}
    for name in labels:
        numbers[name] += 1
    faults = []
    if len(present) == 1:
        faults.append(
            f"a data set needs at least two classes, '{shown(str(folder))}' has one ('{present[0]}'); add a folder for each of the others"
        )
    single = [name for name in present if numbers[name] == 1]
    if single:
        faults.append(f"a class needs at least two images, one image in: {few(single)}; add images or remove the class")
    return faults


def settled(listing: Listing, group: str = "patient") -> Listing:
    """The listing with printable names, one spelling for each class and patient, and parts that are train, val or test. What was done is
    noted; what keeps it from being used is a fault."""
    listing.labels = [shown(seen(name)).strip() for name in listing.labels]
    listing.labels, several = united(listing.labels)
    if several:
        listing.warnings.append(
            f"class names in more than one spelling, each taken as one class: {few(several)}; correct them if they differ"
        )
    karyotype = as_karyotype(listing.labels)
    if odd := [f"{name} = {known}" for name, known in sorted(karyotype.items()) if name != known]:
        listing.labels = [karyotype[name] for name in listing.labels]
        listing.notes.append(f"class names taken as chromosomes: {few(odd)}")
    if words := coded(listing.labels):
        listing.faults.append(words)
    elif words := measured(listing.labels):
        listing.warnings.append(words)
    _chromosomes(listing)
    if dates := [name for name in class_order(listing.labels) if AS_DATE.fullmatch(name)]:
        listing.warnings.append(
            f"class names that are days of a month: {few(dates)}; spreadsheets make them of 1-2, 3/4 and Mar1: write what was meant, and "
            "format the column as text"
        )
    if alike := misspelt(Counter(listing.labels)):
        listing.warnings.append(
            f"class names that differ by a slip of the pen, each a class as they stand: {few(alike)}; give them one name if they are one"
        )
    if listing.patients is not None:
        unknown = [is_missing(name) for name in listing.patients]
        named = [shown(seen(name)).strip() for name, gone in zip(listing.patients, unknown, strict=True) if not gone]
        one, several = united(named)
        rest = iter(one)
        files = listing.names
        listing.patients = [UNKNOWN + files[i] if gone else next(rest) for i, gone in enumerate(unknown)] if one else None
        if group == "patient" and listing.patients is not None:
            _one_patient(listing)
        if several:
            listing.notes.append(f"{group}s in more than one spelling, each taken as one: {few(several)}")
        if any(unknown) and one:
            listing.notes.append(f"{count(sum(unknown))} without a {group}: each counts as a {group} of its own")
    if listing.parts is not None:
        given = [part_of(name) for name in listing.parts]
        names = listing.names
        odd = [f"{names[i]} ({repr(shown(listing.parts[i])) if listing.parts[i] else 'empty'})" for i, part in enumerate(given) if not part]
        if odd:
            listing.faults.append(f"the manifest's split must be train, val or test, {len(odd)} are not: {few(odd)}; correct them")
        listing.parts = given
    return listing


def _one_patient(listing: Listing) -> None:
    """A patient's samples, sites and blocks become one patient where each class keeps several and no split came with them; else they are
    named."""
    assert listing.patients is not None
    owner = one_patient(listing.patients)
    if not owner:
        return
    joined = [owner.get(name, name) for name in listing.patients]
    said = few([f"{name} = {of}" for name, of in sorted(owner.items())], 4)
    of_class = Counter(label for _, label in set(zip(joined, listing.labels, strict=True)))
    if min(of_class.values()) >= FEWEST and listing.parts is None:
        listing.patients = joined
        listing.warnings.append(f"patients called as samples of one are, taken as one: {said}; number them otherwise if they are several")
    else:
        listing.warnings.append(
            f"patients called as samples of one are: {said}; if they are one, a split parts them: give them one name in a column patient"
        )


def _chromosomes(listing: Listing) -> None:
    """A chromosome that is missing among the 24 is named; so are 23 and 24."""
    present = set(listing.labels)
    known = present & set(KARYOTYPE)
    if len(known) >= 18 and (gone := [name for name in KARYOTYPE if name not in present]):
        as_numbers = {"23", "24"} & present
        hint = "; 23 and 24 stand for X and Y in many sets: call them so" if as_numbers else ""
        listing.warnings.append(f"of the karyotype's 24 classes {len(gone)} are missing: {', '.join(gone)}{hint}")


def part_faults(listing: Listing) -> list[str]:
    """What keeps the parts that came with the data from being the split of a study: a part that is missing, a patient in two."""
    if listing.parts is None or not all(listing.parts):
        return []
    faults = []
    gone = [name for name in ("train", "test") if name not in listing.parts]
    if gone:
        has = ", ".join(name for name in PARTS if name in listing.parts)
        faults.append(
            f"a split that comes with the data needs a part for train and one for test, it has {has}; call one of them {gone[0]}, "
            "or drop the split"
        )
    if listing.patients is not None:
        sides: dict[str, set[str]] = {}
        for owner, part in zip(listing.patients, listing.parts, strict=True):
            sides.setdefault(owner, set()).add(part)
        torn = [f"{name} ({', '.join(p for p in PARTS if p in parts)})" for name, parts in sorted(sides.items()) if len(parts) > 1]
        if torn:
            faults.append(
                f"the split that comes with the data: a patient must stand on one side, {count(len(torn), 'patient')} on two: {few(torn)}; "
                f"correct {them(torn)}, or drop the split"
            )
    return faults
