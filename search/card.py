"""What stands beside an exported model for a reader: its card and its confusion matrices.
Comes in: a study, the record of the exported run, what its configuration is worth. Goes out: text. Pure."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.artefacts import known
from analysis.levels import ClassShare, Level
from analysis.summary import title
from search.invariance import Copies, card_lines
from trainables.data.pack import Pack
from trainables.data.words import count

PARTS = ("test_", "external_", "val_")


@dataclass(frozen=True)
class Described:
    """All that is said of an exported model. record: of the run whose weights it holds; levels: of each metric of its configuration, over
    its seeds; shares: of each class of the test part, by these weights."""

    study: Mapping[str, Any]
    record: Mapping[str, Any]
    why: str
    pack: Pack
    parts: Mapping[str, np.ndarray]
    headline: Sequence[str]
    timm: Mapping[str, Any] | None
    notes: Sequence[str]
    copies: Copies | None
    levels: Mapping[str, Level]
    shares: Sequence[ClassShare]

    @property
    def metrics(self) -> dict[str, float | None]:
        """Of these weights; None for one of the procedure's metrics that a part leaves undefined, as one class does the specificity."""
        found: dict[str, float | None] = dict(self.record["metrics"])
        judged = {name.removesuffix(f"_{self.headline[0]}") for name in found if name.endswith(f"_{self.headline[0]}")}
        sets = [part for part in judged if part in ("val", "test") or part.startswith("external_")]
        return {f"{part}_{name}": None for part in sorted(sets) for name in self.headline if f"{part}_{name}" not in found} | found

    @property
    def patients(self) -> int:
        """Of the test part; 0 where none is known."""
        return len({known(self.pack.patients[i]) for i in self.parts["test"]} - {""}) if self.pack.patients else 0


def confusion_csv(confusion: list[list[int]], classes: tuple[str, ...]) -> str:
    """Rows: truth; columns: prediction."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["truth \\ predicted", *classes])
    rows.writerows([name, *row] for name, row in zip(classes, confusion, strict=True))
    return text.getvalue()


def per_cent(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{100 * value:.2f} %"


def headline(told: Described) -> str:
    """The sentence that a paper would quote: the test score of the configuration with what it leaves open, and whose weights these are."""
    name = f"test_{told.headline[0]}"
    level, own, seed = told.levels.get(name), told.record["metrics"].get(name), told.record["seed"]
    people = f" of {count(told.patients, 'patient')}" if told.patients else ", patients not known"
    images = f"{count(len(told.parts['test']), 'test image')}{people}"
    word = title(name)
    score = f"Test {word if word[1:2].isupper() else word[0].lower() + word[1:]}"
    if level is None:
        return f"{score} {per_cent(own)} on {images}, of seed {seed}, whose weights these are."
    seeds = level.estimate.seeds
    mean = f"{score} {level.estimate.value:.2f} % ({level.words}) on {images}"
    if seeds < 2:
        return f"{mean}. These weights are of seed {seed}, the only one: other seeds may give more or less."
    return f"{mean}: the mean over seeds of this configuration. These weights are of seed {seed}, which has {per_cent(own)}."


def _scores(told: Described) -> str:
    """A row for each metric: of these weights, and over seeds."""
    rows = []
    names = sorted(
        (n for n in told.metrics if n.startswith(PARTS)), key=lambda n: (next(i for i, p in enumerate(PARTS) if n.startswith(p)), n)
    )
    for name in names:
        level = told.levels.get(name)
        over = "" if level is None else f"{level.estimate.value:.2f} % ({level.words})"
        rows.append(f"| {name.replace('_', ' ')} | {per_cent(told.metrics[name])} | {over} |")
    return f"| metric | these weights, seed {told.record['seed']} | the configuration |\n|---|---|---|\n" + "\n".join(rows)


def _simple(told: Described) -> str:
    """What one has without a network, to stand beside the accuracy."""
    labels = told.pack.labels[told.parts["test"]]
    most = np.bincount(labels, minlength=len(told.pack.classes))
    lines = [
        f"Always the commonest class ({told.pack.classes[int(most.argmax())]}): {100 * most.max() / most.sum():.2f} % of the test images."
    ]
    if size := told.study["data"].get("size_baseline"):
        value, low, high = (100 * size[name] for name in ("accuracy", "low", "high"))
        lines.append(f"The size of an image and of what it shows alone, over the whole set: {value:.1f} % ({low:.1f} to {high:.1f}).")
    return " ".join(lines) + "\n"


def share_rows(shares: Sequence[ClassShare], unit: str) -> list[tuple[str, str, str, str, str]]:
    """Of each class: name, images, cases, recognised, 95 % interval."""
    rows = []
    for one in shares:
        ends = f"{one.interval.low:.1f} to {one.interval.high:.1f}" if not math.isnan(one.interval.low) else "undefined"
        share = "undefined" if math.isnan(one.share) else f"{one.share:.1f} %"
        rows.append((one.name, f"{one.images:,}", "" if unit == "images" else f"{one.cases:,}", share, ends))
    return rows


def _by_class(told: Described) -> str:
    if not told.shares:
        return ""
    rows = "\n".join(f"| {' | '.join(row)} |" for row in share_rows(told.shares, "patients" if told.patients else "images"))
    return f"""
## By class

How many of the test images of a class these weights recognise (sensitivity), with the 95 % interval for other patients (for other images
where patients are not known):

| class | images | patients | recognised | 95 % interval |
|---|---|---|---|---|
{rows}
"""


def _timm(told: Described) -> str:
    """How timm's users load the model, and what becomes of a file."""
    if told.timm is None:
        return ""
    how = told.timm["images"]["words"] | {"scale": "(x / 255 - mean) / std, both in `config.json`"}
    rows = "\n".join(f"| {name} | {words} |" for name, words in how.items())
    return f"""
or with timm alone, and the file `loader.py` of this folder, which reads images as training did:

    import sys, timm
    sys.path.insert(0, "PATH/TO/best")
    import loader
    model = timm.create_model("local-dir:PATH/TO/best", pretrained=True)
    probabilities = loader.predict(model, ["IMAGE.png"])

Do not use timm's own transform (`timm.data.create_transform`): it neither inverts nor finds the ground, and gives wrong answers. What
becomes of an image:

| | |
|---|---|
{rows}
"""


def model_card(told: Described) -> str:
    """README.md of `best/`."""
    study, record, pack = told.study, told.record, told.pack
    differs = "".join(f"\nOn the machine that exported it, {line}.\n" for line in told.notes)
    arms = ", ".join(record["arms"]) or f"trial {record['trial']} of the search"
    settings = "\n".join(f"- {name}: {value}" for name, value in record["params"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""# {study["study"]}: {record["procedure"]} model

**{headline(told)}**

{_simple(told)}
Chosen: {told.why}. Arm: {arms}; seed {record["seed"]}. No test data took part in the choice.

{_scores(told)}
{differs}
Classes, in the order of the outputs: {", ".join(pack.classes)}.
Trained on {study["data"]["parts"]["train"]:,} images of `{Path(str(study["data"]["source"])).name}` (data hash {record["data_hash"][:16]}).
{_by_class(told)}
## Use

    python -m search predict PATH/TO/best IMAGES... --out predictions.csv
    python -m search evaluate PATH/TO/best --data FOLDER
{_timm(told)}
{"".join(card_lines(told.copies))}## Limits

Trained on one data set; other stains, scales and cameras may need training of their own: `evaluate` tells. Not a medical device.

## Settings

{settings}

Commit {record["commit"]}{" with local changes" if record["dirty"] else ""}; {versions}.
"""
