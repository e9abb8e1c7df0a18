"""A second device that is none: a tensor on it holds its numbers in a tensor on the CPU, and refuses to meet one that was not sent there.
Comes in: code that asks for DEVICE. Goes out: the CPU's own numbers, or an error where a GPU would have given one.
DEVICE is torch's `meta`, the only device that needs no driver and has autograd; a real tensor on it would hold nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
aten = torch.ops.aten
BETWEEN = {aten._to_copy, aten.copy_, aten._copy_from, aten.set_}  # go from one device to another
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}  # the index may be on the CPU


class Pretend(Tensor):
    """A tensor on DEVICE; `held` is a tensor on the CPU of the same kind, shape and layout."""

    held: Tensor
    is_meta = False  # it has numbers

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretend":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Pretend({self.held!r})"


class _Calls(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Numbers(TorchFunctionMode):
    """`torch.tensor(numbers, device=DEVICE)`, which torch leaves without numbers on `meta`: made on the CPU, then sent."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            return func(*args, **(kwargs | {"device": "cpu"})).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], Pretend):
            return torch.tensor(*args[1:], **({"dtype": args[0].dtype} | kwargs | {"device": "cpu"})).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def pretend_device() -> Iterator[None]:
    """Inside, DEVICE can be trained on, with the optimisers that are one kernel: torch has a list of the devices that have them."""
    with (
        _Numbers(),
        _Calls(),
        patch.object(import_module("torch.optim.optimizer"), "_get_fused_kernels_supported_devices", lambda: ["cpu", "cuda", "meta"]),
    ):
        yield


def _refusal(func: Any, args: Any, kwargs: Any) -> str | None:
    """What a GPU has against a call, as it would say it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    packet = func.overloadpacket
    if packet in BETWEEN:
        return None
    if isinstance(kwargs.get("generator"), torch.Generator) and any(isinstance(tensor, Pretend) for tensor in tensors):
        return "a generator of the CPU for numbers on the device"
    if packet in INDEXED:
        there = isinstance(args[0], Pretend)
        indices = [index for index in args[1] if index is not None]
        if not there and any(isinstance(index, Pretend) for index in indices):
            return "a tensor on the CPU indexed by one on the device"
        values = args[2] if len(args) > 2 else args[0]
        return "values of another device" if isinstance(values, Pretend) != there and not (values.ndim == 0 and there) else None
    here = [tensor for tensor in tensors if not isinstance(tensor, Pretend)]
    if not here or len(here) == len(tensors):
        return None
    if (
        torch.Tag.pointwise in func.tags
        and all(tensor.ndim == 0 for tensor in here)
        and not (func._schema.is_mutable and not isinstance(args[0], Pretend))
    ):
        return None  # a single number of the CPU goes along with the call
    return "tensors on two devices"


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    """The call on the CPU's tensors; its results are on DEVICE if it was asked for, or else if an argument was."""
    if fault := _refusal(func, args, kwargs):
        raise RuntimeError(f"{func}: {fault}")
    asked = kwargs.get("device")
    there = any(isinstance(leaf, Pretend) for leaf in tree_leaves((args, kwargs)))
    if asked is not None:
        there = torch.device(asked) == DEVICE
        if there and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(f"{func}: a generator of the CPU for numbers on the device")
        kwargs = kwargs | {"device": torch.device("cpu")}
    if func is aten._local_scalar_dense.default:
        return func(args[0].held if isinstance(args[0], Pretend) else args[0])
    sent = {id(leaf.held): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Pretend)}
    given = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and not isinstance(leaf, Pretend)}
    plain_args, plain_kwargs = tree_map_only(Pretend, lambda tensor: tensor.held, (args, kwargs))
    found = func(*plain_args, **plain_kwargs)
    if not there:
        return found
    # what was changed in place stays the tensor that it was
    return tree_map_only(Tensor, lambda t: sent[id(t)] if id(t) in sent else t if id(t) in given else Pretend(t), found)
