"""An exported model on other images: `evaluate` (labelled folder) and `predict` (any images).
Comes in: a `best` folder and images. Goes out: metrics with intervals and a confusion matrix, or a csv with a row for each image."""

import csv
import io
import json
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.artefacts import GROUPS, GUESSES, Groups, Predictions, names_tiles
from analysis.crossed import Judged, of_run
from analysis.crossed import judged as of_images
from analysis.levels import by_class
from analysis.statistics import Interval
from search.card import confusion_csv, share_rows
from search.exported import Exported, open_export
from search.home import place_of
from trainables.data.find import not_here, unread_images
from trainables.data.listing import Listing
from trainables.data.masks import regions, several_regions, without_masks
from trainables.data.normal import Normal, normal_of
from trainables.data.open import SUFFIXES, FileFault
from trainables.data.pack import Pack
from trainables.data.size import length_factor, size_baseline, typical_areas
from trainables.data.tree import walk
from trainables.data.words import count, shown
from trainables.parts.checkpoint import write_atomically
from trainables.parts.errors import RequestError
from trainables.parts.procedure import Evaluation

FEW = 10  # images of a patient, below which its own share says nothing
FEWEST = 5  # such patients, from which on the lowest and the highest are told
UNLIKE = 1.25  # times as long or as short, from which on objects are of another scale than those of training


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _write(out: Path, text: str) -> None:
    try:
        write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as fault:
        raise RequestError(f"--out must be a file that can be written, got {out} ({fault.strerror})") from fault


def _said_of(judged: Evaluation, pack: Pack) -> Judged | None:
    """What was said of each image, by patient where patients are known; None where the procedure does not say it."""
    rows = judged.predictions
    if "cluster" in rows and "tile" in rows:
        guesses = (np.asarray(rows[name]) if name in rows else None for name in GUESSES)
        given: Predictions | Groups = Groups(*(np.asarray(rows[name]) for name in GROUPS), *guesses)
    elif "probability" in rows:
        given = Predictions(np.asarray(rows["index"]), np.asarray(rows["label"]), np.asarray(rows["probability"], np.float64))
    else:
        return None
    patients = pack.patients or ()
    return of_images(given, patients, names_tiles(pack.files, patients), pack.classes)


def evaluate(best: Path, data: Path, out: Path | None, console: Console, as_json: bool = False) -> int:
    """Metrics of an export on a labelled folder whose classes are among the export's, with what they leave open and what one has without a
    network: shown, written to `out`, printed for a program."""
    found = open_export(best)
    procedure, classes = found.entry.procedure, found.classes
    pack = procedure.read(data, found.config, classes)
    everything = np.arange(len(pack.labels))
    judged = procedure.evaluate(found.config, found.tensors, pack, everything, _device())
    said = _said_of(judged, pack)
    values = {name: None if value is None else of_run(name, 100 * value, said) for name, value in judged.metrics.items()}
    shares = by_class(said, classes)
    unit = said.unit if said is not None else "images"
    known = found.data_hash == pack.hash
    own = ("this is the data that the model was trained on: its test part alone stands in metrics.json of the export",) if known else ()
    for note in (*own, *pack.notes):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    table = Table("metric", "value", "95 % interval", title=escape(f"{place_of(best)} on {place_of(data)}: {len(pack.labels)} images"))
    for name, level in values.items():
        ends = "" if level is None or isnan(level[1].low) else f"{level[1].low:.2f} to {level[1].high:.2f}"
        table.add_row(name, "undefined" if level is None else f"{level[0].value:.2f} %", ends)
    console.print(table)
    beside, lines = _beside(found, pack, said)
    lines = [
        _of_what(said),
        *(f"{name} is undefined: all images are of one class" for name, level in values.items() if level is None),
        *(
            f"{name}: with types dealt out within each metaphase of 2 to 46 images, or all 46 of a person, at most two of each, X and Y as "
            "a woman or a man has them; share_dealt: of how many of the images; without intervals. `predict` takes each image by itself"
            for name in values
            if name.endswith("_dealt") and name != "share_dealt"
        ),
        *(f"no interval of {name}: {level[0].lost}" for name, level in values.items() if level is not None and level[0].lost),
        *lines,
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if judged.confusion is not None:
        console.print(_confusion_table(np.asarray(judged.confusion), classes))
    if shares:
        of_class = Table("class", "images", unit if unit != "images" else "", "recognised", "95 % interval")
        for row in share_rows(shares, unit):
            of_class.add_row(*map(escape, row))
        console.print(of_class)
    report: dict[str, Any] = {
        "export": place_of(best), "data": place_of(data), "data_hash": pack.hash, "images": len(pack.labels), "metrics": judged.metrics,
        "intervals": {name: None if level is None else _ends(level[1]) for name, level in values.items()},
        "interval_over": unit if said is not None else None, "cases": int(said.case.max()) + 1 if said is not None else None,
        "classes": [
            {"name": one.name, "images": one.images, "cases": one.cases}
            | {"sensitivity": _or_none(one.share), "interval": _ends(one.interval)}
            for one in shares
        ],
        "confusion": judged.confusion,
    } | beside  # fmt: skip
    text = json.dumps(report, indent=1, allow_nan=False)
    if out is not None:
        _write(out, text + "\n")
        if judged.confusion is not None:
            _write(out.with_suffix(".confusion.csv"), confusion_csv(judged.confusion, classes))
        console.print(f"written: {out}", markup=False)
    if as_json:
        print(text)
    return 0


def _or_none(per_cent: float) -> float | None:
    return None if isnan(per_cent) else per_cent / 100


def _ends(interval: Interval) -> list[float] | None:
    return None if isnan(interval.low) else [interval.low / 100, interval.high / 100]


def _of_what(said: Judged | None) -> str:
    """What the intervals hold for, in words."""
    if said is None:
        return "no intervals: this procedure does not say what it makes of single images"
    cases = f"{int(said.case.max()) + 1:,}"
    if said.unit == "images":
        unknown = "patients are not known (a manifest.csv may say them), and images of one are alike"
        return f"intervals: for other images, {cases} taken for independent; {unknown}"
    lone = f" ({said.lone:,} of them single images, of which {said.unit} are not known)" if said.lone else ""
    return f"intervals: for other {said.unit}, from {cases}{lone}; of one model, so they say nothing of other seeds"


def _beside(found: Exported, pack: Pack, said: Judged | None) -> tuple[dict[str, Any], list[str]]:
    """What the scores are to be held against, for a program and in words: the commonest class, sizes, single patients."""
    counts, lines = np.bincount(pack.labels, minlength=len(pack.classes)), []
    most = int(counts.argmax())
    share = float(counts[most] / counts.sum())
    beside: dict[str, Any] = {"commonest_class": {"name": pack.classes[most], "accuracy": share}, "size_only": None, "baselines": []}
    lines.append(f"always the commonest class ({pack.classes[most]}): {100 * share:.2f} % right")
    if found.entry.procedure.baselines is not None:
        parts = dict.fromkeys(("train", "val", "test"), np.arange(len(pack.labels)))
        beside["baselines"] = found.entry.procedure.baselines(found.config, pack, parts)
        for one in beside["baselines"]:
            scores = ", ".join(f"{name.removeprefix('test_')} {100 * value:.2f} %" for name, value in one["metrics"].items())
            lines.append(f"{one['name']}: {scores}")
    elif (size := size_baseline(pack)) is not None:
        beside["size_only"] = size
        ends = f"{100 * size['low']:.1f} to {100 * size['high']:.1f}"
        lines.append(f"image and object size alone, learnt on these images themselves: {100 * size['accuracy']:.2f} % right ({ends})")
    if said is not None and said.unit != "images" and isinstance(said.given, Predictions):
        there, hits = np.bincount(said.case), np.bincount(said.case, said.given.predicted == said.given.label)
        enough = there >= FEW
        if enough.sum() >= FEWEST:
            low, high = (float(end) for end in np.quantile(hits[enough] / there[enough], (0, 1)))
            beside["single_cases"] = {"lowest": low, "highest": high, "cases": int(enough.sum()), "images_at_least": FEW}
            lines.append(f"single {said.unit}: {100 * low:.1f} to {100 * high:.1f} % right ({enough.sum()} with {FEW} images or more)")
    factor = length_factor(typical_areas(pack, np.arange(len(pack.labels))), found.areas)
    beside["length_against_training"] = factor
    if factor is not None:
        lines.append(_of_sizes(factor, normal_of(vars(found.config))))
    return beside, lines


def _of_sizes(factor: float, normal: Normal) -> str:
    words = f"objects are {factor:.2f} times as long as those of training (by area, median over classes)"
    if normal.width:
        return f"{words}; the model brings each image to one width"
    if not 1 / UNLIKE <= factor <= UNLIKE:
        return f"warning: {words}, and the model takes sizes as they are. Bring the images to the scale of training"
    return words


def _confusion_table(confusion: np.ndarray, classes: Sequence[str]) -> Table:
    """The whole matrix of a few classes; of many, which no terminal has room for, what became of each class."""
    if len(classes) <= 8:
        matrix = Table("truth \\ predicted", *map(escape, classes))
        for name, row in zip(classes, confusion, strict=True):
            matrix.add_row(escape(name), *map(str, row))
        return matrix
    table = Table("truth", "images", "recognised", "most often taken for")
    for index, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        others = [(int(count), other) for other, count in enumerate(row) if other != index and count]
        taken = ", ".join(f"{classes[other]} ({count})" for count, other in sorted(others, key=lambda pair: (-pair[0], pair[1]))[:3])
        share = f"{row[index]} ({100 * row[index] / row.sum():.1f} %)" if row.sum() else "–"
        table.add_row(escape(name), str(row.sum()), share, escape(taken))
    return table


def predict(best: Path, names: Sequence[str], out: Path, console: Console) -> int:
    """A row for each sound image: file, prediction, a probability for each class. Folders stand for the images in them. 0; 4 where images
    could not be used, each of which is named."""
    found = open_export(best)
    procedure = found.entry.procedure
    paths: list[Path] = []
    faults, left, lonely, unread = [], list[str](), list[str](), list[str]()
    for name in names:
        path = Path(name)
        if path.is_dir():
            tree = walk(path)
            faults += [f"{shown(name)}: a folder cannot be entered: {closed}; give yourself the right to read it" for closed in tree.closed]
            said = Listing()
            if cut := set(regions(tree.images)):
                lonely.append(f"{several_regions(sorted(cut))}; they have no prediction: name them one by one if they are objects")
            inside = without_masks([image for image in tree.images if image not in cut], name, True, said)
            left += said.warnings
            lonely += said.faults
            if not inside and not tree.closed:
                faults.append(f"no image in folder {shown(name)}; images end in {', '.join(SUFFIXES)}")
            paths += [path / image for image in inside]
            unread += [*tree.nowhere, *unread_images(path, tree.others), *not_here(tree.others)]
        elif path.is_file():
            paths.append(path)
        else:
            faults.append(f"no such image: {shown(name)}")
    if faults:
        raise RequestError(*faults)
    images, named, notes, broken = procedure.read_images(list(dict.fromkeys(paths)), found.config)
    lost = {name for fault in broken if isinstance(fault, FileFault) for name in fault.files}
    kept = [i for i, name in enumerate(named["file"]) if name not in lost]
    if not kept or any(not isinstance(fault, FileFault) for fault in broken):
        raise RequestError(*broken)
    for note in (*left, *lonely, *notes):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    columns = {name: [values[i] for i in kept] for name, values in named.items()}
    columns |= procedure.predict(found.config, found.tensors, images[kept], found.classes, _device())

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))
    _write(out, text.getvalue())
    console.print(f"{len(kept)} predictions written: {out}", markup=False)
    for fault in broken:
        console.print(f"warning: left out: {fault}", markup=False, soft_wrap=True)
    if lost:
        console.print(f"{count(len(lost))} without a prediction: {', '.join(sorted(lost))}", markup=False, soft_wrap=True)
    if unread:
        console.print(
            f"{count(len(unread), 'file')} without a prediction, links that lead nowhere, unfinished downloads or images of a kind "
            "that is not read: "
            f"{', '.join(map(shown, unread))}; save them as PNG or TIFF",
            markup=False,
            soft_wrap=True,
        )
    return 4 if broken or unread or lonely else 0
