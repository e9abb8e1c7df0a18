"""Content-addressed results of shared stages, such as a pre-trained encoder.
Comes in: a hash over all that a stage depends on. Goes out: its tensors and history. Exists so that runs which agree in a stage train it
once. Written under a temporary name, then renamed: a stage is there whole or not at all, also for a reader on another machine."""

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor

from search.home import home
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.errors import RequestError


class Stages:
    """stages/<hash>/stage.safetensors below a study."""

    def __init__(self, study: Path) -> None:
        self.folder, self.home = study / "stages", home(study)

    def path(self, key: str) -> Path:
        return self.folder / key / "stage.safetensors"

    def has(self, key: str) -> bool:
        return self.home.stage(key, self.path(key))

    def get(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A damaged file is set aside, and the stage trained again."""
        self.home.fetch(self.path(key))
        if not self.path(key).exists():
            return None
        try:
            tensors, values = load_state(self.path(key))
            if values.pop("key", key) != key:
                raise RequestError(f"{self.path(key)} is another stage")
            return tensors, values
        except RequestError:
            with contextlib.suppress(FileNotFoundError):  # another worker met it too, and was first
                self.path(key).rename(self.path(key).with_suffix(".damaged"))
            self.home.remove(self.path(key))
            return None
        except FileNotFoundError:
            return None

    def put(self, key: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        save_state(self.path(key), tensors, values | {"key": key}, "stage")
        self.home.put_new(self.path(key))
