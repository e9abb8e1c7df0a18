"""Lines of a table and the images that they name.
Comes in: the names in a table, the images of a folder. Goes out: pairs; faults for what is left on either side. Exists so that a name in
another spelling finds its image, and none is guessed where two fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainables.data.listing import Listing
from trainables.data.masks import regions, several_regions
from trainables.data.open import SUFFIXES
from trainables.data.table import plain
from trainables.data.words import count, few, is_missing, same, shown, them

SUM = re.compile(r"(?i)(?:grand )?(?:total|sum(?:me)?|gesamt|insgesamt|somme|suma|anzahl|count|mean|average|合计|总计)\b")
MINUS = ("-", "–", "\u2212")


def matched(
    folder: Path, title: str, entries: Sequence[dict[str, str]], found: Sequence[str], listing: Listing
) -> list[tuple[str, dict[str, str]]]:
    """(image, its line) of all lines that name one, and faults for the others. A name is taken as it stands, in another case or Unicode
    form, below further folders (a path of another machine), without its folders or with another ending, where that leaves one image alone;
    of several of one name, the one whose folder its label or its patient is called as."""
    faults = listing.faults
    known, loose, bare = set(found), _unique(found, plain), _unique(found, lambda name: plain(PurePosixPath(name).name))
    without = _unique(found, lambda name: plain(PurePosixPath(name).with_suffix("").as_posix()))  # as spreadsheets name images
    stems = _unique(found, lambda name: plain(PurePosixPath(name).stem))
    names = [raw if (raw := entry["file"]) in known else raw.strip().replace("\\", "/").removeprefix("./") for entry in entries]
    alike: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for image in found:
        alike.setdefault(plain(PurePosixPath(image).name), []).append(image)
        by_stem.setdefault(plain(PurePosixPath(image).stem), []).append(image)
    signs = any(entry["label"].startswith("+") for entry in entries)  # beside these - is negative
    outside: list[str] = []
    below, doubtful = list[str](), list[str]()
    kept: list[tuple[str, dict[str, str]]] = []
    absent, again, nameless, spelt = [], [], [], 0
    seen: set[str] = set()
    for name, entry in zip(names, entries, strict=True):
        word = plain(name)
        image = name if name in known else loose.get(word) or (None if "/" in name else bare.get(word))
        if image is None:
            image = _below(word, loose) or _called_as(alike.get(word, ()), entry)
        if image is None:
            word = plain(PurePosixPath(name).with_suffix("").as_posix()) if name.lower().endswith(SUFFIXES) else word
            image = without.get(word) or (None if "/" in name else stems.get(word))
        spelt += image is not None and image != name
        key = image or name
        if key in seen:
            again.append(name)
            continue
        seen.add(key)
        if image is None and _is_remark(name, entry):
            below.append(name or "(no name)")
        elif image is None and not _is_outside(name) and len(fits := by_stem.get(word.rpartition("/")[2], ())) > 1:
            doubtful.append(f"{name} ({few([shown(i) for i in fits], 2)})")
            seen |= set(fits)
        elif image is None:
            (outside if _is_outside(name) else absent).append(name or "(no name)")
        elif is_missing(entry["label"]) and not (signs and entry["label"] in MINUS) and not _is_folder(entry["label"], image):
            nameless.append(f"{shown(image)} ('{entry['label']}')" if entry["label"] else shown(image))
        else:
            kept.append((image, entry))
    if below:
        faults.append(
            f"{title}: a line names an image with its label, {len(below)} name neither: {few(below)}; a sum or a remark? "
            f"remove {them(below)}"
        )
    if doubtful:
        faults.append(
            f"{title}: a line names one image, {len(doubtful)} fit several: {few(doubtful, 3)}; write the file with its folder and ending"
        )
    if outside:
        faults.append(
            f"{title}: a file is named relative to the folder, {len(outside)} are not: {few(outside)}; write for example class/image.png"
        )
    if spelt:
        listing.notes.append(
            f"{title}: {count(spelt, 'file')} named in another spelling, without the folder, below others or with another "
            "ending, each taken as the one image that fits"
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
            "nan, NA, unknown, - count as none; a class that is called so needs another word, or folders of this name)"
        )
    beside = regions(found)
    if beside and not seen & set(beside):
        listing.warnings.append(f"{several_regions(beside)}; {title} names none of them, and they are passed over")
        seen |= set(beside)
    unnamed = [shown(name) for name in found if name not in seen]
    if unnamed:
        faults.append(
            f"{title} must name every image of the folder, {len(unnamed)} are not in it: {few(unnamed)}; add or remove {them(unnamed)}"
        )
    return kept


def _below(word: str, loose: dict[str, str]) -> str | None:
    """The image whose whole path ends a longer one, as it does in a table that was written on another machine."""
    parts = word.split("/")
    return next((loose[rest] for i in range(1, len(parts)) if (rest := "/".join(parts[i:])) in loose), None)


def _called_as(images: Sequence[str], entry: dict[str, str]) -> str | None:
    """Of images of one name the one that lies in a folder of its line's label, or else of its patient's name."""
    for word in (entry["label"], entry.get("patient", "")):
        within = [image for image in images if word and any(same(word) == same(part) for part in image.split("/")[:-1])]
        if len(within) == 1:
            return within[0]
    return None


def _is_remark(name: str, entry: dict[str, str]) -> bool:
    """Whether a line below the images holds their sum or a remark."""
    alone = not any(cell.strip() for column, cell in entry.items() if column != "file")
    return bool(SUM.match(name)) or (alone and not name.lower().endswith(SUFFIXES))


def _is_outside(name: str) -> bool:
    return name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name.split("/")[0]


def _is_folder(label: str, image: str) -> bool:
    """Whether an image lies in a folder of its label's name: a class that is called None is one."""
    return bool(label) and any(same(label) == same(part) for part in image.split("/")[:-1])


def _unique(names: Sequence[str], key) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """key(name) -> name, of keys that one name alone has."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return {word: of[0] for word, of in found.items() if len(of) == 1}
