"""Backbones by timm name, and the encoder = backbone + linear head with rows of unit length.
Comes in: a timm name, channels, size, a seed. Goes out: modules with reproducible weights. Exists so that all procedures build, warm-start
and average encoders in one way."""

import copy
import difflib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.parts.errors import RequestError, WeightsUnreachable
from trainables.parts.numbers import constant
from trainables.parts.weights import architecture_of, check, fill, kind_of, model_faults, timm_name, weights_faults

COLOUR_MEAN, COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as timm's IMAGENET_DEFAULT_MEAN and _STD
GRAY_MEAN, GRAY_STD = 0.449, 0.226  # mean over channels of ImageNet's, so that published weights see what they expect


def _hub_answers() -> bool:
    """Whether the weights' host can be reached at all; saves the 46 s that its client takes to give up without a network."""
    from huggingface_hub import constants

    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the client knows the way through a proxy
    url = urlparse(constants.ENDPOINT)
    try:
        with socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=5):
            return True
    except OSError:
        return False


def backbone_faults(backbone: str) -> list[str]:
    """What is wrong with a backbone's name, and what stands near it. `resnet50`, or with published weights of one kind:
    `resnet50.a1_in1k`; arguments of timm's behind it in brackets."""
    import timm  # here and below: three seconds, which a command that builds no network can do without

    try:
        name, _ = architecture_of(backbone)
    except RequestError as fault:
        return [str(fault)]
    if not timm.is_model(name):
        names = timm.list_models()
        close = difflib.get_close_matches(name, names, n=3) or [known for known in names if name and name in known][:3]
        return [f"backbone must be a timm model, got {name!r}" + (f"; near it: {', '.join(close)}" if close else "")]
    model, _, kind = name.partition(".")
    kinds = timm.list_pretrained(f"{model}.*") if kind else []
    if kind and name not in kinds:
        return [f"backbone {model} has no weights of the kind {kind!r}, got {name!r}; known: {', '.join([model, *kinds])}"]
    return []


def start_faults(backbone: str, weights: str) -> list[str]:
    """What is wrong with a backbone and the weights it begins with."""
    found = backbone_faults(backbone)
    return found + weights_faults(weights, None if found else backbone)


def model_arguments(backbone: str, input_size: int | None) -> dict[str, Any]:
    """What timm must be told beside the name: the arguments in the backbone's brackets, and the size of images where a model takes one
    alone (ViT, Swin). None: the model's own size."""
    import timm

    name, arguments = architecture_of(backbone)
    settings = timm.get_pretrained_cfg(name)
    sized = input_size is not None and settings is not None and settings.fixed_input_size
    return arguments | ({"img_size": input_size} if sized else {})


def create_backbone(name: str, *, channels: int, classes: int, weights: str, seed: int, input_size: int | None = None) -> nn.Module:
    """A timm model with `classes` outputs (0: pooled features, (N, F)). input_size: side of the images, in pixels; None: the model's own.

    weights: `random` (initialised from `seed`), `imagenet` (timm's default published weights), or another start, see `weights.KNOWN`;
    timm's loader adapts the first layer to `channels`. RequestError for an unknown name or weights of another backbone,
    WeightsUnreachable when published weights are neither cached nor reachable."""
    import timm

    if faults := start_faults(name, weights):
        raise RequestError(*faults)
    check(weights)
    kind, model = kind_of(weights), architecture_of(name)[0]
    more = {"in_chans": channels, "num_classes": classes} | model_arguments(name, input_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind in ("random", "own"):
            made: nn.Module = timm.create_model(model, **more)
            if kind == "own":
                fill(made, weights, name)
            return made
        if kind in ("folder", "hub"):  # whose settings may lack what timm's own have, and whose classifier is of other classes, if as many
            usual = timm.get_pretrained_cfg(model)
            names = {} if usual is None else {"first_conv": usual.first_conv, "classifier": usual.classifier}
            more |= {"pretrained_cfg_overlay": names | {"num_classes": -1}}
        if kind == "folder":
            return timm.create_model(timm_name(weights), pretrained=True, **more)
        with _published(f"timm's published weights of {name}" if kind == "imagenet" else f"the weights {weights}"):
            if kind == "hub" and (faults := model_faults(weights, name)):
                raise RequestError(*faults)
            return timm.create_model({"imagenet": model, "timm": weights}.get(kind) or timm_name(weights), pretrained=True, **more)


@contextmanager
def _published(what: str) -> Iterator[None]:
    """What the hub's client makes of a machine without a network, of a model that it has not or gives not to everybody:
    WeightsUnreachable."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    offline = constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = offline or not _hub_answers()  # offline: the cache alone is asked, without waiting
        yield
    except LocalEntryNotFoundError as fault:
        raise WeightsUnreachable(f"{what} are neither in the cache nor reachable from this machine") from fault
    except GatedRepoError as fault:
        raise WeightsUnreachable(
            f"{what} are given to those alone who have agreed to their terms: do so there, then `hf auth login`"
        ) from fault
    except RepositoryNotFoundError as fault:
        raise WeightsUnreachable(f"{what} are unknown to the hub, or not for everybody: look at the name, or `hf auth login`") from fault
    except EntryNotFoundError as fault:
        raise WeightsUnreachable(f"{what} are not in timm's form: the hub has no config.json or no weights for it") from fault
    except (HfHubHTTPError, OSError) as fault:
        raise WeightsUnreachable(f"{what} are neither in the cache nor reachable from this machine") from fault
    except RuntimeError as fault:  # timm: "No pretrained weights exist for ..."
        raise WeightsUnreachable(str(fault)) from fault
    finally:
        constants.HF_HUB_OFFLINE = offline


class Encoder(nn.Module):
    """Backbone and one linear layer to `dim`, rows scaled to unit length. forward: (N, C, H, W) -> (N, dim)."""

    def __init__(self, backbone: nn.Module, dim: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(backbone.num_features, dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(self.backbone(images))

    def embed(self, features: Tensor) -> Tensor:
        """The backbone's features (N, F) -> (N, dim)."""
        rows = self.head(features)
        return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)  # a length in half precision is too rough


def key_encoder_of(encoder: nn.Module) -> nn.Module:
    """A copy of the query encoder that takes no gradient."""
    return copy.deepcopy(encoder).requires_grad_(False)


@torch.no_grad()
def move_towards(key_encoder: nn.Module, encoder: nn.Module, ema_decay: float) -> None:
    """f_k <- ema_decay * f_k + (1 - ema_decay) * f_q, for parameters (MoCo, Eq. 2); running statistics stay the key encoder's own."""
    keys, queries = list(key_encoder.parameters()), list(encoder.parameters())
    torch._foreach_lerp_(keys, [q.detach() for q in queries], 1 - ema_decay)


def standardise(images: Tensor, statistics: Tensor | None = None) -> Tensor:
    """(N, C, H, W) in [0, 1] -> what the backbones expect. statistics (2, C): mean and deviation of each channel; None: ImageNet's, of gray
    images the mean over its channels, the two numbers that an exported configuration names."""
    if statistics is not None:
        return (images - statistics[0, :, None, None]) / statistics[1, :, None, None]
    if images.shape[1] == 1:
        return (images - GRAY_MEAN) / GRAY_STD
    mean, std = (constant(values, images.device, images.dtype)[:, None, None] for values in (COLOUR_MEAN, COLOUR_STD))
    return (images - mean) / std
