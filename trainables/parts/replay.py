"""A step that is recorded once and played again: on a GPU one CUDA graph in the place of a thousand launches from Python.
Comes in: a function without arguments that computes on tensors which stay where they are. Goes out: the same, called as often as needed.
Exists because small networks wait for the host (`benchmarks/README.md`): what a graph plays is what the device itself needs."""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch

# Real steps before the recording: optimisers, cuBLAS and cuDNN make what they keep at their first use, which no recording may hold.
WARM = 3
SYNCHRONISES = "called a synchronizing CUDA operation"  # as torch says it where it is told to
PROTOTYPE = "Synchronization debug mode is a prototype"  # and what it says of that itself


def recordable(device: torch.device) -> bool:
    """Whether `record` has a way to record on this device."""
    return device.type == "cuda"


@functools.cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    """One for all steps: torch keeps freed memory by stream, so that three streams would hold what a step takes three times."""
    return torch.cuda.Stream(device)


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """On a GPU inside is another stream than outside, as torch demands of what runs before a recording."""
    if device.type != "cuda":
        yield
        return
    outside, beside = torch.cuda.current_stream(device), _beside(device)
    beside.wait_stream(outside)
    with torch.cuda.stream(beside):
        yield
    outside.wait_stream(beside)


@contextmanager
def watched(device: torch.device) -> Iterator[list[str]]:
    """Inside, what makes the host wait for the GPU is noted in the list, and done. Asked before a recording, which it would end: a
    recording that has failed leaves memory behind that nothing frees."""
    found: list[str] = []
    if device.type != "cuda":
        yield found
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for one in heard:
        if SYNCHRONISES in str(one.message):
            found.append(f"{Path(one.filename).name}, line {one.lineno}, makes the host wait for the GPU")
        elif PROTOTYPE not in str(one.message):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def record(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Calls `step` without computing anything; what goes out computes it. The process's generator of the GPU is part of the recording by
    itself: each time it is played, dropout draws the numbers that come next. RuntimeError where it cannot be recorded; steps can then
    be called as before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        outside, generator = torch.cuda.current_stream(), torch.cuda.default_generators[torch.cuda.current_device()]
        as_it_was = generator.clone_state()
        try:
            with torch.cuda.graph(graph):
                step()
        except BaseException:
            # torch leaves its generator in the middle of a recording ("Offset increment outside graph capture" at the next dropout), and
            # before 2.13 the recording's stream as the current one
            torch.cuda.set_stream(outside)
            generator.graphsafe_set_state(as_it_was)
            raise
    return partial(_play, graph, step)


def _play(graph: torch.cuda.CUDAGraph, step: Callable[[], None]) -> None:
    """step: held, for a recording knows addresses alone, and what is there must not be freed before it."""
    graph.replay()


class Replay:
    """A step, called the first WARM times, then recorded and played. `played`: whether it is played by now."""

    def __init__(self, step: Callable[[], None], device: torch.device, alone: bool) -> None:
        """alone: False where the step talks to other workers, of which a recording of one device knows nothing."""
        self.step, self.device, self.done, self.recorded = step, device, 0, alone and recordable(device)
        self.played = False

    def __call__(self) -> None:
        if self.recorded and self.done == WARM and not self.played:
            try:
                self.step, self.played = record(self.step, self.device), True
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as fault:
                self._refuse((str(fault).splitlines() or [type(fault).__name__])[0])
        if self.recorded and not self.played:
            with aside(self.device), watched(self.device) if self.done == WARM - 1 else nullcontext() as found:
                self.step()
            if found:
                self._refuse(found[0])
        else:
            self.step()
        self.done += 1

    def _refuse(self, reason: str) -> None:
        self.recorded = False
        warnings.warn(
            f"the training step could not be recorded as a CUDA graph ({reason}), so each of its operations is launched from Python: "
            "the numbers are the same, the steps slower. A backbone that asks the GPU for a value is the usual cause; choose another",
            stacklevel=3,
        )
