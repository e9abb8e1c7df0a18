"""Every test image by arm and seed: which ones no run gets right, which ones one arm gets right and another does not. In: a Study. Out: `Ledger`,
None where no two runs kept predictions of the same images.

An image that every run of every arm gets wrong is a doubt about its label, or a hard image: a person decides. What leaving such images out does to
the arms is told as what it is: they were chosen by the arms' own mistakes."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import artefacts
from analysis.beside import class_names
from analysis.pictures import TILE, thumbnails
from analysis.study import Study, mapping, plural, text_of
from analysis.study import listed as rows

_CODES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # one sign for a class: a run of 1,000 images is 1 kB
_MOST = 600_000  # predictions in the page, 0.6 MB; more, and only the first seeds are shown
_PICTURES = 192
DATA = 16  # digits of the data's hash in relabelling.csv
_LISTED = 8  # doubts that are listed where the page's script does not run


@dataclass(frozen=True)
class Ledger:
    """index (n,): into the pack; truth (n,): class; said (runs, n): class that a run gives. Runs by arm, then seed; `baseline` and `winner` are
    numbers of arms, -1 for none. sure (n,): confidence of the winner's best run."""

    index: np.ndarray
    truth: np.ndarray
    said: np.ndarray
    arms: tuple[str, ...]
    hashes: tuple[str, ...]
    of: tuple[tuple[int, int, str], ...]  # of each run: arm, seed, key
    sure: np.ndarray
    names: tuple[str, ...]
    files: tuple[str, ...]
    patients: tuple[str, ...]
    baseline: int
    winner: int
    left_out: int  # runs that are not shown

    @property
    def right(self) -> np.ndarray:
        """(runs, n)"""
        return np.asarray(self.said == self.truth)

    @property
    def doubts(self) -> np.ndarray:
        """Places of the images that no run gets right."""
        return np.flatnonzero(~self.right.any(axis=0))

    def share(self, arm: int) -> np.ndarray:
        """(n,) share of the arm's seeds that get an image right."""
        return np.asarray(self.right[[i for i, run in enumerate(self.of) if run[0] == arm]].mean(axis=0))

    def won(self, arm: int, other: int) -> np.ndarray:
        """Places of the images that most seeds of an arm get right and most of the other do not."""
        return np.flatnonzero((self.share(arm) > 0.5) & (self.share(other) < 0.5))


def ledger(study: Study) -> Ledger | None:
    """Of the test part: the completed runs of the arms of all tables and of the winner, as far as they were judged on the same images."""
    named: dict[str, str] = {}
    winner = study.winner
    for table in study.tables:
        for arm in table.arms:
            named.setdefault(arm.config_hash, arm.name)
    if winner is not None:
        named.setdefault(winner.config_hash, winner.name)
    found: list[tuple[int, int, str, artefacts.Predictions]] = []
    rows = study.usable[(study.usable["status"] == "completed") & study.usable["seed"].isin(study.seeds)]
    arms = [h for h in named if (rows["config_hash"] == h).any()]
    for number, config_hash in enumerate(arms):
        own = rows[rows["config_hash"] == config_hash].drop_duplicates("seed").sort_values("seed")
        for seed, key in zip(own["seed"], own["key"], strict=True):
            try:
                given = artefacts.predictions(study, str(key))
            except artefacts.Damaged:
                continue  # said where the winner's predictions are read
            if given is not None and given.index.min() >= 0 and given.probability.shape[1] <= len(_CODES):
                found.append((number, int(seed), str(key), given))
    first = next((g for *_, key, g in found if winner is not None and key == winner.key), found[0][-1] if found else None)
    if first is None:
        return None
    same = [run for run in found if np.array_equal(run[-1].index, first.index) and np.array_equal(run[-1].label, first.label)]
    kept = _fitting(same, len(first.index))
    by = {number: i for i, number in enumerate(dict.fromkeys(run[0] for run in kept))}
    hashes = tuple(arms[number] for number in by)
    try:
        files, patients = artefacts.files(study), artefacts.patients(study)
    except artefacts.Damaged:
        files, patients = (), ()
    index = first.index.tolist()
    base = next((a.config_hash for t in study.tables for a in t.arms if a.name == t.baseline_arm and t.number != "search"), "")
    return Ledger(
        first.index, first.label, np.stack([run[-1].predicted for run in kept]), tuple(named[h] for h in hashes), hashes,
        tuple((by[number], seed, key) for number, seed, key, _ in kept), first.confidence,
        class_names(study, first.probability.shape[1]),
        tuple(files[i] if 0 <= i < len(files) else f"image {i}" for i in index),
        tuple(patients[i] if 0 <= i < len(patients) else "" for i in index),
        hashes.index(base) if base in hashes else -1,
        hashes.index(winner.config_hash) if winner is not None and winner.config_hash in hashes else -1,
        len(found) - len(kept),
    )  # fmt: skip


def _fitting(runs: list[tuple[int, int, str, artefacts.Predictions]], images: int) -> list[tuple[int, int, str, artefacts.Predictions]]:
    """As many as the page can hold: of each arm its first seeds first."""
    place: Counter[int] = Counter()
    order = []
    for run in runs:
        order.append((place[run[0]], run))
        place[run[0]] += 1
    most = max(1, _MOST // max(1, images))
    kept = [run for _, run in sorted(order, key=lambda pair: pair[0])[:most]]
    return sorted(kept, key=lambda run: run[:2])


@dataclass(frozen=True)
class Group:
    """A class or a patient: its images, those that no run gets right, and those that the winner wins over the baseline arm and loses to it."""

    name: str
    images: int
    doubts: int
    wins: int
    losses: int


def groups(found: Ledger, names: Sequence[str], most: int = 0) -> tuple[Group, ...]:
    """names: of each image its class or patient, '' for none. most: only so many, those with most doubts first; 0: all, in the order of names."""
    wins, losses = (
        (
            Counter(names[i] for i in found.won(found.winner, found.baseline)),
            Counter(names[i] for i in found.won(found.baseline, found.winner)),
        )
        if compared(found)
        else (Counter[str](), Counter[str]())
    )
    doubts = Counter(names[i] for i in found.doubts)
    rows = [Group(name, count, doubts[name], wins[name], losses[name]) for name, count in Counter(filter(None, names)).items()]
    return tuple(sorted(rows, key=lambda g: (-g.doubts, -g.doubts / g.images, g.name))[:most]) if most else tuple(rows)


def compared(found: Ledger) -> bool:
    """Whether there is a winner beside the baseline arm."""
    return found.baseline >= 0 and found.winner >= 0 and found.baseline != found.winner


def effect(found: Ledger, without: np.ndarray) -> tuple[tuple[str, float, float, float, float], ...]:
    """Of each arm its accuracy with all images and without some, and the same of its gain over the baseline arm over common seeds, per cent.
    without: places."""
    left = np.setdiff1d(np.arange(len(found.truth)), without)
    every, rest = (
        100 * found.right[:, some].mean(axis=1) if len(some) else np.full(len(found.of), math.nan)
        for some in (np.arange(len(found.truth)), left)
    )
    by = [{seed: i for i, (arm, seed, _) in enumerate(found.of) if arm == number} for number in range(len(found.arms))]
    out = []
    for number, name in enumerate(found.arms):
        common = sorted(by[number].keys() & by[found.baseline].keys()) if found.baseline >= 0 and number != found.baseline else []
        gains = [
            float(np.mean([v[by[number][s]] - v[by[found.baseline][s]] for s in common])) if common else math.nan for v in (every, rest)
        ]
        means = [float(v[list(by[number].values())].mean()) for v in (every, rest)]
        out.append((name, means[0], means[1], gains[0], gains[1]))
    return tuple(out)


def words(found: Ledger) -> str:
    """What the ledger shows, in one paragraph."""
    count, doubts = len(found.truth), len(found.doubts)
    runs = f"{plural(len(found.of), 'run')} of {plural(len(found.arms), 'arm')}"
    said = (
        f"{doubts:,} of {count:,} test images ({100 * doubts / count:.1f} %) are right in none of {runs}: hard, or with a doubtful label."
    )
    if compared(found):
        a, b = found.arms[found.winner], found.arms[found.baseline]
        wins, losses = len(found.won(found.winner, found.baseline)), len(found.won(found.baseline, found.winner))
        said += f" {a} gets {wins:,} right (in most of its seeds) that {b} does not; the other way round {losses:,}."
    return said + (
        f" {plural(found.left_out, 'more run')} of other images, or for which there is no room, are left out." if found.left_out else ""
    )


def relabelled(study: Study) -> str:
    """The command that trains a study with the labels that a reader has marked; '' where it cannot be asked for again, or has the built-in set,
    whose labels are known."""
    data, name = mapping(study.asked.get("data")), study.folder.resolve().name
    if data.get("source") in (None, "synthetic") or not (study.folder / "request.toml").is_file():
        return ""
    before = [text_of(one.get("file")) for one in map(mapping, rows(data.get("relabelled")))]
    files = [*before, f"relabelling-{len(before) + 1}.csv" if before else "relabelling.csv"]
    marks = " ".join(f"--relabel {shlex.quote(file)}" for file in files)
    return f"karyotune {study.procedure} --request {shlex.quote(f'{name}/request.toml')} {marks} --name {shlex.quote(f'{name}-relabelled')}"


def listed(found: Ledger) -> tuple[tuple[str, str, str, str], ...]:
    """Doubts in which the runs agree most: file, patient, truth, what most runs say."""
    rows = []
    for i in found.doubts:
        guess, times = Counter(found.said[:, i].tolist()).most_common(1)[0]
        words_ = f"{found.names[guess]} in {times} of {len(found.of)}"
        rows.append((-times, int(i), (found.files[i], found.patients[i], found.names[found.truth[i]], words_)))
    return tuple(row for *_, row in sorted(rows)[:_LISTED])


def view(study: Study, found: Ledger) -> dict[str, Any]:
    """What the page's script needs: every prediction as one sign, and small pictures of the images that are looked at first."""
    spread = found.right.mean(axis=0)
    apart = np.abs(found.share(found.winner) - found.share(found.baseline)) if compared(found) else spread * (1 - spread)
    order = [*found.doubts.tolist(), *np.argsort(-apart, kind="stable").tolist()]
    pictured = list(dict.fromkeys(i for i in order if not found.right[:, i].all()))[:_PICTURES]
    sheet, places = thumbnails(study, [int(found.index[i]) for i in pictured])
    patients = sorted(set(found.patients))
    return {
        "data": text_of(mapping(study.asked.get("data")).get("hash"))[:DATA],
        "index": found.index.tolist(),
        "files": list(found.files),
        "truth": _coded(found.truth),
        "classes": list(found.names),
        "patients": patients if any(patients) else [],
        "patient": [patients.index(p) for p in found.patients] if any(patients) else [],
        "arms": list(found.arms),
        "runs": [
            {"arm": arm, "seed": seed, "key": key[:8], "said": _coded(said)}
            for (arm, seed, key), said in zip(found.of, found.said, strict=True)
        ],
        "sure": [round(100 * float(v)) for v in found.sure],
        "baseline": found.baseline,
        "winner": found.winner,
        "best": study.winner.key[:8] if study.winner else "",
        "sheet": sheet,
        "tile": TILE,
        "pictures": {str(i): places[int(found.index[i])] for i in pictured if int(found.index[i]) in places},
    }


def _coded(classes: np.ndarray) -> str:
    return "".join(_CODES[c] for c in classes.tolist())


def doubts_by(found: Ledger) -> Mapping[str, tuple[Group, ...]]:
    """By class, and by patient those with most."""
    return {"class": groups(found, [found.names[c] for c in found.truth]), "patient": groups(found, found.patients, 8)}
