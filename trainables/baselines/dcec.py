"""Clusters by an auto-encoder (DCEC, Guo et al. 2017; "auto-encoder" in CCRL's table 2, after Vununu et al. 2020), re-implemented from its
description. Comes in: colour crops of one cell each. Goes out: an encoder and centres in the space of its codes. Two stages: first the
crops are only to be drawn again from their codes; then centres, which K-means has found among the codes, move with the encoder, so that
codes come nearer to the centre that they are nearest to. Which layers CCRL had is not known: these are DCEC's."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.parts.classification import PartImages
from trainables.parts.clustering import Clusters, assign, cluster
from trainables.parts.collapse import ALIKE, FEWEST, one_answer, said
from trainables.parts.fitted import BANK, CLUSTER_SEED, EARLY, OWN, fitted, on_the_way, some_of, types_of
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import derive_seed, generator

MAPS = (32, 64, 128)  # of the three convolutions, each of stride 2
SMALLEST = 4  # side of the last maps, of crops of 32 pixels
SETTLED = 1e-3  # share of the cells that change their cluster between two renewals of the target: with fewer the training ends
AT_ONCE = 512  # cells
AS_THEY_ARE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # mean and deviation that pixels, 0 to 1, are standardised by


class AutoEncoder(nn.Module):
    """encoder: (N, 3, 32, 32) in [0, 1] -> codes (N, dim); decoder: back. forward: the codes."""

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        first, second, third = MAPS
        flat = third * SMALLEST**2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(
                nn.Conv2d(3, first, 5, 2, 2), nn.ReLU(), nn.Conv2d(first, second, 5, 2, 2), nn.ReLU(), nn.Conv2d(second, third, 3, 2, 1),
                nn.ReLU(), nn.Flatten(), nn.Linear(flat, dim),
            )  # fmt: skip
            self.decoder = nn.Sequential(
                nn.Linear(dim, flat), nn.ReLU(), nn.Unflatten(1, (third, SMALLEST, SMALLEST)),
                nn.ConvTranspose2d(third, second, 3, 2, 1, 1), nn.ReLU(),
                nn.ConvTranspose2d(second, first, 5, 2, 2, 1), nn.ReLU(), nn.ConvTranspose2d(first, 3, 5, 2, 2, 1),
            )  # fmt: skip
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):  # as the published program's library starts them
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)


# ---------------------------------------------------------------------------------------------------------------- equations


def log_assignment(codes: Tensor, centers: Tensor) -> Tensor:
    """log Q: codes (N, D), centers (K, D) -> (N, K). Q_ij is proportional to 1 / (1 + |code_i - center_j|^2), Student's t of one degree of
    freedom; its rows sum to 1."""
    return F.log_softmax(-torch.log1p((codes[:, None] - centers).square().sum(2)), 1)


def sharpened(q: Tensor) -> Tensor:
    """P, the target: (N, K) -> (N, K). P_ij is proportional to Q_ij^2 / sum_i Q_ij; its rows sum to 1. The sum keeps a large cluster from
    drawing all cells; where types are of very different sizes it pulls clusters towards equal ones."""
    weight = q.square() / q.sum(0)
    return weight / weight.sum(1, keepdim=True)


def divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """KL(P || Q), a scalar in nats: the mean over the rows."""
    return (torch.xlogy(p, p) - p * log_q).sum(1).mean()


# ---------------------------------------------------------------------------------------------------------------- training


class _Training(Task):
    """What both stages share: no views, no labels, Adam at one rate."""

    phase: str
    epochs: str

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        self.network = AutoEncoder(config.embedding_dim, derive_seed(setting.seed, "dcec"))
        self.start()
        self.to(setting.device, memory_format=torch.channels_last)
        self.train_cells = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=config.pretrain_rate, **setting.optimising(adaptive=True))

    def start(self) -> None:
        """What the stage has beside the network."""

    def steps(self) -> int:
        return len(self.train_cells) // self.config.pretrain_batch

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """(N,) positions in the training part: each cell at most once; all batches are of one size, an incomplete one is left out."""
        chance, size = generator(self.setting.seed, self.phase, epoch), self.config.pretrain_batch
        order = torch.randperm(len(self.train_cells), generator=chance)
        return iter(order[: self.steps() * size].split(size))

    def loss(self, batch: Tensor) -> Tensor:
        chosen = batch[self.workers.slice(len(batch))]
        cells = self.train_cells.colour(chosen)
        codes = self.setting.apply(self.network.encoder, cells)
        drawn = F.mse_loss(self.setting.apply(self.network.decoder, codes), cells)
        return drawn + self.beside(chosen, codes)

    def beside(self, chosen: Tensor, codes: Tensor) -> Tensor | float:
        """What is added to the mean squared error of the pixels."""
        return 0.0

    def learning_rate(self, epoch: float) -> float:
        return float(self.config.pretrain_rate)

    def validate_at(self, epoch: int) -> bool:
        """About ten times in a training."""
        return epoch % max(1, getattr(self.config, self.epochs) // 10) == 0

    @torch.no_grad()
    def codes(self, images: PartImages) -> Tensor:
        """(N, D) of a part of the set, in float32."""
        return torch.cat([self.network(images.colour(some)) for some in torch.arange(len(images)).split(AT_ONCE)])

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        return self.codes(PartImages(self.setting.pack, chosen, self.setting.device)).cpu().numpy()

    def found(self, rows: np.ndarray, starts: int) -> tuple[np.ndarray, Clusters]:
        """Clusters of rows (N, D)."""
        return cluster(rows, types_of(self.setting.pack), CLUSTER_SEED, starts)

    def validate(self) -> dict[str, float]:
        pack, parts = self.setting.pack, self.setting.parts
        chosen, known = some_of(parts["val"], EARLY), some_of(parts["train"], BANK)
        rows = self.rows(chosen)
        return on_the_way(pack, chosen, rows, known, self.rows(known), self.found(rows, 2)[0], rows)

    def collapse(self) -> str:
        """Codes may lie on a line, by how dark a cell is, and still tell cells apart: alike are those that differ from their mean by a
        hundredth of its length."""
        rows = self.rows(some_of(self.setting.parts["val"], EARLY))
        if len(rows) < FEWEST:
            return ""
        alike = np.linalg.norm(rows.std(0)) <= ALIKE * np.linalg.norm(rows.mean(0))
        one = one_answer(torch.from_numpy(self.found(rows, 2)[0]), len(rows), "validation cells")
        return said(
            f"the codes of {len(rows):,} validation cells are alike" if alike else "",
            one and f"{one} in one cluster",
        )

    def result(self) -> dict[str, Tensor]:
        """The network, and what the training part's codes give."""
        part = self.setting.parts["train"]
        rows = self.rows(part)
        own = fitted(self.setting.pack, part, rows, self.found(rows, self.config.kmeans_starts)[1]) | {
            "statistics": torch.tensor(AS_THEY_ARE)
        }
        return dict(self.network.state_dict()) | {OWN + name: tensor for name, tensor in own.items()}


class Reconstruct(_Training):
    """The first stage: crops from codes. K-means on the codes is what it hands on."""

    phase, epochs = "dcec reconstruct", "reconstruct_epochs"


class Cluster(_Training):
    """The second stage: the squared error and `cluster_weight` times KL(P || Q). P is that of all training cells under the weights of its
    last renewal, which is done after the epoch in which `target_steps` are full. Where fewer than a thousandth of the cells changed their
    cluster since the one before, the training is at its end: epochs that remain are of one step at rate 0."""

    phase, epochs = "dcec cluster", "cluster_epochs"
    target: Tensor
    clusters: Tensor
    since: Tensor
    changed: Tensor
    settled: Tensor

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self.over = False
        self.register_load_state_dict_post_hook(lambda task, _: task._read())
        self._renew()
        self.changed.fill_(1.0)
        self.settled.fill_(False)
        self._read()

    def _read(self) -> None:
        """`settled`, where the host finds it without asking the device: the rate of each step depends on it."""
        self.over = bool(self.settled)

    def start(self) -> None:
        assert self.setting.previous is not None  # see `faults`
        handed = dict(self.setting.previous)
        self.network.load_state_dict({name: tensor for name, tensor in handed.items() if not name.startswith(OWN)})
        self.centers = nn.Parameter(handed[OWN + "centers"].clone())
        n = len(self.setting.parts["train"])
        self.register_buffer("target", torch.zeros(n, len(self.centers)))
        self.register_buffer("clusters", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("since", torch.zeros((), dtype=torch.int64))  # steps since the last renewal
        self.register_buffer("changed", torch.ones(()))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def _renew(self) -> None:
        q = log_assignment(self.codes(self.train_cells).double(), self.centers.double()).exp()
        found = q.argmax(1)
        self.changed.copy_(self.workers.mean((found != self.clusters).double().mean()))  # so that all of them end at the same epoch
        self.settled.copy_(self.changed < SETTLED)
        self.clusters.copy_(found)
        self.target.copy_(sharpened(q))
        self.since.zero_()
        self._read()

    def steps(self) -> int:
        return 1 if self.over else super().steps()

    def learning_rate(self, epoch: float) -> float:
        return 0.0 if self.over else super().learning_rate(epoch)

    def beside(self, chosen: Tensor, codes: Tensor) -> Tensor:
        target = self.target[chosen.to(self.target.device)]
        return self.config.cluster_weight * divergence(target, log_assignment(codes, self.centers))

    def after_step(self) -> None:
        self.since += 1

    def health(self) -> dict[str, float]:
        if not self.over and int(self.since) >= self.config.target_steps:
            self._renew()
        return {}

    def found(self, rows: np.ndarray, starts: int) -> tuple[np.ndarray, Clusters]:
        """The nearest centre, which is the largest Q."""
        centers = self.centers.detach().cpu().numpy()
        return assign(rows, centers), Clusters(centers)

    def validate(self) -> dict[str, float]:
        """As in the first stage; and the share of training cells that changed their cluster at the last renewal, and those that the largest
        and the smallest cluster held."""
        shares = torch.bincount(self.clusters, minlength=len(self.centers)).double() / len(self.clusters)
        more = {"changed": self.changed, "largest_cluster": shares.max(), "smallest_cluster": shares.min()}
        return super().validate() | {name: float(value) for name, value in more.items()}
