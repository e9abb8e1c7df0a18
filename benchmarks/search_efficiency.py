"""How many epochs a search needs until it has the best region. In: `landscape.csv`, really trained learning curves. Out: epochs, ratios.

`python benchmarks/search_efficiency.py`: searches are simulated on the recorded curves: a point of supcam's own space gets the curve of the
nearest recorded configuration. 30 seeds; one run at a time; an epoch of either stage counts 1; the best region is the best 5 % of what was
recorded; a search that has not found it after 100 trials counts with what it spent. The aim: a third of the epochs of random search.
`--record` trains what the file lacks (about 9 minutes of one core for all 90), and is how the file was made."""

import argparse
import csv
import itertools
import math
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna

from search.registry import load
from search.sampling import Strategy, make_pruner, make_sampler

LANDSCAPE = Path(__file__).with_name("landscape.csv")
# What is recorded: each value of one dimension with each of the others.
GRID = {
    "pretrain_rate": (0.003, 0.01, 0.03, 0.1, 0.3),
    "temperature": (0.05, 0.12, 0.3),
    "crop_min": (0.35, 0.7),
    "finetune_rate": (0.005, 0.02, 0.08),
}
# Everything else is supcam's preset `quick`, but for: 32 pixels, more steps of pre-training (225; at 42 it brings nothing that could be
# seen early), and a validation part that is large enough for the score to mean something (320 images: one is 0.3 points).
SMALL = {
    "input_size": 32, "split": (0.5, 0.4, 0.1), "queue_size": 256, "pretrain_batch": 16, "pretrain_epochs": 9, "finetune_epochs": 5,
    "rate_drops": (3, 4),
}  # fmt: skip
IMAGES = 800


def record(path: Path) -> None:
    """Train what the file lacks, one thread, configurations in a random order; a pre-training is shared by its fine-tunings."""
    import torch

    from search.stages import Stages
    from trainables.parts.execution import execute
    from trainables.parts.procedure import config_from, config_values

    torch.set_num_threads(1)
    entry = load("supcam")
    values = config_values(entry.procedure.config()) | dict(entry.study.presets["quick"].overrides) | SMALL
    baseline = config_from(entry.procedure.config, values)
    epochs = (baseline.pretrain_epochs, baseline.finetune_epochs)
    names = [
        *GRID,
        *(f"knn_{e + 1}" for e in range(epochs[0])),
        *(f"finetune_{e + 1}" for e in range(epochs[1])),
        "val_accuracy",
        "cpu_seconds",
    ]
    done = set()
    if path.exists():
        with path.open() as file:
            done = {tuple(row[name] for name in GRID) for row in csv.DictReader(file)}
    else:
        path.write_text(",".join(names) + "\n")
    pack = entry.procedure.synthesize(baseline, images=IMAGES, seed=0)
    pretrains = list(itertools.product(*list(GRID.values())[:-1]))
    random.Random(0).shuffle(pretrains)
    for number, choice in enumerate(pretrains, 1):
        with tempfile.TemporaryDirectory() as folder:
            for rate in GRID["finetune_rate"]:
                point = dict(zip(GRID, (*choice, rate), strict=True))
                if tuple(map(str, point.values())) in done:
                    continue
                began = time.process_time()
                outcome = execute(
                    entry.procedure, replace(baseline, **point), seed=0, pack=pack, folder=Path(folder) / str(rate), store=Stages(Path(folder)),
                    checkpoint_seconds=1e9,
                )  # fmt: skip
                curve = {f"knn_{row['epoch']}": row["val_knn_accuracy"] for row in outcome.history if row["stage"] == "pretrain"}
                tuned = {f"finetune_{row['epoch']}": row["val_accuracy"] for row in outcome.history if "val_accuracy" in row}
                line = point | curve | tuned | {"val_accuracy": outcome.metrics["val_accuracy"], "cpu_seconds": time.process_time() - began}
                with path.open("a") as file:
                    csv.DictWriter(file, names, lineterminator="\n").writerow(
                        {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in line.items()}
                    )
        print(f"{number} of {len(pretrains)} pre-trainings", flush=True)


SEEDS, TRIALS, BEST = 30, 100, 0.05


class Landscape:
    """Recorded curves. `look(point)`: intermediate scores by epoch of pre-training, epochs of fine-tuning, final score of the nearest."""

    def __init__(self, path: Path) -> None:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        self.space = {name: load("supcam").study.space[name].distribution for name in GRID}
        self.places = np.array([[self._place(name, float(row[name])) for name in GRID] for row in rows])
        self.curves = [[float(row[f"knn_{epoch}"]) for epoch in range(1, SMALL["pretrain_epochs"] + 1)] for row in rows]
        self.finals = [float(row["val_accuracy"]) for row in rows]
        self.enough = sorted(self.finals, reverse=True)[max(0, math.ceil(BEST * len(rows)) - 1)]
        self.after = int(SMALL["finetune_epochs"])

    def _place(self, name: str, value: float) -> float:
        """A value between the ends of its dimension, 0 to 1, on its own scale."""
        low, high = self.space[name].low, self.space[name].high
        return math.log(value / low) / math.log(high / low) if self.space[name].log else (value - low) / (high - low)

    def look(self, point: dict[str, float]) -> tuple[list[float], float]:
        place = np.array([self._place(name, point[name]) for name in GRID])
        nearest = int(((self.places - place) ** 2).sum(1).argmin())
        return self.curves[nearest], self.finals[nearest]


Search = Callable[[Landscape, int], Iterator[tuple[int, float | None]]]  # (landscape, seed) -> epochs and final score of each trial


def epochs_until_found(search: Search, landscape: Landscape, seed: int) -> int:
    total = 0
    for epochs, score in itertools.islice(search(landscape, seed), TRIALS):
        total += epochs
        if score is not None and score >= landscape.enough:
            break
    return total


def through_optuna(landscape: Landscape, seed: int, sampler: Callable[[int], Any] | Any, pruner: Any) -> Iterator[tuple[int, float | None]]:
    """Ask and tell; sampler: one for all trials, or a function of the trial's number."""
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=None if callable(sampler) else sampler, study_name=f"s{seed}")
    for number in itertools.count():
        if callable(sampler):
            study.sampler = sampler(number)
        trial = study.ask(landscape.space)
        curve, score = landscape.look(trial.params)
        for epoch, value in enumerate(curve, 1):
            trial.report(value, epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                yield epoch, None
                break
        else:
            study.tell(trial, score)
            yield len(curve) + landscape.after, score


def ours(strategy: Strategy) -> Search:
    """This engine's samplers and early stopping, asked as the Coordinator asks them."""

    def search(landscape: Landscape, seed: int) -> Iterator[tuple[int, float | None]]:
        yield from through_optuna(landscape, seed, lambda number: make_sampler(strategy, number, seed=seed, slots=1), make_pruner(strategy))

    return search


def plain_optuna(landscape: Landscape, seed: int) -> Iterator[tuple[int, float | None]]:
    """Optuna's defaults: TPE and the median pruner."""
    yield from through_optuna(landscape, seed, optuna.samplers.TPESampler(seed=seed), optuna.pruners.MedianPruner())


def stock_ray(landscape: Landscape, seed: int) -> Iterator[tuple[int, float | None]]:
    """Ray's OptunaSearch and ASHAScheduler with their defaults, driven by hand: the score on the way, at last the final one."""
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    length = SMALL["pretrain_epochs"] + 1
    search = OptunaSearch(space=landscape.space, metric="score", mode="max", seed=seed)
    scheduler = ASHAScheduler(metric="score", mode="max", max_t=length)
    for number in itertools.count():
        trial = SimpleNamespace(trial_id=str(number), status="RUNNING")
        curve, score = landscape.look(search.suggest(trial.trial_id))
        scheduler.on_trial_add(None, trial)
        for epoch, value in enumerate(curve, 1):
            result = {"score": value, "training_iteration": epoch}
            stop = scheduler.on_trial_result(None, trial, result) == "STOP"
            search.on_trial_result(trial.trial_id, result)
            if stop:
                break
        else:
            stop, result = False, {"score": score, "training_iteration": length}
        scheduler.on_trial_complete(None, trial, result)
        search.on_trial_complete(trial.trial_id, result)
        yield (epoch, None) if stop else (len(curve) + landscape.after, score)


METHODS: dict[str, Search] = {
    "random, no stopping": ours(Strategy("random", "none")),
    "TPE, no stopping": ours(Strategy("tpe", "none")),
    **{f"TPE, asha, grace {grace}": ours(Strategy("tpe", "asha", grace=grace)) for grace in (2, 3, 1)},
    "plain Optuna (TPE, median)": plain_optuna,
    "Ray's OptunaSearch + ASHA": stock_ray,
    "TPE, hyperband": ours(Strategy("tpe", "hyperband")),
    "TPE, asha, grace 1, no patience (before)": ours(Strategy("tpe", "asha", grace=1, startup=1)),
    "random, asha": ours(Strategy("random", "asha")),
}


def compare(path: Path, seeds: int) -> None:
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    landscape = Landscape(path)
    finals = sorted(landscape.finals)
    ranks = [np.corrcoef(np.argsort(np.argsort([curve[epoch] for curve in landscape.curves])), np.argsort(np.argsort(landscape.finals)))[0, 1]
             for epoch in range(SMALL["pretrain_epochs"])]  # fmt: skip
    best = sum(score >= landscape.enough for score in landscape.finals)
    print(f"{len(finals)} recorded configurations, {finals[0]:.3f} to {finals[-1]:.3f}; best region: {best} from {landscape.enough:.3f} on")
    print("rank correlation of the score on the way with the final one, by epoch: " + " ".join(f"{rank:+.2f}" for rank in ranks))
    chance = np.random.default_rng(0)
    base: list[int] = []
    for name, search in METHODS.items():
        found = [epochs_until_found(search, landscape, seed) for seed in range(seeds)]
        base = base or found
        draws = chance.integers(0, seeds, (2000, seeds))
        low, high = np.quantile(np.array(found)[draws].sum(1) / np.array(base)[draws].sum(1), [0.025, 0.975])
        ratio = sum(found) / sum(base)
        print(
            f"{name:<42} {statistics.mean(found):7.1f} epochs (median {statistics.median(found):5.0f}), {ratio:.2f} of random ({low:.2f} to {high:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    if given.record:
        record(LANDSCAPE)
    else:
        compare(LANDSCAPE, given.seeds)
