"""Where a backbone's weights begin: drawn, published by one of timm's names, from a hub or a folder in timm's form, or trained here before.
Comes in: the setting `weights` and a backbone. Goes out: its kind, what is wrong with it, its identity, a model filled with it.
Exists because a path says nothing of what lies there: a configuration that names one also names what was in it."""

import ast
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.parts.errors import RequestError

Kind = Literal["random", "imagenet", "timm", "hub", "folder", "own", ""]
FILES = ("model.safetensors", "stage.safetensors")  # of an export, of a shared stage
STATISTICS = (
    "input_statistics"  # (2, C): mean and deviation of each channel that a network expects; there is none where they are ImageNet's
)
DIGITS = 16
KNOWN = (
    "random, imagenet, a timm name with its tag (resnet50.a1_in1k), hf-hub:OWNER/NAME, local-dir:FOLDER, "
    "or what was trained here: RUN/best, RUN/stages/HASH, :key or :query behind it"
)
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder_q.", "base_encoder.", "backbone.", "encoder.")  # of wrappers, MoCo's among them
NOT_OURS = ("in_chans", "num_classes", "img_size")  # arguments of a published model that follow from the images and classes here


def architecture_of(backbone: str) -> tuple[str, dict[str, Any]]:
    """`vit_large_patch16_224(init_values=1e-05)` -> timm's name and the arguments it is built with. RequestError where it cannot be
    read."""
    matched = re.fullmatch(r"([^()]*)(?:\((.*)\))?", backbone)
    try:
        if matched is None:
            raise ValueError
        call = ast.parse(f"f({matched[2] or ''})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(one.arg is None for one in call.keywords):
            raise ValueError
        return matched[1], {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (ValueError, SyntaxError) as fault:
        raise RequestError(f"backbone must be a timm model, or one with arguments, name(key=value, ...), got {backbone!r}") from fault


def kind_of(weights: str) -> Kind:
    """'' for what is none of them. A path has a / in it, or is a folder or file here."""
    if weights in ("random", "imagenet"):
        return "random" if weights == "random" else "imagenet"
    for prefix, kind in (("hf-hub:", "hub"), ("local-dir:", "folder")):
        if weights.startswith(prefix) and len(weights) > len(prefix):
            return kind  # type: ignore[return-value]
    if "/" in weights or Path(weights).exists():
        return "own"
    return "timm" if re.fullmatch(r"\w+\.\w+", weights) else ""


def _split(weights: str) -> tuple[Path, str, str]:
    """Path, `key` or `query` or '', digest or ''."""
    matched = re.fullmatch(rf"(.*?)(?::(key|query))?(?:#([0-9a-f]{{{DIGITS}}}))?", weights.removeprefix("local-dir:"))
    assert matched is not None  # .*? takes whatever it is
    return Path(matched[1]).expanduser(), matched[2] or "", matched[3] or ""


def _file(path: Path) -> Path | None:
    """The file that holds the tensors."""
    return path if path.is_file() else next((path / name for name in FILES if (path / name).is_file()), None)


def _files(weights: str) -> list[Path]:
    """All that says what the weights are; empty where they are not there."""
    path, _, _ = _split(weights)
    if kind_of(weights) == "own":
        return [file] if (file := _file(path)) else []
    return sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".bin", ".pth", ".json")) if path.is_dir() else []


@functools.lru_cache(maxsize=64)
def _sum(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(files: list[Path]) -> str:
    sums = [_sum(file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return hashlib.sha256("".join(sums).encode()).hexdigest()[:DIGITS]


def pinned(weights: str) -> str:
    """A path as its whole self, with the sum of what lies there: the same path with other weights is another configuration. What is no
    path, has its sum already, or is not there, stays as it is."""
    if kind_of(weights) not in ("folder", "own"):
        return weights
    path, which, digest = _split(weights)
    if digest or not (files := _files(weights)):
        return weights
    prefix = "local-dir:" if kind_of(weights) == "folder" else ""
    return f"{prefix}{path.resolve()}{':' + which if which else ''}#{_digest(files)}"


def weights_faults(weights: str, backbone: str | None) -> list[str]:
    """What is wrong with `weights` for a backbone, as far as it can be told without a network. None: it is wrong itself."""
    import timm  # three seconds, which a command that builds no network can do without

    kind = kind_of(weights)
    if not kind or (kind == "timm" and not timm.is_model(weights.partition(".")[0])):
        return [f"weights must be {KNOWN}; got {weights!r}"]
    if kind == "timm":
        model = weights.partition(".")[0]
        kinds = timm.list_pretrained(f"{model}.*")
        if weights not in kinds:
            return [f"weights must be of a kind that {model} has, got {weights!r}; known: {', '.join(kinds) or 'none'}"]
        return _differs(weights, model, {}, backbone) if backbone else []
    if kind in ("folder", "own") and not _files(weights):
        what = "no folder" if kind == "folder" else f"no file, and no folder with {' or '.join(FILES)}"
        return [f"weights must be {KNOWN}; got {weights!r}, where there is {what}"]
    return model_faults(weights, backbone) if kind == "folder" and backbone else []


def model_faults(weights: str, backbone: str) -> list[str]:
    """Whether a hub's or a folder's model, whose config.json is read, is the backbone. What timm raises where it cannot be had passes."""
    if kind_of(weights) == "hub":
        from timm.models import load_model_config_from_hf

        _, model, arguments = load_model_config_from_hf(weights.removeprefix("hf-hub:"))
        return _differs(weights, model, arguments or {}, backbone)
    try:
        given = json.loads((_split(weights)[0] / "config.json").read_text())
        return _differs(weights, given["architecture"], given.get("model_args") or {}, backbone)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        return [f"weights must be a folder in timm's form, whose config.json says its architecture, got {weights!r} ({fault})"]


def _differs(weights: str, model: str, arguments: Mapping[str, Any], backbone: str) -> list[str]:
    given, own = architecture_of(backbone)
    wanted = {name: value for name, value in arguments.items() if name not in NOT_OURS}
    if given.partition(".")[0] == model.partition(".")[0] and all(own.get(name) == value for name, value in wanted.items()):
        return []
    told = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    return [f"weights must be of backbone {backbone}, got {weights!r}; set backbone={model}{f'({told})' if told else ''}"]


def _body(model: nn.Module, whole_head: bool = False) -> dict[str, Tensor]:
    """All tensors but the classifier's, which is of other classes. whole_head: and but what stands beside it in its module, such as
    `head.norm` before `head.fc`, which some published weights lack."""
    head: Any = model.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    names = (head,) if isinstance(head, str) else head or ()
    heads = tuple(f"{name.partition('.')[0] if whole_head else name}." for name in names)
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(heads)}


def _unfit(what: str, backbone: str, names: list[str], of: int) -> RequestError:
    return RequestError(
        f"weights {what} are not of backbone {backbone} with these images: {len(names)} of {of} tensors are missing or of another shape, "
        f"{', '.join(names[:3])} among them; nothing of it was used"
    )


@contextmanager
def complete(weights: str, backbone: str) -> Iterator[None]:
    """What timm loads in here fills the whole model but for its classifier, or RequestError names what it would leave as it was drawn; timm
    says so in its log alone. Asked of torch itself, for timm renames and resamples tensors on their way."""
    what, plain = weights.partition("#")[0], nn.Module.load_state_dict

    def load(model: nn.Module, tensors: Mapping[str, Any], *args: Any, **more: Any) -> Any:
        body = _body(model, whole_head=True)
        try:
            result = plain(model, tensors, *args, **more)
        except RuntimeError as fault:  # strict, or of another shape
            wrong = [name for name, tensor in body.items() if name not in tensors or tensors[name].shape != tensor.shape]
            raise (_unfit(what, backbone, wrong, len(body)) if wrong else RequestError(f"weights {what}: {fault}")) from fault
        if missing := [name for name in result.missing_keys if name in body]:
            raise _unfit(what, backbone, missing, len(body))
        return result

    nn.Module.load_state_dict = load  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.load_state_dict = plain  # type: ignore[method-assign]


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """What stands behind the prefixes of wrappers, outer ones first; None: no name has one."""
    found = dict(tensors)
    while prefix := next((one for one in PREFIXES if any(name.startswith(one) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    return found if found.keys() != tensors.keys() else None


def tensors_of(weights: str) -> dict[str, Tensor]:
    """As they stand in a hub's or a folder's file."""
    from timm.models._hub import load_state_dict_from_hf, load_state_dict_from_path

    if kind_of(weights) == "hub":
        return dict(load_state_dict_from_hf(weights.removeprefix("hf-hub:")))
    return dict(load_state_dict_from_path(_split(weights)[0]))


def timm_name(weights: str) -> str:
    """As timm's `create_model` takes a hub's or a folder's model."""
    return weights if kind_of(weights) == "hub" else f"local-dir:{_split(weights)[0]}"


def check(weights: str) -> None:
    """RequestError where what lies at a path is not what the configuration was made with."""
    digest = _split(weights)[2]
    if kind_of(weights) in ("folder", "own") and digest and (not (files := _files(weights)) or _digest(files) != digest):
        raise RequestError(f"weights {weights.partition('#')[0]} are not there any more, or are others than when the study was asked for")


def statistics_in(file: Path) -> Tensor | None:
    """The statistics of a model's input, by the head of its file alone; None: ImageNet's."""
    with safe_open(str(file), framework="pt") as opened:
        told = (opened.metadata() or {}).get(STATISTICS)
    return torch.tensor(json.loads(told), dtype=torch.float32, device="cpu") if told else None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """A model's, and the statistics of its input under their name: an export, which timm loads, has them beside its tensors."""
    statistics = statistics_in(file)
    return load_file(file) | ({} if statistics is None else {STATISTICS: statistics})


def fill(model: nn.Module, weights: str, backbone: str) -> Tensor | None:
    """Put what was trained here into a timm model, its classifier left as it is; the statistics of its input, where the file has some. A
    shared stage holds two encoders: the query's is taken unless `:key` stands behind the path. RequestError where the file cannot be read
    or is of another backbone."""
    path, which, _ = _split(weights)
    file = _file(path)
    if file is None:
        raise RequestError(f"weights must be {KNOWN}; got {weights!r}, where there is none")
    if file.suffix != ".safetensors":
        raise RequestError(
            f"weights {file} must be a safetensors file, this ends in {file.suffix or 'nothing'}; write its tensors with "
            "safetensors.torch.save_file, or put it beside a config.json and take local-dir:FOLDER"
        )
    try:
        tensors = read_tensors(file)
    except (SafetensorError, OSError) as fault:
        raise RequestError(f"weights {file} cannot be read: {fault}") from fault
    statistics = next((tensor for name, tensor in tensors.items() if name.rpartition(".")[2] in (STATISTICS, "statistics")), None)
    prefix = f"{which or 'query'}."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    elif which:
        raise RequestError(f"weights {file} hold no {which} encoder; leave :{which} out")
    own = _body(model)
    if not own.keys() <= tensors.keys():
        tensors = unwrapped(tensors) or tensors
    if wrong := [name for name, tensor in own.items() if name not in tensors or tensors[name].shape != tensor.shape]:
        raise _unfit(str(file), backbone, wrong, len(own))
    model.load_state_dict({name: tensors[name] for name in own}, strict=False)
    return statistics
