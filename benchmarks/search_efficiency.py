"""How many epochs a search needs until it has the best region. In: `landscape-PROCEDURE.csv`, really trained learning curves. Out: epochs, ratios.

`python benchmarks/search_efficiency.py [scl|supcam]`: searches are simulated on the recorded curves: a point of the procedure's own space gets
the curve between those of the recorded configurations around it (linear in each dimension, on its own scale). 150 seeds; one run at a time; an
epoch of any stage counts 1; the best region is the best 5 % of the space; a search that has not found it after 100 trials counts with what
it spent. The aim: a third of the epochs of random search. `--record` trains what the file lacks, on one core (scl: half an hour, supcam: 9 minutes), and is how the files were made.

scl: accuracy on validation images after each epoch, which foretells the last one. supcam: that of nearest neighbours while it pre-trains, which
at this size hardly does: a search that stops runs by it is expected to lose there, and the file is kept to show by how much."""

import argparse
import csv
import itertools
import math
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from scipy.interpolate import RegularGridInterpolator
from scipy.stats import spearmanr

from search.registry import load
from search.sampling import Strategy, make_pruner, make_sampler


@dataclass(frozen=True)
class Recording:
    """What is trained. grid: each value of one dimension with each of the others; settings: what else differs from preset `quick`; shared: the
    dimensions of a first stage that is trained once for all values of the others; way: the score on the way and the stage that has it."""

    grid: dict[str, tuple[float, ...]]
    settings: dict[str, Any]
    images: int
    shared: tuple[str, ...]
    way: tuple[str, str]
    steps: int  # scores on the way
    after: int  # epochs after the last of them
    judged: int  # validation images


RECORDINGS = {
    # less of everything, and a validation part (440 images) that is large enough for a score to mean something
    "scl": Recording(
        {
            "learning_rate": (3e-4, 6e-4, 1.2e-3, 2.5e-3, 5e-3, 1e-2),
            "lambda1": (0.03, 0.3, 3.0),
            "rotation": (0.0, 60.0, 180.0),
            "temperature": (0.05, 0.3),
        },
        {
            "input_size": 48, "split": (0.55, 0.4, 0.05), "steps_per_epoch": 30, "epochs": 9, "embedding_dim": 64, "contrast_balance": 0.0,
        },
        1104, (), ("val_accuracy", "train"), 9, 0, 460,
    ),
    # 32 pixels, more steps of pre-training (225; at 42 it brings nothing that could be seen early), 320 validation images
    "supcam": Recording(
        {
            "pretrain_rate": (0.003, 0.01, 0.03, 0.1, 0.3),
            "temperature": (0.05, 0.12, 0.3),
            "crop_min": (0.35, 0.7),
            "finetune_rate": (0.005, 0.02, 0.08),
        },
        {
            "input_size": 32, "split": (0.5, 0.4, 0.1), "queue_size": 256, "pretrain_batch": 16, "pretrain_epochs": 9, "finetune_epochs": 5,
            "rate_drops": (3, 4),
        },
        800, ("pretrain_rate", "temperature", "crop_min"), ("val_knn_accuracy", "pretrain"), 9, 5, 320,
    ),
}  # fmt: skip


def file_of(procedure: str) -> Path:
    return Path(__file__).with_name(f"landscape-{procedure}.csv")


def record(procedure: str) -> None:
    """Train what the file lacks, one thread, configurations in a random order."""
    import torch

    from search.stages import Stages
    from trainables.parts.execution import execute
    from trainables.parts.procedure import config_from, config_values

    torch.set_num_threads(1)
    entry, of, path = load(procedure), RECORDINGS[procedure], file_of(procedure)
    values = config_values(entry.procedure.config()) | dict(entry.study.presets["quick"].overrides) | of.settings
    baseline = config_from(entry.procedure.config, values)
    names = [*of.grid, *(f"way_{number + 1}" for number in range(of.steps)), "val_accuracy", "cpu_seconds"]
    done = set()
    if path.exists():
        with path.open() as file:
            done = {tuple(float(row[name]) for name in of.grid) for row in csv.DictReader(file)}
    else:
        path.write_text(",".join(names) + "\n")
    pack = entry.procedure.synthesize(baseline, images=of.images, seed=0)
    points = [dict(zip(of.grid, values, strict=True)) for values in itertools.product(*of.grid.values())]
    first = {values: random.Random(str(values)).random() for values in {tuple(point[name] for name in of.shared) for point in points}}
    order = random.Random(0)
    points.sort(key=lambda point: (first[tuple(point[name] for name in of.shared)], order.random()))
    with tempfile.TemporaryDirectory() as folder:
        for number, point in enumerate(points, 1):
            if tuple(point.values()) in done:
                continue
            began = time.process_time()
            outcome = execute(
                entry.procedure, replace(baseline, **point), seed=0, pack=pack, folder=Path(folder) / str(number), store=Stages(Path(folder)),
                checkpoint_seconds=1e9,
            )  # fmt: skip
            shutil.rmtree(Path(folder) / str(number))
            word, stage = of.way
            way = {f"way_{row['epoch']}": row[word] for row in outcome.history if row["stage"] == stage}
            line = point | way | {"val_accuracy": outcome.metrics["val_accuracy"], "cpu_seconds": time.process_time() - began}
            with path.open("a") as file:
                csv.DictWriter(file, names, lineterminator="\n").writerow(
                    {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in line.items()}
                )
            print(f"{number} of {len(points)}: {outcome.metrics['val_accuracy']:.3f}", flush=True)


SEEDS, TRIALS, BEST = 150, 100, 0.05


class Landscape:
    """Recorded curves. `look(point)`: scores on the way and the final score; `after`: epochs behind the former; `enough`: the final score from
    which on a point is of the best region. The curve of the nearest configuration would make terraces, on which any sampler that learns is lost."""

    def __init__(self, procedure: str) -> None:
        of, study = RECORDINGS[procedure], load(procedure).study
        space = study.space | {name: one for name, one in study.presets["quick"].space.items() if one is not None}
        self.space = {name: space[name].distribution for name in of.grid}
        axes = [np.array([self._place(name, value) for value in values]) for name, values in of.grid.items()]
        self.low, self.high = np.array([axis[0] for axis in axes]), np.array([axis[-1] for axis in axes])
        with file_of(procedure).open() as file:
            rows = {tuple(float(row[name]) for name in of.grid): row for row in csv.DictReader(file)}
        names = [*(f"way_{number}" for number in range(1, of.steps + 1)), "val_accuracy"]
        recorded = [[float(rows[point][name]) for name in names] for point in itertools.product(*of.grid.values())]
        self.recorded = np.array(recorded)
        self.curves = RegularGridInterpolator(axes, self.recorded.reshape(*map(len, axes), len(names)))
        everywhere = np.clip(np.random.default_rng(0).random((20_000, len(axes))), self.low, self.high)
        self.enough = float(np.quantile(self.curves(everywhere)[:, -1], 1 - BEST))
        self.steps, self.after, self.judged = of.steps, of.after, of.judged

    def _place(self, name: str, value: float) -> float:
        """A value between the ends of its dimension, 0 to 1, on its own scale."""
        low, high = self.space[name].low, self.space[name].high
        return math.log(value / low) / math.log(high / low) if self.space[name].log else (value - low) / (high - low)

    def look(self, point: dict[str, float]) -> tuple[list[float], float]:
        place = np.clip([self._place(name, point[name]) for name in self.space], self.low, self.high)
        *way, final = map(float, self.curves(place[None])[0])
        return way, final


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


def ours(strategy: Strategy, doubt: bool = True) -> Search:
    """This engine's samplers and early stopping, asked as the Coordinator asks them; doubt=False: as if validation parts were endless."""

    def search(landscape: Landscape, seed: int) -> Iterator[tuple[int, float | None]]:
        pruner = make_pruner(strategy, landscape.judged if doubt else None)
        yield from through_optuna(landscape, seed, lambda number: make_sampler(strategy, number, seed=seed, slots=1), pruner)

    return search


def plain_optuna(landscape: Landscape, seed: int) -> Iterator[tuple[int, float | None]]:
    """Optuna's defaults: TPE and the median pruner."""
    yield from through_optuna(landscape, seed, optuna.samplers.TPESampler(seed=seed), optuna.pruners.MedianPruner())


def stock_ray(landscape: Landscape, seed: int) -> Iterator[tuple[int, float | None]]:
    """Ray's OptunaSearch and ASHAScheduler with their defaults, driven by hand: the score on the way, at last the final one."""
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    length = landscape.steps + 1
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
    "TPE, asha (the default)": ours(Strategy()),
    **{f"TPE, asha, grace {grace}": ours(Strategy(grace=grace)) for grace in (1, 3)},
    "TPE, asha, any difference counts": ours(Strategy(), doubt=False),
    "TPE, hyperband": ours(Strategy("tpe", "hyperband")),
    "GP, asha": ours(Strategy("gp", "asha")),
    "random, asha": ours(Strategy("random", "asha")),
    "plain Optuna (TPE, median)": plain_optuna,
    "Ray's OptunaSearch + ASHA": stock_ray,
}


def compare(procedure: str, seeds: int) -> None:
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    landscape = Landscape(procedure)
    finals = landscape.recorded[:, -1]
    ranks = [spearmanr(landscape.recorded[:, epoch], finals).statistic for epoch in range(landscape.steps)]
    print(
        f"{procedure}: {len(finals)} recorded configurations, {finals.min():.3f} to {finals.max():.3f}; best region: from {landscape.enough:.3f} on"
    )
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
    parser.add_argument("procedure", nargs="?", choices=list(RECORDINGS), help="default: both")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    for procedure in [given.procedure] if given.procedure else RECORDINGS:
        record(procedure) if given.record else compare(procedure, given.seeds)
