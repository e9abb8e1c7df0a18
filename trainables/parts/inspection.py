"""What a folder of images really holds: sizes, polarity, broken files, duplicates, leaks, and what size alone gives away.
Comes in: a folder, or a `Pack`. Goes out: `Findings`, numbers and names without layout. Exists because a score means little
before it is known that no image stands on two sides and how far one gets by measuring the image."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainables.parts.data import (
    PARTS,
    TOLERANCE,
    Pack,
    UnreadableError,
    area_weights,
    blank_fault,
    class_faults,
    class_order,
    count,
    decode,
    few,
    foreground_box,
    groups_of,
    list_folder,
    make_pack,
    pixel_keys,
    split,
    unreadable_fault,
)
from trainables.parts.errors import RequestError
from trainables.parts.machine import cpus

SIDE = 24  # px of the reduced image that near duplicates are compared on
# Correlations above which two images count as near duplicates. Looked at by eye on 4,000 clusters and 14,002 chromosomes (Tseng et al.
# 2023) and 5,474 Q-banded ones (Poletti et al. 2012): all 10 + 37 + 13 pairs above are the same object; the best of different ones had
# 0.983 (G) and 0.9897 (Q) upright, 0.990 turned.
NEAR, NEAR_TURNED = 0.99, 0.992
PART_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test"}


@dataclass(frozen=True)
class NearPair:
    """Two files that show the same thing with other pixels."""

    first: str
    second: str
    correlation: float
    turned: bool  # only after a quarter turn or a mirroring


@dataclass
class Findings:
    """All that `inspect_folder` found. Faults keep the folder from being read; leaks make its scores untrue; warnings do neither."""

    folder: str
    counts: dict[str, int] = field(default_factory=dict)  # images per class
    patients: int | None = None
    sizes: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # width, height, foreground part: minimum, median, maximum
    white: int = 0  # images with a white background
    black: int = 0
    deep: int = 0  # images of more than 8 bits
    unreadable: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, ...]] = field(default_factory=list)  # files with the same pixels
    conflicts: list[tuple[str, ...]] = field(default_factory=list)  # those of them that have two labels: "file (label)"
    near: list[NearPair] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)  # images per part of the split that a study would make
    given_parts: dict[str, int] | None = None  # images per part of the manifest's own split
    size_baseline: dict[str, float] | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults and not self.leaks


@dataclass(frozen=True)
class _Seen:
    height: int
    width: int
    foreground: int
    inverted: bool
    deep: bool
    key: bytes  # equal where size and pixels are equal
    upright: np.ndarray  # float32 (SIDE * SIDE,), mean 0, length 1
    turned: np.ndarray  # the same of the image in the one of its 8 positions that its moments choose
    shape: tuple[int, ...]  # of the foreground's box


def inspect_folder(
    folder: str | Path, fractions: Sequence[float] = (0.6, 0.1, 0.3), seed: int = 0, group: str = "patient", tolerance: int = TOLERANCE
) -> Findings:
    """Everything that can be said about a folder before training. Raises nothing on bad data: faults stand in the findings."""
    found = Findings(str(folder))
    listing = list_folder(folder, group)
    found.faults += [*listing.faults, *class_faults(listing.labels, folder)]
    found.notes += listing.notes
    found.counts = {name: listing.labels.count(name) for name in class_order(listing.labels)}
    found.patients = None if listing.patients is None else len(set(listing.patients))
    with warnings.catch_warnings():  # Pillow warns about metadata, which is not used
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor(min(8, cpus())) as pool:
            results = list(pool.map(lambda name: _look(Path(folder) / name, tolerance), listing.files))
    found.unreadable = [f"{name} ({seen})" for name, seen in zip(listing.files, results, strict=True) if isinstance(seen, str)]
    blank = [name for name, seen in zip(listing.files, results, strict=True) if seen is None]
    found.faults += [*unreadable_fault(found.unreadable), *blank_fault(blank, tolerance)]
    good = [i for i, seen in enumerate(results) if isinstance(seen, _Seen)]
    seen = [result for result in results if isinstance(result, _Seen)]
    if not good:
        return found
    files, labels = [listing.files[i] for i in good], [listing.labels[i] for i in good]
    patients = None if listing.patients is None else [listing.patients[i] for i in good]
    for name, values in (
        ("width", [s.width for s in seen]),
        ("height", [s.height for s in seen]),
        ("foreground", [s.foreground / (s.width * s.height) for s in seen]),
    ):
        found.sizes[name] = (float(min(values)), float(np.median(values)), float(max(values)))
    found.white, found.deep = sum(s.inverted for s in seen), sum(s.deep for s in seen)
    found.black = len(seen) - found.white
    if found.white and found.black:
        few_white = found.white < found.black
        odd = [name for name, s in zip(files, seen, strict=True) if s.inverted == few_white]
        found.warnings.append(f"both backgrounds occur; the {len(odd)} with a {'white' if few_white else 'black'} one: {few(odd)}")

    by_key: dict[bytes, list[int]] = {}
    for i, s in enumerate(seen):
        by_key.setdefault(s.key, []).append(i)
    same = [members for members in by_key.values() if len(members) > 1]
    found.duplicates = [tuple(files[i] for i in members) for members in same]
    found.conflicts = [tuple(f"{files[i]} ({labels[i]})" for i in members) for members in same if len({labels[i] for i in members}) > 1]
    close = _near_pairs([s.upright for s in seen], [s.turned for s in seen], [s.shape for s in seen], [s.key for s in seen])
    found.near = [NearPair(files[i], files[j], value, turned) for i, j, value, turned in close]
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
    pack = make_pack(pictures, [order.index(name) for name in labels], order, files, patients, areas)
    if len(order) > 1 and not found.faults:
        try:
            sides = split(pack, fractions, seed, ties=[(i, j) for i, j, _, _ in close])  # as a study does
        except RequestError as error:
            found.faults += error.faults
        else:
            found.parts = {name: len(indices) for name, indices in sides.items()}
            side = np.empty(len(pack), object)
            for name, indices in sides.items():
                side[indices] = name
            _check_sides("the split that a study makes", side, files, patients, same, close, found)
    if len(order) > 1:
        found.size_baseline = size_baseline(pack)
    if listing.parts is not None:
        given = [listing.parts[i] for i in good]
        unknown = [f"{files[i]} ('{name}')" for i, name in enumerate(given) if name.lower() not in PART_NAMES]
        if unknown:
            found.faults.append(f"the manifest's split must be train, val or test, {len(unknown)} are not: {few(unknown)}; correct them")
        side = np.array([PART_NAMES.get(name.lower(), "") for name in given], object)
        found.given_parts = {name: int((side == name).sum()) for name in PARTS}
        _check_sides("the manifest's split", side, files, patients, same, close, found)
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
                f"{what}: a patient must stand on one side, {count(len(torn), 'patient')} on two: {few(torn)}; split by patient, or drop the column"
            )
    torn = [" = ".join(f"{files[i]} ({side[i]})" for i in members) for members in same if len({side[i] for i in members} - {""}) > 1]
    if torn:
        found.leaks.append(
            f"{what}: equal images must stand on one side, {count(len(torn), 'set')} of them on two: {few(torn, 3)}; keep them on one side or remove one"
        )
    torn = [f"{files[i]} ({side[i]}) ~ {files[j]} ({side[j]})" for i, j, _, _ in close if side[i] != side[j] and side[i] and side[j]]
    if torn:
        found.warnings.append(
            f"{what}: near duplicates on two sides, {count(len(torn), 'pair')}: {few(torn, 3)}; look at them, and give both one patient or remove one"
        )


# -------------------------------------------------------------------------------------------------------------- duplicates


def _look(path: Path, tolerance: int) -> _Seen | str | None:
    """One image; the reason where it cannot be read; None where it is all background."""
    try:
        decoded = decode(path, tolerance)
    except UnreadableError as error:
        return str(error)
    gray = decoded.gray
    foreground = int(np.count_nonzero(gray))
    if not foreground:
        return None
    key = hashlib.blake2b(f"{gray.shape}".encode() + gray.tobytes(), digest_size=16).digest()
    box = _box(gray)
    height, width = gray.shape
    return _Seen(height, width, foreground, decoded.inverted, decoded.deep, key, _reduced(box), _reduced(_turned(box)), box.shape)


def _box(gray: np.ndarray) -> np.ndarray:
    """The smallest part of (h, w) that holds all foreground; (h, w) itself where there is none."""
    rows, columns = np.flatnonzero(gray.any(1)), np.flatnonzero(gray.any(0))
    return gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else gray


def _reduced(box: np.ndarray) -> np.ndarray:
    """(h, w) -> float32 (SIDE * SIDE,) with mean 0 and length 1, so that a dot product is a correlation; all 0 for a flat box."""
    small = area_weights(box.shape[0], SIDE) @ box.astype(np.float32) @ area_weights(box.shape[1], SIDE).T
    small = (small - small.mean()).ravel()
    length = float(np.linalg.norm(small))
    return small / length if length > 1e-3 else np.zeros_like(small)


def _turned(box: np.ndarray) -> np.ndarray:
    """Lying, with its weight to the right and below: the same for the 8 turns and mirrorings, except where the weights nearly balance."""
    box = box.T if box.shape[0] > box.shape[1] else box
    across, down = box.sum(0, dtype=float), box.sum(1, dtype=float)
    if (across * (np.arange(len(across)) - (len(across) - 1) / 2)).sum() < 0:
        box = box[:, ::-1]
    return box[::-1] if (down * (np.arange(len(down)) - (len(down) - 1) / 2)).sum() < 0 else box


def near_duplicates(images: np.ndarray) -> list[tuple[int, int, float, bool]]:
    """(i, j, correlation, turned) of images (N, S, S) on black that show the same without having the same pixels, best first; the pairs are
    what `split` takes as `ties`. See `_near_pairs`."""
    boxes = [_box(np.asarray(image)) for image in images]
    keys = pixel_keys(images)
    return _near_pairs([_reduced(box) for box in boxes], [_reduced(_turned(box)) for box in boxes], [box.shape for box in boxes], keys)


def _near_pairs(
    upright: Sequence[np.ndarray], turned: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]], keys: Sequence[bytes], block: int = 1024
) -> list[tuple[int, int, float, bool]]:
    """Boxes of the foreground, reduced to SIDE x SIDE and correlated, as they stand and in a position chosen by their moments; blind
    to gray level, contrast, padding and scale. The sides of two boxes may differ in proportion by 10 %. Of exact duplicates (equal keys)
    only the first takes part. Time: N^2 / 2 dot products, 3 s on one core for 14,002 images."""
    chosen = np.array(sorted({key: i for i, key in reversed(list(enumerate(keys)))}.values()), np.int64)
    tall = np.log([shapes[i][0] / shapes[i][1] for i in chosen])
    pairs: dict[tuple[int, int], tuple[float, bool]] = {}
    for reduced, shape, least, is_turned in ((upright, tall, NEAR, False), (turned, np.abs(tall), NEAR_TURNED, True)):
        rows = np.stack([reduced[i] for i in chosen])
        for start in range(0, len(rows), block):
            a, b = np.nonzero(rows[start : start + block] @ rows[start:].T >= least)
            a, b = a[a < b] + start, b[a < b] + start
            close = np.abs(shape[a] - shape[b]) < 0.1
            for i, j in zip(a[close], b[close], strict=True):
                pairs.setdefault((int(chosen[i]), int(chosen[j])), (min(1.0, float(rows[i] @ rows[j])), is_turned))
    return sorted(((i, j, value, is_turned) for (i, j), (value, is_turned) in pairs.items()), key=lambda pair: (-pair[2], pair[:2]))


# ----------------------------------------------------------------------------------------------------------- size baseline


def size_baseline(pack: Pack, folds: int = 5, seed: int = 0) -> dict[str, float] | None:
    """How well size alone tells the class: {"accuracy", "low", "high", "folds"}, fractions; None where a class has too few groups to divide.

    Logistic regression on log image area, log foreground area, their squares and product, cross-validated with patients and duplicates
    on one side. low, high: 95 % interval of the mean over groups as clusters (ratio estimator, Cochran 1977, with t of G - 1)."""
    import scipy.stats  # here: more than a second, which a command that knows the answer can do without
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    held = np.unique(pack.labels)
    groups = groups_of(pack)
    folds = min(folds, *(min(int((pack.labels == c).sum()), len(np.unique(groups[pack.labels == c]))) for c in held))
    if folds < 2 or len(held) < 2:
        return None
    features = np.log(np.maximum(pack.areas, 1))
    right = np.zeros(len(pack))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, pack.labels, groups):
        if not len(test):
            continue
        if len(np.unique(pack.labels[train])) == 1:  # a fold took all of the other classes
            right[test] = pack.labels[test] == pack.labels[train[0]]
            continue
        model = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), LogisticRegression(C=10.0, max_iter=2000))
        right[test] = model.fit(features[train], pack.labels[train]).predict(features[test]) == pack.labels[test]
    accuracy = float(right.mean())
    hits, sizes = np.bincount(groups, right), np.bincount(groups)
    clusters = len(sizes)
    error = float(np.sqrt(clusters / (clusters - 1) * ((hits - accuracy * sizes) ** 2).sum())) / len(pack)
    reach = float(scipy.stats.t.ppf(0.975, clusters - 1)) * error
    return {"accuracy": accuracy, "low": max(0.0, accuracy - reach), "high": min(1.0, accuracy + reach), "folds": folds}


def shared_files(one: str | Path, other: str | Path) -> str:
    """How many images stand in both folders, in words; '' where none does. Compared as decoded, polarity undone and frames cut off, before
    anything is scaled: two sets may be scaled by different factors."""
    found = []
    for folder in (Path(one), Path(other)):
        files = list_folder(folder).files
        with warnings.catch_warnings(), ThreadPoolExecutor(min(8, cpus())) as pool:
            warnings.simplefilter("ignore")  # Pillow's, about metadata
            keys = list(pool.map(_foreground_key, [folder / name for name in files]))
        found.append({key: name for key, name in zip(keys, files, strict=True) if key})
    both = [(found[0][key], name) for key, name in found[1].items() if key in found[0]]
    return f"{count(len(both))} in both sets: {few([f'{mine} = {theirs}' for mine, theirs in both], 3)}" if both else ""


def _foreground_key(path: Path) -> bytes:
    """16 bytes, equal where the foreground is; empty for an image without any, or one that cannot be read."""
    try:
        gray = foreground_box(decode(path).gray)
    except UnreadableError:
        return b""
    head = f"{gray.shape}".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(gray).tobytes(), digest_size=16).digest() if gray.any() else b""


def shared_images(one: Pack, other: Pack) -> str:
    """How many images stand in both sets, pixel by pixel, in words; '' where none does. An image without any foreground does not count."""
    mine = {key: file for key, file, image in zip(pixel_keys(one.images), one.files, one.images, strict=True) if image.any()}
    both = [(mine[key], file) for key, file in zip(pixel_keys(other.images), other.files, strict=True) if key in mine]
    return f"{count(len(both))} in both sets: {few([f'{mine} = {theirs}' for mine, theirs in both], 3)}" if both else ""
