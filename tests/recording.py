"""What a GPU does with a step, done on a CPU: a watch that refuses what would make the host wait, and a recording that is played again.
Comes in: a function that computes on tensors. Goes out: an error where it asks for a value; or the same operations on the same memory,
without the Python around them, so that a number which Python worked out is the one of the day of the recording, as in a CUDA graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}  # torch's own marks of a value or a shape that only the data tell
ASKS = {  # those that have no mark, most of them because the question is asked within
    aten.nonzero_numpy, aten.is_nonzero, aten.histc, aten.segment_reduce, aten.multinomial, aten.embedding_renorm_, aten._to_sparse,
    aten._linalg_check_errors, aten._linalg_eigh, aten._linalg_svd, aten.linalg_eig,
}  # fmt: skip
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
MOVES = {aten._to_copy, aten.copy_, aten._copy_from}


class Asked(AssertionError):
    """A step asked the device for something."""


class Watch(TorchDispatchMode):
    """Inside, what makes a GPU's host wait raises Asked: a value, a shape that the data decide, a mask as an index, a way between devices.
    of: calls with a tensor of this device alone; None: all."""

    def __init__(self, of: torch.device | None = None) -> None:
        super().__init__()
        self.calls, self.of = 0, of

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, self.calls = func.overloadpacket, self.calls + 1
        if self.of is not None and all(leaf.device != self.of for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)):
            return func(*args, **(kwargs or {}))
        told = packet is aten.repeat_interleave and (kwargs or {}).get("output_size") is not None
        if not told and (packet in ASKS or (packet not in INDEXED and TAGS & set(func.tags))):
            raise Asked(f"{func}: the host waits for a value or a shape")
        if packet is aten.linspace and any(isinstance(end, Tensor) for end in args[:2]):
            raise Asked(f"{func}: the host waits for where it begins or ends")
        if packet is aten.lift_fresh and args[0].device.type != "cpu":
            raise Asked(f"{func}: numbers of the host, made into a tensor of the device")
        if packet in INDEXED:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                raise Asked(f"{func}: a mask as an index, whose length the host must know")
            if any(index.device != args[0].device for index in indices):
                raise Asked(f"{func}: an index from another device")
        places = {leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        if packet not in MOVES | INDEXED and len(places) > 1:
            raise Asked(f"{func}: a number of the host goes along, and a recording keeps the one of its day")
        found = func(*args, **(kwargs or {}))
        if packet in MOVES and len({leaf.device for leaf in tree_leaves((args, found)) if isinstance(leaf, Tensor)}) > 1:
            raise Asked(f"{func}: a copy from one device to another")
        return found


class _Record(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found


def record(step: Callable[[], None], state: list[Tensor], device: torch.device) -> Callable[[], None]:
    """As `replay.record`, for a CPU. state: all that the step writes to which is there before; put back, for a recording computes nothing."""
    before = [tensor.detach().clone() for tensor in state]
    with _Record() as recorded:
        step()
    with torch.no_grad():
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)

    @torch.no_grad()
    def play() -> None:
        for func, args, kwargs, results in recorded.calls:
            again = func(*args, **kwargs)
            for new, old in zip(tree_leaves(again), tree_leaves(results), strict=True):
                if (
                    isinstance(old, Tensor) and old.numel() and new.data_ptr() != old.data_ptr()
                ):  # else it is the same memory, or a view of it
                    old.copy_(new)

    return play
