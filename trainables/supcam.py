"""SupCAM: types of chromosome clusters (Luo, Wu, Zhao 2023, Front. Genet. 14:1109269).
Comes in: gray images of one cluster each, background 0, with their type. Goes out: a classifier. Two stages: momentum-contrast pre-training
with supervised contrast, image composition and a self-margin loss; then fine-tuning. Equation numbers are the paper's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.baselines import lin2021
from trainables.data.alone import image_settings
from trainables.data.laboratory import ELSEWHERE
from trainables.data.normal import normal_of
from trainables.data.pack import Pack, make_pack
from trainables.data.read import Elsewhere, read_folder, read_images, tied
from trainables.data.synthetic_clusters import CLUSTER_TYPES, cluster_set
from trainables.data.words import shown
from trainables.parts import losses
from trainables.parts.classification import AT_ONCE, PartImages, positions, predict_logits, prediction_columns, prediction_rows
from trainables.parts.collapse import one_class, one_direction, said
from trainables.parts.composition import Numbers, check_images, compose, draw_composition, load_tables
from trainables.parts.encoders import (
    GRAY_MEAN,
    GRAY_STD,
    Encoder,
    create_backbone,
    expect,
    kept,
    key_encoder_of,
    model_arguments,
    move_towards,
    restore,
    standardise,
    start_faults,
    statistics_of,
)
from trainables.parts.errors import RequestError
from trainables.parts.evaluation import classification_metrics, confusion_matrix, knn_accuracy
from trainables.parts.frozen import HEADS, Frozen, voting_of
from trainables.parts.key_queue import KeyQueue
from trainables.parts.micro import each_alone
from trainables.parts.pretext import Health
from trainables.parts.probe import fit_probe, probed
from trainables.parts.procedure import Evaluation, Procedure, Setting, Stage, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.settings import setting_faults, split_of, typed, warm_cosine
from trainables.parts.views import Draw, ViewSet, apply_views, draw_views
from trainables.parts.weights import STATISTICS, architecture_of, pinned

CLASSES = CLUSTER_TYPES


@dataclass(frozen=True)
class SupcamConfig:
    """Defaults are the published values (section 3.3); [decided] where the paper is silent."""

    # data
    canvas: int = 224  # pixels: images are padded to this square, larger ones scaled down to it
    input_size: int = 224  # pixels: the canvas is resampled to this side
    normal_width: float = 0.0  # pixels: each image is scaled until its chromosomes are this wide, its frame cut off; 0: as it is
    normal_gray: float = 0.0  # 1..255: each image is stretched until 95 % of its chromosomes' gray values are below this; 0: as it is
    split: tuple[float, float, float] = (0.6, 0.1, 0.3)  # train, validation, test; table 1 has 0.8, 0.1, 0.1
    split_seed: int = 0  # of the split, fixed for a study [decided]
    split_per_seed: bool = False  # draw the split anew for each seed
    # both stages
    backbone: str = "resnet50"  # any timm name
    weights: str = "random"  # where the backbone starts: random | imagenet | another published or own start, see `weights.KNOWN`
    sgd_momentum: float = 0.9  # of SGD, both stages
    weight_decay: float = 1e-4  # of SGD, both stages
    # stage 1: pre-training
    pretrain_epochs: int = 200  # 0: no pre-training
    pretrain_batch: int = 32  # images
    pretrain_rate: float = 0.03  # peak learning rate, after the warm-up
    warmup_epochs: int = 20  # linear, then cosine to 0
    embedding_dim: int = 128  # of queries and keys
    ema_decay: float = 0.999  # of the key encoder, per step [decided: MoCo's]
    queue_size: int = 1024  # keys
    # whose statistics normalise a step's keys: whole, the batch's (one GPU) | split, those of random parts of it | shuffled, the same, and
    # queries by other parts (MoCo's GPUs) | running, averages of the queries' statistics that follow as the weights do
    key_batch: str = "whole"
    key_parts: int = 4  # parts of a batch that is split or shuffled
    mask_own: bool = (
        False  # an image's own older keys in the queue are no negatives of it (with labels they never are) [decided: off, as in MoCo]
    )
    temperature: float = 0.07  # divides the cosines
    contrast: str = "sup_con"  # info_nce (Eq. 3) | sup_con (Eq. 4)
    margin_form: str = "self_margin"  # none | self_margin (Eq. 7) | all_margin (Eq. 6) | parametric_margin | cluster_margin (table 6)
    margin: float = 0.2  # radians, added to the angle
    beyond_pi: str = "plain"  # plain | monotone: what cos(theta + m) becomes where theta + m > pi [decided]
    center_decay: float = 0.9  # moving average of cluster_margin's class centres, per step [decided]
    views: str = "supcam"  # supcam (crop, flip) | moco_v2 (crop, jitter, blur, flip)
    crop_min: float = 0.2  # smallest crop, fraction of the area [decided]
    crop_max: float = 1.0  # largest crop, fraction of the area
    composition: str = "middle"  # off | no | light | middle | heavy: the look-up table of the composed view
    blend: str = "equal"  # equal | lambda | maximum, where both are foreground
    overlap_threshold: float = 200.0  # P in pixels of a 224 x 224 image; scaled with the area
    composition_draws: int = 10  # tries before the candidate itself is taken
    require_contact: bool = False  # a touching case without contact is uncertain [decided]
    # stage 2: fine-tuning
    # trained: with the backbone, below | probe: a linear one on its features as they are | neighbours: a vote of the nearest training
    # images
    classifier: str = "trained"
    finetune_encoder: str = "query"  # query | key: whose backbone goes on [decided]
    finetune_epochs: int = 15
    finetune_batch: int = 16  # images
    finetune_rate: float = 0.01  # learning rate
    rate_drops: tuple[int, ...] = (8, 12)  # epochs after which the rate is multiplied by rate_drop
    rate_drop: float = 0.1
    label_smoothing: float = 0.1
    rotation: float = 180.0  # degrees: the view is turned by up to this, either way
    zoom: float = 1.0  # factor: the view is scaled by up to this, up or down; 1: not [decided]
    # another's method in its place
    method: str = "supcam"  # supcam | lin2021 (Lin et al. 2021, see trainables/baselines): who trains the classifier
    frozen_epochs: int = 0  # lin2021: before the fine-tuning, of the head alone; theirs: 5
    frozen_rate: float = 4e-5  # lin2021: the head's highest learning rate meanwhile
    head_rate: float = 4e-6  # lin2021: the head's in the fine-tuning
    body_rate: float = 1e-6  # lin2021: the first layers' in the fine-tuning; those between have the geometric mean of both
    # judgement
    every_turn: bool = False  # an image is judged by the mean over its four turns by 90 degrees, and so alike however it lies [decided]


CHOICES = {
    "contrast": ("info_nce", "sup_con"),
    "margin_form": ("none", "self_margin", "all_margin", "parametric_margin", "cluster_margin"),
    "beyond_pi": ("plain", "monotone"),
    "key_batch": ("whole", "split", "shuffled", "running"),
    "views": ("supcam", "moco_v2"),
    "blend": ("equal", "lambda", "maximum"),
    "classifier": ("trained", *HEADS),
    "finetune_encoder": ("query", "key"),
    "method": ("supcam", "lin2021"),
}
RANGES = {  # (low, high), inclusive; None is open
    "canvas": (16, 2048),
    "input_size": (16, 2048),
    "normal_width": (0, 2048),
    "normal_gray": (0, 255),
    "split_seed": (0, 2**31 - 1),
    "sgd_momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "pretrain_epochs": (0, 100000),
    "pretrain_batch": (2, 65536),
    "warmup_epochs": (0, 100000),
    "embedding_dim": (2, 65536),
    "ema_decay": (0, 1),
    "queue_size": (1, 1 << 24),
    "key_parts": (2, 1024),
    "margin": (0, 3.14159),
    "center_decay": (0, 1),
    "crop_min": (0.01, 1),
    "crop_max": (0.01, 1),
    "overlap_threshold": (0, 50176),
    "composition_draws": (1, 1000),
    "finetune_epochs": (1, 100000),
    "frozen_epochs": (0, 100000),
    "finetune_batch": (2, 65536),
    "rate_drop": (0, 1),
    "label_smoothing": (0, 0.99),
    "rotation": (0, 180),
    "zoom": (1, 10),
}
POSITIVE = ("temperature", "pretrain_rate", "finetune_rate", "frozen_rate", "head_rate", "body_rate")

PRETRAIN_FIELDS = (
    "canvas", "input_size", "normal_width", "normal_gray", "split", "split_seed", "split_per_seed", "backbone", "weights", "sgd_momentum",
    "weight_decay", "pretrain_epochs", "pretrain_batch", "pretrain_rate", "warmup_epochs", "embedding_dim", "ema_decay", "queue_size",
    "key_batch", "key_parts", "mask_own", "temperature", "contrast", "margin_form",
    "margin", "beyond_pi", "center_decay", "views", "crop_min", "crop_max", "composition", "blend", "overlap_threshold",
    "composition_draws", "require_contact",
)  # fmt: skip
FINETUNE_FIELDS = (
    "canvas", "input_size", "normal_width", "normal_gray", "split", "split_seed", "split_per_seed", "backbone", "weights", "sgd_momentum",
    "weight_decay", "classifier", "finetune_encoder", "finetune_epochs", "finetune_batch", "finetune_rate", "rate_drops", "rate_drop",
    "label_smoothing", "rotation", "zoom", "every_turn", "method", "head_rate", "body_rate",
)  # fmt: skip
FROZEN_FIELDS = (
    "canvas", "input_size", "normal_width", "normal_gray", "split", "split_seed", "split_per_seed", "backbone", "weights", "weight_decay",
    "finetune_batch", "label_smoothing", "rotation", "zoom", "method", "frozen_epochs", "frozen_rate",
)  # fmt: skip


def canonical(config: SupcamConfig) -> SupcamConfig:
    """The same training with every field that cannot matter at its default: without pre-training its settings do not matter, without a
    margin its size does not, without composition its blend does not. Fields are numbers of the default's type."""
    moot: set[str] = set()
    if config.method == "lin2021":
        config = replace(config, pretrain_epochs=0)
        moot |= {"sgd_momentum", "finetune_rate", "rate_drops", "rate_drop"} | (set() if config.frozen_epochs else {"frozen_rate"})
    else:
        moot |= {"frozen_epochs", "frozen_rate", "head_rate", "body_rate"}
    if config.pretrain_epochs == 0:
        moot |= set(PRETRAIN_FIELDS) - set(FINETUNE_FIELDS) - {"pretrain_epochs"} | {"finetune_encoder"}
    if config.classifier != "trained":
        moot |= {"finetune_epochs", "finetune_batch", "finetune_rate", "rate_drops", "rate_drop", "label_smoothing", "rotation", "zoom"}
        moot |= {"sgd_momentum", "weight_decay"} if config.pretrain_epochs == 0 else set()
    if config.margin_form == "none":
        moot |= {"margin", "beyond_pi"}
    if config.margin_form != "cluster_margin":
        moot |= {"center_decay"}
    if config.key_batch not in ("split", "shuffled"):
        moot |= {"key_parts"}
    if config.contrast != "info_nce":
        moot |= {"mask_own"}
    if config.composition in ("off", "no"):
        moot |= {"blend", "overlap_threshold", "require_contact", "composition_draws"}
    plain = typed(replace(config, weights=pinned(config.weights)), moot)
    return plain if config.classifier == "trained" else replace(plain, finetune_epochs=1)  # of no steps


def faults(config: SupcamConfig, pack: Pack | None = None, parts: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """All that is wrong with the configuration, alone and for a data set: one line each."""
    found = setting_faults(config, CHOICES, RANGES, POSITIVE)
    tables = ("off", "no", *load_tables())
    if config.composition not in tables:
        found.append(f"composition must be one of {', '.join(dict.fromkeys(tables))}, got {config.composition!r}")
    found += start_faults(config.backbone, config.weights, 1, config.input_size)
    if config.method == "lin2021" and config.classifier != "trained":
        found.append(f"method lin2021 trains its own head, classifier is {config.classifier}: set classifier=trained or method=supcam")
    apart = config.pretrain_epochs and config.key_batch in ("split", "shuffled")
    if apart and (config.pretrain_batch % config.key_parts or config.pretrain_batch < 2 * config.key_parts):
        found.append(
            f"pretrain_batch must be a multiple of key_parts, of two images a part or more, where keys are {config.key_batch}, "
            f"got {config.pretrain_batch} for {config.key_parts}; change one of them"
        )
    if any(epoch < 0 or epoch % 1 != 0 for epoch in config.rate_drops):
        found.append(f"rate_drops must be whole numbers of epochs, got {config.rate_drops}")
    if config.margin_form in ("parametric_margin", "cluster_margin", "self_margin", "all_margin") and config.contrast == "info_nce":
        found.append(
            f"margin_form {config.margin_form} is added to sup_con (Eq. 13); contrast is info_nce: set contrast=sup_con or margin_form=none"
        )
    if pack is not None and config.pretrain_epochs and config.composition not in ("off", "no") and pack.classes != CLASSES:
        found.append(
            f"composition {config.composition} is a table of the classes {', '.join(CLASSES)}, the data has {', '.join(pack.classes)}; "
            "set composition=off or composition=no, or name the folders so"
        )
    if parts is not None:
        n = len(parts["train"])
        for name in (
            *(("finetune_batch",) if config.classifier == "trained" else ()),
            *(("pretrain_batch",) if config.pretrain_epochs else ()),
        ):
            if getattr(config, name) > n:
                found.append(
                    f"{name} must not be above the number of training images, got {getattr(config, name)} for {n}; set "
                    f"{name}={max(2, min(16, n))}"
                )
    return found


def view_set(config: SupcamConfig) -> ViewSet:
    """The category-invariant views. On gray images saturation and hue do nothing, so MoCo v2's jitter is its brightness and contrast."""
    crop = (config.crop_min, config.crop_max)
    if config.views == "moco_v2":
        return ViewSet(crop=crop, horizontal_flip=0.5, brightness=0.4, contrast=0.4, jitter=0.8, blur=0.5)
    return ViewSet(crop=crop, horizontal_flip=0.5)


def _shuffled(n: int, batch: int, chance: torch.Generator) -> tuple[Tensor, list[slice]]:
    """Positions in random order, and which of them each batch has; the incomplete last one is left out, as batch statistics need a full
    one."""
    order = torch.randperm(n, generator=chance)[: n // batch * batch]
    return order, [slice(first, first + batch) for first in range(0, len(order), batch)]


@dataclass
class PretrainBatch:
    """Random choices of one global step."""

    primary: Tensor  # (N,) positions of I_p in the training part
    candidate: Tensor  # (N,) positions of I_c
    views: tuple[Draw, Draw, Draw]  # of x_q, x_k, x_g
    composition: Numbers
    order: Tensor  # (N / P, P): of each P images in a row, which goes to which of the P parts of the keys' batch


def _statistics(encoder: nn.Module) -> list[Tensor]:
    """Running means and variances of all batch normalisations."""
    return [buffer for name, buffer in encoder.named_buffers() if name.endswith(("running_mean", "running_var"))]


class Pretrain(Task):
    """Stage 1: Eq. 1, 3-7, 13 and Algorithm 1."""

    def __init__(self, config: SupcamConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        seed = derive_seed(setting.seed, "pretrain")
        backbone = create_backbone(
            config.backbone, channels=1, classes=0, weights=config.weights, seed=derive_seed(seed, "backbone"), input_size=config.input_size
        )
        self.query = Encoder(self.workers.synchronise(backbone), config.embedding_dim, derive_seed(seed, "head"))
        self.key = key_encoder_of(self.query)
        self.keys_alone = config.key_batch == "running" or (config.key_batch == "whole" and each_alone(self.key))
        self.queue = KeyQueue(config.queue_size, config.embedding_dim, owned=config.mask_own)
        if config.key_batch == "running":
            # beside the encoders', which are taken anew before each validation: that must not change a training
            for number, buffer in enumerate(_statistics(self.query)):
                self.register_buffer(f"query_average_{number}", buffer.clone())
                self.register_buffer(f"key_average_{number}", buffer.clone())
            self.register_buffer("averaged", torch.zeros(()))  # steps so far
        if config.key_batch in ("split", "shuffled") and config.pretrain_batch // self.workers.size % config.key_parts:
            raise RequestError(
                f"each of {self.workers.size} workers has {config.pretrain_batch // self.workers.size} images of a step, which key_parts "
                f"{config.key_parts} does not divide; change pretrain_batch, key_parts or the number of workers"
            )
        self.contrast_health = Health(config.embedding_dim)
        classes = len(setting.pack.classes)
        if config.margin_form == "parametric_margin":
            weight = torch.randn(classes, config.embedding_dim, generator=generator(seed, "class weights"))
            self.class_weight = nn.Parameter(F.normalize(weight, dim=1))
        if config.margin_form == "cluster_margin":
            self.register_buffer("centers", torch.zeros(classes, config.embedding_dim))
        self.to(setting.device, memory_format=torch.channels_last)  # 1.5 times as fast on a CPU too
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(
            trained, lr=config.pretrain_rate, momentum=config.sgd_momentum, weight_decay=config.weight_decay, **setting.optimising()
        )
        self.train_images = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        self.val_images = PartImages(setting.pack, setting.parts["val"], setting.device)
        self.views = view_set(config)
        self.table = load_tables().get(config.composition) if config.composition != "no" else None
        if self.table is not None and self.train_images.resident is not None:
            files = [setting.pack.files[place] for place in setting.parts["train"]]
            check_images(self.train_images.resident.split(AT_ONCE), files)
        self.asked: Tensor | None = None  # this step's queries
        self.new_keys: list[tuple[Tensor, Tensor, Tensor]] = []  # keys, their labels, the positions of their images

    def steps(self) -> int:
        return len(self.train_images) // self.config.pretrain_batch

    def batches(self, epoch: int) -> Iterator[PretrainBatch]:
        chance, n, size = generator(self.setting.seed, "pretrain", epoch), len(self.train_images), self.config.pretrain_batch
        primary, steps = _shuffled(n, size, chance)
        candidate = torch.randint(n, (len(primary),), generator=chance)
        first, second, third = (draw_views(len(primary), self.views, chance) for _ in range(3))
        composition = draw_composition(len(primary), self.config.composition_draws, chance)
        parts = self.config.key_parts if self.config.key_batch in ("split", "shuffled") else 1
        for some in steps:
            order = torch.rand(size // parts, parts, generator=chance).argsort(1)
            yield PretrainBatch(primary[some], candidate[some], (first[some], second[some], third[some]), composition[some], order)

    def _view(self, gray: Tensor, draw: Draw) -> Tensor:
        return standardise(apply_views(gray[:, None] / 255, draw, steady=self.setting.is_steady), statistics_of(self.query))

    def _composed(self, batch: PretrainBatch, part: slice, gray: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """(I_g, y_g) of this worker's part, or None without category-variant composition."""
        if self.config.composition == "off":
            return None
        other = batch.candidate[part]
        candidate, candidate_labels = self.train_images.pixels(other), self.train_images.labels[other.to(labels.device)]
        if self.table is None:
            return candidate, candidate_labels
        composed = compose(
            gray, candidate, labels, candidate_labels, self.table, blend=self.config.blend, threshold=self.config.overlap_threshold,
            require_contact=self.config.require_contact, numbers=batch.composition[part], steady=self.setting.is_steady,
        )  # fmt: skip
        return composed.images, composed.labels

    def loss(self, batch: PretrainBatch) -> Tensor:
        part = self.workers.slice(len(batch.primary))
        chosen = batch.primary[part]
        gray = self.train_images.pixels(chosen)
        labels = self.train_images.labels[chosen.to(gray.device)]
        self._begin_step()
        query = self._queries(self._view(gray, batch.views[0][part]))  # q = f_q(x_q), Eq. 1
        self.new_keys, owners = [], chosen.to(gray.device)
        with torch.no_grad():
            views, composed = [self._view(gray, batch.views[1][part])], self._composed(batch, part, gray, labels)
            if composed is not None:
                views.append(self._view(composed[0], batch.views[2][part]))
            keys = self._all_keys(views, batch, part)
            self.new_keys.append((keys[0], labels, owners))  # k+ = f_k(x_k)
            if composed is not None:  # k_g = f_k(x_g)
                self.new_keys.append((keys[1], composed[1], torch.full_like(owners, -1)))  # of two images, and so of none
        self.asked = query.detach()
        return self._loss(query, labels)

    def _begin_step(self) -> None:
        """Where keys are normalised by running averages, both encoders have their own of the steps so far."""
        if self.config.key_batch == "running":
            torch._foreach_copy_(_statistics(self.query), self._averages("query"))
            torch._foreach_copy_(_statistics(self.key), self._averages("key"))
            self.key.eval()

    def _averages(self, which: str) -> list[Tensor]:
        return [buffer for name, buffer in self.named_buffers() if name.startswith(f"{which}_average_")]

    @torch.no_grad()
    def _follow(self) -> None:
        """The keys' averages follow the queries' as the weights do (EMAN, Cai et al. 2021); at first, while there are few steps, they are
        the mean of all. The queries' own are of the last ten steps: a mark of the step, by which keys would be told."""
        found = _statistics(self.query)
        torch._foreach_copy_(self._averages("query"), found)
        part = (1 / (self.averaged + 1)).clamp_min(1 - self.config.ema_decay)
        for average, new in zip(self._averages("key"), found, strict=True):
            average.lerp_(new, part.to(new.dtype))
        self.averaged.add_(1)

    def _queries(self, views: Tensor) -> Tensor:
        """(N, D) of the views. Where batches are shuffled, each P-th image in a row is normalised with the others of its place."""
        if self.config.key_batch != "shuffled":
            return self.setting.apply(self.query, views)
        parts = self.config.key_parts
        rows = [self.setting.apply(self.query, views[place::parts]) for place in range(parts)]
        return torch.stack(rows, 1).flatten(0, 1)

    def _all_keys(self, views: list[Tensor], batch: PretrainBatch, part: slice) -> Sequence[Tensor]:
        """(N, D) of each of the views: in one pass where a key is of its image alone, whatever else is in the batch."""
        if len(views) > 1 and self.keys_alone:
            return self._keys(torch.cat(views), batch, part).chunk(len(views))
        return [self._keys(some, batch, part) for some in views]

    def _keys(self, views: Tensor, batch: PretrainBatch, part: slice) -> Tensor:
        """(N, D) of the views. In parts: those of one column of `order`, of each worker the same number, together."""
        parts = self.config.key_parts
        if self.config.key_batch not in ("split", "shuffled"):
            return self.setting.apply(self.key, views)
        order = batch.order[part.start // parts : part.stop // parts].to(views.device)  # (N / P, P)
        places = order + parts * torch.arange(len(order), device=views.device)[:, None]
        rows = torch.cat([self.setting.apply(self.key, views[column]) for column in places.unbind(1)])
        return torch.empty_like(rows).index_copy_(0, places.T.flatten(), rows)

    def health(self) -> dict[str, float]:
        return self.contrast_health.read(self.workers)

    def _loss(self, query: Tensor, labels: Tensor) -> Tensor:
        """Eq. 13 or one of its arms, from queries (N, D), this step's keys and the queue before they enter it."""
        config = self.config
        own = (query * self.new_keys[0][0]).sum(1)  # (N,) cosine with k+
        in_queue = query @ self.queue.keys.T  # (N, K)
        if config.contrast == "info_nce":
            negative = self.queue.present
            if config.mask_own:
                negative = negative & (self.queue.owners != self.new_keys[0][2][:, None])
            return losses.info_nce(own, in_queue, config.temperature, negative)
        same = labels[:, None] == self.queue.labels[None]
        cosines, positive, negative = [in_queue], [same & self.queue.present], [~same & self.queue.present]
        if len(self.new_keys) > 1:
            key_g, labels_g, _ = self.new_keys[1]
            cosines.append((query * key_g).sum(1, keepdim=True))
            positive.append((labels == labels_g)[:, None])
            negative.append((labels != labels_g)[:, None])
        others, other_negative = torch.cat(cosines, 1), torch.cat(negative, 1)
        every = torch.cat([own[:, None], others], 1)
        every_positive = torch.cat([torch.ones_like(own, dtype=torch.bool)[:, None], *positive], 1)
        every_negative = torch.cat([torch.zeros_like(own, dtype=torch.bool)[:, None], other_negative], 1)
        if config.margin_form == "all_margin":
            return losses.all_margin(
                every, every_positive, every_negative, config.margin, config.temperature, config.beyond_pi, counted=False
            )
        total = losses.sup_con(every, every_positive, every_negative, config.temperature, counted=False)  # each has its own key
        if config.margin_form == "self_margin":
            total = total + losses.self_margin(own, others, other_negative, config.margin, config.temperature, config.beyond_pi)
        elif config.margin_form == "parametric_margin":
            to_classes = query @ F.normalize(self.class_weight, dim=1).T
            total = total + losses.class_margin(to_classes, labels, config.margin, config.temperature, config.beyond_pi)
        elif config.margin_form == "cluster_margin":
            known = self._move_centers()
            # a query whose own class has no key yet has no centre to come near to: it adds nothing to the mean over the batch
            to_centers = query @ self.centers.clone().T
            drawn = losses.class_margin(to_centers, labels, config.margin, config.temperature, config.beyond_pi, known)
            total = total + known[labels].float().mean() * drawn
        return total

    def _move_centers(self) -> Tensor:
        """Class centres: moving average of the renormalised mean of each class's keys in the queue. (C,) bool: which classes have one."""
        with torch.no_grad():
            member = F.one_hot(self.queue.labels.clamp_min(0), len(self.centers)).to(self.queue.keys.dtype) * self.queue.present[:, None]
            mean = F.normalize(member.T @ self.queue.keys, dim=1)
            filled, old = member.sum(0) > 0, self.centers.norm(dim=1) > 0
            moved = torch.where(old[:, None], self.config.center_decay * self.centers + (1 - self.config.center_decay) * mean, mean)
            self.centers.copy_(torch.where(filled[:, None], F.normalize(moved, dim=1), self.centers))
            return self.centers.norm(dim=1) > 0

    def after_step(self) -> None:
        """The key encoder follows; then k+ and k_g enter the queue, those of all workers in the order of the global batch."""
        move_towards(self.key, self.query, self.config.ema_decay)
        entering = [[self.workers.gather(rows) for rows in (new if self.config.mask_own else new[:2])] for new in self.new_keys]
        if self.asked is not None:
            first = self.workers.rank * len(self.asked)
            self.contrast_health.add(self.asked, entering[0][0], first, self.asked @ self.queue.keys.T, self.queue.present)
        for new in entering:
            self.queue.enqueue(*new)
        self.asked = None
        self.new_keys = []
        if self.config.key_batch == "running":
            self._follow()

    def learning_rate(self, epoch: float) -> float:
        """Linear warm-up over `warmup_epochs`, then cosine to 0 at the last epoch."""
        config = self.config
        return warm_cosine(config.pretrain_rate, epoch, config.warmup_epochs, config.pretrain_epochs, self.steps())

    def validate_at(self, epoch: int) -> bool:
        """About ten times in a pre-training: it costs a pass over up to 1,024 images."""
        return epoch % max(1, self.config.pretrain_epochs // 10) == 0

    def look(self, chosen: Tensor) -> None:
        images = standardise(self.train_images.gray(chosen)[:, None] / 255, statistics_of(self.query))
        self.query(images)
        self.key(images)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Of the query encoder, a fixed sample of the training part teaching and the validation part asking: the accuracy of the weighted
        vote of nearest embeddings, and that of a linear probe of the backbone's features, from which fine-tuning starts."""
        n = len(self.train_images)
        bank = torch.randperm(n, generator=generator("knn bank"))[:512].sort().values
        (bank_f, bank_z), (asked_f, asked_z) = (
            self._encode(images, chosen)
            for images, chosen in ((self.train_images, bank), (self.val_images, torch.arange(len(self.val_images))))
        )
        bank_y, asked_y = self.train_images.labels[bank.to(self.setting.device)], self.val_images.labels
        probe = fit_probe(bank_f.cpu().numpy(), bank_y.cpu().numpy(), len(self.setting.pack.classes))
        right = probed(probe, asked_f.cpu().numpy()) == asked_y.cpu().numpy()
        return {
            "val_knn_accuracy": knn_accuracy(bank_z, bank_y, asked_z, asked_y, k=min(20, len(bank))),
            "val_probe_accuracy": float(right.mean()),
        }

    @torch.no_grad()
    def collapse(self) -> str:
        _, embedded = self._encode(self.val_images, torch.arange(len(self.val_images)))
        return said(
            one_direction(embedded, "validation embeddings"), one_direction(self.queue.keys[self.queue.present], "keys of the queue")
        )

    def _encode(self, images: PartImages, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) and embeddings (N, D) of images without views."""
        own = statistics_of(self.query)
        features = torch.cat([self.query.backbone(standardise(images.gray(some)[:, None] / 255, own)) for some in chosen.split(128)])
        return features, self.query.embed(features)

    def result(self) -> dict[str, Tensor]:
        own = statistics_of(self.query)
        return ({} if own is None else {STATISTICS: own}) | {
            f"{which}.{name}": tensor
            for which, encoder in (("query", self.query), ("key", self.key))
            for name, tensor in encoder.backbone.state_dict().items()
        }


def _start(config: SupcamConfig, setting: Setting, outputs: int, seed: int) -> nn.Module:
    """The timm model with a new classifier, its other weights those that were pre-trained, or those that the configuration begins with."""
    weights = config.weights if setting.previous is None else "random"
    model = create_backbone(config.backbone, channels=1, classes=outputs, weights=weights, seed=seed, input_size=config.input_size)
    if setting.previous is not None:
        prefix = config.finetune_encoder + "."
        taken = {name.removeprefix(prefix): tensor for name, tensor in setting.previous.items() if name.startswith(prefix)}
        missing, unexpected = model.load_state_dict(taken, strict=False)
        head = {f"{name}.{kind}" for name in _names(model.pretrained_cfg.get("classifier")) for kind in ("weight", "bias")}
        if unexpected or set(missing) - head:
            raise RuntimeError(f"the pre-trained backbone does not fit: missing {missing}, unexpected {unexpected}")
        expect(model, setting.previous.get(STATISTICS))
    return model


class Finetune(Task):
    """Stage 2: the backbone and a new linear layer, cross-entropy with label smoothing, rotated views."""

    def __init__(self, config: SupcamConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        seed = derive_seed(setting.seed, "finetune")
        model = _start(config, setting, len(setting.pack.classes), seed)
        self.model = self.workers.synchronise(model).to(setting.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.parameters(),
            lr=config.finetune_rate,
            momentum=config.sgd_momentum,
            weight_decay=config.weight_decay,
            **setting.optimising(),
        )
        self.train_images = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        self.val_images = PartImages(setting.pack, setting.parts["val"], setting.device)
        self.views = ViewSet(zoom=config.zoom, rotation=config.rotation)

    def steps(self) -> int:
        return len(self.train_images) // self.config.finetune_batch

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Draw]]:
        chance = generator(self.setting.seed, "finetune", epoch)
        order, steps = _shuffled(len(self.train_images), self.config.finetune_batch, chance)
        draw = draw_views(len(order), self.views, chance)
        for some in steps:
            yield order[some], draw[some]

    def loss(self, batch: tuple[Tensor, Draw]) -> Tensor:
        part = self.workers.slice(len(batch[0]))
        chosen = batch[0][part]
        gray = self.train_images.pixels(chosen)
        views = apply_views(gray[:, None] / 255, batch[1][part], steady=self.setting.is_steady)
        seen = standardise(views, statistics_of(self.model))
        logits = self.setting.apply(self.model, seen)
        labels = self.train_images.labels[chosen.to(gray.device)]
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def learning_rate(self, epoch: float) -> float:
        """Multiplied by `rate_drop` after each of the epochs in `rate_drops`."""
        return self.config.finetune_rate * self.config.rate_drop ** sum(epoch >= drop for drop in self.config.rate_drops)

    def validate_at(self, epoch: int) -> bool:
        return epoch % max(1, self.config.finetune_epochs // 5) == 0

    def look(self, chosen: Tensor) -> None:
        self.model(standardise(self.train_images.gray(chosen)[:, None] / 255, statistics_of(self.model)))

    def validate(self) -> dict[str, float]:
        logits = _logits(self.config, self.model, self.setting.pack.images, self.setting.parts["val"], self.setting.device)
        return {"val_accuracy": float((logits.argmax(1) == self.val_images.labels.cpu()).double().mean())}

    def collapse(self) -> str:
        logits = predict_logits(self.model, self.setting.pack.images, self.setting.parts["val"], self.setting.device)
        return one_class(logits.argmax(1), self.val_images.labels.cpu(), self.setting.pack.classes)

    def result(self) -> dict[str, Tensor]:
        return kept(self.model)


def build(config: SupcamConfig, setting: Setting) -> Task:
    """Stage 2 as the configuration has it."""
    if config.method == "lin2021":
        return lin2021.All(config, setting)
    if config.classifier == "trained":
        return Finetune(config, setting)
    seed, drawn = derive_seed(setting.seed, "finetune"), config.weights == "random" and setting.previous is None
    return Frozen(setting, config.classifier, lambda outputs: _start(config, setting, outputs, seed), config.backbone, drawn=drawn)


def _names(classifier: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (classifier,) if isinstance(classifier, str) else tuple(classifier or ())


def _classifier(config: SupcamConfig, tensors: Mapping[str, Tensor], classes: int, device: torch.device) -> nn.Module:
    def build(outputs: int) -> nn.Module:
        return create_backbone(config.backbone, channels=1, classes=outputs, weights="random", seed=0, input_size=config.input_size)

    if config.classifier == "neighbours":
        return voting_of(build, dict(tensors), classes).to(device)
    model: nn.Module = lin2021.Network(config.backbone, classes, "random", 0) if config.method == "lin2021" else build(classes)
    restore(model, tensors)
    return model.to(device)


def _logits(config: SupcamConfig, model: nn.Module, images: np.ndarray, chosen: np.ndarray, device: torch.device) -> Tensor:
    """(N, C) on the CPU: the mean over the turns that the configuration asks for."""
    turns = [predict_logits(model, seen, chosen, device) for seen in positions(images, config.every_turn)]
    return torch.stack(turns).mean(0)


def evaluate(config: SupcamConfig, tensors: Mapping[str, Tensor], pack: Pack, chosen: np.ndarray, device: torch.device) -> Evaluation:
    """Metrics of Eq. 8-12 and the confusion matrix on the chosen images."""
    logits = _logits(config, _classifier(config, tensors, len(pack.classes), device), pack.images, chosen, device)
    labels = np.asarray(pack.labels[chosen])
    confusion = confusion_matrix(labels, logits.argmax(1).numpy(), len(pack.classes))
    return Evaluation(
        classification_metrics(confusion),
        confusion.tolist(),
        {"index": chosen.tolist(), "label": labels.tolist(), "probability": prediction_rows(logits)},
    )


def predict(
    config: SupcamConfig, tensors: Mapping[str, Tensor], images: np.ndarray, classes: tuple[str, ...], device: torch.device
) -> dict[str, list[Any]]:
    """The type of each image and the probability of each type."""
    network = _classifier(config, tensors, len(classes), device)
    return prediction_columns(_logits(config, network, images, np.arange(len(images)), device), classes)


def read_files(paths: list[Path], config: SupcamConfig) -> tuple[np.ndarray, dict[str, list[Any]], list[str], list[str]]:
    """Images as the classifier was trained on, their names, what was done to them, and what is wrong with files."""
    images, _, notes, broken = read_images(paths, config.canvas, config.input_size, normal=normal_of(vars(config)))
    return images, {"file": [shown(str(path)) for path in paths]}, notes, broken


def timm_settings(config: SupcamConfig, classes: tuple[str, ...]) -> dict[str, Any] | None:
    """What timm needs to build this classifier again, as its config.json has it. None for neighbours and for a head that timm does not
    know."""
    if config.method == "lin2021" or config.classifier == "neighbours":
        return None
    side = config.input_size
    return {
        "architecture": architecture_of(config.backbone)[0],
        "num_classes": len(classes),
        "model_args": {"in_chans": 1} | model_arguments(config.backbone, side),
        "pretrained_cfg": {
            "input_size": [1, side, side], "fixed_input_size": False, "interpolation": "bilinear", "crop_pct": 1.0,
            "mean": [GRAY_MEAN], "std": [GRAY_STD], "num_classes": len(classes), "label_names": list(classes), "custom_load": False,
        },
        "images": image_settings(config.canvas, side, normal_of(vars(config)), config.every_turn),
    }  # fmt: skip


def read(folder: Path, config: SupcamConfig, classes: tuple[str, ...] | None = None, elsewhere: Elsewhere | None = None) -> Pack:
    """A folder of images as this configuration sees it; near duplicates are tied, so that no split parts them."""
    look = normal_of(vars(config))
    pack = read_folder(folder, config.canvas, config.input_size, classes, normal=look, elsewhere=elsewhere)
    if classes is not None:
        return pack
    ties, words = tied(pack)
    return replace(pack, ties=ties, notes=(*pack.notes, *words))


def synthesize(config: SupcamConfig, *, images: int, seed: int) -> Pack:
    """The built-in set: drawn chromosomes composed to the four types."""
    return cluster_set(images // len(CLASSES), size=config.input_size, canvas=config.canvas, seed=seed, normal=normal_of(vars(config)))


def synthesize_external(config: SupcamConfig, *, images: int, seed: int) -> dict[str, Pack]:
    """Beside it: other patients' clusters as another laboratory would have them."""
    drawn = cluster_set(
        images // len(CLASSES), size=config.input_size, canvas=config.canvas, seed=derive_seed(seed, "elsewhere"),
        normal=normal_of(vars(config)),
        laboratory=ELSEWHERE,
    )  # fmt: skip
    return {"elsewhere": drawn}


def read_both(folder: Path, config: SupcamConfig) -> tuple[Pack, Pack]:
    """What `read` gives; and the same images as another laboratory's files would hold them, then brought to the same look."""
    other = Elsewhere(ELSEWHERE)
    pack = read(folder, config, elsewhere=other)
    note = f"simulated: the test images of the study's own set as another laboratory might show them ({ELSEWHERE.words})"
    seen = make_pack(other.images, pack.labels, pack.classes, pack.files, pack.patients, other.areas, [note])
    return pack, seen


PROCEDURE = Procedure(
    name="supcam",
    config=SupcamConfig,
    stages=(
        Stage("pretrain", "pretrain_epochs", "pretrain_batch", PRETRAIN_FIELDS, Pretrain, shared=True),
        Stage("frozen", "frozen_epochs", "finetune_batch", FROZEN_FIELDS, lin2021.HeadAlone),
        Stage("finetune", "finetune_epochs", "finetune_batch", FINETUNE_FIELDS, build),
    ),
    canonical=canonical,
    faults=faults,
    synthesize=synthesize,
    external=synthesize_external,
    elsewhere=read_both,
    read=read,
    parts=split_of,
    evaluate=evaluate,
    timm_settings=timm_settings,
    read_images=read_files,
    predict=predict,
    headline=("accuracy", "precision", "sensitivity", "specificity", "f1"),
)
