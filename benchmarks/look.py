"""What the one look of all images takes from SupCAM's gain over training from scratch. In: a folder of clusters. Out: a table.

`python benchmarks/look.py CLUSTERS [--seeds 6] [--looks none width gray both]`: the arms `Scratch` and `SupCAM (full)` of table 2, preset quick, on images as
they are, brought to one width, to one gray, and to both; every model judged on its test images as they lie and by the mean of four
turns. All looks have the same split: near duplicates are tied as the images are. Intervals are over seeds and patients, each for itself."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from analysis.crossed import cases, pseudo_values, two_way
from search_spaces.supcam import NO_PRETRAIN, STUDY
from trainables.data.pack import Pack
from trainables.parts.checkpoint import load_state
from trainables.parts.execution import MODEL, execute
from trainables.supcam import PROCEDURE, SupcamConfig

QUICK = STUDY.presets["quick"].overrides
LOOKS = {
    "none": {"normal_width": 0.0, "normal_gray": 0.0},
    "width": {"normal_gray": 0.0},
    "gray": {"normal_width": 0.0},
    "both": {},
}
ARMS = {"scratch": NO_PRETRAIN, "full": {}}


def judged(config: SupcamConfig, pack: Pack, seed: int) -> list[np.ndarray]:
    """Train once; what each patient is worth to the accuracy, without turns and with them."""
    with tempfile.TemporaryDirectory() as name:
        execute(PROCEDURE, config, seed=seed, pack=pack, folder=Path(name))
        tensors, _ = load_state(Path(name) / MODEL)
    test = PROCEDURE.parts(config, pack, seed)["test"]
    case, _ = cases(test, pack.patients or ())
    found = []
    for turns in (False, True):
        said = PROCEDURE.evaluate(replace(config, every_turn=turns), tensors, pack, test, torch.device("cpu")).predictions
        values = pseudo_values("accuracy", np.array(said["label"]), np.array(said["probability"]), case)
        assert values is not None
        found.append(values[1])
    return found


def row(title: str, runs: Sequence[dict[str, np.ndarray]]) -> str:
    scratch, full = (np.array([run[arm] for run in runs]) for arm in ARMS)
    gain = two_way(full - scratch)
    ends = gain.interval()
    levels = " ".join(f"{100 * table.mean():.2f} +- {100 * table.mean(1).std(ddof=1):.2f} " for table in (scratch, full))
    return f"{title:>14} {len(runs)} seeds, {scratch.shape[1]} patients: {levels} gain {100 * gain.value:+.2f} ({100 * ends.low:+.2f} to {100 * ends.high:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clusters", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--looks", nargs="*", choices=list(LOOKS), default=list(LOOKS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    ties = PROCEDURE.read(given.clusters, SupcamConfig(**(QUICK | LOOKS["none"]))).ties
    for look in given.looks:
        config = SupcamConfig(**(QUICK | LOOKS[look]))
        pack = replace(PROCEDURE.read(given.clusters, config), ties=ties)
        runs = [{arm: judged(replace(config, **change), pack, seed) for arm, change in ARMS.items()} for seed in range(given.seeds)]
        for number, judgement in enumerate(("as they lie", "four turns")):
            print(row(f"{look}, {judgement}", [{arm: run[arm][number] for arm in ARMS} for run in runs]), flush=True)


if __name__ == "__main__":
    main()
