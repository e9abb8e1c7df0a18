"""What a procedure is: a configuration, stages, and how each stage is trained and judged.
Comes in: `trainables/<name>.py` defines a `PROCEDURE`. Goes out: the one shape that the loop and the engine know.
Exists so that a fourth procedure is one more file and no change here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.pack import Pack
from trainables.parts.micro import in_slices
from trainables.parts.precision import half_precision, precision_of
from trainables.parts.workers import Workers


@dataclass(frozen=True)
class Setting:
    """All that a stage is given beside its configuration."""

    pack: Pack
    parts: Mapping[str, np.ndarray]  # train, val, test: indices into the pack
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: Workers = field(default_factory=Workers)
    previous: Mapping[str, Tensor] | None = None  # what the stage before handed on
    micro_batches: int = 1  # in how many slices a step's images go through the trained network, see `micro.in_slices`
    half: torch.dtype | None = None  # that the networks compute in; None: the device's own, see `precision.precision_of`
    steady: bool | None = None  # None: wherever the device is not a CPU, see `is_steady`

    @property
    def precision(self) -> torch.dtype:
        """The type that the networks compute in while they train; float32: as everything else."""
        return self.half or precision_of(self.device)

    @property
    def is_steady(self) -> bool:
        """Whether steps have fixed shapes and ask the device nothing, so that a GPU need not wait for the host and one recorded step can be
        played again. On a CPU, where a question costs nothing and a fixed shape is work for nothing, only where asked for."""
        return self.device.type != "cpu" if self.steady is None else self.steady

    def optimising(self, adaptive: bool = False) -> dict[str, Any]:
        """What torch's optimisers are told beside the configuration: in steady steps one kernel for all weights, which takes the rate and
        the loss's scale from the device. adaptive: of Adam's family, which counts steps."""
        return ({"fused": True} | ({"capturable": self.device.type == "cuda"} if adaptive else {})) if self.is_steady else {}

    def apply(self, network: nn.Module, rows: Tensor) -> Tensor:
        """A network's rows for a batch of images or embeddings, at least float32. How a step's networks are asked, trained ones and key
        encoders alike: the one place where anything is in half precision, so that views, composition, queue and losses cannot be."""
        slices = self.micro_batches if torch.is_grad_enabled() else 1  # without a gradient no activation is held
        with half_precision(rows.device, self.precision):
            found = in_slices(network, rows, slices)
        return found.to(torch.promote_types(found.dtype, torch.float32))


class Task(nn.Module):
    """One stage in training. Its parameters, buffers and `optimizer` are the whole state: what `state_dict()` holds is what resumes.
    `loss` asks its networks through `Setting.apply`; all else in it is float32 on every device.

    batches(epoch) yields batches that depend on (seed, epoch) alone; calling the task with one returns the scalar loss, the mean over the
    batch (this worker's slice of it); `after_step` moves key encoders and queues; `learning_rate(epoch, fraction)` is the schedule; `look`
    is what batch normalisation takes its statistics from before the task is judged. A parameter group of the optimiser with a `share` has
    so much of the rate. keeps: the `val_` metric whose best epoch is handed on;
    empty: the last epoch is. partial: whether a loss may leave trained weights without a gradient; in its turn they stay as they are."""

    optimizer: torch.optim.Optimizer
    keeps: str = ""
    partial: bool = False

    def batches(self, epoch: int) -> Iterable[Any]:
        raise NotImplementedError

    def steps(self) -> int:
        """Steps in an epoch."""
        raise NotImplementedError

    def turns(self, batch: Any) -> Iterable[Any]:
        """What a step asks `loss` of, in this order: a backward pass and a step of the optimiser follow each, so that the next sees new
        weights. Where nothing is said one, the batch."""
        return (batch,)

    def loss(self, batch: Any) -> Tensor:
        raise NotImplementedError

    def forward(self, batch: Any) -> Tensor:
        return self.loss(batch)

    def after_step(self) -> None:
        """After each optimiser step."""

    def health(self) -> dict[str, float]:
        """What this epoch's steps have told of the contrast (see `pretext`), for the epoch's row. Asked once after each epoch."""
        return {}

    def learning_rate(self, epoch: float) -> float:
        """The rate at `epoch` (fractional) of the schedule."""
        raise NotImplementedError

    def look(self, chosen: Tensor) -> None:
        """Pass the training images at these positions of the training part, without views, as they are judged, through every network that
        has batch normalisation. Asked before each validation, and so before the result; never of a task without batch normalisation."""
        raise NotImplementedError(f"{type(self).__name__} has batch normalisation and no `look`: see `batch_norm.renew_statistics`")

    def validate(self) -> dict[str, float]:
        """Cheap `val_` metrics after an epoch; nothing of the test part."""
        return {}

    def collapse(self) -> str:
        """What has collapsed under the weights that `validate` has just judged, in words (see `collapse`); empty: nothing. Asked of the
        weights that are handed on."""
        return ""

    def validate_at(self, epoch: int) -> bool:
        """Whether `validate` is asked after this epoch (counted from 1)."""
        return True

    def result(self) -> dict[str, Tensor]:
        """What the next stage, or the export, needs of this one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Stage:
    """One training of a run. `fields`: the configuration's fields that its result depends on, beside all earlier stages' fields."""

    name: str
    epochs: str  # the field that holds the number of epochs; 0: the stage is left out
    batch: str  # the field that holds the size of the global batch
    fields: tuple[str, ...]
    build: Callable[[Any, Setting], Task]
    shared: bool = False  # whether runs that agree in `fields` share the result


@dataclass(frozen=True)
class Evaluation:
    """What a trained model gives on one part."""

    metrics: dict[str, float | None]  # without the part's prefix; None: undefined for these images
    confusion: list[list[int]] | None = None
    predictions: dict[str, list[Any]] = field(default_factory=dict)  # per image, for mistakes and calibration


@dataclass(frozen=True)
class Procedure:
    """The whole procedure. `canonical` sets fields that cannot matter in a configuration to their defaults, so that configurations
    which train the same thing are equal; `faults` names what is wrong with a configuration for a data set, all at once."""

    name: str
    config: type
    stages: tuple[Stage, ...]
    canonical: Callable[[Any], Any]
    faults: Callable[[Any, Pack | None, Mapping[str, np.ndarray] | None], list[str]]
    synthesize: Callable[..., Pack]  # (configuration, images=, seed=) -> the built-in set
    read: Callable[..., Pack]  # (folder, configuration, classes=None), the last those of a training set -> Pack
    parts: Callable[[Any, Pack, int], dict[str, np.ndarray]]  # (configuration, pack, seed) -> the split
    evaluate: Callable[[Any, Mapping[str, Tensor], Pack, np.ndarray, torch.device], Evaluation]
    timm_settings: Callable[
        [Any, tuple[str, ...]], dict[str, Any] | None
    ]  # (configuration, classes) -> timm's config.json of the exported model; None: timm has no such model
    read_images: Callable[
        [list[Path], Any], tuple[np.ndarray, dict[str, list[Any]], list[str], list[str]]
    ]  # (files, configuration) -> images as trained on, columns that name them ("file", ...), notes, faults; a file may give many images
    predict: Callable[
        [Any, Mapping[str, Tensor], np.ndarray, tuple[str, ...], torch.device], dict[str, list[Any]]
    ]  # -> columns, a value an image
    headline: tuple[str, ...] = ("accuracy",)  # metrics in the order in which people read them
    exported: Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]] | None = (
        None  # of a run's tensors, those of the exported file; None: all. `evaluate` and `predict` take either
    )
    artefacts: Callable[[Any, Mapping[str, Tensor], Pack, np.ndarray, torch.device], dict[str, np.ndarray]] | None = (
        None  # of the test part, for the report: embeddings, heat maps
    )
    baselines: Callable[[Any, Pack, Mapping[str, np.ndarray]], list[dict[str, Any]]] | None = (
        None  # what plain means reach, [{"name", "metrics": {"test_...": fraction}}]; None: the size of an image alone
    )
    external: Callable[..., dict[str, Pack]] | None = None  # (configuration, images=, seed=) -> external sets beside the built-in one
    elsewhere: Callable[[Path, Any], tuple[Pack, Pack]] | None = (
        None  # (folder, configuration) -> what `read` gives, and these images as another laboratory's, each file read once
    )
    prepare: Mapping[str, Callable[[Path, Path], int]] = field(
        default_factory=dict
    )  # a published data set's name -> (download, new folder) -> exit status


def stages_shared(procedure: Procedure) -> dict[str, str]:
    """Stages whose results runs share -> the field that holds their number of epochs."""
    return {stage.name: stage.epochs for stage in procedure.stages if stage.shared}


def config_values(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values, in the order of its fields."""
    return {entry.name: _plain(getattr(config, entry.name)) for entry in fields(config)}


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def config_from(kind: type, values: Mapping[str, Any]) -> Any:
    """The inverse of `config_values`; lists become tuples."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
