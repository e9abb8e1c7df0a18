"""A step's numbers where the step is computed: the random choices of an epoch in one copy, and constants that are sent once.
Comes in: an epoch's batches, nested dataclasses and tuples of tensors on the CPU. Goes out: a row of bytes for each step on the device, and
one batch whose tensors are views of a row that stays where it is. Exists because a GPU that is sent a step's numbers one by one, or asked
for one, waits for the host; and because a step that is recorded as a CUDA graph reads the same memory each time it is played."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

ALIGNED = 16  # bytes: what the widest element and a vectorised load ask of an address


@functools.lru_cache(maxsize=256)
def constant(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """torch.tensor(values) on the device, sent there once. values: numbers, in nested tuples. Not to be written to."""
    return torch.tensor(values, device=device, dtype=dtype)


def map_tensors(change: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """The same batch with each of its tensors changed, in the order of fields. What is neither a tensor nor holds one stays."""
    if isinstance(batch, Tensor):
        return change(batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{entry.name: map_tensors(change, getattr(batch, entry.name)) for entry in fields(batch)})
    if isinstance(batch, tuple):
        return tuple(map_tensors(change, entry) for entry in batch)
    return batch


def tensors_of(batch: Any) -> list[Tensor]:
    """A batch's tensors in the order of `map_tensors`."""
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor) or tensor, batch)  # type: ignore[func-returns-value]
    return found


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a batch stands in a row of bytes: its first byte, shape and type."""

    places: tuple[tuple[int, torch.Size, torch.dtype], ...]
    size: int

    @staticmethod
    def of(batch: Any) -> "Layout":
        places, size = [], 0
        for tensor in tensors_of(batch):
            places.append((size, tensor.shape, tensor.dtype))
            size += -(-tensor.numel() * tensor.element_size() // ALIGNED) * ALIGNED
        return Layout(tuple(places), size)

    def rows(self, batches: Iterable[Any], device: torch.device) -> Tensor:
        """(steps, size) uint8 on the device, in one copy that the host does not wait for. ValueError where a batch has another layout."""
        steps = [tensors_of(batch) for batch in batches]
        for step in steps:
            if tuple((tensor.shape, tensor.dtype) for tensor in step) != tuple(place[1:] for place in self.places):
                raise ValueError("the batches of an epoch must have tensors of equal shapes and types, else a step cannot be repeated")
        rows = torch.empty(len(steps), self.size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        for (first, shape, dtype), column in zip(self.places, zip(*steps, strict=True), strict=True):
            length = shape.numel() * dtype.itemsize
            rows[:, first : first + length] = torch.stack(column).reshape(len(steps), -1).view(torch.uint8)
        return rows.to(device, non_blocking=True)

    def batch(self, example: Any, row: Tensor) -> Any:
        """`example` with its tensors taken from a row (size,) uint8: views, not copies."""
        places = iter(self.places)

        def view(_: Tensor) -> Tensor:
            first, shape, dtype = next(places)
            return row[first : first + shape.numel() * dtype.itemsize].view(dtype).view(shape)

        return map_tensors(view, example)
