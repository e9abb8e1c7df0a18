"""Lin et al. 2021 (Med. Image Anal. 69:101943, SupCAM's table 1), re-implemented from its description: a published backbone, a head of
its own, two phases at one-cycle rates. Comes in: gray images with their type. Goes out: a classifier. The first phase trains the head
alone and leaves the body as it is, bit for bit, statistics of its batch normalisation included; the second trains all, the first layers at
the lowest rate. Known to differ from the published program: that trains a frozen body's batch normalisation, moves Adam's first beta, warps
views, turns and zooms three of four, stops after five epochs in which accuracy gained no point, and takes gray as
three channels, where the first layer's weights are summed for one here."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.parts.classification import PartImages, predict_logits
from trainables.parts.collapse import one_class
from trainables.parts.encoders import create_backbone, kept, restore, standardise, statistics_of
from trainables.parts.errors import RequestError
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.views import Draw, ViewSet, apply_views, draw_views

HIDDEN = 512
DROPOUT = (0.25, 0.5)  # before each of the head's layers
CUT = 6  # children of the body, a ResNet's up to its second group of blocks, that train at the lowest rate
BETAS = (0.9, 0.99)  # of Adam; the published program moves the first between 0.95 and 0.85 [decided: it stays in the middle]
RISE, START, END = 0.3, 1 / 25, 1e-4 / 25  # one cycle: share of the steps on which the rate rises; first and last rate, in the highest


class Head(nn.Sequential):
    """(N, F, H, W) -> (N, classes): mean and maximum of each map, then two layers. The normalisation is the one of images, the only one
    that has a form for several workers."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(
            nn.BatchNorm2d(2 * features),
            nn.Flatten(),
            nn.Dropout(DROPOUT[0]),
            nn.Linear(2 * features, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (HIDDEN, 1, 1)),
            nn.BatchNorm2d(HIDDEN),
            nn.Flatten(),
            nn.Dropout(DROPOUT[1]),
            nn.Linear(HIDDEN, classes),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(torch.cat([F.adaptive_avg_pool2d(maps, 1), F.adaptive_max_pool2d(maps, 1)], 1))


class Body(nn.Module):
    """A timm network without pooling and classifier: (N, 1, H, W) -> (N, F, h, w)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.net = backbone

    def forward(self, images: Tensor) -> Tensor:
        maps = self.net.forward_features(images)
        if maps.ndim != 4 or maps.shape[1] != self.net.num_features:
            raise RequestError(
                f"method=lin2021 pools maps of features (N, F, h, w), this backbone gives {tuple(maps.shape)}; take a ResNet"
            )
        return maps

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The weights of the first children, and all others."""
        children = list(self.net.children())
        first = CUT if len(children) > CUT else len(children) // 2
        early = [weight for child in children[:first] for weight in child.parameters()]
        known = set(map(id, early))
        return early, [weight for weight in self.parameters() if id(weight) not in known]


class Network(nn.Module):
    """Body and head."""

    def __init__(self, backbone: str, classes: int, weights: str, seed: int) -> None:
        super().__init__()
        self.body = Body(create_backbone(backbone, channels=1, classes=0, weights=weights, seed=derive_seed(seed, "body")))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head"))
            self.head = Head(self.body.net.num_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def one_cycle(highest: float, part: float) -> float:
    """The rate when `part` of the training, 0 to 1, is done: cosines up from a 25th to the highest, and down to a 250,000th."""
    first, last, done = (START, 1.0, part / RISE) if part < RISE else (1.0, END, (part - RISE) / (1 - RISE))
    return highest * (last + (first - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def views_of(config: Any) -> ViewSet:
    """Flip, rotation, zoom, brightness and contrast. The published program also warps the perspective, which is left out."""
    return ViewSet(horizontal_flip=0.5, rotation=config.rotation, zoom=config.zoom, brightness=0.2, contrast=0.2, jitter=0.75)


class _Phase(Task):
    """What both phases share. The epoch with the best validation accuracy is handed on."""

    keeps = "val_accuracy"
    phase: str

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        weights = config.weights if setting.previous is None else "random"
        network = Network(config.backbone, len(setting.pack.classes), weights, derive_seed(setting.seed, "lin2021"))
        if setting.previous is not None:
            restore(network, setting.previous)
        self.workers.synchronise(network).to(setting.device, memory_format=torch.channels_last)
        self.whole = (network,)  # in a tuple no part of the task: of it is trained, saved and renewed what a phase names as its own
        self.train_images = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        self.val_images = PartImages(setting.pack, setting.parts["val"], setting.device)
        self.views = views_of(config)

    def adam(self, groups: Any) -> torch.optim.Optimizer:
        decay = self.config.weight_decay
        return torch.optim.AdamW(groups, lr=1e-3, betas=BETAS, weight_decay=decay, **self.setting.optimising(adaptive=True))

    def steps(self) -> int:
        return len(self.train_images) // self.config.finetune_batch

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Draw]]:
        """Each image at most once; the incomplete last batch is left out, as batch statistics need a full one."""
        chance, size = generator(self.setting.seed, self.phase, epoch), self.config.finetune_batch
        order = torch.randperm(len(self.train_images), generator=chance)[: self.steps() * size]
        draw = draw_views(len(order), self.views, chance)
        for first in range(0, len(order), size):
            yield order[first : first + size], draw[first : first + size]

    def loss(self, batch: tuple[Tensor, Draw]) -> Tensor:
        part = self.workers.slice(len(batch[0]))
        chosen = batch[0][part]
        gray = self.train_images.pixels(chosen)
        views = apply_views(gray[:, None] / 255, batch[1][part], steady=self.setting.is_steady)
        seen = standardise(views, statistics_of(self.whole[0]))
        labels = self.train_images.labels[chosen.to(gray.device)]
        return F.cross_entropy(self.logits(seen), labels, label_smoothing=self.config.label_smoothing)

    def logits(self, seen: Tensor) -> Tensor:
        raise NotImplementedError

    def look(self, chosen: Tensor) -> None:
        self.whole[0](standardise(self.train_images.gray(chosen)[:, None] / 255, statistics_of(self.whole[0])))

    def validate(self) -> dict[str, float]:
        return {"val_accuracy": float((self._judged().argmax(1) == self.val_images.labels.cpu()).double().mean())}

    def collapse(self) -> str:
        return one_class(self._judged().argmax(1), self.val_images.labels.cpu(), self.setting.pack.classes)

    def _judged(self) -> Tensor:
        return predict_logits(self.whole[0], self.setting.pack.images, self.setting.parts["val"], self.setting.device)

    def result(self) -> dict[str, Tensor]:
        return kept(self.whole[0])


class HeadAlone(_Phase):
    """Phase 1. The body is no part of the task: it is neither trained nor are its statistics taken anew."""

    phase = "lin2021 head"

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self.head = self.whole[0].head
        self.whole[0].body.requires_grad_(False).eval()
        self.optimizer = self.adam(self.head.parameters())

    def logits(self, seen: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self.setting.apply(self.whole[0].body, seen)
        return self.setting.apply(self.head, maps)

    def learning_rate(self, epoch: float) -> float:
        return one_cycle(self.config.frozen_rate, epoch / self.config.frozen_epochs)


class All(_Phase):
    """Phase 2. The rate is the head's; of the body's two parts the first has `body_rate`, the second the geometric mean of both."""

    phase = "lin2021 all"

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self.network = self.whole[0]
        share = config.body_rate / config.head_rate
        groups = zip((*self.network.body.parts(), list(self.network.head.parameters())), (share, math.sqrt(share), 1.0), strict=True)
        self.optimizer = self.adam([{"params": weights, "share": part} for weights, part in groups if weights])

    def logits(self, seen: Tensor) -> Tensor:
        return self.setting.apply(self.network, seen)

    def learning_rate(self, epoch: float) -> float:
        return one_cycle(self.config.head_rate, epoch / self.config.finetune_epochs)
