"""manifest.csv: a table that says more of the images than the folders do.
Comes in: the table and the images that are there. Goes out: a `Listing`. Exists so that patients and corrected labels come in by one door."""

from __future__ import annotations

import csv
import difflib
from pathlib import Path, PurePosixPath

from trainables.data.listing import MANIFEST, Listing, class_order
from trainables.data.open import SUFFIXES
from trainables.data.words import count, few, them


def from_manifest(manifest: Path, found: list[str], group: str) -> Listing:
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
            f"{MANIFEST} needs the columns file and label, {' and '.join(missing)} missing among {', '.join(columns)}; rename or add {them(missing)}"
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
            f"{MANIFEST}: every line must have {len(columns)} cells, {len(ragged)} have not: line {few(ragged)}; correct {them(ragged)}"
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
            f"{MANIFEST} must name every image of the folder, {len(unnamed)} are not in it: {few(unnamed)}; add or remove {them(unnamed)}"
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
