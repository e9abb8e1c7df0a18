"""A fourth procedure: dark and bright images. Two stages, the first shared, and every way to fail.
Where the variable TOY_LOG names a file, each epoch that begins leaves a line `pid stage epoch seed` there. A file `hurry` beside it ends
every pause, a file `toy box` the trouble `late`."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.data.alone import image_settings
from trainables.data.normal import AS_IT_IS
from trainables.data.pack import Pack, make_pack
from trainables.data.read import read_folder, read_images
from trainables.data.split import split
from trainables.data.words import shown
from trainables.parts.classification import prediction_rows
from trainables.parts.encoders import GRAY_MEAN, GRAY_STD, create_backbone, standardise
from trainables.parts.errors import WeightsUnreachable
from trainables.parts.evaluation import classification_metrics, confusion_matrix
from trainables.parts.procedure import Evaluation, Procedure, Setting, Stage, Task
from trainables.parts.randomness import derive_seed, generator


@dataclass(frozen=True)
class ToyConfig:
    form: str = "plain"  # plain | bent
    network: str = "own"  # of two layers, whose import and building cost nothing | test_resnet, timm's
    bend: float = 0.2  # of a bent loss
    rate: float = 0.02
    warm_epochs: int = 3
    epochs: int = 2
    batch: int = 12
    # how it fails: memory | error | late (in its last epoch) | device (and all later runs of the process) | card (any on the GPU that a file
    # `broken card N` names) | nan | exit | weights
    trouble: str = "none"
    pause: float = 0.0  # seconds added to each epoch


def _lies(name: str) -> bool:
    """Whether a test has laid a file of that name beside the log."""
    return "TOY_LOG" in os.environ and Path(os.environ["TOY_LOG"]).with_name(name).exists()


_spoilt = False  # this process, by an error of its device


def canonical(config: ToyConfig) -> ToyConfig:
    return config if config.form == "bent" else replace(config, bend=ToyConfig.bend)


def faults(config: ToyConfig, pack: Pack | None = None, parts: Mapping[str, np.ndarray] | None = None) -> list[str]:
    found = [f"rate must be above 0, got {config.rate}"] if config.rate <= 0 else []
    if config.form not in ("plain", "bent"):
        found.append(f"form must be plain or bent, got {config.form!r}")
    if config.form == "bent" and config.pause > 100:
        found.append("a bent loss takes no pause above 100")
    if parts is not None and config.batch > len(parts["train"]):
        found.append(f"batch must not be above the number of training images, got {config.batch} for {len(parts['train'])}")
    return found


class Fit(Task):
    """Cross-entropy; the second stage goes on with the first one's weights, bends the loss and fails as told."""

    def __init__(self, config: ToyConfig, setting: Setting, name: str) -> None:
        super().__init__()
        self.config, self.setting, self.name = config, setting, name
        model = build(config.network, derive_seed(setting.seed, "toy"))
        if setting.previous is not None:
            model.load_state_dict(dict(setting.previous))
        self.model = setting.workers.synchronise(model)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=config.rate, momentum=0.9)
        self.index = setting.parts["train"]

    def steps(self) -> int:
        return len(self.index) // self.config.batch

    def batches(self, epoch: int) -> Iterator[Tensor]:
        if "TOY_LOG" in os.environ:
            with open(os.environ["TOY_LOG"], "a") as log:
                log.write(f"{os.getpid()} {self.name} {epoch + 1} {self.setting.seed}\n")
        time.sleep(0 if _lies("hurry") else self.config.pause)
        late = self.name == "tune" and self.config.trouble == "late" and epoch + 1 == self.config.epochs
        if late and not _lies("toy box"):
            raise KeyError("toy box")
        order = torch.randperm(len(self.index), generator=generator(self.setting.seed, self.name, epoch))
        yield from order[: self.steps() * self.config.batch].split(self.config.batch)

    def loss(self, batch: Tensor) -> Tensor:
        global _spoilt
        _spoilt |= self.name == "tune" and self.config.trouble == "device"
        _spoilt |= self.config.trouble == "card" and _lies(f"broken card {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        if _spoilt:
            raise RuntimeError("CUDA error: device-side assert triggered")
        chosen = self.index[batch[self.setting.workers.slice(len(batch))].numpy()]
        loss = F.cross_entropy(self.model(see(self.setting.pack, chosen)), torch.from_numpy(self.setting.pack.labels[chosen]))
        trouble = self.config.trouble if self.name == "tune" else "none"
        if trouble == "memory":
            raise MemoryError("no room for 3 toys")
        if trouble == "error":
            raise KeyError("toy box")
        if trouble == "weights":
            raise WeightsUnreachable("the toy shop does not answer")
        if trouble == "exit":
            os._exit(1)
        if trouble == "nan":
            loss = loss * torch.nan
        return loss * (1 + self.config.bend) if self.name == "tune" and self.config.form == "bent" else loss

    def learning_rate(self, epoch: float) -> float:
        return self.config.rate

    def look(self, chosen: Tensor) -> None:
        self.model(see(self.setting.pack, self.index[chosen.numpy()]))

    def validate(self) -> dict[str, float]:
        if self.name == "tune":
            return {}
        judged = evaluate(self.config, self.model.state_dict(), self.setting.pack, self.setting.parts["val"], torch.device("cpu"))
        return {"val_early": judged.metrics["accuracy"]}

    def result(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


def see(pack: Pack, chosen: np.ndarray) -> Tensor:
    return standardise(torch.from_numpy(pack.images[chosen]).float()[:, None] / 255)


def build(network: str, seed: int = 0) -> nn.Module:
    if network != "own":
        return create_backbone(network, channels=1, classes=2, weights="random", seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wide = 32  # with 8 the slow arm's third seed says one class of all, which is a collapse
        layers = (nn.Conv2d(1, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*layers, nn.Linear(wide, 2))


def logits_of(config: ToyConfig, tensors: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    model = build(config.network)
    model.load_state_dict(dict(tensors))
    with torch.no_grad():
        return model.eval()(pixels)


def evaluate(config: Any, tensors: Mapping[str, Tensor], pack: Pack, chosen: np.ndarray, device: torch.device) -> Evaluation:
    logits = logits_of(config, tensors, see(pack, chosen))
    labels = pack.labels[chosen]
    confusion = confusion_matrix(labels, logits.argmax(1).numpy(), 2)
    said = {"index": chosen.tolist(), "label": labels.tolist(), "probability": prediction_rows(logits)}
    return Evaluation({"accuracy": classification_metrics(confusion)["accuracy"]}, confusion.tolist(), said)


def predict(config: Any, tensors: Mapping[str, Tensor], images: np.ndarray, classes: tuple[str, ...], device: Any) -> dict[str, list[Any]]:
    seen = standardise(torch.from_numpy(images).float()[:, None] / 255)
    return {"prediction": [classes[index] for index in logits_of(config, tensors, seen).argmax(1)]}


def read(folder: Path, config: ToyConfig, classes: tuple[str, ...] | None = None) -> Pack:
    return read_folder(folder, canvas=16, size=16, classes=classes)


def read_files(paths: list[Path], config: ToyConfig) -> tuple[np.ndarray, dict[str, list[Any]], list[str], list[str]]:
    images, _, notes, broken = read_images(paths, 16, 16)
    return images, {"file": [shown(str(path)) for path in paths]}, notes, broken


def synthesize(config: ToyConfig, *, images: int, seed: int) -> Pack:
    chance = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    pixels = np.clip(chance.normal(70 + 25 * labels[:, None, None], 40, (images, 16, 16)), 1, 255).astype(np.uint8)
    names = [f"{('dark', 'bright')[label]}/{number:03d}.png" for number, label in enumerate(labels)]
    return make_pack(pixels, labels, ("dark", "bright"), names, None, np.full((images, 2), 256.0))


def timm_settings(config: ToyConfig, classes: tuple[str, ...]) -> dict[str, Any] | None:
    if config.network == "own":
        return None
    settings = {"input_size": [1, 16, 16], "mean": [GRAY_MEAN], "std": [GRAY_STD], "num_classes": 2, "label_names": list(classes)}
    return {
        "architecture": config.network,
        "num_classes": 2,
        "model_args": {"in_chans": 1},
        "pretrained_cfg": settings | {"custom_load": False},
        "images": image_settings(16, 16, AS_IT_IS),
    }


WARM = ("network", "rate", "warm_epochs", "batch", "pause")
PROCEDURE = Procedure(
    name="toy",
    config=ToyConfig,
    stages=(
        Stage("warm", "warm_epochs", "batch", WARM, lambda config, setting: Fit(config, setting, "warm"), shared=True),
        Stage(
            "tune", "epochs", "batch", ("form", "bend", "rate", "epochs", "batch", "trouble", "pause"),
            lambda config, setting: Fit(config, setting, "tune"),
        ),
    ),
    canonical=canonical,
    faults=faults,
    synthesize=synthesize,
    read=read,
    parts=lambda config, pack, seed: split(pack, (0.6, 0.2, 0.2), 0),
    evaluate=evaluate,
    timm_settings=timm_settings,
    read_images=read_files,
    predict=predict,
    artefacts=lambda config, tensors, pack, chosen, device: {"index": chosen, "label": pack.labels[chosen]},
)  # fmt: skip
