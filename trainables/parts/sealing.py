"""What every written file has, whatever it holds: a check sum over its values, and a mode.
Comes in: JSON values, paths. Goes out: the same with a check sum. Exists apart from `checkpoint` because reading images needs no PyTorch,
which takes seconds and 500 MB."""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def set_mode(path: Path, mode: int) -> None:
    """A file's mode, as far as its file system has modes: CIFS, FAT and some NFS refuse, and what they give is then all there is."""
    try:
        path.chmod(mode)
    except OSError as fault:
        if fault.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a check sum over them, under `check`."""
    return dict(values) | {"check": _sum_of(values)}


def unsealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without their check sum. ValueError if it is not theirs; without one (written by hand) they are taken as they are."""
    plain = {name: value for name, value in values.items() if name != "check"}
    if "check" in values and values["check"] != _sum_of(plain):
        raise ValueError("its check sum is not that of its content")
    return plain


def _sum_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
