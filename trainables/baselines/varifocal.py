"""Varifocal-Net (Qin et al. 2019, IEEE TMI 38:2569; SCL's table 2), re-implemented from what others say of it: no code of it is public.
Comes in: gray images with their class. Goes out: a classifier of two networks. The first sees the whole image, names its class and a square
of it; the second sees that square, cut by a soft mask and enlarged, so that its loss can move the square. Four phases: the first network,
whose squares follow the foreground's middle; the second alone; both, where squares follow the second's loss; and layers on the features of
both, which stay as they are. Polarity is left out; types dealt out within a karyotype are a line beside any arm, see `dealing`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.parts.classification import AT_ONCE, PartImages
from trainables.parts.collapse import one_class
from trainables.parts.encoders import create_backbone, kept, restore, standardise, statistics_of
from trainables.parts.pairs import draw_pairs, rate_of, views_of
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.views import Draw, apply_views, draw_views

STEEPNESS = 10.0  # of the mask's edges, per pixel
LEAST = 1 / 8  # of the side: half of the smallest square
HIDDEN, DROPOUT = 1024, 0.5  # of the layers on both networks' features
GENTLE = 0.1  # of the rate: in the phase that trains both networks again


# ---------------------------------------------------------------------------------------------------------------- the square


def placed(numbers: Tensor) -> Tensor:
    """Any three numbers (N, 3) -> centre x, y and half side (N, 3) of a square within the image, in sides of the image."""
    share = numbers.sigmoid()
    half = LEAST + (0.5 - LEAST) * share[:, 2:]
    return torch.cat([half + (1 - 2 * half) * share[:, :2], half], 1)


def coarse(images: Tensor) -> Tensor:
    """(N, 1, S, S), background 0 -> squares (N, 3) of the middle half of the foreground along its longer side: what the first network is
    shown at first. Of an image without foreground: of all of it."""
    side = images.shape[-1]
    hit = (images[:, 0] > 0).int()
    lines = [hit.amax(dim) for dim in (1, 2)]  # along x, along y
    first, last = [line.argmax(1) for line in lines], [side - line.flip(1).argmax(1) for line in lines]  # argmax: the first of equal values
    low, high = torch.stack(first, 1) / side, torch.stack(last, 1) / side
    half = ((high - low).amax(1, keepdim=True) / 4).clamp(LEAST, 0.5)
    return torch.cat([((low + high) / 2).clamp(half, 1 - half), half], 1)


def _lines(centre: Tensor, half: Tensor, side: int, steepness: float) -> Tensor:
    """(N, S, S): how much each pixel of a line (last) gives to each of the enlarged line: bilinear weights times the soft mask."""
    pixel = torch.arange(side, device=centre.device, dtype=centre.dtype) + 0.5
    low, high = (centre - half)[:, None] * side, (centre + half)[:, None] * side
    mask = (steepness * (pixel - low)).sigmoid() - (steepness * (pixel - high)).sigmoid()
    place = low + (high - low) * (pixel / side)
    return (1 - (place[:, :, None] - pixel).abs()).clamp_min(0) * mask[:, None]


def cut(images: Tensor, square: Tensor, steepness: float = STEEPNESS) -> Tensor:
    """(N, 1, S, S) and squares (N, 3) -> the squares' parts, enlarged to (N, 1, S, S). Along each axis alike, so that two products of
    matrices do it: their gradients in the three numbers are the same each time, which a GPU's own sampler has not."""
    side, (x, y, half) = images.shape[-1], square.unbind(1)
    return (_lines(y, half, side, steepness) @ images[:, 0] @ _lines(x, half, side, steepness).mT)[:, None]


# ---------------------------------------------------------------------------------------------------------------- the networks


class Net(nn.Module):
    """One backbone with its scores, and where asked the three numbers of a square. forward: (N, 1, S, S), standardised -> (N, F + classes),
    or (N, F + classes + 3): features, scores, numbers side by side."""

    def __init__(self, config: Any, classes: int, seed: int, square: bool) -> None:
        super().__init__()
        self.backbone = create_backbone(
            config.backbone, channels=1, classes=0, weights=config.weights, seed=derive_seed(seed, "backbone"), input_size=config.input_size
        )
        self.features, self.classes = int(self.backbone.num_features), classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "heads"))
            self.scores = nn.Linear(self.features, classes)
            self.square = nn.Linear(self.features, 3) if square else None

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        return torch.cat([features, self.scores(features), *([] if self.square is None else [self.square(features)])], 1)

    def parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Features, scores, and numbers where there are any."""
        return rows.split([self.features, self.classes, *([] if self.square is None else [3])], 1)


class Network(nn.Module):
    """Both networks and the layers on their features. forward: (N, 1, S, S) in [0, 1] -> (N, classes)."""

    def __init__(self, config: Any, classes: int, weights: str, seed: int) -> None:
        super().__init__()
        start = replace(config, weights=weights)
        self.whole = Net(start, classes, derive_seed(seed, "whole"), square=True)
        self.part = Net(start, classes, derive_seed(seed, "part"), square=False)
        self.normalise = bool(config.normalise)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "fusion"))
            self.fusion = nn.Sequential(
                nn.Linear(2 * self.whole.features, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, classes)
            )

    def seen(self, images: Tensor) -> Tensor:
        return standardise(images, statistics_of(self.whole)) if self.normalise else images

    def rows(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the first network, of the second, and the features of both side by side."""
        wide, of_whole, numbers = self.whole.parts(self.whole(self.seen(images)))
        near, of_part = self.part.parts(self.part(self.seen(cut(images, placed(numbers)))))
        return of_whole, of_part, torch.cat([wide, near], 1)

    def scores(self, images: Tensor) -> Tensor:
        """(3, N, classes) of the first network, of the second, and of both."""
        of_whole, of_part, features = self.rows(images)
        return torch.stack([of_whole, of_part, self.fusion(features)])

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images)[2]


class Features(nn.Module):
    """Of a network what the last layers see: (N, 1, S, S) in [0, 1] -> (N, 2 F)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.rows(images)[2]


# ---------------------------------------------------------------------------------------------------------------- training


@dataclass
class Batch:
    """Random choices of one global step."""

    chosen: Tensor  # (G, 2, C) positions in the training part, as SCL's
    views: Draw


class _Phase(Task):
    """What the phases share. `own`: the parts of the network that are trained; all else is held aside as it is, statistics of batch
    normalisation included."""

    own: tuple[str, ...]
    epochs: str
    judged: int  # of the network's three scores
    rate = 1.0  # of the configuration's

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        self.seed, self.classes = derive_seed(setting.seed, "varifocal"), len(setting.pack.classes)
        network = Network(config, self.classes, config.weights if setting.previous is None else "random", self.seed)
        if setting.previous is not None:
            restore(network, setting.previous)
        self.workers.synchronise(network).to(setting.device, memory_format=torch.channels_last)
        network.requires_grad_(False).eval()
        self.all = (network,)  # in a tuple no part of the task
        for name in self.own:
            setattr(self, name, getattr(network, name).requires_grad_(True))
        self.keeps = "val_accuracy" if config.keep == "best" else ""
        self.optimizer = torch.optim.AdamW(
            self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, **setting.optimising(adaptive=True)
        )
        self.train_images = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        labels = setting.pack.labels[setting.parts["train"]]
        self.members = [torch.from_numpy(np.flatnonzero(labels == label)) for label in range(self.classes)]
        self.views = views_of(config)

    def steps(self) -> int:
        return int(self.config.steps_per_epoch)

    def batches(self, epoch: int) -> Iterator[Batch]:
        phase = derive_seed(self.seed, type(self).__name__)
        pairs = draw_pairs(self.members, phase, epoch * self.steps(), self.steps(), self.config.groups)
        draw, size = draw_views(pairs.numel(), self.views, generator(phase, "views", epoch)), pairs[0].numel()
        for number, chosen in enumerate(pairs):
            yield Batch(chosen, draw[number * size : (number + 1) * size])

    def loss(self, batch: Batch) -> Tensor:
        part, pair = self.workers.slice(len(batch.chosen)), 2 * self.classes
        chosen = batch.chosen[part].flatten()
        gray = self.train_images.pixels(chosen)
        draw = batch.views[part.start * pair : part.stop * pair]
        images = apply_views(gray[:, None] / 255, draw, keep_background=True, steady=self.setting.is_steady)
        return self.of(images, self.train_images.labels[chosen.to(gray.device)])

    def of(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of views (N, 1, S, S) in [0, 1] with their classes."""
        raise NotImplementedError

    def rows(self, net: Net, images: Tensor) -> tuple[Tensor, ...]:
        """Features, scores, numbers of images in [0, 1]; without a gradient where the network is not this phase's own."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and next(net.parameters()).requires_grad):
            return net.parts(self.setting.apply(net, self.all[0].seen(images)))

    def learning_rate(self, epoch: float) -> float:
        return self.rate * rate_of(self.config, epoch, getattr(self.config, self.epochs))

    def validate_at(self, epoch: int) -> bool:
        return bool(self.keeps) or epoch % max(1, getattr(self.config, self.epochs) // 10) == 0

    @torch.no_grad()
    def look(self, chosen: Tensor) -> None:
        self.all[0].scores(self.train_images.gray(chosen)[:, None] / 255)

    @torch.no_grad()
    def _judged(self) -> Tensor:
        """(3, N, classes) of the validation part."""
        val = PartImages(self.setting.pack, self.setting.parts["val"], self.setting.device)
        self.all[0].eval()
        some = torch.arange(len(val)).split(AT_ONCE)
        return torch.cat([self.all[0].scores(val.gray(each)[:, None] / 255).float().cpu() for each in some], 1)

    def validate(self) -> dict[str, float]:
        """Accuracy of what this phase trains; beside it that of each network and of both together."""
        labels = torch.from_numpy(np.asarray(self.setting.pack.labels[self.setting.parts["val"]]))
        right = [float((scores.argmax(1) == labels).double().mean()) for scores in self._judged()]
        return {"val_accuracy": right[self.judged]} | {f"{name}_accuracy": right[k] for k, name in enumerate(("whole", "part", "fused"))}

    def collapse(self) -> str:
        labels = torch.from_numpy(np.asarray(self.setting.pack.labels[self.setting.parts["val"]]))
        return one_class(self._judged()[self.judged].argmax(1), labels, self.setting.pack.classes)

    def result(self) -> dict[str, Tensor]:
        return kept(self.all[0])


class Whole(_Phase):
    """Phase 1: the first network; squares of the foreground's middle are its example."""

    own, epochs, judged = ("whole",), "epochs", 0

    def of(self, images: Tensor, labels: Tensor) -> Tensor:
        _, scores, numbers = self.rows(self.whole, images)
        return F.cross_entropy(scores, labels) + F.smooth_l1_loss(placed(numbers), coarse(images))


class Part(_Phase):
    """Phase 2: the second network, on the squares that the first gives."""

    own, epochs, judged = ("part",), "part_epochs", 1

    def of(self, images: Tensor, labels: Tensor) -> Tensor:
        _, _, numbers = self.rows(self.all[0].whole, images)
        _, scores = self.rows(self.part, cut(images, placed(numbers)))
        return F.cross_entropy(scores, labels)


class Both(_Phase):
    """Phase 3: both networks; squares have no example any more, the second network's loss moves them."""

    own, epochs, judged, rate = ("whole", "part"), "both_epochs", 1, GENTLE

    def of(self, images: Tensor, labels: Tensor) -> Tensor:
        _, of_whole, numbers = self.rows(self.whole, images)
        _, of_part = self.rows(self.part, cut(images, placed(numbers)))
        return F.cross_entropy(of_whole, labels) + F.cross_entropy(of_part, labels)


class Fusion(_Phase):
    """Phase 4: layers on the features of both networks, which stay as they are."""

    own, epochs, judged = ("fusion",), "fusion_epochs", 2

    def of(self, images: Tensor, labels: Tensor) -> Tensor:
        wide, _, numbers = self.rows(self.all[0].whole, images)
        near, _ = self.rows(self.all[0].part, cut(images, placed(numbers)))
        return F.cross_entropy(self.setting.apply(self.fusion, torch.cat([wide, near], 1)), labels)
