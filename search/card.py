"""What stands beside an exported model for a reader: its card and its confusion matrices.
Comes in: a study, the record of the exported run, what was measured of it. Goes out: text. Pure."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.invariance import card_lines
from trainables.data.normal import normal_of
from trainables.data.pack import Pack


def confusion_csv(confusion: list[list[int]], classes: tuple[str, ...]) -> str:
    """Rows: truth; columns: prediction."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["truth \\ predicted", *classes])
    rows.writerows([name, *row] for name, row in zip(classes, confusion, strict=True))
    return text.getvalue()


def model_card(
    study: Mapping[str, Any],
    record: Mapping[str, Any],
    why: str,
    pack: Pack,
    timm_settings: Mapping[str, Any] | None,
    notes: list[str],
    same: Mapping[str, float],
) -> str:
    """README.md of `best/`."""
    timm_words = ""
    if timm_settings is not None:
        channels, side, _ = timm_settings["pretrained_cfg"]["input_size"]
        kind = "gray images with a black background, padded to a square canvas" if channels == 1 else "colour images"
        if brought := normal_of(record["params"]).words:
            kind += f" ({brought}, see `trainables/data/normal.py`)"
        timm_words = (
            f'\nor with timm alone: `timm.create_model("local-dir:PATH/TO/best", pretrained=True)`. It takes {kind}, as (N, {channels}, '
            f"{side}, {side}),\n"
            "scaled as `config.json` says: (x / 255 - mean) / std.\n"
        )
    differs = "".join(f"\nOn the machine that exported it, {line}.\n" for line in notes)
    arms = ", ".join(record["arms"]) or f"trial {record['trial']} of the search"
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {100 * value:.2f} % |"
        for name, value in sorted(record["metrics"].items())
        if name.startswith(("test_", "val_", "external_"))
    )
    settings = "\n".join(f"- {name}: {value}" for name, value in record["params"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""# {study["study"]}: {record["procedure"]} model

Chosen: {why}. Arm: {arms}; seed {record["seed"]}. No test data took part in the choice.

| metric | value |
|---|---|
{rows}
{differs}
Classes, in the order of the outputs: {", ".join(pack.classes)}.
Trained on {study["data"]["parts"]["train"]:,} images of `{Path(str(study["data"]["source"])).name}` (data hash {record["data_hash"][:16]}).

## Use

    python -m search predict PATH/TO/best IMAGES... --out predictions.csv
    python -m search evaluate PATH/TO/best --data FOLDER
{timm_words}
{"".join(card_lines(same))}
## Limits

Trained on one data set; other stains, scales and cameras may need training of their own: `evaluate` tells. Not a medical device.

## Settings

{settings}

Commit {record["commit"]}{" with local changes" if record["dirty"] else ""}; {versions}.
"""
