"""Backbones by timm name, and the encoder = backbone + linear head with rows of unit length.
Comes in: a timm name, channels, size, a seed. Goes out: modules with reproducible weights. Exists so that all procedures build, warm-start
and average encoders in one way."""

import copy
import difflib
import functools
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trainables.parts.errors import RequestError, WeightsUnreachable
from trainables.parts.numbers import constant
from trainables.parts.weights import (
    STATISTICS,
    architecture_of,
    check,
    complete,
    fill,
    kind_of,
    model_faults,
    pinned,
    tensors_of,
    timm_name,
    unwrapped,
    weights_faults,
)

COLOUR_MEAN, COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as timm's IMAGENET_DEFAULT_MEAN and _STD
BUILDING = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError)  # of timm, for a size that it does not take
GRAY_MEAN, GRAY_STD = 0.449, 0.226  # mean over channels of ImageNet's
AS_THEY_ARE = torch.tensor([[0.0], [1.0]])  # (2, 1), for `expect`: of a network that was trained on gray images in 0..1


class _Unfilled(TorchFunctionMode):
    """Fills no tensor that has no memory: what timm draws into a ViT-L there costs ten times its building."""

    FILLS = {"uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "fill_", "zero_"} | {
        "erfinv_", "mul_", "add_", "clamp_",  # of which timm makes its own
    }  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.FILLS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """What is built here has shapes and no values."""
    with torch.device("meta"), _Unfilled():
        yield


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


def _name_faults(backbone: str, weights: str) -> list[str]:
    found = backbone_faults(backbone)
    return found + weights_faults(weights, None if found else backbone)


def start_faults(backbone: str, weights: str, channels: int = 1, input_size: int | None = None) -> list[str]:
    """What is wrong with a backbone and the weights it begins with, files that are on this machine included."""
    if found := _name_faults(backbone, weights):
        return found
    files = _file_faults if kind_of(weights) == "hub" else _sealed_faults  # a hub's name does not say what lies in the cache
    return list(files(backbone, pinned(weights), channels, input_size))


def _file_faults(backbone: str, weights: str, channels: int, input_size: int | None) -> tuple[str, ...]:
    """Whether the weights fit, by loading them as a run does into a network without memory. What would have to be fetched first is for the
    run to say."""
    from huggingface_hub import constants

    if kind_of(weights) not in ("folder", "hub", "own"):
        return ()
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        with without_memory(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter", category=UserWarning)
            build = functools.partial(create_backbone, backbone, channels=channels, classes=0, seed=0, input_size=input_size)
            try:
                build(weights="random")
            except BUILDING as fault:
                return (f"images of side {input_size} must be such as backbone {backbone} takes: {(str(fault).splitlines() or ['?'])[0]}",)
            build(weights=weights)
    except RequestError as fault:
        return tuple(fault.faults)
    except WeightsUnreachable:
        return ()
    finally:
        constants.HF_HUB_OFFLINE = offline
    return ()


_sealed_faults = functools.lru_cache(maxsize=64)(_file_faults)  # of files whose sum stands in the name: asked for every arm and trial


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
    timm's loader adapts the first layer to `channels`. The model knows what input its weights expect, see `statistics_of`. RequestError
    for an unknown name or weights of another backbone, WeightsUnreachable when published weights are neither cached nor reachable."""
    if faults := _name_faults(name, weights):
        raise RequestError(*faults)
    check(weights)
    made, statistics = _filled(name, channels, classes, weights, seed, input_size)
    made.register_buffer(STATISTICS, statistics, persistent=False)  # it is no weight: timm's own model has none
    return made


def _filled(name: str, channels: int, classes: int, weights: str, seed: int, input_size: int | None) -> tuple[nn.Module, Tensor | None]:
    """See `create_backbone`; and the statistics of the input that the weights expect."""
    import timm

    kind, model = kind_of(weights), architecture_of(name)[0]
    more = {"in_chans": channels, "num_classes": classes} | model_arguments(name, input_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind in ("random", "own"):
            made: nn.Module = timm.create_model(model, **more)
            return made, fill(made, weights, name) if kind == "own" else None
        if kind in ("folder", "hub"):  # whose settings may lack what timm's own have, and whose classifier is of other classes, if as many
            usual = timm.get_pretrained_cfg(model)
            names = {} if usual is None else {"first_conv": usual.first_conv, "classifier": usual.classifier}
            more |= {"pretrained_cfg_overlay": names | {"num_classes": -1}}
        source = {"imagenet": model, "timm": weights}.get(kind) or timm_name(weights)
        with _readable(weights) if kind == "folder" else _published(weights, name):
            if kind == "hub" and (faults := model_faults(weights, name)):
                raise RequestError(*faults)
            try:
                with complete(weights, name):
                    made = timm.create_model(source, pretrained=True, **more)
                return made, _expected(made.pretrained_cfg, channels)
            except RequestError:  # of `complete`: does it fit without what wrappers put before names?
                bare = unwrapped(tensors_of(weights)) if kind in ("folder", "hub") else None
                if bare is None:
                    raise
            more["pretrained_cfg_overlay"] |= {"state_dict": bare, "source": ""}
            torch.manual_seed(seed)
            with complete(weights, name):
                made = timm.create_model(source, pretrained=True, **more)
            made.pretrained_cfg["state_dict"] = None
            return made, _expected(made.pretrained_cfg, channels)


def _expected(settings: Mapping[str, Any], channels: int) -> Tensor | None:
    """(2, C) by what published weights say of themselves; of gray images the mean over channels, as their first layer is summed. None:
    ImageNet's."""
    usual = ([GRAY_MEAN], [GRAY_STD]) if channels == 1 else (list(COLOUR_MEAN), list(COLOUR_STD))
    found = []
    for name in ("mean", "std"):
        values = list(settings[name])
        found.append([sum(values) / len(values)] if channels == 1 else values * (channels if len(values) == 1 else 1))
    same = all(abs(a - b) < 1e-6 for own, other in zip(found, usual, strict=True) for a, b in zip(own, other, strict=False))
    return None if same else torch.tensor(found, dtype=torch.float32)


def _expecting(network: nn.Module) -> nn.Module | None:
    """The timm model in a network."""
    return next((module for module in network.modules() if hasattr(module, STATISTICS)), None)


def statistics_of(network: nn.Module) -> Tensor | None:
    """(2, C) mean and deviation of each channel that a network's weights expect, for `standardise`; None: ImageNet's."""
    return getattr(_expecting(network), STATISTICS, None)


def expect(network: nn.Module, statistics: Tensor | None) -> None:
    """Have a network's `statistics_of` be these."""
    if (model := _expecting(network)) is not None:
        setattr(model, STATISTICS, statistics)


def kept(network: nn.Module) -> dict[str, Tensor]:
    """All that `restore` needs to put into a fresh network of the same form."""
    statistics = statistics_of(network)
    return dict(network.state_dict()) | ({} if statistics is None else {STATISTICS: statistics})


def restore(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `kept`."""
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if name != STATISTICS})
    expect(network, tensors.get(STATISTICS))


@contextmanager
def _readable(weights: str) -> Iterator[None]:
    """What timm makes of a folder with no file, or with a damaged one: RequestError."""
    try:
        yield
    except (SafetensorError, EOFError, OSError, RuntimeError) as fault:
        raise RequestError(f"weights {weights.partition('#')[0]} cannot be loaded: {str(fault).splitlines()[0]}") from fault


@contextmanager
def _published(weights: str, backbone: str) -> Iterator[None]:
    """What the hub's client makes of a machine without a network, of a model that it has not or gives not to everybody, of a damaged file
    in its cache: WeightsUnreachable."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    what = f"timm's published weights of {backbone}" if weights == "imagenet" else f"the weights {weights}"
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
    except SafetensorError as fault:
        raise WeightsUnreachable(f"{what} are damaged in this machine's cache ({fault}); delete them there") from fault
    except RuntimeError as fault:  # timm's; torch's own, of tensors that do not fit, are told in `complete`
        if "No pretrained weights exist" not in str(fault):
            raise RequestError(f"weights {weights}: {str(fault).splitlines()[0]}") from fault
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
