"""In what precision networks train: which type a device is fast in, and the block in which networks compute in it.
Comes in: a device. Goes out: a type, a context. Exists apart so that there is one such block, in `procedure.Setting.apply`:
what is not asked of a network there is float32, and a loss needs no care to be so."""

from contextlib import AbstractContextManager, nullcontext

import torch


def precision_of(device: torch.device) -> torch.dtype:
    """float32 on a CPU; on a GPU bfloat16, or float16 with a scaled loss where the card only emulates bfloat16 (before Ampere)."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def half_precision(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Matrix products and convolutions inside are of this type, weights stay float32. Nothing changes where that is float32."""
    # No cache: each weight is asked for once inside, and a cast that is kept outlives the recording of a step that it belongs to.
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision, cache_enabled=False)
