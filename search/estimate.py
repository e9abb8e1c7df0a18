"""What a plan would cost, measured by timing a few steps; nothing is trained.
Comes in: a plan, a pack, what is recorded already. Goes out: seconds of one run of each kind, and of the whole."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from search.plan import Plan, PlannedRun
from search.registry import Entry
from trainables.data.pack import Pack
from trainables.parts.errors import WeightsUnreachable
from trainables.parts.execution import stages_of
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting, Stage
from trainables.parts.replay import WARM

STEPS = 5  # timed, after some that are not; their median counts
# beside the batch: what a step's time depends on most (whose it is, its network), what may need no step, and what may not be had from here
MATTERS = ("method", "backbone", "input_size", "features", "classifier", "weights")


@dataclass(frozen=True)
class Estimate:
    """Seconds of training on one device; `search` is an upper bound, for early stopping saves some of it."""

    tables: float
    search: float
    runs: int
    stages: int
    asked_stages: int  # before equal ones are shared
    skipped: tuple[str, ...]  # what could not be timed, and why


def estimate(
    entry: Entry, plan: Plan, pack: Pack, runs: Iterable[PlannedRun], trials: int, device: torch.device, have: Callable[[str], bool]
) -> Estimate:
    """`runs`: those that remain; `trials`: those of the search that remain; `have`: whether a stage is stored already."""
    if device.type == "cpu":
        torch.set_num_threads(1)  # as runs have it: one core each
    timed: dict[tuple[Any, ...], float | None] = {}
    skipped: dict[str, None] = {}

    def stage_seconds(config: Any, stage: Stage) -> float:
        kind = (stage.name, *(getattr(config, name, None) for name in (stage.batch, *MATTERS)))
        if kind not in timed:
            try:
                timed[kind] = _time(entry, config, stage, pack, plan.seeds[0], device)
            except WeightsUnreachable as fault:
                timed[kind] = None
                skipped[str(fault)] = None
        return (timed[kind] or 0.0) * int(getattr(config, stage.epochs))

    total, seen, asked = 0.0, set(), 0
    runs = list(runs)
    for run in runs:
        for stage in stages_of(entry.procedure, run.config):
            asked += 1
            key = run.stages[stage.name] if stage.shared else f"{run.key}/{stage.name}"
            if key not in seen and not have(key):
                total += stage_seconds(run.config, stage)
            seen.add(key)
    one = sum(stage_seconds(plan.baseline, stage) for stage in stages_of(entry.procedure, plan.baseline))
    confirm = (min(plan.strategy.finalists, plan.trials) + 1) * (len(plan.seeds) - 1) if trials else 0
    return Estimate(total, one * (trials + confirm), len(runs), len(seen), asked, tuple(skipped))


def _time(entry: Entry, config: Any, stage: Stage, pack: Pack, seed: int, device: torch.device) -> float:
    """Seconds of one epoch of a stage, validation included. The stage before is not trained: its result is a fresh network's."""
    parts = entry.procedure.parts(config, pack, seed)
    previous: Mapping[str, torch.Tensor] | None = None
    for earlier in stages_of(entry.procedure, config):
        setting = Setting(pack, parts, seed, device, previous=previous)
        task = earlier.build(config, setting)
        if earlier is not stage:
            previous = {name: tensor.clone() for name, tensor in task.result().items()}
            continue
        fitting = Fitting(task, setting)
        task.train()
        times, first = [], WARM + 1 if device.type == "cuda" else 2  # not timed: on a GPU steps are recorded after WARM
        now = _clock(device)
        for batch in itertools.islice(task.batches(0), STEPS + first):
            clock = now()
            fitting.step(batch, task.learning_rate(0.0))
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(now() - clock)
        step = statistics.median(times[first:] or times) if times else 0.0
        task.eval()
        clock = now()
        task.validate()
        epochs = int(getattr(config, stage.epochs))
        share = sum(task.validate_at(epoch + 1) for epoch in range(epochs)) / epochs
        return step * task.steps() + (now() - clock) * share
    raise RuntimeError(f"{stage.name} is no stage of this configuration")


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds. On a CPU those of the core, of which a run has one: other work there while a plan is timed would else be taken for the
    run's own."""
    return time.process_time if device.type == "cpu" else time.perf_counter
