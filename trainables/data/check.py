"""What a folder of images really holds: sizes, polarity, broken files, duplicates, leaks, and what size alone gives away.
Comes in: a folder. Goes out: `Findings`, numbers and names without layout. Exists so that a score means little before it is known that no
image stands on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data.burnt import Mark
from trainables.data.copies import NearPair, ties_of
from trainables.data.equals import copied_classes, equal_sets, with_two_labels
from trainables.data.find import list_folder
from trainables.data.given_away import given_away
from trainables.data.ground import TOLERANCE
from trainables.data.listing import Listing, class_faults
from trainables.data.look import Seen, look, near
from trainables.data.open import blank_fault, unreadable_fault
from trainables.data.pack import make_pack
from trainables.data.read import said_of
from trainables.data.readers import each
from trainables.data.size import size_baseline
from trainables.data.split import given_split, split
from trainables.data.words import PARTS, class_order, count, few, shown
from trainables.parts.errors import RequestError

LARGER = 50  # times the area: objects of one kind under one lens differ by less
DOUBLED = 0.2  # of the images, above which copies are no accident


@dataclass
class Findings:
    """All that `inspect_folder` found. Faults keep the folder from being read; leaks make its scores untrue; warnings do neither."""

    folder: str
    counts: dict[str, int] = field(default_factory=dict)  # images per class
    patients: int | None = None
    sizes: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # width, height, foreground part: minimum, median, maximum
    levels: list[str] = field(default_factory=list)  # what was taken as class, patient and part, a line each
    listing: Listing | None = None
    place: str = ""  # the folder, as the system calls it
    class_sizes: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)  # width, height, foreground in pixels
    white: int = 0  # images with a white background
    black: int = 0
    deep: int = 0  # images of more than 8 bits
    unreadable: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)  # files whose ground is unsure
    duplicates: list[tuple[str, ...]] = field(default_factory=list)  # files with the same pixels
    conflicts: list[tuple[str, ...]] = field(default_factory=list)  # those of them that have two labels: "file (label)"
    near: list[NearPair] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)  # images per part of the split that a study would make
    given_parts: dict[str, int] | None = None  # images per part of the manifest's own split
    size_baseline: dict[str, float] | None = None
    marks: list[Mark] = field(default_factory=list)  # what is burnt into the images of one class
    read: list[str] = field(default_factory=list)  # files that show an object, in the order that marks count them
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults and not self.leaks


def inspect_folder(
    folder: str | Path,
    fractions: Sequence[float] = (0.6, 0.1, 0.3),
    seed: int = 0,
    group: str = "patient",
    tolerance: int = TOLERANCE,
    layout: str = "",
) -> Findings:
    """Everything that can be said about a folder before training. Raises nothing on bad data: faults stand in the findings. layout: see
    `list_folder`."""
    found = Findings(shown(str(folder)))
    listing = list_folder(folder, group, layout)
    found.listing, found.levels, found.place = listing, listing.levels, str(folder)
    found.faults += [*listing.faults, *(class_faults(listing.labels, folder) if listing.files else [])]
    found.warnings += listing.warnings
    found.notes += listing.notes
    found.counts = dict.fromkeys(class_order(listing.labels), 0)
    for name in listing.labels:
        found.counts[name] += 1
    found.patients = None if listing.patients is None else len(set(listing.patients))
    results = list(each(partial(look, tolerance=tolerance), [Path(folder) / name for name in listing.files]))
    names = listing.names
    broken = [(name, seen) for name, seen in zip(names, results, strict=True) if isinstance(seen, str)]
    found.unreadable = [f"{name} ({reason})" for name, reason in broken]
    blank = [name for name, seen in zip(names, results, strict=True) if seen is None]
    found.faults += [*unreadable_fault(broken), *blank_fault(blank, tolerance)]
    good = [i for i, seen in enumerate(results) if isinstance(seen, Seen)]
    seen = [result for result in results if isinstance(result, Seen)]
    if not good:
        return found
    files, labels = [names[i] for i in good], [listing.labels[i] for i in good]
    patients = None if listing.patients is None else [listing.patients[i] for i in good]
    for name, values in (
        ("width", [s.width for s in seen]),
        ("height", [s.height for s in seen]),
        ("foreground", [s.foreground / (s.width * s.height) for s in seen]),
    ):
        found.sizes[name] = (float(min(values)), float(np.median(values)), float(max(values)))
    for name in found.counts:
        own = [s for s, label in zip(seen, labels, strict=True) if label == name]
        columns = ([s.width for s in own], [s.height for s in own], [s.foreground for s in own])
        found.class_sizes[name] = [(float(min(v)), float(np.median(v)), float(max(v))) for v in columns if v]
    found.white, found.deep = sum(s.said.inverted for s in seen), sum(s.said.deep for s in seen)
    found.black = len(seen) - found.white
    found.unsure = [name for name, s in zip(files, seen, strict=True) if s.said.unsure]
    for words in said_of(dict(zip(files, [s.said for s in seen], strict=True))):
        (found.notes if "more than 8 bits" in words and "differ" not in words else found.warnings).append(words)
    middle = float(np.median([s.width * s.height for s in seen]))
    if large := [name for name, s in zip(files, seen, strict=True) if s.width * s.height > LARGER * middle]:
        found.warnings.append(
            f"{count(len(large))} more than {LARGER} times as large as the middle one: {few(large, 3)}; an overview among crops? "
            "move it away"
        )
    if found.white and found.black:
        few_white = found.white < found.black
        odd = [name for name, s in zip(files, seen, strict=True) if s.said.inverted == few_white]
        found.warnings.append(f"both backgrounds occur; the {len(odd)} with a {'white' if few_white else 'black'} one: {few(odd)}")

    same = equal_sets([s.key for s in seen])
    found.duplicates = [tuple(files[i] for i in members) for members in same]
    found.conflicts = with_two_labels(same, files, labels)
    found.faults += copied_classes(same, labels)
    close = near(seen, files)
    found.near = [NearPair(files[i], files[j], value, turned) for i, j, value, turned in close]
    doubled = {name for members in found.duplicates for name in members[1:]} | {pair.second for pair in found.near}
    if len(doubled) > DOUBLED * len(seen):
        found.warnings.append(
            f"{count(len(doubled))} of {len(seen):,} are copies of others: augmented before, or saved twice in two formats? each "
            "object counts as "
            "often as it has copies; keep the originals alone, the training makes views of its own"
        )
    if patients is not None:
        across = [members for members in same if len({patients[i] for i in members}) > 1]
        if across:
            found.warnings.append(
                f"the same image under two patients, {len(across)} times: {few([' = '.join(files[i] for i in m) for m in across], 3)}; "
                "these patients stay on one side of the split"
            )
    odd = [f"{files[i]} ({labels[i]}) ~ {files[j]} ({labels[j]})" for i, j, _, _ in close if labels[i] != labels[j]]
    if odd:
        found.warnings.append(f"near duplicates with two labels, {len(odd)}: {few(odd, 3)}")

    # The pixel keys stand for the images: the split asks only which are equal.
    pictures = np.array([np.frombuffer(s.key, np.uint8) for s in seen]).reshape(-1, 4, 4)
    areas = np.array([[s.width * s.height, s.foreground] for s in seen], float)
    order = class_order(labels)
    given = None if listing.parts is None or not all(listing.parts) else [listing.parts[i] for i in good]
    pack = make_pack(pictures, [order.index(name) for name in labels], order, files, patients, areas, parts=given)
    place = {index: i for i, index in enumerate(good)}
    series = [(place[i], place[j]) for i, j in listing.series if i in place and j in place]
    looks = {i: (s.frame, s.said.traits) for i, s in enumerate(seen)}
    told = given_away(pack, looks, before=series, after=ties_of(close, patients))
    pack, found.marks, found.read = told.pack, told.marks, files
    found.warnings += told.words
    if listing.parts is not None:
        found.given_parts = {name: listing.parts.count(name) for name in PARTS}
        side = np.array([listing.parts[i] for i in good], object)
        _check_sides("the split that comes with the data", side, files, patients, same, close, found)
        torn = [f"{files[i]} ({side[i]}) ~ {files[j]} ({side[j]})" for i, j in told.fields if side[i] != side[j]]
        if torn:
            found.warnings.append(
                f"the split that comes with the data: parts of one field on two sides, {count(len(torn), 'pair')}: {few(torn, 3)}; "
                "what they share is learned and tested: split by slide or field"
            )
    if len(order) > 1 and not found.faults:
        try:
            sides = given_split(pack, fractions, seed) if given else split(pack, fractions, seed)
        except RequestError as error:
            found.faults += error.faults
        else:  # as a study does
            found.parts = {name: len(indices) for name, indices in sides.items()}
            side = np.empty(len(pack), object)
            for name, indices in sides.items():
                side[indices] = name
            if not given:
                _check_sides("the split that a study makes", side, files, patients, same, close, found)
    if len(order) > 1:
        found.size_baseline = size_baseline(pack)
    return found


def _check_sides(
    what: str,
    side: np.ndarray,
    files: Sequence[str],
    patients: Sequence[str] | None,
    same: list[list[int]],
    close: list[tuple[int, int, float, bool]],
    found: Findings,
) -> None:
    """Adds leaks (patients, equal pixels) and warnings (near duplicates) of one split to `found`. side (N,): name of the part or ""."""
    if patients is not None:
        sides_of: dict[str, set[str]] = {}
        for name, part in zip(patients, side, strict=True):
            sides_of.setdefault(name, set()).update({part} - {""})
        torn = [f"{name} ({', '.join(p for p in PARTS if p in parts)})" for name, parts in sides_of.items() if len(parts) > 1]
        if torn:
            found.leaks.append(
                f"{what}: a patient must stand on one side, {count(len(torn), 'patient')} on two: {few(torn)}; split by patient, "
                "or drop the column"
            )
    torn = [" = ".join(f"{files[i]} ({side[i]})" for i in members) for members in same if len({side[i] for i in members} - {""}) > 1]
    if torn:
        found.leaks.append(
            f"{what}: equal images must stand on one side, {count(len(torn), 'set')} of them on two: {few(torn, 3)}; keep them on "
            "one side or remove one"
        )
    torn = [f"{files[i]} ({side[i]}) ~ {files[j]} ({side[j]})" for i, j, _, _ in close if side[i] != side[j] and side[i] and side[j]]
    if torn:
        found.warnings.append(
            f"{what}: near duplicates on two sides, {count(len(torn), 'pair')}: {few(torn, 3)}; look at them, and give both one "
            "patient or remove one"
        )
