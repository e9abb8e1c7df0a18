"""CCRL: cells without labels (Nakhli, Darbandsari, Farahani, Bashashati: Contrastive Cell Representation Learning).
Comes in: colour crops of one cell each. Goes out: an encoder whose embeddings K-means groups by type. One stage: momentum contrast of
local and global views with a predictor on the query's side. Types are looked at for scores alone. Equation numbers are the paper's."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.data.cells import read_any, read_cells
from trainables.data.crops import SIDE
from trainables.data.pack import Pack
from trainables.data.prepare import PREPARE
from trainables.data.synthetic_cells import cell_set
from trainables.parts import losses
from trainables.parts.classification import PartImages
from trainables.parts.clustering import assign, clustering_metrics, contingency, kmeans, silhouette
from trainables.parts.encoders import backbone_faults, create_backbone, key_encoder_of, move_towards
from trainables.parts.key_queue import KeyQueue
from trainables.parts.numbers import constant
from trainables.parts.procedure import Evaluation, Procedure, Setting, Stage, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.settings import setting_faults, split_of, typed, warm_cosine
from trainables.parts.views import Draw, ViewSet, apply_views, draw_views

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}  # section 3
CLUSTER_SEED = 0  # of the K-means that is reported
OTHER_SEEDS = range(1, 11)  # of those that tell how far the clusters depend on it
CENTERS = "ccrl.centers"  # in an exported file, beside the backbone under timm's names
EARLY = 2000  # validation cells that are looked at on the way


@dataclass(frozen=True)
class CcrlConfig:
    """Defaults are the published values (sections 3 and 4.4); [decided] where the paper is silent."""

    # data
    split: tuple[float, float, float] = (0.6, 0.1, 0.3)  # train, validation, test; by tile or patient [decided]
    split_seed: int = 0  # of the split, fixed for a study [decided]
    split_per_seed: bool = False  # draw the split anew for each seed
    # encoder
    backbone: str = "cell_preact_resnet18"  # pre-activation ResNet-18 with a 3 x 3 stem; or any timm name
    weights: str = "random"  # random | imagenet: where the backbone starts
    projector_hidden: int = 128  # projector: features - hidden - dim
    embedding_dim: int = 64  # of queries and keys
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
    # views
    local_side: str = "query"  # query | key | both: which pipeline crops (local); the other sees the whole cell (global) [decided: query]
    crop_min: float = 0.2  # smallest crop, fraction of the area [decided: MoCo's]
    crop_max: float = 1.0  # largest crop, fraction of the area [decided]
    jitter_strength: float = 1.0  # times brightness 0.4, contrast 0.4, saturation 0.4, hue 0.1
    jitter: float = 0.8  # probability of the colour jitter [decided: MoCo v2's]
    gray: float = 0.2  # probability that the colours go [decided: MoCo v2's]
    blur: float = 0.5  # probability of a blur with sigma 0.1 to 2 pixels [decided: MoCo v2's]
    rotation: float = 180.0  # degrees: the view is turned by up to this, either way; with flips the same as 0 to 180
    # scoring
    scoring_encoder: str = "key"  # key (ensembling) | query: whose embeddings are clustered
    kmeans_starts: int = 10  # of K-means [decided]


CHOICES = {"weights": ("random", "imagenet"), "local_side": ("query", "key", "both"), "scoring_encoder": ("key", "query")}
RANGES = {  # (low, high), inclusive
    "split_seed": (0, 2**31 - 1),
    "projector_hidden": (1, 65536),
    "embedding_dim": (2, 65536),
    "predictor_hidden": (1, 65536),
    "pretrain_epochs": (1, 100000),
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
    "rotation": (0, 180),
    "kmeans_starts": (1, 1000),
}
POSITIVE = ("temperature", "pretrain_rate")
PRETRAIN_FIELDS = tuple(entry.name for entry in fields(CcrlConfig) if entry.name != "scoring_encoder")


def canonical(config: CcrlConfig) -> CcrlConfig:
    """The same training with every field that cannot matter at its default. Fields are numbers of the default's type."""
    moot = set() if config.predictor else {"predictor_hidden"}
    if config.jitter and config.jitter_strength:
        return typed(config, moot)
    return replace(typed(config, moot | {"jitter_strength"}), jitter=0.0)


def faults(config: CcrlConfig, pack: Pack | None = None, parts: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """All that is wrong with the configuration, alone and for a data set: one line each."""
    found = setting_faults(config, CHOICES, RANGES, POSITIVE)
    found += backbone_faults(config.backbone)
    if pack is not None and pack.images.ndim != 4:
        found.append(f"cells must be in colour, (N, {SIDE}, {SIDE}, 3), the data is {pack.images.shape}; read it with this procedure")
    if parts is not None and config.pretrain_batch > len(parts["train"]):
        n = len(parts["train"])
        found.append(
            f"pretrain_batch must not be above the number of training cells, got {config.pretrain_batch} for {n}; set pretrain_batch={max(2, min(256, n))}"
        )
    return found


# ---------------------------------------------------------------------------------------------------------------- the encoder


class CellPreActResNet(ResNetV2):
    """timm's pre-activation ResNet with basic blocks, its 7 x 7 stem and pooling replaced by a 3 x 3 convolution: 32 pixels in, 4 at the end.

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
    """Backbone and projector. forward: (N, 3, H, W) -> (N, dim), not yet of unit length."""

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


def standardise(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> what the backbones expect: ImageNet's mean and deviation of each channel."""
    mean, std = (constant(values, images.device, images.dtype)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (images - mean) / std


# ---------------------------------------------------------------------------------------------------------------- training


def view_sets(config: CcrlConfig) -> tuple[ViewSet, ViewSet]:
    """Views of query and key. Only the local side crops; all else is the same in both. The blur's sigma is 0.1 to 2 pixels of the crop."""
    scale = 224 / SIDE  # ViewSet counts in pixels of a 224-pixel image
    both = ViewSet(
        horizontal_flip=0.5, vertical_flip=0.5, rotation=config.rotation, jitter=config.jitter, gray=config.gray, blur=config.blur,
        sigma=(0.1 * scale, 2.0 * scale), **{name: min(strength * config.jitter_strength, 0.5 if name == "hue" else 1.0) for name, strength in JITTER.items()},
    )  # fmt: skip
    local = replace(both, crop=(config.crop_min, config.crop_max))
    return local if config.local_side in ("query", "both") else both, local if config.local_side in ("key", "both") else both


class _Cells(PartImages):
    def colour(self, chosen: Tensor) -> Tensor:
        """(N,) positions within the part -> (N, 3, H, W) float32 in [0, 1]."""
        return self.pixels(chosen).permute(0, 3, 1, 2).float() / 255


@dataclass
class Batch:
    """Random choices of one global step."""

    chosen: Tensor  # (N,) positions in the training part
    views: tuple[Draw, Draw]  # of query and key


class Pretrain(Task):
    """The whole training: Eq. 1 and 2."""

    def __init__(self, config: CcrlConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        seed = derive_seed(setting.seed, "ccrl")
        self.query = Encoder(config, seed)
        self.workers.synchronise(self.query)
        self.key = key_encoder_of(self.query)
        if config.predictor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, "predictor"))
                self.predictor = self.workers.synchronise(
                    head(config.embedding_dim, config.predictor_hidden, config.embedding_dim, config.head_norm)
                )
        self.train_cells = _Cells(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        self.queue = KeyQueue(min(config.queue_size, len(self.train_cells)), config.embedding_dim)
        self.to(setting.device, memory_format=torch.channels_last)
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(
            trained, lr=config.pretrain_rate, weight_decay=config.weight_decay, **setting.optimising(adaptive=True)
        )
        self.views = view_sets(config)
        self.new_keys: Tensor | None = None

    def steps(self) -> int:
        return len(self.train_cells) // self.config.pretrain_batch

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
        """A view of each cell, as the backbone expects it; beyond its border a crop goes on as its reflection."""
        return standardise(apply_views(cells, draw, "reflection", steady=self.setting.is_steady))

    def loss(self, batch: Batch) -> Tensor:
        part = self.workers.slice(len(batch.chosen))
        cells = self.train_cells.colour(batch.chosen[part])
        query = self.setting.apply(self.query, self.see(cells, batch.views[0][part]))
        query = unit(self.setting.apply(self.predictor, query) if self.config.predictor else query)
        with torch.no_grad():
            keys = self.workers.gather(
                unit(self.setting.apply(self.key, self.see(cells, batch.views[1][part])))
            )  # (B, D) of the global batch
        self.new_keys = keys
        own = torch.arange(part.start, part.stop, device=query.device)
        in_batch = query @ keys.T  # (N, B)
        others = torch.cat([in_batch, query @ self.queue.keys.T], 1)
        negative = torch.cat([own[:, None] != torch.arange(len(keys), device=query.device), self.queue.present.expand(len(query), -1)], 1)
        return losses.info_nce(in_batch.gather(1, own[:, None])[:, 0], others, self.config.temperature, negative)  # Eq. 2

    def after_step(self) -> None:
        """The key encoder follows (Eq. 1); then the batch's keys enter the queue, without labels."""
        move_towards(self.key, self.query, self.config.ema_decay)
        if self.new_keys is not None:
            self.queue.enqueue(self.new_keys)
        self.new_keys = None

    def learning_rate(self, epoch: float) -> float:
        """Linear warm-up over `warmup_epochs`, then cosine to 0 at the last epoch."""
        config = self.config
        return warm_cosine(config.pretrain_rate, epoch, config.warmup_epochs, config.pretrain_epochs, self.steps())

    def validate_at(self, epoch: int) -> bool:
        """About ten times in a training: it costs a pass over up to 2,000 cells and a clustering of them."""
        return epoch % max(1, self.config.pretrain_epochs // 10) == 0

    def look(self, chosen: Tensor) -> None:
        cells = standardise(self.train_cells.colour(chosen))
        self.key(cells)
        query = self.query(cells)
        if self.config.predictor:
            self.predictor(query)

    def validate(self) -> dict[str, float]:
        """On up to 2,000 validation cells, the same ones each time, with the key encoder: AMI of two K-means starts and the silhouette of these
        clusters, which needs no type. Beside them how old the queue's keys are, in steps, and how many it can hold."""
        chosen = np.sort(np.random.default_rng(0).permutation(self.setting.parts["val"])[:EARLY])
        rows = embed(self.key.backbone, self.setting.pack.images, chosen, self.setting.device)
        clusters, _ = kmeans(rows, types_of(self.setting.pack), CLUSTER_SEED, starts=2)
        ages = torch.arange(int(self.queue.present.sum()), dtype=torch.float64) // self.config.pretrain_batch
        return {
            "val_early_ami": clustering_metrics(self.setting.pack.labels[chosen], clusters)["ami"],
            "val_silhouette": silhouette(rows, clusters),
            "queue_age": float(ages.mean()) if len(ages) else 0.0,
            "queue_size": float(len(self.queue.keys)),
        }

    def result(self) -> dict[str, Tensor]:
        """Both backbones, and of each the K-means centres of the training part, by which `predict` names the cluster of a new cell."""
        tensors: dict[str, Tensor] = {}
        for which, encoder in (("query", self.query), ("key", self.key)):
            rows = embed(encoder.backbone, self.setting.pack.images, self.setting.parts["train"], self.setting.device)
            _, centers = kmeans(rows, types_of(self.setting.pack), CLUSTER_SEED, self.config.kmeans_starts)
            tensors |= {f"{which}.{name}": tensor for name, tensor in encoder.backbone.state_dict().items()}
            tensors[f"centers.{which}"] = torch.from_numpy(centers).float()
        return tensors


# ---------------------------------------------------------------------------------------------------------------- scoring


def types_of(pack: Pack) -> int:
    """K of K-means: how many types the data set has cells of."""
    return len(np.unique(pack.labels))


@torch.no_grad()
def embed(backbone: nn.Module, images: np.ndarray, chosen: np.ndarray, device: torch.device, batch: int = 512) -> np.ndarray:
    """(N, F) float32 features of the chosen crops (uint8, NHWC), unaugmented, before the projector."""
    before, rows = backbone.training, []
    backbone.eval()
    for first in range(0, len(chosen), batch):
        pixels = torch.from_numpy(np.ascontiguousarray(images[chosen[first : first + batch]])).to(device)
        rows.append(backbone(standardise(pixels.permute(0, 3, 1, 2).float() / 255)).float().cpu())
    backbone.train(before)
    return torch.cat(rows).numpy()


def exported(config: CcrlConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scoring encoder's backbone under timm's names, and its centres."""
    if CENTERS in tensors:
        return dict(tensors)
    prefix = config.scoring_encoder + "."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return own | {CENTERS: tensors[f"centers.{config.scoring_encoder}"]}


def scoring_encoder(config: CcrlConfig, tensors: Mapping[str, Tensor], device: torch.device) -> tuple[nn.Module, np.ndarray]:
    """Backbone and centres (K, F), from what a run saved or what was exported."""
    own = exported(config, tensors)
    centers = own.pop(CENTERS).cpu().numpy()
    model = create_backbone(config.backbone, channels=3, classes=0, weights="random", seed=0, input_size=SIDE)
    model.load_state_dict(own)
    return model.to(device, memory_format=torch.channels_last).eval(), centers


def evaluate(config: CcrlConfig, tensors: Mapping[str, Tensor], pack: Pack, chosen: np.ndarray, device: torch.device) -> Evaluation:
    """K-means on the chosen cells themselves (as the paper), its AMI, ARI and purity against the types, the silhouette of its clusters, and
    how far the three scores vary when K-means starts from other seeds."""
    backbone, _ = scoring_encoder(config, tensors, device)
    rows = embed(backbone, pack.images, chosen, device)
    labels, k = np.asarray(pack.labels[chosen]), types_of(pack)
    clusters, _ = kmeans(rows, k, CLUSTER_SEED, config.kmeans_starts)
    metrics = clustering_metrics(labels, clusters) | {"silhouette": silhouette(rows, clusters)}
    again = [clustering_metrics(labels, kmeans(rows, k, seed, config.kmeans_starts)[0]) for seed in OTHER_SEEDS]
    metrics |= {f"{name}_kmeans_std": float(np.std([one[name] for one in again], ddof=1)) for name in again[0]}
    return Evaluation(metrics, None, {"index": chosen.tolist(), "label": labels.tolist(), "cluster": clusters.tolist()})


def predict(
    config: CcrlConfig, tensors: Mapping[str, Tensor], images: np.ndarray, classes: tuple[str, ...], device: torch.device
) -> dict[str, list[Any]]:
    """The cluster of each cell (the nearest of the training part's centres, counted from 0) and its embedding."""
    backbone, centers = scoring_encoder(config, tensors, device)
    if not len(images):
        return {"cluster": []} | {f"e_{i}": [] for i in range(centers.shape[1])}
    rows = embed(backbone, images, np.arange(len(images)), device)
    columns: dict[str, list[Any]] = {"cluster": assign(rows, centers).tolist()}
    return columns | {f"e_{i}": [round(float(value), 6) for value in column] for i, column in enumerate(rows.T)}


def artefacts(
    config: CcrlConfig, tensors: Mapping[str, Tensor], pack: Pack, indices: np.ndarray, device: torch.device
) -> dict[str, np.ndarray]:
    """For the report: the map of up to 1,000 cells with types and clusters, the cells nearest to each centre, clusters by types."""
    backbone, _ = scoring_encoder(config, tensors, device)
    rows = embed(backbone, pack.images, indices, device)
    labels = np.asarray(pack.labels[indices])
    clusters, centers = kmeans(rows, types_of(pack), CLUSTER_SEED, config.kmeans_starts)
    shown = np.sort(np.random.default_rng(0).permutation(len(indices))[:1000])
    far = ((rows[:, None].astype(np.float64) - centers) ** 2).sum(2)  # (N, K)
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
    """What clusters without any learning reach on the test part: the pixels' 50 first principal components, and histograms of the colours
    (16 bins a channel), both under the same K-means."""
    from sklearn.decomposition import PCA

    chosen, k = parts["test"], types_of(pack)
    train = np.sort(np.random.default_rng(0).permutation(parts["train"])[:5000])
    pixels = {name: np.asarray(pack.images[some]).reshape(len(some), -1) / 255.0 for name, some in (("train", train), ("test", chosen))}
    components = PCA(min(50, len(train), len(pixels["train"][0])), svd_solver="randomized", random_state=0).fit(pixels["train"])
    bins = np.asarray(pack.images[chosen]).reshape(len(chosen), -1, 3) // 16
    histograms = np.stack([(bins == level).mean(1) for level in range(16)], 1).reshape(len(chosen), -1)
    found = []
    for name, rows in (("raw pixels, PCA, K-means", components.transform(pixels["test"])), ("colour histograms, K-means", histograms)):
        clusters, _ = kmeans(rows, k, CLUSTER_SEED, config.kmeans_starts)
        scores = clustering_metrics(pack.labels[chosen], clusters)
        found.append({"name": name, "metrics": {f"test_{metric}": value for metric, value in scores.items()}})
    return found


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
    images, columns, broken = read_any(paths)
    return images, columns, [], broken


def timm_settings(config: CcrlConfig, classes: tuple[str, ...]) -> None:
    """None: the exported file holds centres beside the backbone, which timm's loader would refuse."""


PROCEDURE = Procedure(
    name="ccrl",
    config=CcrlConfig,
    stages=(Stage("pretrain", "pretrain_epochs", "pretrain_batch", PRETRAIN_FIELDS, Pretrain, shared=True),),
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
