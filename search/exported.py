"""An export as others find it: whether it is whole, and what it holds.
Comes in: a folder `best`. Goes out: its tensors, configuration and classes; or what is wrong with it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from search.registry import Entry, load
from trainables.parts.errors import RequestError
from trainables.parts.procedure import config_from
from trainables.parts.weights import read_tensors

SCHEMA = "karyotune-export-1"
MODEL_FILE, SETTINGS = "model.safetensors", "karyotune.json"


def exported_key(best: Path) -> str | None:
    """Of the run that a whole export holds; None where there is none, or a part of one."""
    try:
        settings = json.loads((best / SETTINGS).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(settings, dict) or "key" not in settings:
        return None
    needed = (MODEL_FILE, "metrics.json", "README.md", *(("config.json",) if settings.get("timm", True) else ()))
    try:
        sums = dict(settings.get("files", {}))  # exports of before have none
        whole = all((best / name).is_file() for name in needed) and all(sum_of(best / name) == value for name, value in sums.items())
    except (OSError, TypeError, ValueError):
        return None
    return str(settings["key"]) if whole else None


def sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Exported:
    """What an export holds."""

    entry: Entry
    config: Any
    tensors: dict[str, Tensor]
    classes: tuple[str, ...]
    data_hash: str | None  # of all that it was trained and judged on
    areas: Mapping[str, float] = field(default_factory=dict)  # class -> pixels, see `size.typical_areas`; exports of before have none


def open_export(best: Path) -> Exported:
    """RequestError with what is missing."""
    missing = [name for name in (MODEL_FILE, SETTINGS) if not (best / name).is_file()]
    if missing:
        raise RequestError(f"{best} is no export: {', '.join(missing)} missing; give the `best` folder of a study")
    try:
        settings = json.loads((best / SETTINGS).read_text())
        tensors = read_tensors(best / MODEL_FILE)
    except (ValueError, OSError, SafetensorError) as fault:
        raise RequestError(f"{best} is damaged ({fault}); export it again: python -m search PROCEDURE export") from fault
    if not isinstance(settings, dict) or settings.get("schema") != SCHEMA:
        raise RequestError(
            f"{best}: an export of schema {SCHEMA} is needed, this one says "
            f"{settings.get('schema') if isinstance(settings, dict) else '?'}; export it again"
        )
    try:
        entry = load(settings["procedure"])
        config = config_from(entry.procedure.config, settings["config"])
        return Exported(entry, config, tensors, tuple(settings["classes"]), settings.get("data_hash"), settings.get("areas", {}))
    except (KeyError, TypeError, ValueError) as fault:
        raise RequestError(
            f"{best / SETTINGS} does not fit this version ({fault}); export it again: python -m search PROCEDURE export"
        ) from fault
