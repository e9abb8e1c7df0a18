"""States on disk: tensors and plain values in one safetensors file, written whole or not at all.
Comes in: a nested dictionary. Goes out: the same. Nothing is pickled, so a hostile file can at worst be refused; a file of another
schema is refused by name, one with a flipped bit by its check sum. Written under a temporary name, flushed, then renamed."""

import errno
import json
import os
import re
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.parts.errors import RequestError, StorageFault
from trainables.parts.failpoints import failpoint

SCHEMA = "karyotune-state-1"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """What the disk refuses becomes a StorageFault that names the file; all else passes."""
    try:
        yield
    except SafetensorError as fault:  # its writer gives the number in words alone
        number = re.search(r"os error (\d+)", str(fault))
        if number is None:
            raise
        raise StorageFault(f"{path} could not be written: {os.strerror(int(number[1]))}") from fault
    except OSError as fault:
        if fault.errno not in NO_ROOM:
            raise
        raise StorageFault(f"{path} could not be written: {os.strerror(fault.errno)}") from fault


def write_atomically(path: Path, write: Any, name: str | None = None) -> None:
    """write(temporary path), then flush to disk and rename to `path`: a reader sees the old file or the new one, never a part.
    name: of the failpoints before and after the renaming. StorageFault where the disk is full or the folder read-only."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")  # two machines may share the folder
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if name is not None:
                failpoint(f"{name}.written")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    if name is not None:
        failpoint(f"{name}.renamed")


def save_state(path: Path, tensors: dict[str, Tensor], values: dict[str, Any], name: str | None = None) -> None:
    """tensors by name; values: anything JSON holds. name: of the failpoints."""
    # Shared storage is refused by the format and a view would keep its whole base: each tensor is copied out.
    flat = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps(values)
    metadata = {"schema": SCHEMA, "values": text, "check": _check(flat, text)}
    write_atomically(path, lambda temporary: save_file(flat, str(temporary), metadata=metadata), name)


def _check(tensors: Mapping[str, Tensor], text: str) -> str:
    """CRC-32 over values, names, kinds and bytes: 0.5 s for a gigabyte. A flipped bit in a weight would else train on unseen."""
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy(), total)
    return f"{total:08x}"


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, values) as saved. RequestError for a damaged file or another schema; OSError where the system does not let it be read,
    which says nothing of what is in it."""
    try:
        open(path, "rb").close()  # for what the system says: safetensors takes too many open files for none there
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise RequestError(
                    f"{path}: a checkpoint of schema {SCHEMA} is needed, this one says {metadata.get('schema')!r}; delete it or "
                    "use the version that wrote it"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
            values = json.loads(metadata["values"])
        if metadata.get("check", "") not in ("", _check(tensors, metadata["values"])):
            raise ValueError("its check sum is not that of its content")
        if not isinstance(values, dict):
            raise ValueError("its values are no dictionary")
        return tensors, values
    except RequestError:
        raise
    except RuntimeError as fault:  # so safetensors tells what the system said
        if number := re.search(r"\((\d+)\)$", str(fault)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from fault
        raise
    except (SafetensorError, ValueError, KeyError, IsADirectoryError) as fault:
        raise RequestError(f"{path}: not a readable checkpoint ({fault}); delete it and the run starts anew from the one before") from fault


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors `<index>.<name>`; its settings are the configuration's and are not kept."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, entry in state.items() for name, value in entry.items() if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`. Each tensor is laid out in memory as its parameter is, as in a run without a break;
    a file holds them contiguous."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entry in optimizer.state.items():
        for key, tensor in entry.items():
            if tensor.shape == parameter.shape:
                entry[key] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix.`, without it."""
    return {name.removeprefix(prefix + "."): tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `part`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
