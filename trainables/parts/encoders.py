"""Backbones by timm name, and the encoder = backbone + linear head with rows of unit length.
Comes in: a timm name, channels, size, a seed. Goes out: modules with reproducible weights. Exists so that all procedures build, warm-start
and average encoders in one way."""

import copy
import difflib
import os
import socket
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.parts.errors import RequestError, WeightsUnreachable
from trainables.parts.numbers import constant

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


def backbone_faults(name: str) -> list[str]:
    """What is wrong with a backbone's name, and what stands near it. `resnet50`, or with published weights of one kind:
    `resnet50.a1_in1k`."""
    import timm  # here and below: three seconds, which a command that builds no network can do without

    if not timm.is_model(name):
        names = timm.list_models()
        close = difflib.get_close_matches(name, names, n=3) or [known for known in names if name and name in known][:3]
        return [f"backbone must be a timm model, got {name!r}" + (f"; near it: {', '.join(close)}" if close else "")]
    model, _, kind = name.partition(".")
    kinds = timm.list_pretrained(f"{model}.*") if kind else []
    if kind and name not in kinds:
        return [f"backbone {model} has no weights of the kind {kind!r}, got {name!r}; known: {', '.join([model, *kinds])}"]
    return []


def size_arguments(name: str, input_size: int) -> dict[str, int]:
    """What timm must be told where a model takes one input size alone (ViT, Swin); nothing for the others."""
    import timm

    settings = timm.get_pretrained_cfg(name)
    return {"img_size": input_size} if settings is not None and settings.fixed_input_size else {}


def create_backbone(name: str, *, channels: int, classes: int, weights: str, seed: int, input_size: int | None = None) -> nn.Module:
    """A timm model with `classes` outputs (0: pooled features, (N, F)). input_size: side of the images, in pixels; None: the model's own.

    weights: `random` (initialised from `seed`), or `imagenet` (timm's default published weights; its loader adapts the first layer to
    `channels`). RequestError for an unknown name, WeightsUnreachable when published weights are neither cached nor reachable."""
    import timm

    if faults := backbone_faults(name):
        raise RequestError(*faults)
    if weights not in ("random", "imagenet"):
        raise RequestError(f"weights must be random or imagenet, got {weights!r}")
    more = {} if input_size is None else size_arguments(name, input_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights == "random":
            return timm.create_model(name, in_chans=channels, num_classes=classes, **more)
        from huggingface_hub import constants
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        offline = constants.HF_HUB_OFFLINE
        try:
            constants.HF_HUB_OFFLINE = offline or not _hub_answers()  # offline: the cache alone is asked, without waiting
            return timm.create_model(name, in_chans=channels, num_classes=classes, pretrained=True, **more)
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as fault:
            raise WeightsUnreachable(
                f"timm's published weights of {name} are neither in the cache nor reachable from this machine"
            ) from fault
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
        rows = self.head(self.backbone(images))
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
