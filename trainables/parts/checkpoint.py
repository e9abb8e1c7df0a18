"""States on disk: tensors and plain values in one safetensors file, written whole or not at all.
Comes in: a nested dictionary. Goes out: the same. Nothing is pickled, so a hostile file can at worst be refused; a file of another
schema is refused by name. Written under a temporary name, flushed, then renamed."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.parts.errors import RequestError

SCHEMA = "karyotune-state-1"


def write_atomically(path: Path, write: Any) -> None:
    """write(temporary path), then flush to disk and rename to `path`: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")  # two machines may share the folder
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_state(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """tensors by name; values: anything JSON holds."""
    # Shared storage is refused by the format and a view would keep its whole base: each tensor is copied out.
    flat = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    metadata = {"schema": SCHEMA, "values": json.dumps(values)}
    write_atomically(path, lambda temporary: save_file(flat, str(temporary), metadata=metadata))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, values) as saved. RequestError for a damaged file or another schema."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise RequestError(
                    f"{path}: a checkpoint of schema {SCHEMA} is needed, this one says {metadata.get('schema')!r}; delete it or use the version that wrote it"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["values"])  # noqa: SIM118 (not a dictionary)
    except (SafetensorError, json.JSONDecodeError, KeyError) as fault:
        raise RequestError(f"{path}: not a readable checkpoint ({fault}); delete it and the run starts anew from the one before") from fault


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors `<index>.<name>`; its settings are the configuration's and are not kept."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, entry in state.items() for name, value in entry.items() if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix.`, without it."""
    return {name.removeprefix(prefix + "."): tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `part`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
