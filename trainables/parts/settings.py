"""What the settings of every procedure have in common: checks, the canonical form, the split they name, the warm-up.
Comes in: a frozen dataclass of settings. Goes out: faults in words, or plain values. Exists so that a rule is said once, in one way."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from trainables.data.pack import Pack
from trainables.data.split import given_split, split
from trainables.parts.procedure import config_values
from trainables.parts.randomness import derive_seed


def typed(config: Any, moot: Iterable[str] = ()) -> Any:
    """The configuration with the fields in `moot` at their defaults and every field in its default's type, so that 1 and 1.0 are one."""
    default = type(config)()
    values = config_values(config) | {name: getattr(default, name) for name in moot}
    return replace(config, **{name: _as_type(value, getattr(default, name)) for name, value in values.items()})


def _as_type(value: Any, example: Any) -> Any:
    if isinstance(example, tuple):
        return tuple(type(example[0])(entry) for entry in value)
    return type(example)(value)


def setting_faults(
    config: Any, choices: Mapping[str, tuple[str, ...]], ranges: Mapping[str, tuple[float, float]], positive: Iterable[str]
) -> list[str]:
    """What is wrong with single fields: words among `choices`, numbers within `ranges` (inclusive) or above 0, whole numbers, the split's
    three fractions, a crop's two sizes."""
    found = [
        f"{name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}"
        for name, allowed in choices.items()
        if getattr(config, name) not in allowed
    ]
    found += [
        f"{entry.name} must be a whole number, got {getattr(config, entry.name)}"
        for entry in fields(config)
        if type(entry.default) is int and getattr(config, entry.name) % 1 != 0
    ]
    found += [
        f"{name} must be between {low} and {high}, got {getattr(config, name)}"
        for name, (low, high) in ranges.items()
        if not low <= getattr(config, name) <= high
    ]
    found += [
        f"{name} must be above 0 and finite, got {getattr(config, name)}" for name in positive if not 0 < getattr(config, name) < math.inf
    ]
    if "crop_min" in ranges and config.crop_min > config.crop_max:
        found.append(f"crop_min must not be above crop_max, got {config.crop_min} and {config.crop_max}")
    if len(config.split) != 3 or not all(share > 0 for share in config.split) or not abs(sum(config.split) - 1) <= 1e-6:
        found.append(f"split must be three fractions above 0 that sum to 1, got {config.split}")
    return found


def split_of(config: Any, pack: Pack, seed: int) -> dict[str, np.ndarray]:
    """The split that came with the data; else one by patient, fixed for a study or drawn anew for each seed."""
    if pack.parts is not None:
        return given_split(pack, config.split, config.split_seed)
    return split(pack, config.split, derive_seed(config.split_seed, seed) % 2**31 if config.split_per_seed else config.split_seed)


def warm_cosine(rate: float, epoch: float, warmup: float, epochs: int, steps: int) -> float:
    """Linear warm-up over `warmup` epochs, whose first step has a rate above 0, then a cosine to 0 at the last epoch."""
    warm = min(warmup, epochs)
    if epoch < warm:
        return rate * (epoch + 1 / steps) / (warm + 1 / steps)
    return rate * 0.5 * (1 + math.cos(math.pi * min((epoch - warm) / max(epochs - warm, 1e-9), 1.0)))
