"""The words of the command line: types with their rules, the options of a study, and what completes them.
Comes in: words. Goes out: a Request, or a click fault that `told` says in one line. Imports neither PyTorch nor Optuna."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from search import registry
from search.home import here
from search.request import STEPS, Request, read_file
from trainables.parts.errors import RequestError

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 140}


class Rule(click.ParamType[Any]):
    """A word that a function turns into a value; its ValueError says the rule."""

    def __init__(self, name: str, turn: Callable[[str], Any]) -> None:
        self.name, self.turn = name, turn

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.turn(value) if isinstance(value, str) else self.turn(str(value))
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {text!r}")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise ValueError(f"must be above 0, got {text}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise ValueError(f"must not be below 0, got {text}")
    return value


def _gpus(text: str) -> float | None:
    return None if text == "auto" else _share(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"must be a whole number, got {text!r}") from None


def _count(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise ValueError(f"must be at least 1, got {text}")
    return value


def _seed(text: str) -> int:
    value = _whole(text)
    if not 0 <= value < 2**31:
        raise ValueError(f"must be between 0 and {2**31 - 1}, got {text}")
    return value


def _folder_name(text: str) -> str:
    if not text.strip() or text != Path(text).name or text in (".", ".."):
        raise ValueError(f"must be the name of one folder, got {text!r}; where it stands is --storage")
    return text


def _step(text: str) -> str:
    if text not in STEPS:
        raise ValueError(f"invalid choice: {text!r} (choose from {', '.join(STEPS)})")
    return text


NUMBER, POSITIVE, GPUS, WHOLE, COUNT, SEED, FOLDER_NAME, STEP = (
    Rule(name, turn)
    for name, turn in (
        ("number", _number), ("number", _positive), ("number|auto", _gpus), ("n", _whole), ("n", _count), ("n", _seed),
        ("name", _folder_name), ("step", _step),
    )
)  # fmt: skip
PATH = click.Path(path_type=Path)


class Place(click.Path):
    """A folder, or an address; what stands for it on this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return here(value)
        except RequestError as fault:
            self.fail(str(fault), param, ctx)


PLACE = Place()


# -- completion ----------------------------------------------------------------------------------------------------------------------------


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def procedures(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _items(registry.names(), incomplete)


def steps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _items(STEPS, incomplete)


def _declared(ctx: click.Context) -> Any:
    name = ctx.params.get("procedure") or ctx.command.name
    return registry.declared(name) if name in registry.names() else None


def tables(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The next of a list with commas."""
    study = _declared(ctx)
    before, comma, _ = incomplete.rpartition(",")
    known = ["all", "none", *(table.number for table in study.tables)] if study else []
    return _items([before + comma + word for word in known if word not in before.split(",")], incomplete)


def presets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    study = _declared(ctx)
    return _items(study.presets if study else (), incomplete)


def dimensions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    study = _declared(ctx)
    return _items([f"{name}=" for name in study.space] if study else (), incomplete)


def studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from search.folders import studies as below

    return _items([path.name for path in below(ctx.params.get("storage") or Path("runs"))], incomplete)


# -- options -------------------------------------------------------------------------------------------------------------------------------

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
storage = click.option(
    "--storage", type=PLACE, default=Path("runs"), envvar="KARYOTUNE_STORAGE", is_eager=True,
    help="where studies are kept (default: runs); on a cluster a folder that all nodes see, or s3://BUCKET/PREFIX (gs://) "
         "[KARYOTUNE_STORAGE]",
)  # fmt: skip
address = click.option(
    "--address", envvar="RAY_ADDRESS",
    help="a running Ray cluster: auto, or HOST:PORT; local: one on this machine (the default) [RAY_ADDRESS]",
)  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="for a program: JSON on standard output, and nothing else")
study = click.argument("study", shell_complete=studies)
MANY: dict[str, Any] = {"multiple": True, "metavar": "KEY=VALUE"}

ASKED: list[Decorator] = [
    click.option("--data", type=PLACE, envvar="KARYOTUNE_DATA",
                 help="a folder of images for each class, or s3://BUCKET/FOLDER; without it the built-in synthetic set is used "
                      "[KARYOTUNE_DATA]"),
    click.option("--external", type=PLACE, multiple=True,
                 help="another hospital's images: a test set that nothing is chosen by; may be repeated"),
    click.option("--relabel", type=PATH, multiple=True, metavar="CSV",
                 help="relabelling.csv of a report's image ledger: train by these labels, as another study (default name: "
                      "...-relabelled); may be repeated, the earliest first"),
    click.option("--objective", help="another aim of the search that the procedure has, by name; with ',parameters' (score,parameters) "
                                     "the size of the model counts too"),
    click.option("--preset", shell_complete=presets,
                 help="quick (minutes, CPU) | small (an evening, one GPU) | paper (the published settings); default: quick, or paper "
                      "where --data and a GPU are there"),
    click.option("--trials", type=WHOLE, help="runs that the search proposes"),
    click.option("--repeats", type=WHOLE, help="seeds of each arm"),
    click.option("--tables", shell_complete=tables, help="numbers of the paper's tables, comma between; all; none"),
    click.option("--arms", help="narrow the tables to these arms, comma between, * allowed: 'Scratch,2/SupCAM*'"),
    storage,
    click.option("--name", type=FOLDER_NAME, help="the study's name (default: procedure-preset-data)"),
    click.option("--seed", type=WHOLE, default=0, help="the first seed; repeats count on from it"),
    click.option("--set", "settings", help="change a setting of the baseline; may be repeated", **MANY),
    click.option("--space", "spaces", shell_complete=dimensions, multiple=True, metavar="NAME=LOW:HIGH",
                 help="search less of a dimension: rate=0.01:0.1, form=plain,bent; may be repeated"),
    click.option("--fix", "fixed", shell_complete=dimensions, multiple=True, metavar="NAME=VALUE",
                 help="do not search a dimension, and have it at this value; may be repeated"),
    click.option("--sampler", default="tpe", help="tpe | gp | random | grid: how points are proposed (default: tpe)"),
    click.option("--scheduler", help="asha | hyperband | none: how runs are stopped early (default: asha)"),
    click.option("--grid", type=WHOLE, metavar="N", help="points of each continuous dimension of --sampler grid"),
    click.option("--grace", type=WHOLE, help="validations before a run may be stopped"),
    click.option("--finalists", type=WHOLE, help="best configurations that are run on fresh seeds, where the winner is chosen (default: "
                                                 "3)"),
    click.option("--retune", is_flag=True, help="also search for the best settings of each arm, as long for each; in tables of their own"),
    click.option("--from", "source", type=PLACE, metavar="STUDY", help="start from what the search of another study found"),
]  # fmt: skip
MACHINE: list[Decorator] = [
    click.option("--gpus-per-run", type=GPUS,
                 help="GPUs of one run, fractions allowed (default: auto, as many runs share a GPU as keep it busy by a measurement; 1 for "
                      "each of several workers; 0 where there is none)"),
    click.option("--workers-per-run", type=COUNT, default=1, help="data-parallel workers of one run"),
    click.option("--slots", type=COUNT, help="runs at once, at most (default: as many as fit)"),
    address,
    click.option("--wait-for", type=COUNT, metavar="N",
                 help="begin once so many machines of the cluster could take a run (with a GPU, unless --gpus-per-run 0); "
                      "without --address: once so many GPUs of this machine are used by nobody else"),
    click.option("--max-hours", type=POSITIVE, help="start nothing new after this time; what is running ends, and the rest waits for the "
                                                    "next call"),
    click.option("--max-gpu-hours", type=POSITIVE,
                 help="start nothing new once the study's runs have taken so many hours of GPUs (of workers, where there is no GPU)"),
    click.option("--price-per-hour", type=POSITIVE, metavar="PRICE",
                 help="of one GPU (of a worker, where runs have none), in whatever money; watch and the metrics show the cost"),
    click.option("--max-cost", type=POSITIVE, metavar="COST",
                 help="start nothing new once the study's runs have cost so much by --price-per-hour"),
    click.option("--stall-minutes", type=POSITIVE, default=30.0,
                 help="kill and start again a run of which nothing is heard for this long, and for ten times its slowest epoch (default: "
                      "30)"),
    click.option("--retry-failed", is_flag=True, help="run failed runs again (weights reachable now, more memory)"),
    click.option("--accept-code", is_flag=True,
                 help="go on with a study though trainables/, torch, torchvision or timm have changed since it was begun"),
    click.option("--log", multiple=True,
                 help="tensorboard | mlflow | wandb | none, may be repeated: who is told of ended runs (default: tensorboard)"),
]  # fmt: skip
FILE = click.option("--request", "file", type=PATH, metavar="FILE",
                    help="a TOML file with these options by their names, as each study has one (request.toml); words here win over "
                         "it")  # fmt: skip
FIELDS = {
    "data", "external", "relabel", "objective", "preset", "trials", "repeats", "tables", "arms", "storage", "name", "seed", "settings",
    "spaces", "fixed", "sampler", "scheduler", "grid", "grace", "finalists", "retune", "source", "gpus_per_run", "workers_per_run", "slots",
    "address", "wait_for",
    "max_hours", "max_gpu_hours", "price_per_hour", "max_cost", "stall_minutes", "retry_failed", "accept_code", "log",
}  # fmt: skip


def with_options(*several: Iterable[Decorator]) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for options in several for option in options]):
            function = option(function)
        return function

    return decorate


def request_of(ctx: click.Context, *, command: str, file: Path | None = None, **given: Any) -> Request:
    """The request of a command: its words, then the file's, then the environment's, then the defaults. given: fields that stand fast."""
    values = {name: value for name, value in ctx.params.items() if name in FIELDS}
    asked = read_file(file) if file is not None else {}
    params = {param.name: param for param in ctx.command.params}
    source = ctx.get_parameter_source
    for name, value in asked.items():
        if name in given or (name in params and source(name) == ParameterSource.COMMANDLINE):
            continue
        values[name] = params[name].type_cast_value(ctx, value) if name in params else value
    told = [
        (param.opts[0], str(values[name]), str(param.envvar))
        for name, param in params.items()
        if name in FIELDS and name not in asked and source(str(name)) == ParameterSource.ENVIRONMENT
    ]
    return Request(**(values | given), command=command, told=tuple(told))


# -- faults --------------------------------------------------------------------------------------------------------------------------------


def told(fault: click.ClickException, words: Sequence[str]) -> str:
    """A fault of the words in one line."""
    hint = "; see python -m search --help"
    ctx = getattr(fault, "ctx", None)
    if isinstance(fault, click.NoSuchOption):
        word = next((word for word in words if word.partition("=")[0] == fault.option_name), fault.option_name)
        close = f"; did you mean {' or '.join(sorted(fault.possibilities))}?" if fault.possibilities else hint
        return f"unrecognized arguments: {word}{close}"
    if isinstance(fault, click.MissingParameter) and ctx is not None:
        missing = [param for param in ctx.command.params if param.required and ctx.params.get(param.name) in (None, ())]
        return f"the following arguments are required: {', '.join(_named(param) for param in missing)}{hint}"
    if isinstance(fault, click.BadParameter) and fault.param is not None:
        return f"argument {_named(fault.param)}: {fault.message.removesuffix('.')}{hint}"
    message = fault.format_message().removesuffix(".")
    return message[:1].lower() + message[1:] + hint


def _named(param: click.Parameter) -> str:
    return param.opts[0] if isinstance(param, click.Option) else str(param.name)
