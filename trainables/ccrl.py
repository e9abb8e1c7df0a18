"""CCRL: cells without labels (Nakhli, Darbandsari, Farahani, Bashashati: Contrastive Cell Representation Learning).
Comes in: colour crops of one cell each. Goes out: an encoder whose embeddings K-means groups by type. One stage: momentum contrast of
local and global views with a predictor on the query's side. Types are looked at for scores alone. Beside it what is free: the same scores
of plain numbers that nothing was trained for (`features`); and another's way of training (`method`). Equation numbers are the paper's."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.baselines import dcec, gan
from trainables.baselines.morphology import morphological
from trainables.baselines.texture import textures
from trainables.data.cells import read_any, read_cells
from trainables.data.crops import SIDE
from trainables.data.pack import Pack
from trainables.data.prepare import PREPARE
from trainables.data.synthetic_cells import cell_set
from trainables.parts import losses
from trainables.parts.classification import PartImages, positions
from trainables.parts.clustering import Clusters, cluster, clustering_metrics, contingency, kmeans, silhouette, within_tiles
from trainables.parts.collapse import one_direction, said
from trainables.parts.encoders import create_backbone, key_encoder_of, move_towards, standardise, start_faults, statistics_of
from trainables.parts.errors import RequestError
from trainables.parts.evaluation import knn_votes
from trainables.parts.fitted import BANK, CLUSTER_SEED, EARLY, FITTED, OWN, fitted, on_the_way, some_of, types_of
from trainables.parts.key_queue import KeyQueue
from trainables.parts.libraries import missing
from trainables.parts.pretext import Health
from trainables.parts.probe import probed
from trainables.parts.procedure import Evaluation, Procedure, Setting, Stage, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.settings import setting_faults, split_of, typed, warm_cosine
from trainables.parts.views import Draw, ViewSet, apply_views, draw_views
from trainables.parts.weights import pinned

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}  # section 3
OTHER_SEEDS = range(1, 11)  # of those that tell how far the clusters depend on it
CENTERS = OWN + "centers"
CLASSIC = ("morphology", "texture")  # features of table 2 that others had, see trainables/baselines
PLAIN = ("colours", "histograms", "pixels", "area", "tile", *CLASSIC)  # features that need no network
UNSEEN = ("area", "tile", "morphology")  # of them, those that a crop alone does not show


@dataclass(frozen=True)
class CcrlConfig:
    """Defaults are the published values (sections 3 and 4.4); [decided] where the paper is silent."""

    # data
    split: tuple[float, float, float] = (0.6, 0.1, 0.3)  # train, validation, test; by tile or patient [decided]
    split_seed: int = 0  # of the split, fixed for a study [decided]
    split_per_seed: bool = False  # draw the split anew for each seed
    # encoder: CCRL; what needs no training: untrained (the encoder as it starts) | backbone (so, at feature_side) | colours | histograms |
    # pixels | area | tile | morphology | texture
    features: str = "encoder"
    feature_side: int = 224  # pixels: with features=backbone crops are enlarged to this first
    # encoder
    backbone: str = "cell_preact_resnet18"  # pre-activation ResNet-18 with a 3 x 3 stem; or any timm name
    weights: str = "random"  # where the backbone starts: random | imagenet | another published or own start, see `weights.KNOWN`
    projector_hidden: int = 128  # projector: features - hidden - dim
    embedding_dim: int = 64  # of queries and keys; dcec: of codes, theirs: 10
    predictor: bool = True  # the predictor dim - hidden - dim, on the query's side alone
    predictor_hidden: int = 32
    head_norm: bool = False  # batch normalisation between the layers of both heads [decided]
    # training
    pretrain_epochs: int = 500
    pretrain_batch: int = 1024  # cells
    pretrain_rate: float = 1e-3  # peak learning rate of Adam, after the warm-up
    warmup_epochs: int = 10  # linear, then cosine to 0
    weight_decay: float = 1e-4  # of Adam
    ema_decay: float = 0.999  # of the key encoder, per step (Eq. 1)
    queue_size: int = 65536  # keys; never more than the training part has cells [decided]
    temperature: float = 0.07  # divides the cosines
    mask_own: bool = False  # a cell's own older keys in the queue are no negatives of it [decided: off, as in MoCo]
    symmetric: bool = False  # the loss over both directions: each view is query once and key once; the queue takes the keys of the first
    # views
    local_side: str = "query"  # query | key | both: which pipeline crops (local); the other sees the whole cell (global) [decided: query]
    crop_min: float = 0.2  # smallest crop, fraction of the area [decided: MoCo's]
    crop_max: float = 1.0  # largest crop, fraction of the area [decided]
    jitter_strength: float = 1.0  # times brightness 0.4, contrast 0.4, saturation 0.4, hue 0.1
    jitter: float = 0.8  # probability of the colour jitter [decided: MoCo v2's]
    gray: float = 0.2  # probability that the colours go [decided: MoCo v2's]
    blur: float = 0.5  # probability of a blur with sigma 0.1 to 2 pixels [decided: MoCo v2's]
    stain: float = 0.0  # density of each stain times 1 +- up to this, plus up to +- this: jitter of H&E itself (Tellez et al. 2018)
    rotation: float = 180.0  # degrees: the view is turned by up to this, either way; with flips the same as 0 to 180
    # whose mean and deviation of each channel crops are standardised by: imagenet, or those that published weights expect | set, the
    # training part's
    statistics: str = "imagenet"
    # scoring
    scoring_encoder: str = "key"  # key (ensembling) | query: whose embeddings are clustered
    every_turn: bool = False  # a cell's embedding is the mean over its eight positions: four turns by 90 degrees, mirrored or not [decided]
    kmeans_starts: int = 10  # of K-means [decided]
    kmeans_fit: str = "scored"  # scored | train: the cells that K-means is fitted on; scores of the other fit are recorded beside [decided]
    whiten: float = 0.0  # share of the variance whose principal components K-means sees, each at deviation 1; 0: features as they are
    # another's method in its place
    # ccrl | dcec (clusters by an auto-encoder) | gan (clusters by a generative adversarial network), see trainables/baselines: who trains
    # the encoder
    method: str = "ccrl"
    reconstruct_epochs: int = 0  # dcec: of reconstruction alone; theirs: 200
    cluster_epochs: int = 0  # dcec: of reconstruction and clusters, at most; theirs: 100 [decided]
    target_steps: int = 140  # dcec: between two renewals of the clusters' target, rounded up to whole epochs
    cluster_weight: float = 0.1  # dcec: of the clusters' divergence beside the squared error
    gan_epochs: int = 0  # gan: theirs: 50
    gan_batch: int = 10  # gan: crops in each update
    gan_rate: float = 1e-4  # gan: of Adam, of all networks
    gan_width: int = 128  # gan: channels of all layers
    gan_copies: int = 4  # gan: of each cell in an epoch: 4 as it is, mirrored, upside down and both; 1 as it is
    gan_penalty: float = 10.0  # gan: of the gradient's distance from 1 beside the critic's loss
    category_weight: float = 1.0  # gan: of the categories' loss


CHOICES = {
    "local_side": ("query", "key", "both"), "scoring_encoder": ("key", "query"),
    "features": ("encoder", "untrained", "backbone", *PLAIN), "statistics": ("imagenet", "set"), "kmeans_fit": ("scored", "train"),
    "method": ("ccrl", "dcec", "gan"),
}  # fmt: skip
RANGES = {  # (low, high), inclusive
    "split_seed": (0, 2**31 - 1),
    "feature_side": (16, 2048),
    "projector_hidden": (1, 65536),
    "embedding_dim": (2, 65536),
    "predictor_hidden": (1, 65536),
    "pretrain_epochs": (0, 100000),
    "pretrain_batch": (2, 65536),
    "warmup_epochs": (0, 100000),
    "weight_decay": (0, 1),
    "ema_decay": (0, 1),
    "queue_size": (1, 1 << 24),
    "crop_min": (0.01, 1),
    "crop_max": (0.01, 1),
    "jitter_strength": (0, 2.5),
    "jitter": (0, 1),
    "gray": (0, 1),
    "blur": (0, 1),
    "stain": (0, 0.5),
    "whiten": (0, 1),
    "rotation": (0, 180),
    "kmeans_starts": (1, 1000),
    "reconstruct_epochs": (0, 100000),
    "cluster_epochs": (0, 100000),
    "target_steps": (1, 1 << 24),
    "cluster_weight": (0, 1000),
    "gan_epochs": (0, 100000),
    "gan_batch": (2, 65536),
    "gan_width": (1, 4096),
    "gan_copies": (1, 4),
    "gan_penalty": (0, 1000),
}
POSITIVE = ("temperature", "pretrain_rate", "gan_rate", "category_weight")
OF_DCEC = ("reconstruct_epochs", "cluster_epochs", "target_steps", "cluster_weight")
RECONSTRUCT_FIELDS = (
    "split", "split_seed", "split_per_seed", "method", "embedding_dim", "pretrain_batch", "pretrain_rate", "kmeans_starts",
    "reconstruct_epochs",
)  # fmt: skip
OF_GAN = ("gan_epochs", "gan_batch", "gan_rate", "gan_width", "gan_copies", "gan_penalty", "category_weight")
GAN_FIELDS = ("split", "split_seed", "split_per_seed", "method", *OF_GAN)
CLUSTER_FIELDS = (*RECONSTRUCT_FIELDS, "cluster_epochs", "target_steps", "cluster_weight")
PRETRAIN_FIELDS = tuple(
    entry.name for entry in fields(CcrlConfig) if entry.name not in ("scoring_encoder", "kmeans_fit", "method", *OF_DCEC, *OF_GAN)
)
ALL_FEATURES = (
    "split",
    "split_seed",
    "split_per_seed",
    "features",
    "kmeans_starts",
    "kmeans_fit",
)  # fields that matter whatever is clustered


def canonical(config: CcrlConfig) -> CcrlConfig:
    """The same training with every field that cannot matter at its default. Fields are numbers of the default's type."""
    config = replace(config, weights=pinned(config.weights))
    if config.features != "encoder":
        kept = {*ALL_FEATURES, *(() if config.features == "tile" else ("whiten",))}
        of_network = {"backbone", "weights", "every_turn"}
        kept |= {"untrained": of_network | {"statistics"}, "backbone": of_network | {"feature_side"}}.get(config.features, set())
        config = typed(config, {entry.name for entry in fields(CcrlConfig)} - kept)
        return replace(config, pretrain_epochs=1)  # of no steps
    if config.method in ("dcec", "gan"):
        kept = {*GAN_FIELDS, "kmeans_starts", "kmeans_fit"}
        if config.method == "dcec":
            kept = {*CLUSTER_FIELDS, "kmeans_fit"} - (set() if config.cluster_epochs else {"target_steps", "cluster_weight"})
        return replace(typed(config, {entry.name for entry in fields(CcrlConfig)} - kept), pretrain_epochs=0)
    moot = {"feature_side", *OF_DCEC, *OF_GAN} | (set() if config.predictor else {"predictor_hidden"})
    if config.jitter and config.jitter_strength:
        return typed(config, moot)
    return replace(typed(config, moot | {"jitter_strength"}), jitter=0.0)


def faults(config: CcrlConfig, pack: Pack | None = None, parts: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """All that is wrong with the configuration, alone and for a data set: one line each."""
    found = setting_faults(config, CHOICES, RANGES, POSITIVE)
    side = config.feature_side if config.features == "backbone" else SIDE
    found += start_faults(config.backbone, config.weights, 3, side)
    other = config.method if config.features == "encoder" else "ccrl"
    needed = {"dcec": "reconstruct_epochs", "gan": "gan_epochs"}.get(other, "pretrain_epochs")
    if getattr(config, needed) == 0:
        found.append(f"{needed} must be above 0 where method is {config.method}, got 0: nothing would be trained; presets set it")
    if config.features in CLASSIC and (words := missing()):
        found.append(f"features={config.features}: {words}")
    if config.features == "morphology" and pack is not None and pack.masks is None:
        found.append(
            "features=morphology measures masks, this set was packed before masks were kept: prepare the download again "
            "(python -m search data prepare), or leave the row out (--arms)"
        )
    if pack is not None and pack.images.ndim != 4:
        found.append(f"cells must be in colour, (N, {SIDE}, {SIDE}, 3), the data is {pack.images.shape}; read it with this procedure")
    n = 0 if parts is None or config.features != "encoder" else len(parts["train"])
    step = gan.CRITIC_STEPS * config.gan_batch
    if n and config.method == "gan" and step > n * config.gan_copies:
        found.append(
            f"gan_batch must leave a step of {gan.CRITIC_STEPS} batches, got {config.gan_batch}, which makes {step} crops of "
            f"{n * config.gan_copies}; set gan_batch={max(2, n * config.gan_copies // gan.CRITIC_STEPS)}"
        )
    elif n and config.method != "gan" and config.pretrain_batch > n:
        found.append(
            f"pretrain_batch must not be above the number of training cells, got {config.pretrain_batch} for {n}; set "
            f"pretrain_batch={max(2, min(256, n))}"
        )
    return found


# ---------------------------------------------------------------------------------------------------------------- the encoder


class CellPreActResNet(ResNetV2):
    """timm's pre-activation ResNet with basic blocks, its 7 x 7 stem and pooling replaced by a 3 x 3 convolution: 32 pixels in, 4 at the
    end.

    stem_stride 2 halves the image at once, for a CPU."""

    def __init__(self, in_chans: int = 3, stem_chs: int = 64, stem_stride: int = 1, **more: Any) -> None:
        super().__init__(
            in_chans=in_chans, stem_chs=stem_chs, basic=True, bottle_ratio=1.0, conv_layer=create_conv2d, norm_layer=BatchNormAct2d, **more
        )
        conv = create_conv2d(in_chans, stem_chs, 3, stride=stem_stride)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.stem = nn.Sequential(OrderedDict(conv=conv))
        self.feature_info = [entry | {"reduction": max(stem_stride, entry["reduction"] * stem_stride // 4)} for entry in self.feature_info]


default_cfgs = generate_default_cfgs(
    {
        name: {"input_size": (3, SIDE, SIDE), "pool_size": (4, 4), "first_conv": "stem.conv", "classifier": "head.fc", "crop_pct": 1.0}
        for name in ("cell_preact_resnet18", "cell_preact_tiny")
    }
)


@register_model
def cell_preact_resnet18(pretrained: bool = False, **more: Any) -> nn.Module:
    """Pre-activation ResNet-18 for 32 pixels (He et al. 2016, section 4.4 of the paper): 512 features."""
    settings = {"layers": [2, 2, 2, 2], "channels": (64, 128, 256, 512)}
    return build_model_with_cfg(CellPreActResNet, "cell_preact_resnet18", pretrained, **(settings | more))


@register_model
def cell_preact_tiny(pretrained: bool = False, **more: Any) -> nn.Module:
    """A small sibling for a CPU: one block a stage, the stem of stride 2, 128 features."""
    settings = {"layers": [1, 1, 1, 1], "channels": (16, 32, 64, 128), "stem_chs": 16, "stem_stride": 2}
    return build_model_with_cfg(CellPreActResNet, "cell_preact_tiny", pretrained, **(settings | more))


def head(inputs: int, hidden: int, outputs: int, norm: bool) -> nn.Sequential:
    """Two layers with ReLU between. The normalisation is the one of images, the only one that has a form for several workers."""
    between = [nn.Unflatten(1, (hidden, 1, 1)), nn.BatchNorm2d(hidden), nn.Flatten()] if norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *between, nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


class Encoder(nn.Module):
    """Backbone and projector. forward: (N, 3, H, W) -> (N, dim), not yet of unit length, for the predictor comes between. It shares no line
    with SupCAM's encoder but that a head follows a backbone: that one's is a single layer, and its rows are scaled."""

    def __init__(self, config: CcrlConfig, seed: int) -> None:
        super().__init__()
        self.backbone = create_backbone(
            config.backbone, channels=3, classes=0, weights=config.weights, seed=derive_seed(seed, "backbone"), input_size=SIDE
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "projector"))
            self.projector = head(self.backbone.num_features, config.projector_hidden, config.embedding_dim, config.head_norm)

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(self.backbone(images))


def unit(rows: Tensor) -> Tensor:
    """Rows of unit length."""
    return F.normalize(rows, dim=1)


# ---------------------------------------------------------------------------------------------------------------- training


def view_sets(config: CcrlConfig) -> tuple[ViewSet, ViewSet]:
    """Views of query and key. Only the local side crops; all else is the same in both. The blur's sigma is 0.1 to 2 pixels of the crop."""
    scale = 224 / SIDE  # ViewSet counts in pixels of a 224-pixel image
    both = ViewSet(
        horizontal_flip=0.5, vertical_flip=0.5, rotation=config.rotation, jitter=config.jitter, gray=config.gray, blur=config.blur,
        stain=config.stain, sigma=(0.1 * scale, 2.0 * scale),
        **{name: min(strength * config.jitter_strength, 0.5 if name == "hue" else 1.0) for name, strength in JITTER.items()},
    )  # fmt: skip
    local = replace(both, crop=(config.crop_min, config.crop_max))
    return local if config.local_side in ("query", "both") else both, local if config.local_side in ("key", "both") else both


@dataclass
class Batch:
    """Random choices of one global step."""

    chosen: Tensor  # (N,) positions in the training part
    views: tuple[Draw, Draw]  # of query and key


class Pretrain(Task):
    """The whole training: Eq. 1 and 2."""

    statistics: Tensor | None
    new_keys: Tensor | None
    new_cells: Tensor | None

    def __init__(self, config: CcrlConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        seed = derive_seed(setting.seed, "ccrl")
        self.query = Encoder(config, seed)
        self.workers.synchronise(self.query)
        by_set = config.statistics == "set"
        statistics = channel_statistics(setting.pack.images, setting.parts["train"]) if by_set else statistics_of(self.query)
        self.register_buffer("statistics", statistics)
        self.key = key_encoder_of(self.query)
        if config.predictor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, "predictor"))
                self.predictor = self.workers.synchronise(
                    head(config.embedding_dim, config.predictor_hidden, config.embedding_dim, config.head_norm)
                )
        self.train_cells = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        self.queue = KeyQueue(min(config.queue_size, len(self.train_cells)), config.embedding_dim)
        self.contrast_health = Health(config.embedding_dim)
        self.to(setting.device, memory_format=torch.channels_last)
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(
            trained, lr=config.pretrain_rate, weight_decay=config.weight_decay, **setting.optimising(adaptive=True)
        )
        self.views = view_sets(config)
        self.new_keys: Tensor | None = None
        self.new_cells: Tensor | None = None

    def steps(self) -> int:
        return 0 if self.config.features == "untrained" else len(self.train_cells) // self.config.pretrain_batch

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Each cell at most once; the incomplete last batch is left out, as batch statistics need a full one."""
        chance, size = generator(self.setting.seed, "ccrl", epoch), self.config.pretrain_batch
        order = torch.randperm(len(self.train_cells), generator=chance)
        order = order[: self.steps() * size]
        first, second = (draw_views(len(order), views, chance) for views in self.views)
        for start in range(0, len(order), size):
            some = slice(start, start + size)
            yield Batch(order[some], (first[some], second[some]))

    def see(self, cells: Tensor, draw: Draw) -> Tensor:
        """A view of each cell, or of draws that were joined so many of each, as the backbone expects it; beyond its border a crop goes on
        as its reflection."""
        cells = cells.repeat(len(draw.affine) // len(cells), 1, 1, 1)
        return standardise(apply_views(cells, draw, "reflection", steady=self.setting.is_steady), self.statistics)

    def loss(self, batch: Batch) -> Tensor:
        part = self.workers.slice(len(batch.chosen))
        cells = self.train_cells.colour(batch.chosen[part])
        views = self.see(cells, Draw.joined([draw[part] for draw in batch.views])).chunk(2)
        self.new_cells = batch.chosen.to(self.queue.labels.device)  # of the global batch
        loss, self.new_keys = self._contrast(views[0], views[1], part)
        if self.config.symmetric:
            loss = (loss + self._contrast(views[1], views[0], part)[0]) / 2
        return loss

    def _contrast(self, first: Tensor, second: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Eq. 2 with `first` as queries and `second` as keys; and the keys (B, D) of the global batch."""
        query = self.setting.apply(self.query, first)
        query = unit(self.setting.apply(self.predictor, query) if self.config.predictor else query)
        with torch.no_grad():
            keys = self.workers.gather(unit(self.setting.apply(self.key, second)))
        assert self.new_cells is not None
        own = torch.arange(part.start, part.stop, device=query.device)
        in_batch = query @ keys.T  # (N, B)
        in_queue = query @ self.queue.keys.T
        self.contrast_health.add(query.detach(), keys, part.start, in_queue.detach(), self.queue.present)
        others = torch.cat([in_batch, in_queue], 1)
        queued = self.queue.present.expand(len(query), -1)
        if self.config.mask_own:
            queued = queued & (self.queue.labels != self.new_cells[part][:, None])
        negative = torch.cat([own[:, None] != torch.arange(len(keys), device=query.device), queued], 1)
        return losses.info_nce(in_batch.gather(1, own[:, None])[:, 0], others, self.config.temperature, negative), keys

    def health(self) -> dict[str, float]:
        return self.contrast_health.read(self.workers)

    def after_step(self) -> None:
        """The key encoder follows (Eq. 1); then the batch's keys enter the queue, each with the position of its cell in the training
        part."""
        move_towards(self.key, self.query, self.config.ema_decay)
        if self.new_keys is not None:
            self.queue.enqueue(self.new_keys, self.new_cells)
        self.new_keys = self.new_cells = None

    def learning_rate(self, epoch: float) -> float:
        """Linear warm-up over `warmup_epochs`, then cosine to 0 at the last epoch."""
        config = self.config
        return warm_cosine(config.pretrain_rate, epoch, config.warmup_epochs, config.pretrain_epochs, self.steps())

    def validate_at(self, epoch: int) -> bool:
        """About ten times in a training: it costs a pass over up to 2,000 cells and a clustering of them."""
        return epoch % max(1, self.config.pretrain_epochs // 10) == 0

    def look(self, chosen: Tensor) -> None:
        cells = standardise(self.train_cells.colour(chosen), self.statistics)
        self.key(cells)
        query = self.query(cells)
        if self.config.predictor:
            self.predictor(query)

    def validate(self) -> dict[str, float]:
        """On up to 2,000 validation cells, the same ones each time, with the key encoder; clusters are of two K-means starts. Beside them
        how old the queue's keys are, in steps, and how many it can hold."""
        pack, parts = self.setting.pack, self.setting.parts
        chosen, known = some_of(parts["val"], EARLY), some_of(parts["train"], BANK)
        rows, bank = (self._embed(self.key, some) for some in (chosen, known))
        clusters, found = cluster(rows, types_of(pack), CLUSTER_SEED, starts=2, whiten=self.config.whiten)
        ages = torch.arange(int(self.queue.present.sum()), dtype=torch.float64) // self.config.pretrain_batch
        return on_the_way(pack, chosen, rows, known, bank, clusters, found.scaled(rows)) | {
            "queue_age": float(ages.mean()) if len(ages) else 0.0,
            "queue_size": float(len(self.queue.keys)),
        }

    def collapse(self) -> str:
        chosen = some_of(self.setting.parts["val"], EARLY)
        rows = torch.from_numpy(self._embed(self.key, chosen))
        return said(one_direction(rows, "validation embeddings"), one_direction(self.queue.keys[self.queue.present], "keys of the queue"))

    def _embed(self, encoder: nn.Module, chosen: np.ndarray) -> np.ndarray:
        assert isinstance(encoder.backbone, nn.Module)
        how = {"statistics": self.statistics, "every_turn": self.config.every_turn}
        return embed(encoder.backbone, self.setting.pack.images, chosen, self.setting.device, **how)

    def result(self) -> dict[str, Tensor]:
        """Both backbones, and of each what the training part gives: the K-means centres, by which `predict` names the cluster of a new
        cell, and the linear probe of the types, by which an encoder is judged and nothing is chosen."""
        pack, parts = self.setting.pack, self.setting.parts
        tensors: dict[str, Tensor] = {} if self.statistics is None else {"statistics": self.statistics}
        for which, encoder in (("query", self.query), ("key", self.key)):
            rows = self._embed(encoder, parts["train"])
            tensors |= {f"{which}.{name}": tensor for name, tensor in encoder.backbone.state_dict().items()}
            tensors |= {f"{name}.{which}": tensor for name, tensor in fitted_on(self.config, pack, parts["train"], rows).items()}
        return tensors


class Yardstick(Task):
    """Features that need no training: `result` is all. A backbone stays as it starts, published statistics of its batch normalisation
    included; one with random weights has none, and takes those of the training part."""

    def __init__(self, config: CcrlConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting = config, setting
        self.made: dict[str, Tensor] = {}
        self.start: tuple[
            nn.Module, ...
        ] = ()  # in a tuple no part of the task: nothing of it is trained, nor are its statistics taken anew
        if config.features == "backbone":
            seed = derive_seed(setting.seed, "ccrl", "backbone")
            model = create_backbone(
                config.backbone, channels=3, classes=0, weights=config.weights, seed=seed, input_size=config.feature_side
            )
            self.start = (setting.workers.synchronise(model).to(setting.device, memory_format=torch.channels_last),)
            if config.weights == "random":
                self.random = model.requires_grad_(False)
        self.nothing = nn.Parameter(torch.zeros(()))  # an optimiser and a group of workers want one weight
        self.optimizer = torch.optim.SGD([self.nothing], lr=0.0)

    def batches(self, epoch: int) -> Iterator[Batch]:
        return iter(())

    def steps(self) -> int:
        return 0

    def validate(self) -> dict[str, float]:
        """As `Pretrain.validate`, for what a search and the report look at."""
        pack, parts = self.setting.pack, self.setting.parts
        chosen = some_of(parts["val"], EARLY)
        judged = evaluate(self.config, self.result(), pack, chosen, self.setting.device).metrics
        return {f"val_{new}": judged[name] for new, name in (("early_ami", "ami"), ("silhouette", "silhouette"))}

    def look(self, chosen: Tensor) -> None:
        pixels = torch.from_numpy(np.ascontiguousarray(self.setting.pack.images[self.setting.parts["train"][chosen.numpy()]]))
        self.random(enlarged(pixels.to(self.setting.device), self.config.feature_side))  # of random weights, which expect ImageNet's

    def result(self) -> dict[str, Tensor]:
        self.made = self.made or self._result()  # asked for twice, and nothing moves between
        return self.made

    def _result(self) -> dict[str, Tensor]:
        pack, chosen, device = self.setting.pack, self.setting.parts["train"], self.setting.device
        tensors: dict[str, Tensor] = {}
        if self.start:
            own = statistics_of(self.start[0])
            how = {"side": self.config.feature_side, "every_turn": self.config.every_turn}
            rows = embed(self.start[0], pack.images, chosen, device, statistics=own, **how)
            tensors |= self.start[0].state_dict() | ({} if own is None else {OWN + "statistics": own})
        else:
            rows = measured(self.config, pack, chosen)
        return tensors | {OWN + name: tensor for name, tensor in fitted_on(self.config, pack, chosen, rows).items()}


def build(config: CcrlConfig, setting: Setting) -> Task:
    return Yardstick(config, setting) if config.features in (*PLAIN, "backbone") else Pretrain(config, setting)


# ---------------------------------------------------------------------------------------------------------------- scoring


def tiles_of(pack: Pack) -> np.ndarray:
    """(N,) int64: the number of each cell's tile: the file that it was cut from (`tile.png#cell`), else its patient; 0 where none is
    known."""
    names = [name.rpartition("#")[0] for name in pack.files]
    if not all(names):
        names = ["" for _ in names] if pack.patients is None else list(pack.patients)
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def channel_statistics(images: np.ndarray, chosen: np.ndarray) -> Tensor:
    """(2, 3) float32: mean and deviation of each channel, in [0, 1], of up to 5,000 of the chosen crops."""
    some = np.sort(np.random.default_rng(0).permutation(chosen)[:5000])
    pixels = np.asarray(images[some]).reshape(-1, 3)
    return torch.from_numpy(np.stack([pixels.mean(0), np.maximum(pixels.std(0), 1)]) / 255).float()


@torch.no_grad()
def embed(
    backbone: nn.Module,
    images: np.ndarray,
    chosen: np.ndarray,
    device: torch.device,
    batch: int = 512,
    statistics: Tensor | None = None,
    side: int = 0,
    every_turn: bool = False,
) -> np.ndarray:
    """(N, F) float32 features of the chosen crops (uint8, NHWC), unaugmented, before the projector. statistics: None, ImageNet's.
    side above 0: of crops enlarged to this, scaled to unit length. every_turn: the mean over a crop's eight positions."""
    batch = max(1, batch * SIDE**2 // max(SIDE, side) ** 2)

    def features(crops: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(device)
        if side:
            return unit(backbone(enlarged(pixels, side, statistics)).float()).cpu()
        return backbone(standardise(pixels.permute(0, 3, 1, 2).float() / 255, statistics)).float().cpu()

    before, rows = backbone.training, []
    backbone.eval()
    for first in range(0, len(chosen), batch):
        crops = images[chosen[first : first + batch]]
        rows.append(torch.stack([features(seen) for seen in positions(crops, every_turn, mirrored=True)]).mean(0))
    backbone.train(before)
    return torch.cat(rows).numpy()


def enlarged(pixels: Tensor, side: int, statistics: Tensor | None = None) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, side, side), bilinearly, standardised."""
    return standardise(F.interpolate(pixels.permute(0, 3, 1, 2).float() / 255, (side, side), mode="bilinear", antialias=True), statistics)


def measured(config: CcrlConfig, pack: Pack, chosen: np.ndarray) -> np.ndarray:
    """(N, F) features of the chosen cells that need no network."""
    if config.features == "area":
        return np.log(np.maximum(pack.areas[chosen, 1:], 1))
    if config.features == "morphology":
        assert pack.masks is not None  # see `faults`
        rows = morphological(pack.masks.each(chosen))
        unknown = np.isnan(rows).any(
            1
        )  # too small for a shape: in the middle of the others, so that all rows of a table have the same cells
        return np.where(unknown[:, None], rows[~unknown].mean(0) if not unknown.all() else 0.0, rows)
    if config.features == "tile":
        tiles = tiles_of(pack)
        return np.asarray(tiles[chosen, None] == np.unique(tiles[chosen]), np.float64)
    return pictured(config.features, pack.images, chosen)


def pictured(features: str, images: np.ndarray, chosen: np.ndarray, batch: int = 2048) -> np.ndarray:
    """(N, F) float64 of crops (uint8, NHWC). colours: mean and deviation of R, G and B and their mean over the middle 8 x 8 pixels (9);
    histograms: shares of 16 bins of each channel (48); pixels: the crop at 16 x 16 (768). In units of full brightness. texture: see
    `textures` (156)."""
    if features == "texture":
        return textures(images[chosen])
    parts = [np.zeros((0, {"colours": 9, "histograms": 48, "pixels": 768}[features]))]
    for first in range(0, len(chosen), batch):
        x = np.asarray(images[chosen[first : first + batch]]) / 255.0
        if features == "colours":
            middle = x[:, 12:20, 12:20].mean((1, 2))
            parts.append(np.concatenate([x.mean((1, 2)), x.std((1, 2)), middle], 1))
        elif features == "histograms":
            bins = np.minimum(x.reshape(len(x), -1, 3) * 16, 15).astype(np.int64)
            parts.append(np.stack([(bins == level).mean(1) for level in range(16)], 1).reshape(len(x), -1))
        else:
            parts.append(x.reshape(len(x), 16, 2, 16, 2, 3).mean((2, 4)).reshape(len(x), -1))
    return np.concatenate(parts)


def clustered(config: CcrlConfig, rows: np.ndarray, k: int) -> tuple[np.ndarray, Clusters]:
    """K-means as the configuration asks for; a tile's number is its cluster as it is."""
    if config.features == "tile":
        return rows.argmax(1), Clusters(np.eye(rows.shape[1]))
    more = {"standard": config.features in ("colours", "morphology"), "components": 50 if config.features == "pixels" else 0}
    return cluster(rows, k, CLUSTER_SEED, config.kmeans_starts, config.whiten, **more)


def fitted_on(config: CcrlConfig, pack: Pack, chosen: np.ndarray, rows: np.ndarray) -> dict[str, Tensor]:
    """What the chosen cells, those of the training part, give for all others: centres with the scale of their rows, and the probe."""
    _, found = clustered(config, rows, types_of(pack))
    if config.features == "tile":  # other parts have other tiles: there it says nothing, and the commonest type is all that is left
        rows, found = np.zeros((len(rows), 1)), Clusters(np.zeros((1, 1)))
    return fitted(pack, chosen, rows, found, bank=config.features != "tile")


def exported(config: CcrlConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scoring encoder's backbone under timm's names, and what was fitted on its rows."""
    if CENTERS in tensors:
        return dict(tensors)
    before, after = config.scoring_encoder + ".", "." + config.scoring_encoder  # `key.stem.conv.weight`, `centers.key`
    own = {name.removeprefix(before): tensor for name, tensor in tensors.items() if name.startswith(before)}
    own |= {OWN + name: tensors[name + after] for name in FITTED if name + after in tensors}
    return own | ({OWN + "statistics": tensors["statistics"]} if "statistics" in tensors else {})


@dataclass(frozen=True)
class Scorer:
    """How cells are turned into rows, and what the training part says of rows."""

    config: CcrlConfig
    backbone: nn.Module | None  # None: features that need none
    statistics: Tensor | None
    fitted: Clusters
    probe: np.ndarray
    bank: tuple[Tensor, Tensor] | None  # rows and types of training cells, whose neighbours vote; None: of the tile's number alone

    def rows(self, pack: Pack, chosen: np.ndarray, device: torch.device) -> np.ndarray:
        """(N, F) of chosen cells of a pack."""
        return measured(self.config, pack, chosen) if self.backbone is None else self.rows_of(pack.images, chosen, device)

    def rows_of(self, images: np.ndarray, chosen: np.ndarray, device: torch.device) -> np.ndarray:
        """(N, F) of chosen crops. RequestError for features that a crop does not show."""
        if self.backbone is not None:
            side = self.config.feature_side if self.config.features == "backbone" else 0
            how = {"statistics": self.statistics, "side": side, "every_turn": self.config.every_turn}
            return embed(self.backbone, images, chosen, device, **how)
        if self.config.features in UNSEEN:
            raise RequestError(
                f"features={self.config.features} is a yardstick that crops alone do not show: nothing can be predicted by it"
            )
        return pictured(self.config.features, images, chosen)


def scorer(config: CcrlConfig, tensors: Mapping[str, Tensor], device: torch.device) -> Scorer:
    """From what a run saved or what was exported."""
    own = exported(config, tensors)
    beside = {name.removeprefix(OWN): own.pop(name) for name in list(own) if name.startswith(OWN)}
    arrays = {name: beside[name].cpu().numpy() for name in FITTED if name in beside}
    found = Clusters(arrays["centers"], arrays.get("mean"), arrays.get("scale"))
    model: nn.Module | None = None
    if config.features not in PLAIN:
        side = config.feature_side if config.features == "backbone" else SIDE
        if config.method == "dcec":
            model = dcec.AutoEncoder(config.embedding_dim, seed=0)
        elif config.method == "gan":
            model = gan.Trunk(config.gan_width)
        else:
            model = create_backbone(config.backbone, channels=3, classes=0, weights="random", seed=0, input_size=side)
        model.load_state_dict(own)
        model.to(device, memory_format=torch.channels_last).eval()
    statistics = beside["statistics"].to(device) if "statistics" in beside else None
    bank = (beside["bank"].cpu(), beside["bank_labels"].cpu().long()) if "bank" in beside else None
    return Scorer(config, model, statistics, found, arrays["probe"], bank)


def evaluate(config: CcrlConfig, tensors: Mapping[str, Tensor], pack: Pack, chosen: np.ndarray, device: torch.device) -> Evaluation:
    """AMI, ARI and purity against the types of two clusterings: K-means on the chosen cells themselves (as the paper), and K-means on the
    training part applied to them; `kmeans_fit` says which has the plain names, the other's end in `_train_fit` or `_scored_fit`. Of both
    the AMI within tiles. Of the one with the plain names the shares of the cells that its largest and its smallest cluster hold, and the
    silhouette, which needs no type. Of the first how far the scores vary when K-means starts from other seeds. And the accuracies of the
    linear probe of the training part's types and of its nearest cells, which have seen labels and say what the features hold."""
    score = scorer(config, tensors, device)
    rows = score.rows(pack, chosen, device)
    labels, tiles, k = np.asarray(pack.labels[chosen]), tiles_of(pack)[chosen], types_of(pack)
    of_scored = clustered(config, rows, k)
    found = {"scored": of_scored[0], "train": of_scored[0] if config.features == "tile" else score.fitted.assign(rows)}
    scores = {fit: clustering_metrics(labels, groups) | within_tiles(labels, groups, tiles) for fit, groups in found.items()}
    other = "train" if config.kmeans_fit == "scored" else "scored"
    clusters = found[config.kmeans_fit]
    metrics = scores[config.kmeans_fit] | {f"{name}_{other}_fit": value for name, value in scores[other].items()}
    shares = np.bincount(clusters, minlength=len(of_scored[1].centers)) / max(1, len(clusters))
    metrics |= {"largest_cluster": float(shares.max()), "smallest_cluster": float(shares.min())}
    metrics["silhouette"] = silhouette((of_scored[1] if config.kmeans_fit == "scored" else score.fitted).scaled(rows), clusters)
    predictions = {"index": chosen.tolist(), "label": labels.tolist(), "cluster": clusters.tolist(), "tile": tiles.tolist()}
    guessed = probed(score.probe, np.zeros((len(rows), 1)) if config.features == "tile" else rows)
    metrics["probe_accuracy"] = float((guessed == labels).mean())
    predictions["probe"] = guessed.tolist()
    if score.bank is not None:
        voted = knn_votes(*score.bank, torch.from_numpy(np.asarray(rows))).numpy()
        metrics["knn_accuracy"] = float((voted == labels).mean())
        predictions["neighbours"] = voted.tolist()
    if config.kmeans_fit == "scored" and config.features != "tile":
        scaled = of_scored[1].scaled(rows)
        again = [clustering_metrics(labels, kmeans(scaled, k, seed, config.kmeans_starts)[0]) for seed in OTHER_SEEDS]
        metrics |= {f"{name}_kmeans_std": float(np.std([one[name] for one in again], ddof=1)) for name in again[0]}
    return Evaluation(metrics, None, predictions)


def predict(
    config: CcrlConfig, tensors: Mapping[str, Tensor], images: np.ndarray, classes: tuple[str, ...], device: torch.device
) -> dict[str, list[Any]]:
    """The cluster of each cell (the nearest of the training part's centres, counted from 0) and its embedding."""
    score = scorer(config, tensors, device)
    if not len(images):
        width = score.fitted.centers.shape[1] if score.fitted.mean is None else len(score.fitted.mean)
        return {"cluster": []} | {f"e_{i}": [] for i in range(width)}
    rows = score.rows_of(images, np.arange(len(images)), device)
    columns: dict[str, list[Any]] = {"cluster": score.fitted.assign(rows).tolist()}
    return columns | {f"e_{i}": [round(float(value), 6) for value in column] for i, column in enumerate(rows.T)}


def artefacts(
    config: CcrlConfig, tensors: Mapping[str, Tensor], pack: Pack, indices: np.ndarray, device: torch.device
) -> dict[str, np.ndarray]:
    """For the report: the map of up to 1,000 cells with types and clusters, the cells nearest to each centre, clusters by types."""
    score = scorer(config, tensors, device)
    rows = score.rows(pack, indices, device)
    labels = np.asarray(pack.labels[indices])
    clusters, found = clustered(config, rows, types_of(pack))
    if config.kmeans_fit == "train" and config.features != "tile":
        clusters, found = score.fitted.assign(rows), score.fitted
    centers = found.centers
    shown = np.sort(np.random.default_rng(0).permutation(len(indices))[:1000])
    scaled = np.asarray(found.scaled(rows), np.float64)
    far = np.stack([((scaled - center) ** 2).sum(1) for center in centers], 1)  # (N, K)
    nearest = indices[np.argsort(far, axis=0, kind="stable")[: min(8, len(indices))].T]  # (K, m)
    return {
        "embedding": np.clip(rows[shown], -6e4, 6e4).astype(np.float16),
        "index": indices[shown].astype(np.int64),
        "label": labels[shown],
        "cluster": clusters[shown],
        "nearest_index": nearest.astype(np.int64),
        "nearest_image": np.asarray(pack.images[nearest.ravel()]).reshape(*nearest.shape, *pack.images.shape[1:]),
        "cluster_by_type": contingency(labels, clusters, len(pack.classes), len(centers)),
    }


def baselines(config: CcrlConfig, pack: Pack, parts: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """What no method at all has on the test part: all cells in one cluster. Other yardsticks are arms (`features`), with their
    intervals."""
    labels = pack.labels[parts["test"]]
    scores = clustering_metrics(labels, np.zeros(len(labels), np.int64))
    return [{"name": "all cells in one cluster", "metrics": {f"test_{metric}": value for metric, value in scores.items()}}]


# ---------------------------------------------------------------------------------------------------------------- data


def read(folder: Path, config: CcrlConfig, classes: tuple[str, ...] | None = None) -> Pack:
    """A packed set (`python -m search data prepare`), or a folder per type of images of one cell each."""
    return _noted(read_cells(folder, classes), config)


def synthesize(config: CcrlConfig, *, images: int, seed: int) -> Pack:
    """The built-in set: drawn cells of four types."""
    return _noted(cell_set(images, seed), config)


def _noted(pack: Pack, config: CcrlConfig) -> Pack:
    cells = round(config.split[0] * len(pack))
    if config.queue_size <= cells:
        return pack
    return replace(
        pack, notes=(*pack.notes, f"the queue holds about {cells:,} keys, one for each training cell, not {config.queue_size:,}")
    )


def read_files(paths: list[Path], config: CcrlConfig) -> tuple[np.ndarray, dict[str, list[Any]], list[str], list[str]]:
    """Crops of one cell each, or whole tiles with their label file beside them, as in the downloads: a row a cell."""
    return read_any(paths)


def timm_settings(config: CcrlConfig, classes: tuple[str, ...]) -> None:
    """None: the exported file holds centres beside the backbone, which timm's loader would refuse."""


PROCEDURE = Procedure(
    name="ccrl",
    config=CcrlConfig,
    stages=(
        Stage("pretrain", "pretrain_epochs", "pretrain_batch", PRETRAIN_FIELDS, build, shared=True),
        Stage("reconstruct", "reconstruct_epochs", "pretrain_batch", RECONSTRUCT_FIELDS, dcec.Reconstruct, shared=True),
        Stage("cluster", "cluster_epochs", "pretrain_batch", CLUSTER_FIELDS, dcec.Cluster),
        Stage("adversarial", "gan_epochs", "gan_batch", GAN_FIELDS, gan.Gan),
    ),
    canonical=canonical,
    faults=faults,
    synthesize=synthesize,
    read=read,
    parts=split_of,
    evaluate=evaluate,
    timm_settings=timm_settings,
    read_images=read_files,
    predict=predict,
    headline=("ami", "ari", "purity"),
    exported=exported,
    artefacts=artefacts,
    baselines=baselines,
    prepare=PREPARE,
)
