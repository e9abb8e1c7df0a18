"""What a folder says before a pixel is read: files, classes, patients, parts.
Comes in: names. Goes out: a `Listing`, and what keeps its classes from being a data set. Exists so that a folder per class and a manifest give one thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.data.words import few

MANIFEST = "manifest.csv"


def class_faults(labels: Sequence[str], folder: str | Path) -> list[str]:
    """What keeps these class names, one per image, from being a data set to train on."""
    present = class_order(labels)
    faults = []
    if len(present) == 1:
        faults.append(f"a data set needs at least two classes, '{folder}' has one ('{present[0]}'); add a folder for each of the others")
    single = [name for name in present if list(labels).count(name) == 1]
    if single:
        faults.append(f"a class needs at least two images, one image in: {few(single)}; add images or remove the class")
    return faults


@dataclass(frozen=True)
class Listing:
    """What a folder says before a pixel is read."""

    files: list[str]
    labels: list[str]  # class names
    patients: list[str] | None
    parts: list[str] | None  # the manifest's `split` column, as written
    columns: list[str]
    notes: list[str]
    faults: list[str]


def class_order(names: Iterable[str]) -> list[str]:
    """Numbers by value, then names: 1 .. 22, X, Y."""
    return sorted(set(names), key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
