"""A step that is recorded once and played again: on a GPU one CUDA graph in the place of a thousand launches from Python.
Comes in: a function without arguments that computes on tensors which stay where they are. Goes out: the same, called as often as needed.
Exists because small networks wait for the host (`benchmarks/README.md`): what a graph plays is what the device itself needs."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

# Real steps before the recording: optimisers, cuBLAS and cuDNN make what they keep at their first use, which no recording may hold.
WARM = 3


def recordable(device: torch.device) -> bool:
    """Whether `record` has a way to record on this device."""
    return device.type == "cuda"


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """On a GPU inside is another stream than outside, as torch demands of what runs before a recording."""
    if device.type != "cuda":
        yield
        return
    outside, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    beside.wait_stream(outside)
    with torch.cuda.stream(beside):
        yield
    outside.wait_stream(beside)


def record(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Calls `step` without computing anything; what goes out computes it. The process's generator of the GPU is part of the recording by
    itself: each time it is played, dropout draws the numbers that come next."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        step()
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
                self.recorded = False
                reason = (str(fault).splitlines() or [type(fault).__name__])[0]
                warnings.warn(
                    f"the training step could not be recorded as a CUDA graph ({reason}), so each of its operations is launched "
                    "from Python: "
                    "the numbers are the same, the steps slower. A backbone that asks the GPU for a value is the usual cause; "
                    "choose another",
                    stacklevel=2,
                )
        if self.recorded and not self.played:
            with aside(self.device):
                self.step()
        else:
            self.step()
        self.done += 1
