"""What one command asks of a study, as values; and as a file, `request.toml`.
Comes in: words of a command line, a notebook's arguments, or a TOML file. Goes out: a Request. Nothing here is checked against data
(`prepare` does that), and nothing imports PyTorch: what can be refused by the declaration alone is refused at once."""

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import registry
from search.home import here, place_of
from search.registry import unknown
from trainables.parts.errors import RequestError

if TYPE_CHECKING:
    from search.sampling import Strategy
    from search_spaces._declare import Study

STEPS = ("run", "plan", "tune", "ablate", "export", "report", "check")
REQUEST = "request.toml"  # in the study's folder: what its last command asked for
PATHS = ("data", "storage", "source")
NAMES = {"settings": "set", "spaces": "space", "fixed": "fix", "source": "from"}  # fields whose option has another word


@dataclass(frozen=True)
class Request:
    """One command. The defaults are the command line's; None: the preset's value, or what the machine has."""

    procedure: str
    step: str = "run"
    data: Path | None = None
    external: tuple[Path, ...] = ()
    relabel: tuple[Path, ...] = ()  # relabelling.csv of a report's image ledger; several, one after the other
    objective: str | None = None
    preset: str | None = None
    trials: int | None = None
    repeats: int | None = None
    tables: str | None = None
    arms: str | None = None
    storage: Path = Path("runs")
    name: str | None = None
    seed: int = 0
    settings: tuple[str, ...] = ()  # key=value
    spaces: tuple[str, ...] = ()  # name=low:high, name=one,other
    fixed: tuple[str, ...] = ()  # name=value
    sampler: str = "tpe"
    scheduler: str | None = None
    grid: int | None = None
    grace: int | None = None
    finalists: int | None = None
    retune: bool = False
    source: Path | None = None  # another study to start from
    gpus_per_run: float | None = None
    workers_per_run: int = 1
    slots: int | None = None  # runs at once, at most
    address: str | None = None
    max_hours: float | None = None
    max_gpu_hours: float | None = None
    price_per_hour: float | None = None  # of a GPU, or of a worker where runs have none
    max_cost: float | None = None
    wait_for: int | None = None  # machines of a cluster, or free GPUs of this machine, before the first run
    stall_minutes: float = 30.0
    retry_failed: bool = False
    accept_code: bool = False
    log: tuple[str, ...] = ()
    command: str = field(default="", compare=False)  # as it was said
    told: tuple[tuple[str, str, str], ...] = field(default=(), compare=False)  # (option, value, variable) taken from the environment

    def __post_init__(self) -> None:
        for name in PATHS:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else here(value))
        for name in ("external", "relabel"):
            object.__setattr__(self, name, tuple(here(place) for place in getattr(self, name)))
        for name in ("settings", "spaces", "fixed", "log"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.address == "local":  # a cluster of its own, whatever RAY_ADDRESS says
            object.__setattr__(self, "address", None)

    def study_name(self, preset: str) -> str:
        data = self.data.resolve().name if self.data else "synthetic"
        return self.name or f"{self.procedure}-{preset}-{data}{'-relabelled' if self.relabel else ''}"

    def folder(self, preset: str) -> Path:
        return (self.storage / self.study_name(preset)).resolve()

    def strategy(self) -> "Strategy":
        """How it wants to be searched; nothing is checked here."""
        from search.sampling import Strategy

        second = (self.objective or "").partition(",")[2].strip() or None
        scheduler = self.scheduler or ("none" if second else "asha")
        named: dict[str, Any] = {name: getattr(self, name) for name in ("grace", "finalists") if getattr(self, name) is not None}
        source = self.source.resolve().name if self.source is not None else None
        return Strategy(sampler=self.sampler, scheduler=scheduler, grid=self.grid, second=second, source=source, **named)


def listed(text: str | None) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def refuse_misspelt(request: Request) -> None:
    """RequestError for words that the declaration does not hold. Where settings are given too, their own faults (which need PyTorch) are
    worth the seconds: all come at once then."""
    study = registry.declared(request.procedure)
    faults = worker_faults(request)
    if faults or not request.settings:
        faults += word_faults(request, study)
    if faults:
        raise RequestError(*dict.fromkeys(faults))


def word_faults(request: Request, study: "Study") -> list[str]:
    """Misspelt words, and numbers out of bounds."""
    from search.declared import budget_faults, choose_tables, narrow, with_objective

    if request.preset is not None and request.preset not in study.presets:
        return [unknown("preset", request.preset, list(study.presets))]
    faults: list[str] = []
    preset = request.preset or next(iter(study.presets))
    for check in (lambda: with_objective(study, request.objective), lambda: narrow(study, preset, request.spaces, request.fixed)):
        try:
            check()
        except RequestError as fault:
            faults += fault.faults
    faults += budget_faults(request.trials or 0, 1 if request.repeats is None else request.repeats, request.seed)
    if request.tables is not None or request.preset is not None:
        faults += choose_tables(
            study, listed(request.tables) if request.tables is not None else study.presets[preset].tables, listed(request.arms)
        )[1]
    elif request.arms:
        every = [table.number for table in study.tables]
        faults += choose_tables(study, every, listed(request.arms))[1]
    return faults


def worker_faults(request: Request) -> list[str]:
    """Machines that cannot come; GPUs that a worker could not use: it computes on one, or shares one."""
    gpus, workers = request.gpus_per_run, request.workers_per_run
    if request.max_cost is not None and request.price_per_hour is None:
        return [f"--max-cost {request.max_cost:g} needs --price-per-hour: what one GPU (a worker, where runs have none) costs in an hour"]
    if request.wait_for is not None and request.address is None and gpus == 0:
        return [
            f"--wait-for {request.wait_for} waits for machines of the cluster at --address, or for free GPUs of this one, and "
            "--gpus-per-run 0 wants none; leave one out"
        ]
    if gpus is None or gpus <= workers:
        return []
    if gpus != int(gpus):
        return [
            f"--gpus-per-run must be a whole number above 1 (a part of a GPU is for runs that share one), got {gpus:g}; "
            f"give {int(gpus)} or {int(gpus) + 1}"
        ]
    wasted = int(gpus) - workers
    return [
        f"--gpus-per-run {gpus:g} with {workers} worker{'s' * (workers > 1)} wastes {'one' if wasted == 1 else wasted}: "
        f"a worker computes on one GPU; give --workers-per-run {int(gpus)}, or --gpus-per-run {workers}"
    ]


# -- as a file ----------------------------------------------------------------------------------------------------------------------------

ASKED = tuple(entry for entry in fields(Request) if entry.name not in ("command", "told"))
KEYS = {NAMES.get(entry.name, entry.name.replace("_", "-")): entry for entry in ASKED}


def to_toml(request: Request) -> str:
    """The request as `read_file` takes it; what is at its default is left out, and paths are whole, so that it may be given anywhere.
    --accept-code is left out too: code that is changed later is not what was accepted."""
    lines = [f"# {request.command}"] if request.command and "\n" not in request.command else []
    local = {option for option, _, variable in request.told if variable == "RAY_ADDRESS"}  # of this machine, not of the study
    local |= {"--accept-code", *(["--wait-for"] if local else [])}
    for key, entry in KEYS.items():
        value = getattr(request, entry.name)
        if value is None or (value == entry.default and entry.name != "storage") or f"--{key}" in local:
            continue
        if isinstance(value, Path):
            value = place_of(value.resolve())
        elif isinstance(value, tuple):
            value = [place_of(one.resolve()) if isinstance(one, Path) else one for one in value]
        lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # numbers, truth values and strings are written alike


def read_file(path: Path) -> dict[str, Any]:
    """A request file as fields of a Request. RequestError with every key that is none."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise RequestError(f"--request must be a file, there is none at '{path}'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise RequestError(f"--request must be a TOML file, '{path}' is not ({fault})") from None
    faults = []
    found: dict[str, Any] = {}
    for key, value in values.items():
        entry = KEYS.get(key.replace("_", "-"))
        if entry is None:
            close = difflib.get_close_matches(key, KEYS, n=1)
            faults.append(
                f"'{path}' has no use for {key!r}" + (f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(KEYS)}")
            )
            continue
        found[entry.name] = _fields(entry.name, value)
    if faults:
        raise RequestError(*faults)
    return found


def _fields(name: str, value: Any) -> Any:
    """A table of settings as words `key=value`; tables and arms as one text."""
    if name in ("settings", "spaces", "fixed") and isinstance(value, Mapping):
        return tuple(f"{key}={_text(one)}" for key, one in value.items())
    if name in ("tables", "arms"):
        return _text(value)
    return tuple(value) if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_text, value)) if isinstance(value, list) else str(value)
