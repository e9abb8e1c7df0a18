"""A classifier on features that stay as they are: how good a start is, published or trained here, before anything is fine-tuned.
Comes in: a timm model with its weights, a part of images with classes. Goes out: the same model with a linear probe as its classifier, or
one whose images vote by their nearest training images. Nothing is drawn and no step is taken, so that each has one answer."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.parts.classification import PartImages, predict_logits
from trainables.parts.collapse import one_class
from trainables.parts.encoders import AS_THEY_ARE, kept, restore, standardise, statistics_of
from trainables.parts.errors import RequestError
from trainables.parts.probe import fit_probe
from trainables.parts.procedure import Setting, Task
from trainables.parts.weights import STATISTICS

HEADS = ("probe", "neighbours")
NEIGHBOURS, TEMPERATURE = 20, 0.07  # of the vote (Wu et al. 2018), as `knn_accuracy` has them


class Voting(nn.Module):
    """A backbone without classifier, and the training images that its images are near to. forward: (N, 1, H, W) -> (N, C) logarithms of the
    shares of a vote: each of the nearest rows for its class, with e^(cosine / temperature)."""

    rows: Tensor
    labels: Tensor

    def __init__(self, backbone: nn.Module, images: int, features: int, classes: int) -> None:
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self.register_buffer("rows", torch.zeros(images, features))
        self.register_buffer("labels", torch.zeros(images, dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        cosine, place = (F.normalize(self.backbone(images).float(), dim=1) @ self.rows.T).topk(min(NEIGHBOURS, len(self.rows)), dim=1)
        votes = torch.zeros(len(images), self.classes, device=images.device)
        votes.scatter_add_(1, self.labels[place], (cosine / TEMPERATURE).softmax(1))
        return votes.clamp_min(1e-6).log()


def voting_of(build: Callable[[int], nn.Module], tensors: dict[str, Tensor], classes: int) -> Voting:
    """The classifier that `Frozen` with neighbours has handed on. build(outputs): the timm model."""
    model = Voting(build(0), *tensors["rows"].shape, classes)
    restore(model, tensors)
    return model


def linear_of(model: nn.Module, backbone: str) -> nn.Linear:
    """The model's classifier. RequestError where it is not one linear layer with a bias."""
    found: Any = model.get_classifier()  # type: ignore[operator]
    if not isinstance(found, nn.Linear) or found.bias is None:
        raise RequestError(f"a probe takes the place of one linear classifier, which {backbone} does not end in; choose another backbone")
    return found


class Frozen(Task):
    """A stage of no steps. build(outputs): the timm model with the weights that it begins with; drawn: they are random, so that the
    statistics of batch normalisation are taken from these images, where published ones stay as they are."""

    def __init__(
        self, setting: Setting, head: str, build: Callable[[int], nn.Module], backbone: str, *, drawn: bool, normalise: bool = True
    ) -> None:
        super().__init__()
        self.setting, self.head, self.normalise = setting, head, normalise
        self.classes = len(setting.pack.classes)
        self.nothing = nn.Parameter(torch.zeros(()))  # an optimiser and a group of workers want one weight
        self.optimizer = torch.optim.SGD([self.nothing], lr=0.0)
        model = build(self.classes if head == "probe" else 0).to(setting.device).eval().requires_grad_(False)
        if head == "probe":
            linear_of(model, backbone)
        self.made: nn.Module | None = None
        self.held = [model]  # in a list: not part of the state, and out of reach of `renew_statistics`
        self.backbone = backbone
        if drawn:
            self.model = model
        self.train_images = PartImages(setting.pack, setting.parts["train"], setting.device)

    def steps(self) -> int:
        return 0

    def batches(self, epoch: int) -> Iterator[Any]:
        return iter(())

    def look(self, chosen: Tensor) -> None:
        self.held[0](self._seen(chosen))

    def _seen(self, chosen: Tensor) -> Tensor:
        gray = self.train_images.gray(chosen)[:, None] / 255
        return standardise(gray, statistics_of(self.held[0])) if self.normalise else gray

    def classifier(self) -> nn.Module:
        """Fitted on the whole training part, without views, once."""
        if self.made is None:
            self.made = self._made()
        return self.made

    @torch.no_grad()
    def _made(self) -> nn.Module:
        [model] = self.held
        parts, pack = self.setting.parts, self.setting.pack
        labels = np.asarray(pack.labels[parts["train"]])
        if self.head == "neighbours":
            rows = F.normalize(self._logits(model, parts["train"]), dim=1)
            voting = Voting(model, *rows.shape, self.classes).to(self.setting.device).eval()
            voting.rows.copy_(rows)
            voting.labels.copy_(torch.from_numpy(labels))
            return voting
        linear, seen = linear_of(model, self.backbone), []
        hook = linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
        try:
            self._logits(model, parts["train"])
        finally:
            hook.remove()
        weights = torch.from_numpy(fit_probe(torch.cat(seen).numpy(), labels, self.classes)).to(linear.weight)
        linear.weight.copy_(weights[:-1].T)
        linear.bias.copy_(weights[-1])
        return model

    def _logits(self, model: nn.Module, chosen: np.ndarray) -> Tensor:
        return predict_logits(model, self.setting.pack.images, chosen, self.setting.device, normalise=self.normalise)

    def validate(self) -> dict[str, float]:
        chosen = self.setting.parts["val"]
        right = self._logits(self.classifier(), chosen).argmax(1).numpy() == self.setting.pack.labels[chosen]
        return {"val_accuracy": float(right.mean())}

    def collapse(self) -> str:
        chosen = self.setting.parts["val"]
        labels = torch.from_numpy(np.asarray(self.setting.pack.labels[chosen]))
        return one_class(self._logits(self.classifier(), chosen).argmax(1), labels, self.setting.pack.classes)

    def result(self) -> dict[str, Tensor]:
        return kept(self.classifier()) | ({} if self.normalise else {STATISTICS: AS_THEY_ARE})
