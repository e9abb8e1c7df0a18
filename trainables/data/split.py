"""Train, validation and test without a patient or a copy on two sides.
Comes in: a `Pack`. Goes out: index arrays. Exists so that no score is better than it is because an image was seen before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from trainables.data.pack import Pack
from trainables.data.words import PARTS, count, few
from trainables.parts.errors import RequestError

NAMED = 3  # classes that parts lack, above which they are said in one sentence


def groups_of(pack: Pack, ties: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """int64 (N,): equal numbers must stay on one side: images of one patient, exact duplicates, pairs of the pack's `ties` and of `ties`,
    and what these connect."""
    parent = list(range(len(pack)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    pixels: dict[bytes, int] = {}
    for i, key in enumerate(pack.keys):
        parent[root(i)] = root(pixels.setdefault(key, i))
    owners: dict[str, int] = {}
    for i, owner in enumerate(pack.patients or ()):
        parent[root(i)] = root(owners.setdefault(owner, i))
    for i, j in (*pack.ties, *ties):
        parent[root(i)] = root(j)
    return np.unique([root(i) for i in range(len(pack))], return_inverse=True)[1].astype(np.int64)


def split(
    pack: Pack, fractions: Sequence[float] = (0.6, 0.1, 0.3), seed: int = 0, ties: Iterable[tuple[int, int]] = ()
) -> dict[str, np.ndarray]:
    """{"train", "val", "test"} -> sorted int64 indices; each image in exactly one part, no group (see `groups_of`) in two.
    ties: further pairs to keep on one side, such as near duplicates.

    Groups are dealt from large to small, equal ones in an order drawn from `seed`, each to the part where it lowers most
    sum over parts and classes of (images - wanted)^2 / wanted; for groups of one image this is Webster's apportionment. Then single
    groups are moved as long as that sum falls or a class that a part lacks is gained. RequestError where a class stays out of a part."""
    wanted = np.asarray(fractions, dtype=np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or (wanted < 0).any() or abs(wanted.sum() - 1) > 1e-6 or wanted[0] == 0:
        raise RequestError(
            f"fractions must be three numbers for {', '.join(PARTS)} with sum 1 and train above 0, got {tuple(fractions)}; for "
            "example 0.6, 0.1, 0.3"
        )
    groups = groups_of(pack, ties)
    held = np.flatnonzero(np.bincount(pack.labels, minlength=len(pack.classes)))  # an expected class without images asks for nothing
    column = np.searchsorted(held, pack.labels)
    table = np.zeros((groups.max() + 1 if len(groups) else 0, len(held)))  # (G, C) images of a class in a group
    np.add.at(table, (groups, column), 1)
    asked = np.flatnonzero(wanted > 0)
    target = wanted[asked, None] * table.sum(0)  # (P, C)
    order = np.random.default_rng(seed).permutation(len(table))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]
    have, part = np.zeros_like(target), np.full(len(table), -1)
    for g in order:
        part[g] = int(np.argmin((((2 * (have - target) + table[g]) * table[g]) / target).sum(1)))
        have[part[g]] += table[g]
    lacking = float(len(pack) + 1) ** 2  # dearer than any sum of squares can be
    for _ in range(20):
        moved = False
        for g in order:
            row, home = table[g], part[g]
            without = have.copy()
            without[home] -= row
            cost = ((2 * (without - target) + row) * row / target).sum(1) - lacking * ((without == 0) & (row > 0)).sum(1)
            best = int(np.argmin(cost))
            if cost[best] < cost[home] - 1e-9:
                part[g], moved = best, True
                without[best] += row
                have = without
        if not moved:
            break
    if lacks := {c: [PARTS[asked[p]] for p in range(len(asked)) if have[p, c] == 0] for c in np.flatnonzero((have == 0).any(0))}:
        raise RequestError(*_lacking({pack.classes[held[c]]: (parts, table[:, c]) for c, parts in lacks.items()}, len(held)))
    result = {name: np.zeros(0, np.int64) for name in PARTS}
    for p, which in enumerate(asked):
        result[PARTS[which]] = np.flatnonzero(part[groups] == p).astype(np.int64)
    return result


def _lacking(lacks: Mapping[str, tuple[list[str], np.ndarray]], classes: int) -> list[str]:
    """The faults of classes that parts lack: by class the parts, and its images in each group."""
    rule = "every part needs an image of every class,"
    if len(lacks) > NAMED:
        gone = {part for parts, _ in lacks.values() for part in parts}
        said = few([f"{name} ({count(int(own.sum()))})" for name, (_, own) in lacks.items()])
        return [
            f"{rule} {len(lacks)} of {classes} classes are missing in {' or '.join(part for part in PARTS if part in gone)}: {said}; add "
            "images of other patients, leave these classes out, or change the fractions"
        ]
    return [
        f"{rule} class '{name}' is missing in {' and '.join(parts)} "
        f"({count(int(own.sum()))} in {count(np.count_nonzero(own), 'group')} of patient or duplicate); add images or change the fractions"
        for name, (parts, own) in lacks.items()
    ]


def given_split(pack: Pack, fractions: Sequence[float], seed: int = 0) -> dict[str, np.ndarray]:
    """The split that came with the data, `pack.parts`. Without a part for validation, that is drawn from train as `split` draws, in the
    proportion of `fractions`. RequestError where a class stays out of a part."""
    assert pack.parts is not None
    given = np.array(pack.parts)
    result = {name: np.flatnonzero(given == name).astype(np.int64) for name in PARTS}
    if not len(result["val"]):
        train, val = fractions[0], fractions[1]
        chosen = result["train"]
        place = {int(index): i for i, index in enumerate(chosen)}
        part = replace(
            pack,
            images=pack.images[chosen],
            labels=pack.labels[chosen],
            patients=None if pack.patients is None else tuple(pack.patients[i] for i in chosen),
            ties=tuple((place[i], place[j]) for i, j in pack.ties if i in place and j in place),
        )
        drawn = split(part, (train / (train + val), val / (train + val), 0.0), seed)
        result["train"], result["val"] = chosen[drawn["train"]], chosen[drawn["val"]]
    held = np.unique(pack.labels)
    lacks = [f"{pack.classes[c]} in {name}" for name in PARTS for c in held if not (pack.labels[result[name]] == c).any()]
    if lacks:
        raise RequestError(
            f"every part needs an image of every class, the split that comes with the data has none of {', '.join(lacks[:8])}; "
            "correct or drop it"
        )
    return result
