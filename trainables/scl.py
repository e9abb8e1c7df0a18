"""SCL: supervised contrastive learning for the 24 chromosome classes (Chang et al.; equation numbers are the paper's).
Comes in: gray images of one chromosome each, background 0, with class and individual. Goes out: a classifier that timm loads.
One stage: pairs of batches with one image of each class; focal losses on their similarity matrices and on the class scores."""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.copies import near_duplicates
from trainables.data.normal import normal_of
from trainables.data.pack import Pack, make_pack
from trainables.data.read import read_folder, read_images
from trainables.data.scale import shrink
from trainables.data.synthetic_karyotypes import karyotype_set
from trainables.data.words import KARYOTYPE, few, shown
from trainables.parts import losses
from trainables.parts.classification import PartImages, predict_logits, prediction_columns, prediction_rows
from trainables.parts.encoders import GRAY_MEAN, GRAY_STD, backbone_faults, create_backbone, size_arguments, standardise
from trainables.parts.errors import RequestError
from trainables.parts.evaluation import auc_macro, classification_metrics, confusion_matrix
from trainables.parts.procedure import Evaluation, Procedure, Setting, Stage, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.settings import setting_faults, split_of, typed
from trainables.parts.views import Draw, ViewSet, apply_views, draw_views

LEAST_TEMPERATURE = 0.01  # the paper's t, which multiplies, is at most 100 [decided: CLIP's]
PRIVATE = "scl."  # stored tensors that timm does not know


@dataclass(frozen=True)
class SclConfig:
    """Defaults are the published values (sections 3 and 4.2); [decided] where the paper is silent."""

    # data
    canvas: int = 256  # pixels: images are padded to this square (OGH-Fudan's), larger ones scaled down to it
    input_size: int = 224  # pixels: the canvas is resampled to this side
    normal_width: float = 0.0  # pixels: each image is scaled until its chromosome is this wide, its frame cut off; 0: as it is
    normal_gray: float = 0.0  # 1..255: each image is stretched until 95 % of its chromosome's gray values are below this; 0: as it is
    upright: bool = False  # each image is turned until its chromosome's main axis stands
    split: tuple[float, float, float] = (0.883, 0.019, 0.098)  # train, validation, test: 106,260 + 2,300 + 11,818 images
    split_seed: int = 0  # of the split, fixed for a study [decided]
    split_per_seed: bool = False  # draw the split anew for each seed
    patients: str = "manifest"  # manifest | prefix: who an image is of, the manifest's column or the file's name up to its first _
    whole_karyotype: bool = True  # folders named 1-22, X, Y must be all 24; False: the classes that are there
    # network
    backbone: str = "vit_small_patch8_224"  # any timm name
    weights: str = "random"  # random | imagenet: where the backbone starts [decided]
    embedding_dim: int = 1024  # D
    # training
    epochs: int = 200
    steps_per_epoch: int = 2000
    groups: int = 1  # pairs of batches in a step; each pair has two images of each class
    learning_rate: float = 1e-5  # of Adam
    schedule: str = "constant"  # constant | cosine, to 0 at the last epoch [decided]
    weight_decay: float = 0.0  # decoupled (AdamW); 0 is Adam
    lambda1: float = 1.0  # of the contrastive loss (Eq. 4); 0: without SCL
    lambda2: float = 1.0  # of the classification loss
    focal_gamma: float = 2.0  # of all focal losses [decided: Lin et al.'s]
    temperature: float = 0.07  # where the learned temperature starts; it divides the cosines, so the paper's t is 1 / temperature [decided]
    rotation: float = 180.0  # degrees: a view is turned by up to this, either way [decided]
    flip: float = 0.5  # probability of each of the two flips [decided]
    contrast: float = 0.4  # factor of contrast, uniform within 1 -+ this [decided]


CHOICES = {
    "patients": ("manifest", "prefix"),
    "weights": ("random", "imagenet"),
    "schedule": ("constant", "cosine"),
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
    "focal_gamma": (0, 10),
    "temperature": (LEAST_TEMPERATURE, 100),
    "rotation": (0, 180),
    "flip": (0, 1),
    "contrast": (0, 1),
}
POSITIVE = ("learning_rate", "lambda2")
FIELDS = tuple(entry.name for entry in fields(SclConfig))


def canonical(config: SclConfig) -> SclConfig:
    """The same training with every field that cannot matter at its default (without SCL there is no temperature), in the default's type."""
    return typed(config, ("temperature",) if config.lambda1 == 0 else ())


def faults(config: SclConfig, pack: Pack | None = None, parts: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """All that is wrong with the configuration, alone and for a data set: one line each."""
    found = setting_faults(config, CHOICES, RANGES, POSITIVE)
    if unknown := backbone_faults(config.backbone):
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
        with torch.device("meta"), torch.no_grad():
            model = create_backbone(backbone, channels=1, classes=2, weights="random", seed=0, input_size=input_size).eval()
            if _classifier_name(model) is None:
                return (
                    f"backbone must end in one linear classifier, which {backbone} does not; "
                    "choose another, such as resnet50 or vit_small_patch8_224",
                )
            model(torch.zeros(2, 1, input_size, input_size))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError) as fault:
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


def _network(config: SclConfig, outputs: int, tensors: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """The timm model with these weights, ready to judge."""
    model = create_backbone(config.backbone, channels=1, classes=outputs, weights="random", seed=0, input_size=config.input_size)
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith(PRIVATE)})
    return model.to(device).eval()


def exported(config: SclConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of all that a run stores, what timm loads: the backbone with the folded classifier."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PRIVATE)}


# ---------------------------------------------------------------------------------------------------------------- the sampler


def deck(seed: int, label: int, number: int, size: int) -> Tensor:
    """(size,) the order in which the images of a class are shown for the `number`-th time; its first is not the last of the deck before,
    so that no two images in a row are the same where there are three or more (of two, each deck is one pair)."""

    def shuffled(which: int) -> Tensor:
        return torch.randperm(size, generator=generator(seed, "deck", label, which))

    order = shuffled(number)
    if size > 2 and number and order[0] == shuffled(number - 1)[-1]:
        order[:2] = order[:2].flip(0)
    return order


def draw_pairs(members: list[Tensor], seed: int, first_step: int, steps: int, groups: int) -> Tensor:
    """(steps, groups, 2, C) positions of the images that steps first_step, ... show: two of each class in each group, in class order.
    members: for each class the positions of its images; a class of one shows it twice, under two views. Each class is dealt from its own decks, 2 x groups a step, so that
    every image is seen before any is seen again; where a draw stands follows from the step's number alone."""
    draws = torch.arange(first_step * groups * 2, (first_step + steps) * groups * 2)
    columns = []
    for label, positions in enumerate(members):
        size = len(positions)
        first, last = int(draws[0]) // size, int(draws[-1]) // size
        dealt = torch.cat([deck(seed, label, number, size) for number in range(first, last + 1)])
        columns.append(positions[dealt[draws - first * size]])
    return torch.stack(columns, 1).view(steps, groups, 2, len(members))


# ---------------------------------------------------------------------------------------------------------------- training


@dataclass
class PairedBatch:
    """Random choices of one global step."""

    chosen: Tensor  # (G, 2, C) positions in the training part
    views: Draw  # of the G x 2 x C images, in that order


class Train(Task):
    """Eq. 1-5 and Algorithm 1. The timm model's own classifier is the projection to the embedding E, a second linear layer gives the
    class scores; both being linear, `result` folds them into one."""

    def __init__(self, config: SclConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.workers = config, setting, setting.workers
        self.seed = derive_seed(setting.seed, "train")
        self.classes = len(setting.pack.classes)
        model = create_backbone(
            config.backbone, channels=1, classes=config.embedding_dim, weights=config.weights, seed=derive_seed(self.seed, "backbone"),
            input_size=config.input_size,
        )  # fmt: skip
        name = _classifier_name(model)
        if name is None:
            raise RequestError(f"backbone must end in one linear classifier, which {config.backbone} does not; choose another")
        self.embedding = name
        self.model = self.workers.synchronise(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "classifier"))
            self.classifier = nn.Linear(config.embedding_dim, self.classes)
        start = torch.tensor(math.log(config.temperature))
        if config.lambda1:
            self.log_temperature = nn.Parameter(start)
        else:  # without SCL nothing asks for it
            self.register_buffer("log_temperature", start)
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
        self.views = ViewSet(
            horizontal_flip=config.flip, vertical_flip=config.flip, rotation=config.rotation, contrast=config.contrast,
            jitter=1.0 if config.contrast else 0.0,
        )  # fmt: skip
        self.sums = torch.zeros(3, device=setting.device)  # of an epoch: the two losses, and its steps

    def steps(self) -> int:
        return self.config.steps_per_epoch

    def batches(self, epoch: int) -> Iterator[PairedBatch]:
        """Depends on the seed and the epoch alone: a class's decks are counted from the run's first step."""
        config, chance = self.config, generator(self.seed, "views", epoch)
        self.sums.zero_()
        pairs = draw_pairs(self.members, self.seed, epoch * self.steps(), self.steps(), config.groups)
        draw, size = draw_views(pairs.numel(), self.views, chance), pairs[0].numel()
        for number, chosen in enumerate(pairs):
            yield PairedBatch(chosen, draw[number * size : (number + 1) * size])

    def loss(self, batch: PairedBatch) -> Tensor:
        """Eq. 4, the mean over this worker's groups."""
        part = self.workers.slice(len(batch.chosen))
        chosen = batch.chosen[part]
        pair = 2 * self.classes
        draw = batch.views[part.start * pair : part.stop * pair]
        gray = self.train_images.pixels(chosen.flatten())
        seen = standardise(apply_views(gray[:, None] / 255, draw, keep_background=True, steady=self.setting.is_steady))
        embedding = self.setting.apply(self.model, seen)  # (G 2 C, D), Eq. 1
        contrast, classification = self._losses(embedding.view(*chosen.shape, -1))
        self.sums += torch.stack([contrast, classification, torch.ones_like(contrast)]).detach()
        return self.config.lambda1 * contrast + self.config.lambda2 * classification

    def _losses(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """L_con (Eq. 3) and L_cls (Eq. 5) of embeddings (G, 2, C, D); L_con is 0 where lambda1 is."""
        gamma = self.config.focal_gamma
        scores = self.classifier(embedding)
        targets = torch.arange(self.classes, device=scores.device).expand(scores.shape[:-1])
        classification = 2 * losses.focal(scores, targets, gamma)  # the sum of two means over equally many rows
        if not self.config.lambda1:
            return torch.zeros_like(classification), classification
        return losses.paired_contrast(embedding[:, 0], embedding[:, 1], self.log_temperature.exp(), gamma), classification

    @torch.no_grad()
    def after_step(self) -> None:
        self.log_temperature.clamp_(min=math.log(LEAST_TEMPERATURE))

    def learning_rate(self, epoch: float) -> float:
        """Constant, or a cosine to 0 at the last epoch."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(epoch / self.config.epochs, 1.0)))

    def validate_at(self, epoch: int) -> bool:
        return epoch % max(1, self.config.epochs // 10) == 0

    def look(self, chosen: Tensor) -> None:
        self.model(standardise(self.train_images.gray(chosen)[:, None] / 255))

    def validate(self) -> dict[str, float]:
        """Accuracy on the validation part; this epoch's means of the two losses, and the temperature."""
        chosen = self.setting.parts["val"]
        logits = predict_logits(nn.Sequential(self.model, self.classifier), self.setting.pack.images, chosen, self.setting.device)
        right = (logits.argmax(1).numpy() == self.setting.pack.labels[chosen]).mean()
        row = {"val_accuracy": float(right)}
        contrast, classification, steps = (float(self.workers.mean(total)) for total in self.sums)
        contrast, classification = contrast / max(steps, 1), classification / max(steps, 1)
        row["classification_loss"] = classification
        if self.config.lambda1:
            row |= {"contrastive_loss": contrast, "temperature": float(self.log_temperature.detach().exp())}
        return row

    def result(self) -> dict[str, Tensor]:
        """timm's names with the folded classifier (weight W2 W1, bias W2 b1 + b2); the two layers and the temperature beside it."""
        state = dict(self.model.state_dict())
        first, second = (state[f"{self.embedding}.{kind}"] for kind in ("weight", "bias")), self.classifier
        weight, bias = (tensor.detach().cpu() for tensor in first)
        w2, b2 = (tensor.detach().cpu() for tensor in (second.weight, second.bias))
        folded = {"weight": (w2.double() @ weight.double()).to(weight.dtype), "bias": (w2.double() @ bias.double() + b2).to(bias.dtype)}
        own = {"embedding.weight": weight, "embedding.bias": bias, "classifier.weight": w2, "classifier.bias": b2}
        own["log_temperature"] = self.log_temperature.detach()
        return (
            state
            | {f"{self.embedding}.{kind}": tensor for kind, tensor in folded.items()}
            | {PRIVATE + name: tensor for name, tensor in own.items()}
        )


# ---------------------------------------------------------------------------------------------------------------- judgement


def evaluate(config: SclConfig, tensors: Mapping[str, Tensor], pack: Pack, chosen: np.ndarray, device: torch.device) -> Evaluation:
    """Accuracy, macro recall and macro AUC (one against the rest) on the chosen images; classes that they lack are left out of both means."""
    logits = predict_logits(_network(config, len(pack.classes), tensors, device), pack.images, chosen, device)
    labels = np.asarray(pack.labels[chosen])
    confusion = confusion_matrix(labels, logits.argmax(1).numpy(), len(pack.classes))
    judged = classification_metrics(confusion)
    metrics = {"accuracy": judged["accuracy"], "recall": judged["sensitivity"]}
    if len(np.unique(labels)) > 1:
        metrics["auc"] = auc_macro(labels, logits.double().softmax(1).numpy())
    return Evaluation(
        metrics,
        confusion.tolist(),
        {"index": np.asarray(chosen).tolist(), "label": labels.tolist(), "probability": prediction_rows(logits)},
    )


def predict(
    config: SclConfig, tensors: Mapping[str, Tensor], images: np.ndarray, classes: tuple[str, ...], device: torch.device
) -> dict[str, list[Any]]:
    """The class of each image and the probability of each class."""
    network = _network(config, len(classes), tensors, device)
    return prediction_columns(predict_logits(network, images, np.arange(len(images)), device), classes)


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
    if f"{PRIVATE}embedding.weight" in tensors:
        name = _classifier_name(network)
        layer = {f"{name}.{kind}": tensors[f"{PRIVATE}embedding.{kind}"] for kind in ("weight", "bias")}
        embedder = _network(config, len(layer[f"{name}.bias"]), dict(tensors) | layer, device)
        rows = predict_logits(embedder, pack.images, some, device).numpy()
        found |= {"embedding": rows.astype(np.float16), "index": some.astype(np.int64), "label": pack.labels[some].astype(np.int64)}
    heat, prediction = grad_cam(network, pack.images[shown], pack.labels[shown], device)
    side = min(112, pack.images.shape[1])
    small = np.stack([shrink(pack.images[index], side, side) for index in shown])
    return found | {
        "heat_image": small, "heat": heat, "heat_index": shown.astype(np.int64), "heat_label": pack.labels[shown].astype(np.int64),
        "heat_prediction": prediction,
    }  # fmt: skip


def heat_layer(network: nn.Module, side: int) -> nn.Module:
    """The layer whose activations are weighed: the deepest stage with at least 7 x 7 places on images of this side (at 224 pixels the last
    one); of a transformer with a class token the last block but one, for after the last block only the class token has a gradient."""
    stages: Any = network.feature_info
    if getattr(network, "num_prefix_tokens", 0):
        return network.get_submodule(stages[-2]["module"])
    large = [stage for stage in stages if side / stage["reduction"] >= 7]
    return network.get_submodule((large[-1] if large else stages[0])["module"])


def grad_cam(network: nn.Module, images: np.ndarray, labels: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Grad-CAM (Selvaraju et al. 2017) of each image's true class. images (k, S, S) uint8, labels (k,) -> heat (k, s, s) uint8, 255 at the
    largest of each map, and predictions (k,) int64."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = heat_layer(network, images.shape[1]).register_forward_hook(keep)
    try:
        gray = torch.from_numpy(np.ascontiguousarray(images)).to(device).float()[:, None]
        with torch.enable_grad():
            logits = network(standardise(gray / 255).requires_grad_())
            logits.gather(1, torch.from_numpy(labels).to(device)[:, None]).sum().backward()
    finally:
        hook.remove()
        network.zero_grad()
    [layer] = kept
    assert layer.grad is not None
    values, slopes = (_places(network, tensor.detach().float()) for tensor in (layer, layer.grad))
    heat = (slopes.mean((1, 2), keepdim=True) * values).sum(3).clamp_min(0)  # (k, s, s)
    heat = heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
    return (heat * 255).round().to(torch.uint8).cpu().numpy(), logits.argmax(1).cpu().numpy().astype(np.int64)


def _places(network: nn.Module, tensor: Tensor) -> Tensor:
    """Activations of any timm network as (k, s, s, channels)."""
    if tensor.ndim == 3:  # tokens
        tensor = tensor[:, getattr(network, "num_prefix_tokens", 0) :]
        side = math.isqrt(tensor.shape[1])
        return tensor.reshape(len(tensor), side, side, -1)
    return tensor if getattr(network, "output_fmt", "NCHW") == "NHWC" else tensor.permute(0, 2, 3, 1)


# ---------------------------------------------------------------------------------------------------------------- data


def read(folder: Path, config: SclConfig, classes: tuple[str, ...] | None = None) -> Pack:
    """A folder of images as this configuration sees it. RequestError where a karyotype lacks classes. Without known individuals near duplicates
    are tied, so that no split parts them (5 s for 14,002 images)."""
    pack = read_folder(folder, canvas=config.canvas, size=config.input_size, classes=classes, normal=normal_of(vars(config)))
    if config.patients == "prefix":
        if nameless := [file for file in pack.files if "_" not in Path(file).name]:
            raise RequestError(
                f"patients=prefix takes the individual from a file's name up to its first _, {len(nameless)} names have none: {few(nameless)}; "
                "rename them, or give a manifest with the column patient"
            )
        owners = [Path(file).name.partition("_")[0] for file in pack.files]
        pack = make_pack(pack.images, pack.labels, pack.classes, pack.files, owners, pack.areas, pack.notes)
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
    if pack.patients is not None:
        note = (
            f"{len(set(pack.patients)):,} individuals, each kept in one part of the split; near duplicates between them were not looked for"
        )
        return replace(pack, notes=(*pack.notes, note))
    ties = tuple((i, j) for i, j, _, _ in near_duplicates(pack.images, pack.files))
    note = "individuals are not known: one may stand in two parts of the split, which makes test results better than they are"
    tied = f"{len(ties)} pairs of near duplicates kept on one side of each split (`python -m search data check` lists them)"
    return replace(pack, ties=ties, notes=(*pack.notes, note, *([tied] if ties else [])))


def read_files(paths: list[Path], config: SclConfig) -> tuple[np.ndarray, dict[str, list[Any]], list[str], list[str]]:
    """Images as the classifier was trained on, their names, what was done to them, and what is wrong with files."""
    images, _, notes, broken = read_images(paths, config.canvas, config.input_size, normal=normal_of(vars(config)))
    return images, {"file": [shown(str(path)) for path in paths]}, notes, broken


def timm_settings(config: SclConfig, classes: tuple[str, ...]) -> dict[str, Any]:
    """What timm needs to build this classifier again, as its config.json has it."""
    side, sized = config.input_size, size_arguments(config.backbone, config.input_size)
    return {
        "architecture": config.backbone,
        "num_classes": len(classes),
        "model_args": {"in_chans": 1} | sized,
        "pretrained_cfg": {
            "input_size": [1, side, side], "fixed_input_size": bool(sized), "interpolation": "bilinear", "crop_pct": 1.0,
            "mean": [GRAY_MEAN], "std": [GRAY_STD], "num_classes": len(classes), "label_names": list(classes), "custom_load": False,
        },
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
    stages=(Stage("train", "epochs", "groups", FIELDS, Train),),
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
