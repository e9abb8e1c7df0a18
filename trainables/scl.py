"""SCL: supervised contrastive learning for the 24 chromosome classes (Chang et al.; equation numbers are the paper's).
Comes in: gray images of one chromosome each, background 0, with class and individual. Goes out: a classifier that timm loads.
One stage: pairs of batches with one image of each class; focal losses on their similarity matrices and on the class scores."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.baselines import varifocal
from trainables.baselines.dealing import crowded, dealt
from trainables.data.alone import image_settings
from trainables.data.normal import normal_of
from trainables.data.pack import Pack, make_pack
from trainables.data.read import read_folder, read_images, tied
from trainables.data.scale import shrink
from trainables.data.synthetic_karyotypes import karyotype_set
from trainables.data.words import KARYOTYPE, few, shown
from trainables.parts import losses
from trainables.parts.classification import PartImages, predict_logits, prediction_columns, prediction_rows
from trainables.parts.collapse import one_class, one_direction, said
from trainables.parts.encoders import (
    AS_THEY_ARE,
    BUILDING,
    GRAY_MEAN,
    GRAY_STD,
    create_backbone,
    model_arguments,
    restore,
    standardise,
    start_faults,
    statistics_of,
    without_memory,
)
from trainables.parts.errors import RequestError
from trainables.parts.evaluation import auc_macro, classification_metrics, confusion_matrix
from trainables.parts.frozen import HEADS, Frozen, Voting, voting_of
from trainables.parts.libraries import missing
from trainables.parts.pairs import draw_pairs, rate_of, views_of
from trainables.parts.pretext import Health
from trainables.parts.procedure import Evaluation, Procedure, Setting, Stage, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.settings import setting_faults, split_of, typed
from trainables.parts.views import Draw, apply_views, draw_views
from trainables.parts.weights import STATISTICS, architecture_of, pinned

LEAST_TEMPERATURE = 0.01  # the paper's t, which multiplies, is at most 100 [decided: CLIP's]
PRIVATE = "scl."  # stored tensors that timm does not know
WIDE, HIDDEN = 4096, 1024  # of the authors' head: before E, and between E and the scores
EASY = 0.1  # of the contrast in the first epochs, as the authors' code has it
MEMORY = 0.98  # a step, of the running sizes of the two losses' gradients: they are those of the last 50 steps
LEAST_PLACES = 7  # each way, of the maps that a heat map is drawn from


@dataclass(frozen=True)
class SclConfig:
    """Defaults are the published values (sections 3 and 4.2); [decided] where the paper is silent."""

    # data
    canvas: int = 256  # pixels: images are padded to this square (OGH-Fudan's), larger ones scaled down to it
    input_size: int = 224  # pixels: the canvas is resampled to this side
    normal_width: float = 0.0  # pixels: each image is scaled until its chromosome is this wide, its frame cut off; 0: as it is
    normal_gray: float = 0.0  # 1..255: each image is stretched until 95 % of its chromosome's gray values are below this; 0: as it is
    upright: bool = False  # each image is turned until its chromosome's main axis stands
    straighten: bool = False  # each image is straightened by its chromosome's medial axis first, where it has one
    split: tuple[float, float, float] = (0.883, 0.019, 0.098)  # train, validation, test: 106,260 + 2,300 + 11,818 images
    split_seed: int = 0  # of the split, fixed for a study [decided]
    split_per_seed: bool = False  # draw the split anew for each seed
    patients: str = "manifest"  # manifest | prefix: who an image is of, the manifest's column or the file's name up to its first _
    whole_karyotype: bool = True  # folders named 1-22, X, Y must be all 24; False: the classes that are there
    # network
    backbone: str = "vit_small_patch8_224"  # any timm name
    weights: str = "random"  # where the backbone starts: random | imagenet | another published or own start, see `weights.KNOWN` [decided]
    embedding_dim: int = 1024  # D
    head: str = "linear"  # linear: backbone, E, scores, each one layer | code: the authors', backbone, 4096, E, 1024, ReLU, scores
    normalise: bool = (
        True  # images by the mean and deviation that the weights expect, random ones ImageNet's; False: 0 to 1, as the authors
    )
    # trained: SCL | probe: a linear one on the backbone's features as they begin | neighbours: a vote of the nearest training images
    classifier: str = "trained"
    # training
    epochs: int = 200
    steps_per_epoch: int = 2000
    groups: int = 1  # pairs of batches in a step; each pair has two images of each class
    learning_rate: float = 1e-5  # of Adam
    schedule: str = "constant"  # constant | cosine, to 0 at the last epoch [decided] | decay, x 0.95 an epoch, as the authors' code
    weight_decay: float = 0.0  # decoupled (AdamW); 0 is Adam
    lambda1: float = 1.0  # of the contrastive loss (Eq. 4); 0: without SCL
    lambda2: float = 1.0  # of the classification loss, Eq. 5's sum of two means (the authors' code counts their one mean twice: the same)
    contrast_sum: str = "equation"  # equation: Eq. 3's eight terms | code: three, S_12 once and each block half of its rows and columns
    contrast_balance: float = 0.0  # above 0: in place of lambda1, the contrast's gradient on E is this part of the classification's
    first_epochs: int = 0  # at first: cross-entropy in place of all focal losses, and a tenth of the contrast (1 in the authors' code)
    keep: str = "last"  # last | best: the weights of the last epoch, or of that with the best validation accuracy (the authors')
    focal_gamma: float = 2.0  # of all focal losses [decided: Lin et al.'s]
    temperature: float = 0.07  # where the learned temperature starts; it divides the cosines, so the paper's t is 1 / temperature [decided]
    rotation: float = 180.0  # degrees: a view is turned by up to this, either way [decided]
    flip: float = 0.5  # probability of a flip [decided]
    flips: str = "both"  # both | vertical: which flips there are
    contrast: float = 0.4  # factor of contrast, uniform within 1 -+ this [decided]
    brightness: float = 0.0  # factor of brightness, likewise
    # another's method in its place
    method: str = "scl"  # scl | varifocal (Qin et al. 2019, see trainables/baselines): who trains the classifier
    part_epochs: int = 0  # varifocal: of the second network alone, after `epochs` of the first; how many theirs are is not known
    both_epochs: int = 0  # varifocal: of both, at a tenth of the rate
    fusion_epochs: int = 0  # varifocal: of the layers on both networks' features


CHOICES = {
    "patients": ("manifest", "prefix"),
    "head": ("linear", "code"),
    "classifier": ("trained", *HEADS),
    "schedule": ("constant", "cosine", "decay"),
    "contrast_sum": tuple(losses.CONTRAST_SUMS),
    "keep": ("last", "best"),
    "flips": ("both", "vertical"),
    "method": ("scl", "varifocal"),
}
RANGES = {  # (low, high), inclusive
    "canvas": (16, 2048),
    "input_size": (16, 2048),
    "normal_width": (0, 2048),
    "normal_gray": (0, 255),
    "split_seed": (0, 2**31 - 1),
    "embedding_dim": (2, 65536),
    "epochs": (1, 100000),
    "steps_per_epoch": (1, 1000000),
    "groups": (1, 1024),
    "weight_decay": (0, 1),
    "lambda1": (0, 1000),
    "contrast_balance": (0, 1000),
    "first_epochs": (0, 100000),
    "focal_gamma": (0, 10),
    "temperature": (LEAST_TEMPERATURE, 100),
    "rotation": (0, 180),
    "flip": (0, 1),
    "contrast": (0, 1),
    "brightness": (0, 1),
    "part_epochs": (0, 100000),
    "both_epochs": (0, 100000),
    "fusion_epochs": (0, 100000),
}
POSITIVE = ("learning_rate", "lambda2")
FROZEN = {  # fields that matter where nothing is trained
    "canvas", "input_size", "normal_width", "normal_gray", "upright", "straighten", "split", "split_seed", "split_per_seed", "patients",
    "whole_karyotype", "backbone", "weights", "normalise", "classifier",
}  # fmt: skip
PHASES = ("part_epochs", "both_epochs", "fusion_epochs")  # of varifocal, after the first
OF_SCL = (  # fields that varifocal has not
    "embedding_dim", "head", "lambda1", "lambda2", "contrast_sum", "contrast_balance", "first_epochs", "focal_gamma", "temperature",
)  # fmt: skip
FIELDS = tuple(entry.name for entry in fields(SclConfig))


def canonical(config: SclConfig) -> SclConfig:
    """The same training with every field that cannot matter at its default, in the default's type: without SCL there is no temperature, and
    a contrast that is balanced has no lambda1."""
    config = replace(config, weights=pinned(config.weights))
    if config.classifier != "trained":
        return replace(typed(config, {entry.name for entry in fields(SclConfig)} - FROZEN), epochs=1)  # of no steps
    if config.method == "varifocal":
        return typed(config, OF_SCL)
    if config.lambda1 == 0:
        return typed(config, (*PHASES, "temperature", "contrast_sum", "contrast_balance"))
    return typed(config, (*PHASES, *(("lambda1",) if config.contrast_balance else ())))


def faults(config: SclConfig, pack: Pack | None = None, parts: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """All that is wrong with the configuration, alone and for a data set: one line each."""
    found = setting_faults(config, CHOICES, RANGES, POSITIVE)
    if config.contrast_balance > 0 and config.lambda1 not in (0, 1):
        found.append(
            f"lambda1 must be 1, or 0 for none, where the contrast is balanced (contrast_balance={config.contrast_balance:g}), "
            f"got {config.lambda1:g}; a weight of its own takes contrast_balance=0"
        )
    if config.method == "varifocal" and (none := [name for name in PHASES if getattr(config, name) == 0]):
        found.append(f"{', '.join(none)} must be above 0 where method is varifocal, got 0: nothing would be trained; presets set them")
    if config.method == "varifocal" and config.classifier != "trained":
        found.append(f"method varifocal trains its own layers, classifier is {config.classifier}: set classifier=trained or method=scl")
    if config.straighten and (words := missing()):
        found.append(f"straighten: {words}")
    if unknown := start_faults(config.backbone, config.weights, 1, config.input_size):
        found += unknown
    elif not any(fault.startswith("input_size") for fault in found):
        found += _network_faults(config.backbone, int(config.input_size))
    if pack is not None and pack.images.ndim != 3:
        found.append(f"images must be gray (N, S, S), got {pack.images.shape}; read the folder again")
    if pack is not None and parts is not None:
        found += _part_faults(pack, parts)
    return found


@functools.lru_cache(maxsize=256)
def _network_faults(backbone: str, input_size: int) -> tuple[str, ...]:
    """Whether the embedding can be folded into the backbone's classifier and images of this size pass; without memory for weights."""
    try:
        with without_memory():
            model = create_backbone(backbone, channels=1, classes=2, weights="random", seed=0, input_size=input_size).eval()
        with torch.device("meta"), torch.no_grad():
            if _classifier_name(model) is None:
                return (
                    f"backbone must end in one linear classifier, which {backbone} does not; "
                    "choose another, such as resnet50 or vit_small_patch8_224",
                )
            model(torch.zeros(2, 1, input_size, input_size))
    except BUILDING as fault:
        reason = (str(fault).splitlines() or [type(fault).__name__])[0].rstrip(".")
        return (f"input_size must be one that backbone {backbone} takes, got {input_size} ({reason}); choose another size or backbone",)
    return ()


def _part_faults(pack: Pack, parts: Mapping[str, np.ndarray]) -> list[str]:
    """Classes without a training image (a batch has one image of each class), and individuals on two sides."""
    found = []
    present = np.bincount(pack.labels[parts["train"]], minlength=len(pack.classes))
    if gone := [name for name, count in zip(pack.classes, present, strict=True) if count == 0]:
        found.append(
            f"every batch has one image of each class, the training part has none of {', '.join(gone)}; add images or change the split"
        )
    if pack.patients is not None:
        sides = {name: {pack.patients[index] for index in indices} for name, indices in parts.items()}
        names = list(sides)
        torn = sorted(set().union(*(sides[a] & sides[b] for i, a in enumerate(names) for b in names[:i])))
        if torn:
            found.append(f"an individual must stand in one part of the split, in two: {few(torn)}; split by individual")
    return found


# ---------------------------------------------------------------------------------------------------------------- the network


def _classifier_name(model: nn.Module) -> str | None:
    """The name of the model's classifier if it is one linear layer with a bias."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear) or classifier.bias is None:
        return None
    names: list[str] = [name for name, module in model.named_modules() if module is classifier]
    return names[0]


def _head(config: SclConfig, classes: int, seed: int) -> nn.Module:
    """From E to the scores."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.head == "linear":
            return nn.Linear(config.embedding_dim, classes)
        return nn.Sequential(nn.Linear(config.embedding_dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes, bias=False))


def _timm_model(config: SclConfig, outputs: int, weights: str, seed: int) -> nn.Module:
    return create_backbone(config.backbone, channels=1, classes=outputs, weights=weights, seed=seed, input_size=config.input_size)


def _network(config: SclConfig, outputs: int, tensors: Mapping[str, Tensor], device: torch.device, embeds: bool = False) -> nn.Module:
    """The network with these weights, ready to judge: the timm model, with the authors' head where its classifier was. embeds: it gives E,
    and the tensors hold the layer that does as its classifier."""
    if config.classifier == "neighbours":
        return voting_of(lambda count: _timm_model(config, count, "random", 0), dict(tensors), outputs).to(device).eval()
    if config.method == "varifocal":
        both = varifocal.Network(config, outputs, "random", 0)
        restore(both, tensors)
        return both.to(device).eval()
    code = config.head == "code" and not embeds
    classes = config.embedding_dim if code else outputs
    model = _timm_model(config, classes, "random", 0)
    if code:
        name = _classifier_name(model)
        assert name is not None
        model.set_submodule(name, nn.Sequential(model.get_submodule(name), *_head(config, outputs, 0).children()))
    restore(model, exported(config, tensors))
    return model.to(device).eval()


def _normalises(config: SclConfig) -> bool:
    """Whether the network is given normalised images; another's normalises what it has cut."""
    return config.normalise and config.method == "scl"


def exported(config: SclConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of all that a run stores, what timm loads: the backbone with the folded classifier."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PRIVATE)}


# ---------------------------------------------------------------------------------------------------------------- training


@dataclass
class PairedBatch:
    """Random choices of one global step."""

    chosen: Tensor  # (G, 2, C) positions in the training part
    views: Draw  # of the G x 2 x C images, in that order
    easy: Tensor  # scalar: 1 in the first epochs, else 0; a recorded step reads it where it cannot ask which epoch it is


class _Known(torch.autograd.Function):
    """A value whose gradients on some tensors are known: apply(value, number of the tensors, *tensors, *gradients)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, number: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[number:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        gradients = [slope * gradient for gradient in ctx.saved_tensors]
        return None, None, *gradients, *[None] * len(gradients)


class Train(Task):
    """Eq. 1-5 and Algorithm 1. The timm model's own classifier is the projection to the embedding E, a second linear layer gives the
    class scores; both being linear, `result` folds them into one. Of the authors' head it folds the two layers before E."""

    def __init__(self, config: SclConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        self.seed = derive_seed(setting.seed, "train")
        self.classes = len(setting.pack.classes)
        code = config.head == "code"
        model = create_backbone(
            config.backbone, channels=1, classes=WIDE if code else config.embedding_dim, weights=config.weights,
            seed=derive_seed(self.seed, "backbone"),
            input_size=config.input_size,
        )  # fmt: skip
        name = _classifier_name(model)
        if name is None:
            raise RequestError(f"backbone must end in one linear classifier, which {config.backbone} does not; choose another")
        self.embedding = name
        if code:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(self.seed, "embedding"))
                model.set_submodule(name, nn.Sequential(model.get_submodule(name), nn.Linear(WIDE, config.embedding_dim, bias=False)))
        self.model = self.workers.synchronise(model)
        self.classifier = _head(config, self.classes, derive_seed(self.seed, "classifier"))
        self.keeps = "val_accuracy" if config.keep == "best" else ""
        start = torch.tensor(math.log(config.temperature))
        if config.lambda1:
            self.log_temperature = nn.Parameter(start)
        else:  # without SCL nothing asks for it
            self.register_buffer("log_temperature", start)
        if config.lambda1 and config.contrast_balance:
            self.register_buffer("gradients", torch.zeros(2))  # squared lengths on E, of the contrast and of the classification
        self.contrast_health = Health(config.embedding_dim)
        self.model.to(memory_format=torch.channels_last)
        self.to(setting.device)
        weights = [parameter for name, parameter in self.named_parameters() if name != "log_temperature"]
        scalars = [parameter for name, parameter in self.named_parameters() if name == "log_temperature"]
        rows: list[dict[str, Any]] = [{"params": weights}] + ([{"params": scalars, "weight_decay": 0.0}] if scalars else [])
        self.optimizer = torch.optim.AdamW(
            rows, lr=config.learning_rate, weight_decay=config.weight_decay, **setting.optimising(adaptive=True)
        )
        self.train_images = PartImages(setting.pack, setting.parts["train"], setting.device, setting.is_steady)
        labels = setting.pack.labels[setting.parts["train"]]
        self.members = [torch.from_numpy(np.flatnonzero(labels == label)) for label in range(self.classes)]
        if faults := _part_faults(setting.pack, setting.parts):
            raise RequestError(*faults)
        self.views = views_of(config)
        self.sums = torch.zeros(3, device=setting.device)  # of an epoch: the two losses, and its steps

    def steps(self) -> int:
        return self.config.steps_per_epoch

    def batches(self, epoch: int) -> Iterator[PairedBatch]:
        """Depends on the seed and the epoch alone: a class's decks are counted from the run's first step."""
        config, chance = self.config, generator(self.seed, "views", epoch)
        self.sums.zero_()
        pairs = draw_pairs(self.members, self.seed, epoch * self.steps(), self.steps(), config.groups)
        draw, size = draw_views(pairs.numel(), self.views, chance), pairs[0].numel()
        easy = torch.tensor(float(epoch < config.first_epochs))
        for number, chosen in enumerate(pairs):
            yield PairedBatch(chosen, draw[number * size : (number + 1) * size], easy)

    def _seen(self, images: Tensor) -> Tensor:
        return standardise(images, statistics_of(self.model)) if self.config.normalise else images

    def loss(self, batch: PairedBatch) -> Tensor:
        """Eq. 4, the mean over this worker's groups."""
        part = self.workers.slice(len(batch.chosen))
        chosen = batch.chosen[part]
        pair = 2 * self.classes
        draw = batch.views[part.start * pair : part.stop * pair]
        gray = self.train_images.pixels(chosen.flatten())
        seen = self._seen(apply_views(gray[:, None] / 255, draw, keep_background=True, steady=self.setting.is_steady))
        embedding = self.setting.apply(self.model, seen).view(*chosen.shape, -1)  # (G, 2, C, D), Eq. 1
        contrast, classification = self._losses(embedding, batch.easy)
        if self.config.lambda1:
            for first, second in F.normalize(
                embedding.detach().float(), dim=-1
            ):  # a group: an image of each class finds the other of its class
                self.contrast_health.add(first, second, 0)
        self.sums += torch.stack([contrast, classification, torch.ones_like(contrast)]).detach()
        classification = self.config.lambda2 * classification
        if not self.config.lambda1 or not self.config.contrast_balance:
            return self.config.lambda1 * contrast + classification
        return self._balanced(embedding, contrast, classification)

    def _losses(self, embedding: Tensor, easy: Tensor) -> tuple[Tensor, Tensor]:
        """L_con (Eq. 3) and L_cls (Eq. 5) of embeddings (G, 2, C, D); L_con is 0 where lambda1 is."""
        config, gamma, share = self.config, self.config.focal_gamma, 1.0
        if config.first_epochs:
            easy = easy.to(embedding.device)
            gamma, share = (1 - easy) * gamma, 1 - (1 - EASY) * easy
        scores = self.classifier(embedding)
        targets = torch.arange(self.classes, device=scores.device).expand(scores.shape[:-1])
        classification = 2 * losses.focal(scores, targets, gamma)  # the sum of two means over equally many rows
        if not config.lambda1:
            return torch.zeros_like(classification), classification
        first, second, temperature = embedding[:, 0], embedding[:, 1], self.log_temperature.exp()
        return share * losses.paired_contrast(first, second, temperature, gamma, config.contrast_sum), classification

    def _balanced(self, embedding: Tensor, contrast: Tensor, classification: Tensor) -> Tensor:
        """Their sum, the contrast with the weight that makes its gradient on E `contrast_balance` times as long as the classification's: by
        the root of the ratio of their squared lengths, each a running mean. Both means start at 0, so that what the first steps lack
        cancels. The two gradients are worked out once, for the weight and for the step."""
        if not (self.training and embedding.requires_grad):
            return self._weight() * contrast + classification
        weights = [weight for weight in self.classifier.parameters() if weight.requires_grad]
        slope, of_temperature = torch.autograd.grad(contrast, [embedding, self.log_temperature])
        other_slope, *of_weights = torch.autograd.grad(classification, [embedding, *weights])
        squares = [self.workers.mean(len(each) * each.square().sum()) for each in (slope, other_slope)]  # of a pair of batches
        self.gradients.lerp_(torch.stack(squares), 1 - MEMORY)
        weight = self._weight()
        return _Known.apply(
            weight * contrast.detach() + classification.detach(), 2 + len(weights), embedding, self.log_temperature, *weights,
            weight * slope + other_slope, weight * of_temperature, *of_weights,
        )  # fmt: skip

    def _weight(self) -> Tensor:
        of_contrast, of_classification = self.gradients.clone().unbind()
        tiny = torch.finfo(of_contrast.dtype).tiny
        return self.config.contrast_balance * (of_classification / of_contrast.clamp_min(tiny)).sqrt()

    @torch.no_grad()
    def after_step(self) -> None:
        self.log_temperature.clamp_(min=math.log(LEAST_TEMPERATURE))

    def health(self) -> dict[str, float]:
        return self.contrast_health.read(self.workers)

    def learning_rate(self, epoch: float) -> float:
        return rate_of(self.config, epoch, self.config.epochs)

    def validate_at(self, epoch: int) -> bool:
        return bool(self.keeps) or epoch % max(1, self.config.epochs // 10) == 0

    def look(self, chosen: Tensor) -> None:
        self.model(self._seen(self.train_images.gray(chosen)[:, None] / 255))

    def validate(self) -> dict[str, float]:
        """Accuracy on the validation part; this epoch's means of the two losses, and the temperature."""
        chosen = self.setting.parts["val"]
        network = nn.Sequential(self.model, self.classifier)
        logits = predict_logits(network, self.setting.pack.images, chosen, self.setting.device, normalise=self.config.normalise)
        right = (logits.argmax(1).numpy() == self.setting.pack.labels[chosen]).mean()
        row = {"val_accuracy": float(right)}
        contrast, classification, steps = (float(self.workers.mean(total)) for total in self.sums)
        contrast, classification = contrast / max(steps, 1), classification / max(steps, 1)
        row["classification_loss"] = classification
        if self.config.lambda1:
            row |= {"contrastive_loss": contrast, "temperature": float(self.log_temperature.detach().exp())}
        if self.config.lambda1 and self.config.contrast_balance:
            row["contrast_weight"] = float(self._weight())
        return row

    def collapse(self) -> str:
        chosen, config = self.setting.parts["val"], self.config
        embedding = predict_logits(self.model, self.setting.pack.images, chosen, self.setting.device, normalise=config.normalise)
        with torch.no_grad():
            predictions = self.classifier(embedding.to(self.setting.device)).argmax(1).cpu()
        labels = torch.from_numpy(np.asarray(self.setting.pack.labels[chosen]))
        of_rows = one_direction(embedding, "validation embeddings") if self.classes > 2 else ""  # two classes may lie on one line, opposite
        return said(one_class(predictions, labels, self.setting.pack.classes), of_rows)

    def result(self) -> dict[str, Tensor]:
        """timm's names with the folded classifier (weight W2 W1, bias W2 b1 + b2); the two layers and the temperature beside it. With the
        authors' head the classifier is folded as far as E, and the layers after it follow in its place."""
        state = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        own = {"log_temperature": self.log_temperature.detach()}
        head = {name: tensor.detach().cpu() for name, tensor in self.classifier.state_dict().items()}
        if self.config.head == "code":
            weight, bias, second = (state.pop(f"{self.embedding}.{name}") for name in ("0.weight", "0.bias", "1.weight"))
            weight, bias = _folded(second, torch.zeros(len(second)), weight, bias)
            after = {f"{self.embedding}.{int(name[0]) + 1}{name[1:]}": tensor for name, tensor in head.items()}
            folded = {f"{self.embedding}.0.weight": weight, f"{self.embedding}.0.bias": bias} | after
        else:
            weight, bias = (state[f"{self.embedding}.{kind}"] for kind in ("weight", "bias"))
            own |= {
                "embedding.weight": weight,
                "embedding.bias": bias,
                "classifier.weight": head["weight"],
                "classifier.bias": head["bias"],
            }
            weight, bias = _folded(head["weight"], head["bias"], weight, bias)
            folded = {f"{self.embedding}.weight": weight, f"{self.embedding}.bias": bias}
        expected = statistics_of(self.model) if self.config.normalise else AS_THEY_ARE
        folded |= {} if expected is None else {STATISTICS: expected}
        return state | folded | {PRIVATE + name: tensor for name, tensor in own.items()}


def build(config: SclConfig, setting: Setting) -> Task:
    """The stage as the configuration has it."""
    if config.classifier == "trained":
        return Train(config, setting) if config.method == "scl" else varifocal.Whole(config, setting)
    seed = derive_seed(setting.seed, "train")
    return Frozen(
        setting, config.classifier, lambda outputs: _timm_model(config, outputs, config.weights, seed), config.backbone,
        drawn=config.weights == "random", normalise=config.normalise,
    )  # fmt: skip


def _folded(w2: Tensor, b2: Tensor, w1: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one linear layer that does what two do."""
    return (w2.double() @ w1.double()).to(w1.dtype), (w2.double() @ b1.double() + b2).to(b1.dtype)


# ---------------------------------------------------------------------------------------------------------------- judgement


def evaluate(config: SclConfig, tensors: Mapping[str, Tensor], pack: Pack, chosen: np.ndarray, device: torch.device) -> Evaluation:
    """Accuracy, macro recall and macro AUC (one against the rest) on the chosen images; classes that they lack are left out of both
    means. Where individuals are known, the accuracy with types dealt out within each one's cells, and the share of images to which that was
    done."""
    network = _network(config, len(pack.classes), tensors, device)
    logits = predict_logits(network, pack.images, chosen, device, normalise=_normalises(config))
    labels = np.asarray(pack.labels[chosen])
    confusion = confusion_matrix(labels, logits.argmax(1).numpy(), len(pack.classes))
    judged = classification_metrics(confusion)
    several = len(np.unique(labels)) > 1  # else the area is undefined
    metrics = {
        "accuracy": judged["accuracy"],
        "recall": judged["sensitivity"],
        "auc": auc_macro(labels, logits.double().softmax(1).numpy()) if several else None,
    }
    logs = logits.double().log_softmax(1).numpy()
    given = None if pack.patients is None else _dealt(logs, pack, chosen)
    if given is not None:
        metrics |= {"accuracy_dealt": float((given[0] == labels).mean()), "share_dealt": float(given[1].mean())}
    return Evaluation(
        metrics,
        confusion.tolist(),
        {"index": np.asarray(chosen).tolist(), "label": labels.tolist(), "probability": prediction_rows(logits)},
    )


def _dealt(logs: np.ndarray, pack: Pack, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """See `dealt`: of the chosen images of the pack."""
    if pack.patients is None:
        return None
    cells = None if pack.metaphases is None else [pack.metaphases[index] for index in chosen]
    return dealt(logs, [pack.patients[index] for index in chosen], pack.classes, cells)


def predict(
    config: SclConfig, tensors: Mapping[str, Tensor], images: np.ndarray, classes: tuple[str, ...], device: torch.device
) -> dict[str, list[Any]]:
    """The class of each image and the probability of each class."""
    network = _network(config, len(classes), tensors, device)
    return prediction_columns(predict_logits(network, images, np.arange(len(images)), device, normalise=_normalises(config)), classes)


# ---------------------------------------------------------------------------------------------------------------- for the report


def artefacts(
    config: SclConfig, tensors: Mapping[str, Tensor], pack: Pack, test: np.ndarray, device: torch.device
) -> dict[str, np.ndarray]:
    """Embeddings of up to 1,000 test images and a heat map of one test image of each class, the same images for every run of a split."""
    rng = np.random.default_rng(0)
    some = np.sort(rng.choice(test, min(1000, len(test)), replace=False))
    of_class = [test[pack.labels[test] == label] for label in range(len(pack.classes))]
    shown = np.array([rng.choice(those) for those in of_class if len(those)][:24])
    found: dict[str, np.ndarray] = {}
    network = _network(config, len(pack.classes), tensors, device)
    if isinstance(network, Voting | varifocal.Network):  # their scores have no layer of one class
        of_rows = network.backbone if isinstance(network, Voting) else varifocal.Features(network)
        rows = predict_logits(of_rows, pack.images, some, device, normalise=_normalises(config)).numpy()
        return {"embedding": rows.astype(np.float16), "index": some.astype(np.int64), "label": pack.labels[some].astype(np.int64)}
    if (layer := _embedding_layer(config, tensors)) is not None:
        embedder = _network(config, config.embedding_dim, layer, device, embeds=True)
        rows = predict_logits(embedder, pack.images, some, device, normalise=config.normalise).numpy()
        found |= {"embedding": rows.astype(np.float16), "index": some.astype(np.int64), "label": pack.labels[some].astype(np.int64)}
    if (maps := grad_cam(network, pack.images[shown], pack.labels[shown], device, config.normalise)) is None:
        return found
    heat, prediction = maps
    side = min(112, pack.images.shape[1])
    small = np.stack([shrink(pack.images[index], side, side) for index in shown])
    return found | {
        "heat_image": small, "heat": heat, "heat_index": shown.astype(np.int64), "heat_label": pack.labels[shown].astype(np.int64),
        "heat_prediction": prediction,
    }  # fmt: skip


def _embedding_layer(config: SclConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The network that gives E, the layer that does as its classifier; None where the tensors lack it, being those of an export."""
    with without_memory():
        name = _classifier_name(
            create_backbone(config.backbone, channels=1, classes=2, weights="random", seed=0, input_size=config.input_size)
        )
    layer = f"{PRIVATE}embedding" if config.head == "linear" else f"{name}.0"
    if f"{layer}.weight" not in tensors:
        return None
    body = {key: tensor for key, tensor in tensors.items() if not key.startswith((PRIVATE, f"{name}."))}
    return body | {f"{name}.{kind}": tensors[f"{layer}.{kind}"] for kind in ("weight", "bias")}


def heat_layer(network: nn.Module, side: int) -> nn.Module | None:
    """The layer whose activations are weighed: the deepest stage with at least LEAST_PLACES each way on images of this side (at 224 pixels
    the last one); of a transformer with a class token the last block but one, for after the last block only the class token has a gradient.
    None of the few networks whose stages timm names as no layer of theirs (MViTv2, Twins)."""
    stages: Any = network.feature_info
    if getattr(network, "num_prefix_tokens", 0):
        stage = stages[-2]
    else:
        stage = next((one for one in reversed(stages) if side / one["reduction"] >= LEAST_PLACES), stages[0])
    return dict(network.named_modules()).get(stage["module"])


def grad_cam(
    network: nn.Module, images: np.ndarray, labels: np.ndarray, device: torch.device, normalise: bool = True
) -> tuple[np.ndarray, np.ndarray] | None:
    """Grad-CAM (Selvaraju et al. 2017) of each image's true class. images (k, S, S) uint8, labels (k,) -> heat (k, s, s) uint8, 255 at the
    largest of each map, and predictions (k,) int64. None of a network whose layer has no map of places (CaiT, CoaT, XCiT, EfficientViM)."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor | Sequence[Tensor]) -> None:
        if not isinstance(output, Tensor):  # branches of several resolutions (HRNet), finest first
            output = next((maps for maps in reversed(output) if min(maps.shape[-2:]) >= LEAST_PLACES), output[0])
        output.retain_grad()
        kept.append(output)

    if (stage := heat_layer(network, images.shape[1])) is None:
        return None
    hook = stage.register_forward_hook(keep)
    try:
        gray = torch.from_numpy(np.ascontiguousarray(images)).to(device).float()[:, None]
        with torch.enable_grad():
            logits = network((standardise(gray / 255, statistics_of(network)) if normalise else gray / 255).requires_grad_())
            logits.gather(1, torch.from_numpy(labels).to(device)[:, None]).sum().backward()
    finally:
        hook.remove()
        network.zero_grad()
    layer = kept[0] if kept else None  # none: the network calls parts of it
    if layer is None or layer.grad is None:
        return None
    values, slopes = (_places(network, tensor.detach().float()) for tensor in (layer, layer.grad))
    if values is None or slopes is None:
        return None
    heat = (slopes.mean((1, 2), keepdim=True) * values).sum(3).clamp_min(0)  # (k, s, s)
    heat = heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
    return (heat * 255).round().to(torch.uint8).cpu().numpy(), logits.argmax(1).cpu().numpy().astype(np.int64)


def _places(network: nn.Module, tensor: Tensor) -> Tensor | None:
    """Activations of any timm network as (k, s, s, channels); None of what is no map, nor tokens that make a square."""
    if tensor.ndim == 3:  # tokens
        tensor = tensor[:, getattr(network, "num_prefix_tokens", 0) :]
        side = math.isqrt(tensor.shape[1])
        return tensor.reshape(len(tensor), side, side, -1) if side**2 == tensor.shape[1] else None
    if tensor.ndim != 4:
        return None
    return tensor if getattr(network, "output_fmt", "NCHW") == "NHWC" else tensor.permute(0, 2, 3, 1)


# ---------------------------------------------------------------------------------------------------------------- data


def read(folder: Path, config: SclConfig, classes: tuple[str, ...] | None = None) -> Pack:
    """A folder of images as this configuration sees it. RequestError where a karyotype lacks classes. Near duplicates are
    tied, so that no split parts them (5 s for 14,002 images)."""
    pack = read_folder(folder, canvas=config.canvas, size=config.input_size, classes=classes, normal=normal_of(vars(config)))
    if config.patients == "prefix":
        if nameless := [file for file in pack.files if "_" not in Path(file).name]:
            raise RequestError(
                f"patients=prefix takes the individual from a file's name up to its first _, {len(nameless)} names have none: "
                f"{few(nameless)}; "
                "rename them, or give a manifest with the column patient"
            )
        owners = [Path(file).name.partition("_")[0] for file in pack.files]
        pack = replace(
            make_pack(pack.images, pack.labels, pack.classes, pack.files, owners, pack.areas, pack.notes), metaphases=pack.metaphases
        )
    if pack.metaphases is not None and pack.patients is not None and set(pack.classes) == set(KARYOTYPE):
        full, named = crowded([pack.classes[label] for label in pack.labels], pack.patients, pack.metaphases)
        if full:
            words = (
                f"metaphases with more than two of a type, or other X and Y than a woman or a man has: {full:,} of {named:,} (a "
                "trisomy, or several cells under one name); types dealt out within them, at most two of each, cannot all be right"
            )
            pack = replace(pack, notes=(*pack.notes, words))
    if classes is not None:
        return pack
    found = []
    gone = [name for name in KARYOTYPE if name not in pack.classes]
    if config.whole_karyotype and gone and not set(KARYOTYPE).isdisjoint(pack.classes):
        found.append(
            f"a karyotype has 24 classes and every batch one image of each, '{folder}' has none of {', '.join(gone)}; "
            "add images, or train on the classes that are there with whole_karyotype=false"
        )
    if found:
        raise RequestError(*found)
    ties, words = tied(pack)
    note = (
        "individuals are not known: one may stand in two parts of the split, which makes test results better than they are"
        if pack.patients is None
        else f"{len(set(pack.patients)):,} individuals, each kept in one part of the split"
    )
    return replace(pack, ties=ties, notes=(*pack.notes, note, *words))


def read_files(paths: list[Path], config: SclConfig) -> tuple[np.ndarray, dict[str, list[Any]], list[str], list[str]]:
    """Images as the classifier was trained on, their names, what was done to them, and what is wrong with files."""
    images, _, notes, broken = read_images(paths, config.canvas, config.input_size, normal=normal_of(vars(config)))
    return images, {"file": [shown(str(path)) for path in paths]}, notes, broken


def timm_settings(config: SclConfig, classes: tuple[str, ...]) -> dict[str, Any] | None:
    """What timm needs to build this classifier again, as its config.json has it; None with the authors' head, for timm has none with a
    ReLU, for neighbours, and for another's networks."""
    if config.head == "code" or config.classifier == "neighbours" or config.method == "varifocal":
        return None
    side, more = config.input_size, model_arguments(config.backbone, config.input_size)
    return {
        "architecture": architecture_of(config.backbone)[0],
        "num_classes": len(classes),
        "model_args": {"in_chans": 1} | more,
        "pretrained_cfg": {
            "input_size": [1, side, side], "fixed_input_size": "img_size" in more, "interpolation": "bilinear", "crop_pct": 1.0,
            "mean": [GRAY_MEAN if config.normalise else 0.0], "std": [GRAY_STD if config.normalise else 1.0],
            "num_classes": len(classes), "label_names": list(classes), "custom_load": False,
        },
        "images": image_settings(config.canvas, side, normal_of(vars(config))),
    }  # fmt: skip


def synthesize(config: SclConfig, *, images: int, seed: int) -> Pack:
    """The built-in set: drawn karyotypes, 46 chromosomes of each individual; of a small set one of each kind of each of six."""
    people, homologues = (round(images / 46), 2) if images >= 6 * 46 else (max(6, round(images / 23.5)), 1)
    return karyotype_set(
        people, homologues=homologues, size=config.input_size, canvas=config.canvas, seed=seed, normal=normal_of(vars(config))
    )


def synthesize_external(config: SclConfig, *, images: int, seed: int) -> dict[str, Pack]:
    """Beside it: other individuals at another hospital, reverse stain and another scale."""
    people, homologues = (round(images / 46), 2) if images >= 6 * 46 else (max(2, round(images / 23.5)), 1)
    drawn = karyotype_set(
        people, homologues=homologues, size=config.input_size, canvas=config.canvas, seed=seed, hospital="reverse_stain",
        normal=normal_of(vars(config)),
    )  # fmt: skip
    return {"reverse_stain": drawn}


PROCEDURE = Procedure(
    name="scl",
    config=SclConfig,
    stages=(
        Stage("train", "epochs", "groups", FIELDS, build),
        Stage("part", "part_epochs", "groups", FIELDS, varifocal.Part),
        Stage("both", "both_epochs", "groups", FIELDS, varifocal.Both),
        Stage("fusion", "fusion_epochs", "groups", FIELDS, varifocal.Fusion),
    ),
    canonical=canonical,
    faults=faults,
    synthesize=synthesize,
    external=synthesize_external,
    read=read,
    parts=split_of,
    evaluate=evaluate,
    exported=exported,
    artefacts=artefacts,
    timm_settings=timm_settings,
    read_images=read_files,
    predict=predict,
    headline=("accuracy", "recall", "auc"),
)
