"""Clusters by a generative adversarial network (Hu et al. 2019, IEEE JBHI 23:1316; "GAN" in CCRL's table 2), re-implemented from its
description. Comes in: colour crops of one cell each. Goes out: a trunk and scores of as many categories as there are types. A generator
draws crops from noise and a category; a critic tells drawn crops from real ones (Wasserstein distance with a gradient penalty, Gulrajani
et al. 2017); a second head on the critic's trunk names the category that a crop was drawn from, which generator and head learn together.
A cell's cluster is the category that this head names for it: no real cell's category is ever trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.parts.classification import PartImages
from trainables.parts.clustering import Clusters
from trainables.parts.collapse import one_answer, said
from trainables.parts.fitted import BANK, EARLY, OWN, fitted, on_the_way, some_of, types_of
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import derive_seed, generator

NOISE = 32  # normal numbers beside the category
CRITIC_STEPS = 5  # before each of the generator and each of the categories
BETAS = (0.5, 0.9)  # of Adam, of all networks
SMALLEST = 4  # side of the generator's first maps, of crops of 32 pixels
SIGNED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # mean and deviation that make -1 to 1 of pixels, 0 to 1
FAR = 1e3  # of the centres along each category's axis: so far that the nearest is the largest score's, however near to each other they are
AT_ONCE = 512  # cells
ALIKE = 0.01  # of the range of a pixel: drawn crops that deviate less from their mean are one
DRAWN = 64  # crops that are looked at for it


# ---------------------------------------------------------------------------------------------------------------- the networks


def start(network: nn.Module) -> None:
    """As the Wasserstein networks with a gradient penalty that these descend from start [decided: Hu et al. do not say]: 3 x 3 convolutions
    after He, all other weights after Glorot, constants 0. With PyTorch's own start, which is smaller, cells differ little behind ten layers
    and the categories take long to part."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            he = isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
            (nn.init.kaiming_uniform_ if he else nn.init.xavier_uniform_)(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


class Up(nn.Module):
    """(N, C, S, S) -> (N, C, 2 S, 2 S). Residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1),
            nn.BatchNorm2d(width), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, 1, 1),
        )  # fmt: skip
        self.short = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return self.short(maps) + self.own(maps)


class Generator(nn.Module):
    """(N, 32 + K), normal numbers and a category -> (N, 3, 32, 32) in [-1, 1]."""

    def __init__(self, categories: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NOISE + categories, width * SMALLEST**2), nn.Unflatten(1, (width, SMALLEST, SMALLEST)),
            Up(width), Up(width), Up(width), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 3, 3, 1, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


class Down(nn.Module):
    """Residual, without normalisation: a penalty on each crop's own gradient allows none over the batch. first: of pixels, where nothing is
    to be cut off below 0 yet. halved: (N, C, S, S) -> (N, C', S / 2, S / 2)."""

    def __init__(self, channels: int, width: int, halved: bool, first: bool = False) -> None:
        super().__init__()
        self.own = nn.Sequential(
            *([] if first else [nn.ReLU()]), nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1),
            *([nn.AvgPool2d(2)] if halved else []),
        )  # fmt: skip
        self.short = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, width, 1)) if halved else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.short(maps) + self.own(maps)


class Trunk(nn.Module):
    """(N, 3, 32, 32) in [-1, 1] -> (N, width): what the critic's head and the categories' share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Down(3, width, True, first=True), Down(width, width, True), Down(width, width, False), Down(width, width, False), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images).mean((2, 3))


# ---------------------------------------------------------------------------------------------------------------- equations


def critic_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """real, drawn: (N, 1) scores of the critic. Minus the distance between them that it has found: mean of drawn minus mean of real."""
    return drawn.mean() - real.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], between: Tensor) -> Tensor:
    """Mean over crops `between` (N, ...) of (|gradient of the critic's score (N, 1) in the crop| - 1)^2, a scalar. Of each crop alone: the
    scores are summed, and no score knows of another crop."""
    between = between.detach().requires_grad_()
    [slope] = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def category_loss(scores: Tensor, category: Tensor) -> Tensor:
    """scores: (N, K), category: (N,) int64 that each crop was drawn from. Mean negative log likelihood, in nats."""
    return -scores.log_softmax(1).gather(1, category[:, None]).mean()


def as_clusters(weight: np.ndarray, bias: np.ndarray) -> Clusters:
    """Clusters of rows (N, F) that are the largest of the scores rows @ weight.T + bias: (K, F), (K,). Rows that are scaled are the scores,
    and the nearest of far points on their axes is that of the largest."""
    mean = np.linalg.lstsq(weight, -bias, rcond=None)[0]  # whose scores without a bias are minus the bias
    return Clusters(FAR * np.eye(len(weight)), mean, weight.T)


# ---------------------------------------------------------------------------------------------------------------- training


@dataclass
class Turn:
    """Random choices of one update. Crops and what mixes them: of the critic's alone."""

    whose: str  # critic | generator | categories
    noise: Tensor  # (N, 32)
    category: Tensor  # (N,) int64
    chosen: Tensor | None = None  # (N,) positions in the training part
    copy: Tensor | None = None  # (N,) int64, 0 to 3: as it is, mirrored, upside down, both
    share: Tensor | None = None  # (N,) in [0, 1): of the real crop in the one that the penalty is of


@contextmanager
def held(*networks: nn.Module) -> Iterator[None]:
    """Inside, a loss has no gradient in the weights of these."""
    for network in networks:
        network.requires_grad_(False)
    yield
    for network in networks:
        network.requires_grad_(True)


class Gan(Task):
    """A step is five updates of the critic (trunk and its head), one of the generator, one of the categories (generator, trunk and their
    head), each on noise of its own. One Adam for all: a weight without a gradient in an update is left as it is, its moments too.
    The penalty is float32 on every device: it is a gradient's gradient, whose distance from 1 counts."""

    partial = True

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        self.categories = types_of(setting.pack)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(setting.seed, "gan"))
            self.generator = self.workers.synchronise(Generator(self.categories, config.gan_width))
            self.trunk = Trunk(config.gan_width)
            self.critic = nn.Linear(config.gan_width, 1)
            self.category = nn.Linear(config.gan_width, self.categories)
            start(self)
        self.register_buffer("told", torch.zeros(3))  # sums of the epoch: distance, penalty, likelihood
        self.told: Tensor
        self.to(setting.device, memory_format=torch.channels_last)
        self.train_cells = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=config.gan_rate, betas=BETAS, **setting.optimising(adaptive=True))

    def steps(self) -> int:
        return len(self.train_cells) * self.config.gan_copies // (CRITIC_STEPS * self.config.gan_batch)

    def batches(self, epoch: int) -> Iterator[tuple[Turn, ...]]:
        """Each copy of each cell at most once; what does not fill a whole step is left out."""
        chance, size, n = generator(self.setting.seed, "gan", epoch), self.config.gan_batch, len(self.train_cells)
        order = torch.randperm(n * self.config.gan_copies, generator=chance)

        def drawn(whose: str) -> Turn:
            return Turn(whose, torch.randn(size, NOISE, generator=chance), torch.randint(self.categories, (size,), generator=chance))

        for step in order[: self.steps() * CRITIC_STEPS * size].view(-1, CRITIC_STEPS, size):
            turns = [drawn("critic") for _ in step]
            for turn, some in zip(turns, step, strict=True):
                turn.chosen, turn.copy, turn.share = some % n, some // n, torch.rand(size, generator=chance)
            yield (*turns, drawn("generator"), drawn("categories"))

    def turns(self, batch: tuple[Turn, ...]) -> tuple[Turn, ...]:
        return batch

    def loss(self, batch: Turn) -> Tensor:
        part, device = self.workers.slice(len(batch.category)), self.setting.device
        category = batch.category[part].to(device)
        one_hot = category[:, None] == torch.arange(self.categories, device=device)
        rows = torch.cat([batch.noise[part].to(device), one_hot.float()], 1)
        if batch.whose == "critic":
            with torch.no_grad():
                drawn = self.setting.apply(self.generator, rows)
            return self._critic(self._real(batch, part), drawn, batch.share[part].to(device))  # type: ignore[index]
        drawn = self.setting.apply(self.generator, rows)
        if batch.whose == "generator":
            with held(self.trunk, self.critic):
                return -self._score(drawn).mean()
        loss = category_loss(self.setting.apply(self.category, self.setting.apply(self.trunk, drawn)), category)
        self.told[2] += loss.detach()
        return self.config.category_weight * loss

    def _real(self, batch: Turn, part: slice) -> Tensor:
        assert batch.chosen is not None and batch.copy is not None
        cells, copy = self.train_cells.colour(batch.chosen[part]) * 2 - 1, batch.copy[part, None, None, None].to(self.setting.device)
        cells = torch.where(copy % 2 == 1, cells.flip(3), cells)
        return torch.where(copy >= 2, cells.flip(2), cells)

    def _score(self, images: Tensor) -> Tensor:
        return self.setting.apply(self.critic, self.setting.apply(self.trunk, images))

    def _critic(self, real: Tensor, drawn: Tensor, share: Tensor) -> Tensor:
        apart = critic_loss(self._score(real), self._score(drawn))
        share = share[:, None, None, None]
        penalty = gradient_penalty(lambda images: self.critic(self.trunk(images)), share * real + (1 - share) * drawn)
        self.told[0] -= apart.detach()
        self.told[1] += penalty.detach()
        return apart + self.config.gan_penalty * penalty

    def health(self) -> dict[str, float]:
        """Means over the epoch's updates: the distance that the critic has found, the penalty, and the categories' loss."""
        steps = max(1, self.steps())
        values = [
            float(self.workers.mean(value)) / count for value, count in zip(self.told, (CRITIC_STEPS * steps,) * 2 + (steps,), strict=True)
        ]
        self.told.zero_()
        return dict(zip(("critic_distance", "critic_penalty", "category_loss"), values, strict=True))

    def learning_rate(self, epoch: float) -> float:
        return float(self.config.gan_rate)

    def validate_at(self, epoch: int) -> bool:
        """About ten times in a training."""
        return epoch % max(1, self.config.gan_epochs // 10) == 0

    @torch.no_grad()
    def look(self, chosen: Tensor) -> None:
        """The generator alone has batch normalisation, and sees no cell: as many crops are drawn."""
        self._draw(len(chosen))

    def _draw(self, count: int) -> Tensor:
        """(count, 3, 32, 32), of the same noise each time."""
        noise = torch.randn(count, NOISE, generator=generator(self.setting.seed, "gan look"))
        rows = torch.cat([noise, torch.eye(self.categories)[torch.arange(count) % self.categories]], 1)
        return self.generator(rows.to(self.setting.device))

    @torch.no_grad()
    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """(N, width) features of cells as they are, in float32."""
        images = PartImages(self.setting.pack, chosen, self.setting.device)
        some = torch.arange(len(images)).split(AT_ONCE)
        return torch.cat([self.trunk(images.colour(each) * 2 - 1) for each in some]).cpu().numpy()

    def clusters(self) -> Clusters:
        weight, bias = (value.detach().cpu().double().numpy() for value in (self.category.weight, self.category.bias))
        return as_clusters(weight, bias)

    def validate(self) -> dict[str, float]:
        """As every method's; and the shares of these cells in the largest and the smallest cluster."""
        pack, parts, found = self.setting.pack, self.setting.parts, self.clusters()
        chosen, known = some_of(parts["val"], EARLY), some_of(parts["train"], BANK)
        rows = self.rows(chosen)
        clusters = found.assign(rows)
        shares = np.bincount(clusters, minlength=self.categories) / len(clusters)
        more = {"largest_cluster": float(shares.max()), "smallest_cluster": float(shares.min())}
        return on_the_way(pack, chosen, rows, known, self.rows(known), clusters, found.scaled(rows)) | more

    @torch.no_grad()
    def collapse(self) -> str:
        cells = some_of(self.setting.parts["val"], EARLY)
        one = one_answer(torch.from_numpy(self.clusters().assign(self.rows(cells))), len(cells), "validation cells")
        alike = float(self._draw(DRAWN).std(0).mean()) <= 2 * ALIKE
        return said(
            one and f"{one} in one cluster",
            f"{DRAWN} crops that the generator has drawn are alike" if alike else "",
        )

    def result(self) -> dict[str, Tensor]:
        """The trunk, and what the training part's features give; the categories' head is their clusters."""
        part = self.setting.parts["train"]
        own = fitted(self.setting.pack, part, self.rows(part), self.clusters()) | {"statistics": torch.tensor(SIGNED)}
        return dict(self.trunk.state_dict()) | {OWN + name: tensor for name, tensor in own.items()}
