"""How many runs share a GPU, by what one takes of its memory and of its time.
Comes in: a run's first steps on a GPU, the machines, how many runs are wanted. Goes out: GPUs of a run, and words. Knows no Ray. Exists
because a small network leaves a GPU idle for most of the time: six runs of scl's preset small side by side had 3.9 times the throughput of
one after another on an H200."""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from search.machines import Machines, by_memory
from search.memory import peak_memory
from trainables.data.pack import Pack
from trainables.parts.errors import RequestError
from trainables.parts.execution import device_name, stages_of
from trainables.parts.loop import LOOKED_AT, Fitting
from trainables.parts.procedure import Procedure, Setting
from trainables.parts.replay import WARM

MOST = 8  # runs on one GPU
FILLED = 0.9  # of its memory: a search proposes configurations that take more than the baseline
WORTH = 0.95  # of its time; one more run for the rest of it would win nothing, and slow the others down
CONTEXT = 500 << 20  # bytes that CUDA itself takes of a GPU for each process, before the first tensor
# Of what its first steps take, a run takes so much: later stages, the judgement of all parts, and what torch keeps of freed memory.
# Two runs of supcam small took 3.4 GB each on an H200 where the trial had said 2.4.
LATER = 1.4
SECONDS = 2.0  # for the steps that are timed; at least one is
PLAYED = 10  # steps that the device is timed with
FINEST = 10_000  # parts of a GPU that Ray tells apart


@dataclass(frozen=True)
class Trial:
    """What a run takes of a GPU, by its first steps. memory: bytes that are there for runs; need: of one; busy: share of a step in which
    the device computes; host: bytes of the machine's own memory."""

    gpu: str
    memory: float
    need: float
    busy: float
    host: float

    @property
    def runs(self) -> int:
        """So many have room, and keep it busy."""
        return max(1, min(MOST, int(FILLED * self.memory / self.need), math.ceil(WORTH / max(self.busy, WORTH / MOST))))

    @property
    def words(self) -> str:
        return (
            f"one takes {self.need / 1e9:.1f} of {self.memory / 1e9:.0f} GB of {self.gpu} and keeps it busy for {self.busy:.0%} of a step"
        )

    def json(self) -> dict[str, Any]:
        return asdict(self)


# -- on the GPU ---------------------------------------------------------------------------------------------------------------------------


def free_bytes(device: torch.device) -> int:
    """Of the device, whoever uses the rest."""
    return torch.cuda.mem_get_info(device)[0]


def taken_bytes(before: int, device: torch.device) -> int:
    """By this process at most so far. before: those free as it began, which others on the device may have changed meanwhile."""
    return max(before - free_bytes(device), torch.cuda.max_memory_reserved(device)) + CONTEXT


def device_seconds(step: Callable[[], None], device: torch.device) -> float:
    """Of a recorded step, by the device's own clock: what the device needs where nothing keeps it waiting."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.device(device):
        begin.record()
        for _ in range(PLAYED):
            step()
        end.record()
        end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / PLAYED


# -- anywhere -----------------------------------------------------------------------------------------------------------------------------


def first_steps(procedure: Procedure, config: Any, pack: Pack, seed: int, device: torch.device) -> Trial:
    """Take a run's first steps, and judge once as after an epoch. The stage is the first that has steps; what it hands on is not awaited.
    RequestError where that tells nothing."""
    before = free_bytes(device)
    config = procedure.canonical(config)
    parts, previous = procedure.parts(config, pack, seed), None
    for stage in stages_of(procedure, config):
        setting = Setting(pack, parts, seed, device, previous=previous, steady=True)
        task = stage.build(config, setting)
        if task.steps():
            break
        previous = {name: tensor.clone() for name, tensor in task.result().items()}
    else:
        raise RequestError("no stage of the baseline takes a step")
    fitting, steps = Fitting(task, setting), task.steps()
    task.train()
    done = 0
    for epoch in range(WARM + 2):  # an epoch may be shorter than what comes before the recording
        for _ in itertools.islice(fitting._epoch(epoch, [0.0] * steps), WARM + 2 - done):
            done += 1
        if done == WARM + 2:
            break
    if fitting.replay is None or not fitting.replay.played:
        raise RequestError("the baseline's step could not be recorded as a CUDA graph, so that the device's part of it is not known")
    wall = _wall_seconds(fitting, steps, device)
    busy = min(1.0, device_seconds(fitting.replay.step, device) / wall)
    fitting.validate(last=False)
    return Trial(device_name(device), before + CONTEXT, LATER * taken_bytes(before, device), busy, peak_memory())


def _wall_seconds(fitting: Fitting, steps: int, device: torch.device) -> float:
    """Of a step as an epoch has it: the numbers of all steps are drawn and sent before the first, and the loss is looked at on the way."""
    clock = time.perf_counter()
    epoch = fitting._epoch(WARM + 2, [0.0] * steps)
    next(epoch)
    _wait(device)
    drawn, clock = time.perf_counter() - clock, time.perf_counter()
    done = 0
    for _ in epoch:
        done += 1
        if done % LOOKED_AT == 0:
            _wait(device)
        if time.perf_counter() - clock > SECONDS:
            break
    _wait(device)
    return drawn / steps + (time.perf_counter() - clock) / done if done else drawn


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- whether to ask, and dividing ----------------------------------------------------------------------------------------------------------


def measured(study: Mapping[str, Any]) -> dict[str, Trial]:
    """What trials have said before, by study.json: of each kind of GPU."""
    return {kind: Trial(**values) for kind, values in study.get("sharing", {}).items()}


def by_trial(asked: float | None, workers: int, gpus: float | None, known: Mapping[str, Trial]) -> bool:
    """Whether trials tell how many runs share a GPU: nobody has said it, a run has one worker, and the study's runs had no other part
    before. asked: GPUs of a run by the command; gpus: see `gpus_of`; known: see `measured`."""
    return asked is None and workers == 1 and gpus != 0 and (gpus is None or bool(known))


def divide(trials: Mapping[str, Trial], machines: Machines, wanted: int, run_bytes: float) -> tuple[int, str]:
    """Runs on one GPU, and why so many. trials: of each kind of GPU, as Ray names kinds; wanted: runs at once that there are to do;
    run_bytes: of a machine's memory, for one. All GPUs take as many as the least of them: a run's part of a GPU is the same on each."""
    least = min(trials.values(), key=lambda trial: trial.runs)
    nodes = [node for node in (*machines.here, *machines.to_come) if node.get("GPU", 0.0) >= 1]
    memory = max(run_bytes, least.host)
    limits = {
        "": least.runs,
        "CPU cores": min(int(node.get("CPU", 0.0) / node["GPU"]) for node in nodes),
        "the machine's memory": min(by_memory(node, memory) // int(node["GPU"]) for node in nodes),
        "the runs that there are to do": math.ceil(wanted / sum(int(node["GPU"]) for node in nodes)),
    }
    limit = min(limits, key=lambda name: limits[name])
    runs = max(1, limits[limit])
    words = f"{runs} runs share a GPU" if runs > 1 else "a run has a GPU to itself"
    return runs, f"{words}: {least.words}" + (f"; {least.runs} by that, {runs} by {limit}" if limit else "")


def part(runs: int) -> float:
    """Of a GPU, for each of so many: a little less than that, so that all find room."""
    return FINEST // runs / FINEST
