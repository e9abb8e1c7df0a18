"""An exported model on other images: `evaluate` (labelled folder) and `predict` (any images).
Comes in: a `best` folder and images. Goes out: metrics with intervals and a confusion matrix, or a csv with a row for each image."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.stats import beta

from search.card import confusion_csv
from search.exported import open_export
from trainables.data.find import walk
from trainables.data.open import SUFFIXES, FileFault
from trainables.data.words import count, shown
from trainables.parts.checkpoint import write_atomically
from trainables.parts.errors import RequestError


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _write(out: Path, text: str) -> None:
    try:
        write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as fault:
        raise RequestError(f"--out must be a file that can be written, got {out} ({fault.strerror})") from fault


def binomial_interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson 95 % interval of a proportion."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def evaluate(best: Path, data: Path, out: Path | None, console: Console, as_json: bool = False) -> int:
    """Metrics of an export on a labelled folder whose classes are among the export's: shown, written to `out`, printed for a program."""
    found = open_export(best)
    procedure, classes = found.entry.procedure, found.classes
    pack = procedure.read(data, found.config, classes)
    judged = procedure.evaluate(found.config, found.tensors, pack, np.arange(len(pack.labels)), _device())
    known = found.data_hash == pack.hash
    own = ("this is the data that the model was trained on: its test part alone stands in metrics.json of the export",) if known else ()
    for note in (*own, *pack.notes):
        console.print(f"note: {note}", markup=False)
    table = Table("metric", "value", title=escape(f"{best} on {data}: {len(pack.labels)} images"))
    for name, value in judged.metrics.items():
        extra = ""
        if name == "accuracy" and judged.confusion is not None:
            low, high = binomial_interval(int(np.trace(judged.confusion)), len(pack.labels))
            extra = f"  (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        table.add_row(name, f"{100 * value:.2f} %{extra}")
    console.print(table)
    if judged.confusion is not None:
        console.print(_confusion_table(np.asarray(judged.confusion), classes))
    report: dict[str, Any] = {
        "export": str(best), "data": str(data), "data_hash": pack.hash, "images": len(pack.labels), "metrics": judged.metrics,
        "confusion": judged.confusion,
    }  # fmt: skip
    if out is not None:
        _write(out, json.dumps(report, indent=1) + "\n")
        if judged.confusion is not None:
            _write(out.with_suffix(".confusion.csv"), confusion_csv(judged.confusion, classes))
        console.print(f"written: {out}", markup=False)
    if as_json:
        print(json.dumps(report, indent=1))
    return 0


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
    faults = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            tree = walk(path)
            faults += [f"{shown(name)}: a folder cannot be entered: {closed}; give yourself the right to read it" for closed in tree.closed]
            if not tree.images and not tree.closed:
                faults.append(f"no image in folder {shown(name)}; images end in {', '.join(SUFFIXES)}")
            paths += [path / inside for inside in tree.images]
        elif path.is_file():
            paths.append(path)
        else:
            faults.append(f"no such image: {shown(name)}")
    if faults:
        raise RequestError(*faults)
    images, named, notes, broken = procedure.read_images(paths, found.config)
    lost = {name for fault in broken if isinstance(fault, FileFault) for name in fault.files}
    kept = [i for i, name in enumerate(named["file"]) if name not in lost]
    if not kept or any(not isinstance(fault, FileFault) for fault in broken):
        raise RequestError(*broken)
    for note in notes:
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
    return 4 if broken else 0
