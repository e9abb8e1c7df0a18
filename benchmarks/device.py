"""What a training step takes of a GPU, against the least that it could take. In: nothing. Out: a table, printed and saved after each row.

`python -m benchmarks device [--cpu] [--out FOLDER] [--minutes 8]`: for each stage of the presets (ten rows) the full step as runs have it, the bare
step (same network, passes, optimiser and moving average on images that are there: no views, composition, queue, loss), and the bare step replayed as
one CUDA graph, which is what the device itself needs; launches and synchronisations of the host, memory, a roofline. Then what the choices cost:
determinism, torch.compile, precisions, runs that share the device. What has not been measured yet comes first (PLAN). `--cpu`: the quick presets alone, a
few steps; every kind of row that `--only` names is gone through there too, but for what only CUDA has. Needs torch, timm and the project on PYTHONPATH,
the timeline Ray as well; rows that do not fit into the minutes are named as left out."""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.registry import load
from trainables.data.pack import Pack, make_pack
from trainables.parts import replay
from trainables.parts.encoders import move_towards
from trainables.parts.execution import stages_of
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting, Stage, config_from, config_values

CASES = (  # procedure, preset, images
    ("supcam", "paper", 512), ("supcam", "small", 1024), ("supcam", "quick", 1024), ("scl", "paper", 480), ("scl", "small", 1024),
    ("scl", "quick", 1024), ("ccrl", "paper", 16384), ("ccrl", "quick", 8192),
)  # fmt: skip
KINDS = {
    "steps": "steps", "same": "the same numbers", "refused": "a step that cannot be recorded", "mps": "runs that share the device, processes through MPS",
    "processes": "runs that share the device, processes", "streams": "runs that share the device, streams", "timeline": "a command from its start to its end",
    "precision": "precision", "determinism": "determinism", "compile": "torch.compile", "profile": "where the device's time goes",
}  # fmt: skip
PLAN = (  # kind and words of the case; then all others, in the order of KINDS
    ("same", "scl quick"), ("same", "ccrl quick"), ("steps", "scl quick"), ("steps", "ccrl quick"), ("refused", ""), ("mps", ""), ("processes", ""),
    ("streams", ""), ("timeline", ""), ("steps", "supcam small"), ("compile", "small"), ("determinism", ""), ("precision", ""), ("steps", "scl small"),
)  # fmt: skip
AT_ONCE = (1, 2, 4, 8)  # runs that share the device
BFLOAT16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}  # dense operations a second, NVIDIA's data sheets


@dataclass
class Case:
    """One stage of a preset on random images, as a run would have it."""

    name: str
    preset: str
    stage: Stage
    config: Any
    setting: Setting

    def fitting(self, **more: Any) -> Fitting:
        setting = Setting(self.setting.pack, self.setting.parts, 0, self.setting.device, **more)
        made = Fitting(self.stage.build(self.config, setting), setting)
        made.task.train()
        return made

    def full(self, **more: Any) -> Callable[[], None]:
        """A step as `Fitting.epoch` has it: of steady steps, an epoch's numbers sent at once."""
        fitting = self.fitting(**more)

        def steps() -> Iterator[None]:
            for epoch in itertools.count():
                yield from fitting._epoch(epoch, [1e-3] * fitting.task.steps())

        every = steps()
        step = lambda: next(every)  # noqa: E731
        step.fitting = fitting  # type: ignore[attr-defined]
        return step

    def bare(self, **more: Any) -> Callable[[], None]:
        task, device = self.fitting(**more).task, self.setting.device
        size = getattr(self.config, self.stage.batch) if self.name != "scl" else 2 * self.config.groups * task.classes
        channels, side = (3, 32) if self.name == "ccrl" else (1, self.config.input_size)
        images = torch.randn(size, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)
        network = task.query if hasattr(task, "query") else task.model
        both_ways = 2 if getattr(self.config, "symmetric", False) else 1  # each view is query once and key once
        passes = 0 if not hasattr(task, "key") else both_ways if self.name == "ccrl" or self.config.composition == "off" else 2

        def asked() -> Tensor:
            rows = task.setting.apply(network, images)
            if getattr(task, "predictor", None) is not None:
                rows = task.setting.apply(task.predictor, rows)
            return task.classifier(rows) if hasattr(task, "classifier") else rows

        def step() -> None:
            rows = sum(asked() for _ in range(both_ways))
            with torch.no_grad():
                keys = [task.setting.apply(task.key, images) for _ in range(passes)]
            loss: Tensor = (rows * sum(keys)).sum(1).mean() if keys else rows.square().mean()
            task.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            task.optimizer.step()
            if keys:
                move_towards(task.key, task.query, self.config.ema_decay)

        return step


def pack_of(name: str, side: int, classes: tuple[str, ...], images: int) -> Pack:
    """Random pixels; those of supcam in a disc on background, as clusters are."""
    pixels = np.random.default_rng(0).integers(1, 256, (images, side, side, *((3,) if name == "ccrl" else ())), dtype=np.uint8)
    if name == "supcam":
        down, right = np.mgrid[:side, :side] - side / 2
        pixels *= (down**2 + right**2 < (side / 4) ** 2).astype(np.uint8)
    return make_pack(pixels, np.arange(images) % len(classes), classes, [str(i) for i in range(images)], None, np.full((images, 2), side))


def cases(device: torch.device, only: str = "", of: str = "") -> Iterator[Case]:
    """only, of: a procedure and a preset; empty: all."""
    classes = {
        "supcam": ("instance", "overlapping", "touching", "touching_overlapping"),
        "scl": (*map(str, range(1, 23)), "X", "Y"),
        "ccrl": tuple("abcd"),
    }
    some = CASES if device.type == "cuda" else [(n, p, i // 4) for n, p, i in CASES if p == "quick"]
    for name, preset, images in [case for case in some if only in ("", case[0]) and of in ("", case[1])]:
        entry = load(name)
        config = config_from(entry.procedure.config, config_values(entry.procedure.config()) | dict(entry.study.presets[preset].overrides))
        pack = pack_of(name, 32 if name == "ccrl" else config.input_size, classes[name], images)
        parts = {"train": np.arange(images), "val": np.arange(8), "test": np.arange(8)}
        for stage in stages_of(entry.procedure, config):
            yield Case(name, preset, stage, config, Setting(pack, parts, 0, device))


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def medians(steps: dict[str, Callable[[], None]], number: int) -> dict[str, float]:
    """Milliseconds of each step: medians of rounds in which all have their turn, so that a machine whose speed drifts does not decide."""
    for step in steps.values():
        for _ in range(replay.WARM + 2):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    together = 10 if torch.cuda.is_available() else 1  # a GPU is waited for after ten, as an epoch waits after twenty
    for _ in range(max(3, number // together)):
        for name, step in steps.items():
            synchronise()
            clock = time.perf_counter()
            for _ in range(together):
                step()
            synchronise()
            times[name].append((time.perf_counter() - clock) / together)
    return {name: 1000 * statistics.median(spent) for name, spent in times.items()}


def graphed(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The same step as one recording."""
    with replay.aside(device):
        for _ in range(replay.WARM):
            step()
    return replay.record(step, device)


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Inside, no step is recorded."""
    before, replay.recordable = replay.recordable, lambda device: False
    try:
        yield
    finally:
        replay.recordable = before


def counted(step: Callable[[], None], number: int = 5) -> dict[str, float]:
    """By the profiler, of one step: what is launched and what the host waits for. The last wait is the measurement's own."""
    from torch.profiler import ProfilerActivity, profile

    step()
    synchronise()
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with profile(activities=kinds) as seen:
        for _ in range(number):
            step()
    counts = {event.key: event.count / number for event in seen.key_averages()}

    def of(*words: str) -> float:
        return round(sum(count for key, count in counts.items() if any(word in key for word in words)), 1)

    return {
        "launches": of("LaunchKernel", "GraphLaunch"), "syncs": of("StreamSynchronize", "EventSynchronize"),
        "item": of("aten::item"), "nonzero": of("aten::nonzero"),
    }  # fmt: skip


def roofline(case: Case, milliseconds: float) -> dict[str, float]:
    """Operations of the products and convolutions of one full step, counted by torch; the least of bytes: weights, gradients and state of the
    optimiser once. Per cent of the matrix rate that NVIDIA states, where the device is known."""
    from torch.utils.flop_counter import FlopCounterMode

    with eager():
        step = case.full()
        step()
        with FlopCounterMode(display=False) as counter:
            step()
    task = step.fitting.task  # type: ignore[attr-defined]
    weights = sum(parameter.numel() * 4 for parameter in task.parameters())
    state = sum(value.numel() * 4 for entry in task.optimizer.state.values() for value in entry.values() if isinstance(value, Tensor))
    found = {"gflop": counter.get_total_flops() / 1e9, "weights_mib": (2 * weights + 2 * state) / 2**20}
    if case.setting.device.type == "cuda":
        name = torch.cuda.get_device_name()
        rate = next((rate for word, rate in BFLOAT16.items() if word in name), None)
        if rate:
            found["percent_of_rate"] = 100 * counter.get_total_flops() / (milliseconds / 1000) / rate
    return {key: round(value, 2) for key, value in found.items()}


def stage_row(case: Case, number: int) -> dict[str, Any]:
    """One of the ten rows."""
    cuda = case.setting.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    steps = {"full": case.full(), "bare": case.bare()}
    if cuda:
        steps["graphed"] = graphed(case.bare(), case.setting.device)
    took = medians(steps, number)
    row: dict[str, Any] = {"full_ms": took["full"], "bare_ms": took["bare"], "full/bare": took["full"] / took["bare"]}
    if cuda:
        row |= {"graphed_bare_ms": took["graphed"], "full/graphed": took["full"] / took["graphed"]}
        row["recorded"] = steps["full"].fitting.replay.played  # type: ignore[attr-defined]
        with eager():
            row["full_eager_ms"] = medians({"eager": case.full()}, number)["eager"]
        row["peak_mib"] = torch.cuda.max_memory_allocated() >> 20
    return row | counted(steps["full"]) | roofline(case, took["full"])


def losses(fitting: Fitting, epochs: range) -> list[float]:
    """The mean loss of each epoch, from the generators' start that `Fitting.epoch` gives them."""
    return [fitting.epoch(epoch)["loss"] for epoch in epochs]


def apart(one: Fitting, other: Fitting) -> float:
    """The largest difference of two trainings' tensors, as a share of the largest value of each tensor."""
    worst, beside = 0.0, other.tensors()
    for name, tensor in one.tensors().items():
        if tensor.is_floating_point() and tensor.numel():
            first, second = tensor.double().cpu(), beside[name].double().cpu()
            worst = max(worst, float((first - second).abs().max() / first.abs().max().clamp_min(1e-12)))
    return worst


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Inside, operations of the GPU give the same to the bit each time; one that has no such way is warned of."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def same_row(case: Case) -> dict[str, Any]:
    """Whether the numbers are right: recorded against launched one by one, resumed against straight, the device's against the CPU's; and nothing
    that makes the host wait in a step, which CUDA itself refuses here."""
    row: dict[str, Any] = {}
    plain = {"half": torch.float32, "steady": True}
    with eager():
        step = case.full(steady=True)
        step()
        watch = torch.cuda.set_sync_debug_mode if case.setting.device.type == "cuda" else lambda mode: None
        watch("error")
        try:
            for _ in range(min(3, step.fitting.task.steps() - 1)):  # type: ignore[attr-defined]
                step()
            row["waits"] = "no"
        except RuntimeError as fault:
            row["waits"] = str(fault).splitlines()[0][:80]
            traceback.print_exc()
        finally:
            watch("default")
    with repeatable():
        with eager():
            launched, again = case.fitting(**plain), case.fitting(**plain)
            one, two = losses(launched, range(2)), losses(again, range(2))
        row |= {"launched_twice": apart(launched, again)}
        played = case.fitting(**plain)
        three = losses(played, range(2))
        row |= {"played_apart": apart(launched, played), "played_loss_apart": max(abs(a - b) for a, b in zip(one, three, strict=True))}
        half = case.fitting(**plain)
        losses(half, range(1))
        resumed = case.fitting(**plain)
        resumed.restore({name: tensor.clone() for name, tensor in half.tensors().items()})
        losses(resumed, range(1, 2))
        row |= {"resumed_apart": apart(played, resumed), "steps": 2 * played.task.steps(), "recorded": played.replay.played}
    ours = case.fitting().epoch(0)["loss"]
    row |= {"loss": one[0], "loss_again": two[0], "loss_of_default_precision": ours}
    return row


def refused_row(case: Case) -> dict[str, Any]:
    """A network with dropout that asks the device for a value: the note, a step after it, a recording that fails all the same and what dropout
    gives then, and whether a step that asks nothing can still be recorded."""
    device = case.setting.device
    row: dict[str, Any] = {}
    fitting = case.fitting(steady=True)
    loss = fitting.task.loss

    def asks(batch: Any) -> Tensor:
        found = torch.nn.functional.dropout(loss(batch), 0.5)
        return found if bool(found.detach().isnan()) else 1.0 * found

    fitting.task.loss = asks  # type: ignore[method-assign]
    steps = fitting._epoch(0, [1e-3] * fitting.task.steps())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(replay.WARM + 2):
            next(steps)
    row["note"] = next((str(one.message)[:140] for one in heard if "could not be recorded" in str(one.message)), "none")
    if device.type == "cuda":
        assert fitting.replay is not None
        try:
            replay.record(fitting.replay.step, device)
            row["forced"] = "recorded, which it should not be"
        except RuntimeError as fault:
            row["forced"] = str(fault).splitlines()[0][:80]
        next(steps)  # with dropout
        synchronise()
    good = case.full(steady=True)
    for _ in range(replay.WARM + 2):
        good()
    synchronise()
    return row | {"another is recorded after it": good.fitting.replay.played}  # type: ignore[attr-defined]


def timeline_row() -> dict[str, Any]:
    """Seconds from a command's start to each mark, the second time; see `benchmarks/timeline.py`."""
    from benchmarks.timeline import STEPS, watch

    with tempfile.TemporaryDirectory() as cold, tempfile.TemporaryDirectory() as warm:
        watch(STEPS, Path(cold))
        return dict(watch(STEPS, Path(warm)))


def hot(case: Case) -> str:
    """The operations that take most of the device's time in a step, launched one by one: of the full step and of the bare one."""
    from torch.profiler import ProfilerActivity, profile

    text = []
    with eager():
        for name, step in (("full", case.full()), ("bare", case.bare())):
            for _ in range(3):
                step()
            synchronise()
            kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
            with profile(activities=kinds) as seen:
                for _ in range(3):
                    step()
                synchronise()
            by = f"self_{'cuda' if len(kinds) > 1 else 'cpu'}_time_total"
            rows = seen.key_averages().table(sort_by=by, row_limit=45, max_name_column_width=90)
            text.append(f"{case.name} {case.preset} {case.stage.name} {name}: 3 steps\n{rows}")
    return "\n".join(text)


def deterministic_row(case: Case, number: int) -> dict[str, Any]:
    """The price of torch's deterministic operations: equal weights from equal seeds on one device, to the bit."""
    plain = medians({"plain": case.full()}, number)["plain"]
    with repeatable():
        took = medians({"deterministic": case.full()}, number)["deterministic"]
    return {"full_ms": plain, "deterministic_ms": took, "deterministic/plain": took / plain}


def compile_row(case: Case, number: int) -> dict[str, Any]:
    """torch.compile of the networks: seconds to compile, and after how many steps they are won back."""
    plain = medians({"plain": case.full()}, number)["plain"]
    clock = time.perf_counter()
    step = case.full()
    task = step.fitting.task  # type: ignore[attr-defined]
    for name in ("query", "key", "model"):
        if hasattr(task, name):
            getattr(task, name).compile(**({} if case.setting.device.type == "cuda" else {"backend": "eager"}))
    step()
    synchronise()
    seconds = time.perf_counter() - clock
    took = medians({"compiled": step}, number)["compiled"]
    steps = int(getattr(case.config, case.stage.epochs)) * task.steps()
    won = (plain - took) / 1000
    return {
        "full_ms": plain, "compiled_ms": took, "compile_s": seconds, "steps_to_win_back": seconds / won if won > 0 else None,
        "steps_here_of_a_run": steps,
    }  # fmt: skip


def precision_row(case: Case, number: int) -> dict[str, Any]:
    """The step in each precision."""
    row = {}
    for name, half, tf32 in (("bf16", torch.bfloat16, True), ("fp16", torch.float16, True), ("tf32", torch.float32, True), ("fp32", torch.float32, False)):  # fmt: skip
        kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        try:
            row[f"{name}_ms"] = medians({name: case.full(half=half)}, number)[name]
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept
    return row


def streams_row(case: Case, number: int) -> dict[str, Any]:
    """Runs in one process, each on a stream of its own: steps a second of all together, in multiples of one alone."""
    row: dict[str, Any] = {}
    one, cuda = 0.0, case.setting.device.type == "cuda"
    for runs in AT_ONCE if cuda else AT_ONCE[:2]:
        steps = [case.full() for _ in range(runs)]
        beside = [torch.cuda.stream(torch.cuda.Stream()) if cuda else contextlib.nullcontext() for _ in range(runs)]
        for step in steps:
            for _ in range(replay.WARM + 2):
                step()
        synchronise()
        clock = time.perf_counter()
        for _ in range(number):
            for step, stream in zip(steps, beside, strict=True):
                with stream:
                    step()
        synchronise()
        rate = runs * number / (time.perf_counter() - clock)
        one = one or rate
        row |= {f"streams_{runs}": rate / one} | ({} if row else {"steps a second of one": rate})
    return row


@contextlib.contextmanager
def mps() -> Iterator[dict[str, str]]:
    """What a process's environment needs to compute through NVIDIA's MPS, whose daemon runs inside: kernels of several processes at one
    time, where the device else gives each process its turn."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for name in names.values():
            Path(name).mkdir()
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env=os.environ | names, check=True)
        try:
            yield names
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, env=os.environ | names, check=True, timeout=30)


def mps_row(case: Case, number: int, cpu: bool) -> dict[str, Any]:
    with contextlib.nullcontext({}) if cpu else mps() as names:
        return processes_row(case, number, cpu, names)


def processes_row(case: Case, number: int, cpu: bool, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The same in as many processes, which begin to count together; the others wait meanwhile."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.device",
        "--alone",
        case.name,
        case.preset,
        "--steps",
        str(number),
        *(["--cpu"] if cpu else []),
    ]
    at_once = AT_ONCE[:2] if cpu else AT_ONCE
    children = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | dict(names or {}))
        for _ in range(max(at_once))
    ]
    row: dict[str, Any] = {}
    try:
        for child in children:
            if child.stdout.readline().strip() != "ready":  # type: ignore[union-attr]
                raise RuntimeError("a run beside others did not come to its first step")
        for runs in at_once:
            for child in children[:runs]:
                child.stdin.write("go\n")  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]
            rate = sum(float(child.stdout.readline()) for child in children[:runs])  # type: ignore[union-attr]
            one = row.setdefault("steps a second of one", rate)
            row[f"processes_{runs}"] = rate / one
    finally:
        for child in children:
            child.kill()
            child.wait()
    return row


def alone(name: str, preset: str, number: int, device: torch.device) -> None:
    """A child of `processes_row`: steps a second from each word on."""
    case = next(case for case in cases(device, name, preset))
    step = case.full()
    for _ in range(replay.WARM + 2):
        step()
    synchronise()
    print("ready", flush=True)
    while sys.stdin.readline():
        clock = time.perf_counter()
        for _ in range(number):
            step()
        synchronise()
        print(number / (time.perf_counter() - clock), flush=True)


def place_of(kind: str, case: Case) -> int:
    """In PLAN; those that it does not name come last."""
    name = f"{case.name} {case.preset}"
    return next((number for number, (of, words) in enumerate(PLAN) if of == kind and words in name), len(PLAN))


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return path.name


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one table for each kind of row."""
    text = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        some = [row for row in rows if row["kind"] == kind]
        names = [name for name in dict.fromkeys(itertools.chain.from_iterable(some)) if name != "kind"]
        shown = [
            [
                (f"{row[n]:.2f}" if abs(row[n]) >= 0.01 else f"{row[n]:.1e}") if isinstance(row.get(n), float) else str(row.get(n, ""))
                for n in names
            ]
            for row in some
        ]
        text += [f"\n{kind}\n", *(f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *shown))]
    return "\n".join(text) + "\n"


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--cpu", action="store_true")
    words.add_argument("--out", type=Path, default=Path("runs/device"))
    words.add_argument("--minutes", type=float, default=8.0)
    words.add_argument("--steps", type=int)
    words.add_argument("--alone", nargs=2)
    words.add_argument("--only", help="kinds of rows, parted by commas: " + ", ".join(KINDS))
    words.add_argument("--begin", type=int, default=0, help="at this row, with those before from the table that is there")
    words.add_argument("--presets", help="parted by commas: paper, small, quick")
    asked = words.parse_args()
    if not asked.cpu and not torch.cuda.is_available():
        print("device: no GPU answers on this machine; --cpu measures the quick presets on its processor")
        return 1
    device = torch.device("cpu" if asked.cpu else "cuda")
    number = asked.steps or (5 if asked.cpu else 60)
    if asked.alone:
        alone(*asked.alone, number, device)
        return 0
    end = time.monotonic() + 60 * asked.minutes
    name = "cpu" if asked.cpu else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    found = list(cases(device))
    small = [case for case in found if case.stage is load(case.name).procedure.stages[0] and case.preset in ("small", "quick", "paper")]
    first = next(case for case in small if case.name == "supcam" and case.preset == ("quick" if asked.cpu else "small"))
    makers: dict[str, tuple[list[Case], Callable[[Case], dict[str, Any]]]] = {
        "steps": (found, lambda case: stage_row(case, number)),
        "same": (found, same_row),
        "profile": (small, lambda case: {"profile": written(asked.out / f"profile-{case.name}-{case.preset}.txt", hot(case))}),
        "processes": ([first], lambda case: processes_row(case, 5 * number, asked.cpu)),
        "mps": ([first], lambda case: mps_row(case, 5 * number, asked.cpu)),
        "refused": ([next(case for case in small if case.name == "scl" and case.preset == "quick")], refused_row),
        "timeline": ([first], lambda case: timeline_row()),
        "streams": ([first], lambda case: streams_row(case, 5 * number)),
        "precision": ([first], lambda case: precision_row(case, number)),
        "determinism": ([first], lambda case: deterministic_row(case, number)),
        "compile": ([case for case in small if case.name == "supcam"], lambda case: compile_row(case, number)),
    }
    kinds = asked.only.split(",") if asked.only else ["steps", "processes"] if asked.cpu else list(KINDS)
    presets = asked.presets.split(",") if asked.presets else ["paper", "small", "quick"]
    jobs = [(kind, case, makers[kind][1]) for kind in kinds for case in makers[kind][0] if case.preset in presets]
    if not asked.only and not asked.cpu:
        jobs.sort(key=lambda job: place_of(job[0], job[1]))  # of equal places as they stand
    if asked.begin:
        rows = json.loads((asked.out / "device.json").read_text())["rows"]
    for number_of, (kind, case, job) in enumerate(jobs):
        if number_of < asked.begin:
            continue
        row: dict[str, Any] = {
            "kind": KINDS[kind],
            "case": f"{case.name} {case.preset} {case.stage.name}",
            "backbone": case.config.backbone,
        }
        if rows and time.monotonic() > end:
            row["left out"] = f"{asked.minutes:g} minutes were over"
        else:
            try:
                clock = time.monotonic()
                row |= job(case)
                row["took_s"] = time.monotonic() - clock
            except (
                RuntimeError,
                AttributeError,
                TypeError,
                ValueError,
                OSError,
                subprocess.SubprocessError,
            ) as fault:  # one row that fails must not cost the device's time of all others
                row["failed"] = str(fault).splitlines()[0][:120]
                traceback.print_exc()
        rows.append(row)
        print(json.dumps(row), flush=True)
        (asked.out / "device.json").write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1))
        (asked.out / "device.md").write_text(f"{name}, torch {torch.__version__}\n{table(rows)}")
        if "CUDA error" in row.get("failed", ""):  # after which a process can do nothing more on the device
            left = str(max(0.0, (end - time.monotonic()) / 60))
            words_again = [word for word in sys.argv[1:] if not word.startswith("--begin=")]
            os.execv(
                sys.executable, [sys.executable, "-m", "benchmarks.device", *words_again, f"--begin={number_of + 1}", "--minutes", left]
            )
    print(table(rows))
    return int(any("failed" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
