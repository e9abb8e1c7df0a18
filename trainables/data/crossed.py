"""Views of one object by how their names cross, whatever a microscope's program calls them.
Comes in: names of images and their classes. Goes out: the rest of each name beside the view. Exists because no list of channels and planes
is whole, and what every object has, w1, w2 and w3, tells a view from an object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from trainables.data.mixed_names import MARKER, STAIN

MOST_VIEWS = 4
TIMES_AS_MANY = 2  # objects of a class as views
MISSING = 0.1  # of the objects, of which a view may be gone
_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_SHOWN = re.compile(rf"(?:{STAIN}|{MARKER})", re.IGNORECASE)
_RUNS = re.compile(rf"(?<![^\W_]){_SHOWN.pattern}(?![^\W_])|[^\W\d_]+|\d+|[\W_]+", re.IGNORECASE)
_IN_THE_MIDDLE = {"channel", "ch", "c", "kanal", "w", "wavelength", "t", "time", "z", "plane", "slice"}


def crossed(files: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The rest of each name, equal for the views of one object: where one place of all names has a few values, of which every other part
    of the names has each. It names stains, or is the last place that differs, or stands behind a word for channels. [] where there is
    none."""
    folders = [PurePosixPath(name).parent.as_posix() for name in files]
    runs = [_RUNS.findall(_GUID.sub("", PurePosixPath(name).stem)) for name in files]
    if len({tuple(_kind(run) for run in name) for name in runs}) != 1:
        return []
    alike = _alike(runs, labels)
    stains = [same for same in alike if any(all(_SHOWN.fullmatch(name[i]) for name in runs) for i in same)]
    for places in stains + alike[-1:] + [same for same in alike[:-1] if all(_before(name, same[0]) in _IN_THE_MIDDLE for name in runs)]:
        rests = [
            "/".join([folder, "".join(run for i, run in enumerate(name) if i not in places)])
            for folder, name in zip(folders, runs, strict=True)
        ]
        views = [tuple(name[i] for i in places) for name in runs]
        if _crosses(views, rests, labels):
            return rests
    return []


def _kind(run: str) -> str:
    return "0" if run.isdecimal() else "a" if run.isalpha() or _SHOWN.fullmatch(run) else run


def _before(name: Sequence[str], place: int) -> str:
    return name[place - 1].casefold() if place else ""


def _alike(runs: Sequence[Sequence[str]], labels: Sequence[str]) -> list[list[int]]:
    """The places that differ within a class, those together that differ as one: A01 and C01, A02 and C02."""
    found: list[list[int]] = []
    for i in range(len(runs[0])):
        column = [name[i] for name in runs]
        if len(set(zip(column, labels, strict=True))) == len(set(labels)):
            continue
        for places in found:
            other = [runs_[places[0]] for runs_ in runs]
            if len(set(zip(column, other, strict=True))) == len(set(column)) == len(set(other)):
                places.append(i)
                break
        else:
            found.append([i])
    return found


def _crosses(views: Sequence[tuple[str, ...]], rests: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether nearly each object of each class has each view, once."""
    kinds, objects = set(views), {(rest, label) for rest, label in zip(rests, labels, strict=True)}
    if not 2 <= len(kinds) <= MOST_VIEWS or len(set(zip(views, rests, labels, strict=True))) < len(views):
        return False
    of_class = {label: sum(own == label for _, own in objects) for label in set(labels)}
    return len(views) >= (1 - MISSING) * len(kinds) * len(objects) and min(of_class.values()) >= TIMES_AS_MANY * len(kinds)
