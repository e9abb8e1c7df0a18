"""Annotations beside single images that say another class than the folder or the table.
Comes in: a folder, its other files, a `Listing`. Goes out: a warning. Exists because whoever corrected a label in an annotation program has
not moved the image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainables.data.listing import Listing
from trainables.data.words import count, few, same, shown

SAID = {  # the names of objects in a file of Pascal VOC's and of LabelMe's form
    ".xml": re.compile(rb"<object>.*?<name>\s*([^<]*?)\s*</name>", re.DOTALL),
    ".json": re.compile(rb'"label"\s*:\s*"([^"]*)"'),
}
LOOKED_INTO = 1 << 18  # bytes


def contradicted(folder: Path, others: Sequence[str], listing: Listing) -> list[str]:
    """The warning of annotation files, one an image and called as it is, whose objects are all of one class and not of the image's."""
    files = [name for name in others if PurePosixPath(name).suffix.lower() in SAID]
    if not files:
        return []
    own: dict[str, list[int]] = {}
    for i, name in enumerate(listing.files):
        own.setdefault(PurePosixPath(name).stem.casefold(), []).append(i)
    classes = {same(label) for label in listing.labels}
    wrong: list[str] = []
    for name in files:
        path = PurePosixPath(name)
        found = own.get(path.stem.casefold(), [])
        beside = [i for i in found if PurePosixPath(listing.files[i]).parent == path.parent] or found
        if len(beside) != 1:
            continue
        try:
            with (folder / name).open("rb") as stream:
                words = {word.decode("utf-8", "replace") for word in SAID[path.suffix.lower()].findall(stream.read(LOOKED_INTO))}
        except OSError:
            continue
        label = listing.labels[beside[0]]
        if len(words) == 1 and (said := same(word := words.pop())) in classes and said != same(label):
            wrong.append(f"{shown(name)} ({shown(word)}, taken as {label})")
    if not wrong:
        return []
    return [f"{count(len(wrong), 'annotation file')} of another class than was taken: {few(wrong, 3)}; correct the one or the other"]
