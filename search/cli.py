"""The command line: reads a request, prints what happens, returns an exit status.
Comes in: words. Goes out: 0, or 1 when every run failed, or 2 with all faults of the request, one line each and no traceback.
Heavy imports stand inside functions, so that help and a misspelt name answer at once."""

import argparse
import functools
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from search.coordinator import Coordinator
    from search.ledger import Ledger
    from search.plan import Plan
    from search.registry import Entry
    from search.retune import Relay
    from search.sampling import Strategy
    from search.study import External
    from search.warm import Warm
    from trainables.parts.data import Pack

STEPS = ("run", "plan", "tune", "ablate", "export", "report", "check")
EPILOG = """examples:
  python -m search supcam                                built-in synthetic set, minutes on a laptop
  python -m search supcam --data FOLDER                  your images: a folder for each class, or a manifest.csv
  python -m search supcam --data FOLDER --plan           what would run, and how long it would take
  python -m search evaluate runs/STUDY/best --data OTHER
  python -m search predict runs/STUDY/best IMAGES... --out predictions.csv
  python -m search data check FOLDER
  python -m search data synth supcam OUT
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        from trainables.parts.errors import RequestError

        raise RequestError(f"{message}; see python -m search --help")


def _positive(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be below 0, got {text}")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def _count(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _folder_name(text: str) -> str:
    if not text.strip() or text != Path(text).name or text in (".", ".."):
        raise argparse.ArgumentTypeError(f"must be the name of one folder, got {text!r}; where it stands is --storage")
    return text


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"must be between 0 and {2**31 - 1}, got {text}")
    return value


def _study_parser() -> _Parser:
    parser = _Parser(prog="python -m search PROCEDURE", description="Search, ablation tables, report and best checkpoint of one procedure.")
    parser.add_argument("step", nargs="?", default="run", choices=STEPS, help="one step alone; default: tune, ablate, export and report")
    parser.add_argument("--data", type=Path, help="a folder of images for each class; without it the built-in synthetic set is used")
    parser.add_argument(
        "--external",
        type=Path,
        action="append",
        default=[],
        help="another hospital's images: a test set that nothing is chosen by; may be repeated",
    )
    parser.add_argument(
        "--objective",
        help="another aim of the search that the procedure has, by name; with ',parameters' (score,parameters) the size of the model counts too",
    )
    parser.add_argument(
        "--preset",
        help="quick (minutes, CPU) | small (an evening, one GPU) | paper (the published settings); default: quick, or paper where --data and a GPU are there",
    )
    parser.add_argument("--plan", action="store_true", help="show what would run and what it would cost; nothing is trained")
    parser.add_argument("--trials", type=_whole, help="runs that the search proposes")
    parser.add_argument("--repeats", type=_whole, help="seeds of each arm")
    parser.add_argument("--tables", help="numbers of the paper's tables, comma between; all; none")
    parser.add_argument("--arms", help="narrow the tables to these arms, comma between, * allowed: 'Scratch,2/SupCAM*'")
    parser.add_argument(
        "--storage",
        type=Path,
        default=Path("runs"),
        help="where studies are kept (default: runs); on a cluster a folder that all nodes see",
    )
    parser.add_argument("--name", type=_folder_name, help="the study's name (default: procedure-preset-data)")
    parser.add_argument("--seed", type=_whole, default=0, help="the first seed; repeats count on from it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change a setting of the baseline; may be repeated"
    )
    parser.add_argument(
        "--gpus-per-run", type=_share, help="GPUs of one run, fractions allowed (default: 1 for each worker where there are GPUs)"
    )
    parser.add_argument("--workers-per-run", type=_count, default=1, help="data-parallel workers of one run")
    parser.add_argument("--address", help="a running Ray cluster: auto, or HOST:PORT (default: start one on this machine)")
    parser.add_argument(
        "--max-hours", type=_positive, help="start nothing new after this time; what is running ends, and the rest waits for the next call"
    )
    parser.add_argument(
        "--stall-minutes", type=_positive, default=30.0,
        help="kill and start again a run of which nothing is heard for this long, and for ten times its slowest epoch (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--max-gpu-hours",
        type=_positive,
        help="start nothing new once the study's runs have taken so many hours of GPUs (of workers, where there is no GPU)",
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        help="tensorboard | mlflow | wandb | none, may be repeated: who is told of ended runs (default: tensorboard)",
    )
    search = parser.add_argument_group("the search")
    search.add_argument("--sampler", default="tpe", help="tpe | gp | random | grid: how points are proposed (default: tpe)")
    search.add_argument("--scheduler", help="asha | hyperband | none: how runs are stopped early (default: asha)")
    search.add_argument("--grid", type=_whole, metavar="N", help="points of each continuous dimension of --sampler grid")
    search.add_argument("--grace", type=_whole, help="validations before a run may be stopped")
    search.add_argument(
        "--finalists", type=_whole, help="best configurations that are run on fresh seeds, where the winner is chosen (default: 3)"
    )
    search.add_argument(
        "--retune", action="store_true", help="also search for the best settings of each arm, as long for each; in tables of their own"
    )
    search.add_argument("--from", type=Path, dest="source", metavar="STUDY", help="start from what the search of another study found")
    parser.add_argument(
        "--accept-code",
        action="store_true",
        help="go on with a study though trainables/, torch, torchvision or timm have changed since it was begun",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed runs again (weights reachable now, more memory)")
    return parser


class _Stopped(KeyboardInterrupt):
    """A signal has ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status. RequestError of any depth is printed line by line."""
    from trainables.parts.errors import ClusterLost, RequestError, StorageFault

    words = list(sys.argv[1:] if arguments is None else arguments)
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _stop)
    try:
        return _dispatch(words)
    except RequestError as fault:
        for line in fault.faults:
            print(f"search: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as fault:
        print(f"search: stopped; the same command continues: python -m search {shlex.join(words)}", file=sys.stderr)
        return 128 + getattr(fault, "number", signal.SIGINT)
    except ClusterLost as fault:
        print(f"search: {fault}; nothing that was recorded is lost, and the same command continues", file=sys.stderr)
        return 1
    except StorageFault as fault:
        print(f"search: {fault}; nothing that was recorded is lost. Make room, then the same command continues", file=sys.stderr)
        return 1
    except PermissionError as fault:
        print(
            f"search: {fault.filename or 'a file'} cannot be written or read ({fault.strerror}); change its permissions or name another --storage",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as fault:
        from trainables.parts.checkpoint import NO_ROOM

        if fault.errno not in NO_ROOM:
            raise
        print(f"search: {fault.filename or 'a file'} could not be written: {fault.strerror}; nothing that was recorded is lost. "
              "Make room, then the same command continues", file=sys.stderr)  # fmt: skip
        return 1
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _dispatch(words: list[str]) -> int:
    from trainables.parts.errors import RequestError
    from trainables.parts.failpoints import asked

    try:
        asked()
    except ValueError as fault:
        raise RequestError(str(fault)) from None
    if not words or words[0] in ("-h", "--help", "help"):
        from search import registry

        print("usage: python -m search PROCEDURE [step] [options] | evaluate | predict | data\n")
        print(f"procedures: {', '.join(registry.names())}; steps: {', '.join(STEPS)}; options: python -m search PROCEDURE --help\n")
        print(EPILOG)
        return 0
    if words[0] == "evaluate":
        return _evaluate(words[1:])
    if words[0] == "predict":
        return _predict(words[1:])
    if words[0] == "data":
        return _data(words[1:])
    from search import registry

    if words[0] not in registry.names():
        known = [*registry.names(), "evaluate", "predict", "data"]
        raise RequestError(
            registry.unknown("procedure", words[0], registry.names()) if words[0] not in known else f"unexpected word {words[0]!r}"
        )
    return _Request(words[0], _study_parser().parse_args(words[1:]), words).carry_out()


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _evaluate(words: list[str]) -> int:
    parser = _Parser(prog="python -m search evaluate", description="Metrics and confusion matrix of an export on a labelled folder.")
    parser.add_argument("best", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="write the metrics as JSON, and the confusion matrix as csv beside it")
    given = parser.parse_args(words)
    from search.infer import evaluate

    return evaluate(given.best, given.data, given.out, _console())


def _predict(words: list[str]) -> int:
    parser = _Parser(prog="python -m search predict", description="Predictions of an export for images, as csv.")
    parser.add_argument("best", type=Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"))
    given = parser.parse_args(words)
    from search.infer import predict

    return predict(given.best, given.images, given.out, _console())


def _data(words: list[str]) -> int:
    parser = _Parser(prog="python -m search data", description="Look at a data set, or write the built-in one as files.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    check = commands.add_parser("check", help="classes, sizes, damage, duplicates, leaks, and how much size alone tells")
    check.add_argument("folder", type=Path)
    synth = commands.add_parser("synth", help="write a procedure's synthetic set as images")
    synth.add_argument("procedure")
    synth.add_argument("out", type=Path)
    synth.add_argument("--images", type=_count, default=600)
    synth.add_argument("--seed", type=_seed, default=0)
    synth.add_argument("--external", metavar="NAME", help="write an external set that comes with it, by name, instead")
    prepare = commands.add_parser("prepare", help="turn a published download into one packed set that --data takes")
    prepare.add_argument("name", help="of the data set, such as consep")
    prepare.add_argument("source", type=Path)
    prepare.add_argument("out", type=Path)
    given = parser.parse_args(words)
    from search import data_commands
    from trainables.parts.errors import RequestError

    if given.command == "check":
        return data_commands.check(given.folder)
    from search import registry

    if given.command == "prepare":
        return data_commands.prepare(given.name, given.source, given.out)

    procedure = registry.load(given.procedure).procedure
    if given.external is None:
        return data_commands.synthesize(lambda: procedure.synthesize(procedure.config(), images=given.images, seed=given.seed), given.out)
    others = procedure.external(procedure.config(), images=given.images, seed=given.seed) if procedure.external is not None else {}
    if given.external not in others:
        raise RequestError(
            registry.unknown("external set", given.external, sorted(others))
            if others
            else f"{given.procedure} has no external set built in"
        )
    return data_commands.synthesize(lambda: others[given.external], given.out)


def _with_objective(entry: "Entry", name: str | None) -> "Entry":
    """The procedure with another aim of its search; that aim is what early stopping sees too."""
    from dataclasses import replace

    from search.registry import unknown
    from trainables.parts.errors import RequestError

    if name is None:
        return entry
    name = name.partition(",")[0]
    if name == "score":
        return entry
    if name not in entry.study.objectives:
        raise RequestError(
            unknown("objective", name, sorted(entry.study.objectives))
            if entry.study.objectives
            else f"{entry.study.procedure} has one objective alone ({entry.study.objective}); leave --objective out"
        )
    metric = entry.study.objectives[name]
    return replace(entry, study=replace(entry.study, objective=metric, intermediate=metric))


def _strategy(given: argparse.Namespace) -> "Strategy":
    """How the request wants to be searched; nothing is checked here."""
    from search.sampling import Strategy

    second = (given.objective or "").partition(",")[2].strip() or None
    scheduler = given.scheduler or ("none" if second else "asha")
    named = {name: getattr(given, name) for name in ("grace", "finalists") if getattr(given, name) is not None}
    source = given.source.resolve().name if given.source is not None else None
    return Strategy(sampler=given.sampler, scheduler=scheduler, grid=given.grid, second=second, source=source, **named)


class _Request:
    """One `python -m search PROCEDURE ...`, from words to exit status."""

    def __init__(self, name: str, given: argparse.Namespace, words: list[str]) -> None:
        from search import registry

        self.given = given
        self.step = "plan" if given.plan else given.step
        self.command = "python -m search " + shlex.join(words)
        self.console = _console()
        if sys.stdout.isatty():
            self.console.print(f"{name}: loading …", markup=False)  # torch and timm take a few seconds
        self.entry: Entry = _with_objective(registry.load(name), given.objective)
        self.preset = given.preset or self._default_preset()
        source = given.data.resolve().name if given.data else "synthetic"
        self.name = given.name or f"{name}-{self.preset}-{source}"
        self.folder = (given.storage / self.name).resolve()
        self.started = time.monotonic()
        self.external: dict[str, External] = {}
        self.signal: int | None = None  # that asked for an end
        self.warm: Warm | None = None

    def _default_preset(self) -> str:
        import torch

        presets = list(self.entry.study.presets)
        return "paper" if self.given.data and torch.cuda.is_available() and "paper" in presets else presets[0]

    def carry_out(self) -> int:
        if self.step in ("report", "export", "check"):
            return {"report": self._report, "export": self._export_alone, "check": self._check}[self.step]()
        plan, pack, source = self._prepare()
        if self.step == "plan":
            return self._show_plan(plan, pack)
        return self._study(plan, pack, source)

    # -- the request ----------------------------------------------------------------------------------------------------------------

    def _make_plan(self, data_hash: str) -> "Plan":
        from search.plan import make_plan, parse_settings
        from search.study import code_of
        from trainables.parts.errors import RequestError

        given = self.given
        faults: list[str] = []
        overrides: dict[str, Any] = {}
        strategy = _strategy(given)
        try:
            overrides = parse_settings(self.entry.procedure, given.settings)
        except RequestError as fault:
            faults += fault.faults
        try:
            plan = make_plan(
                self.entry, preset=self.preset, data_hash=data_hash, code=code_of(self.folder), seed=given.seed, trials=given.trials, repeats=given.repeats,
                tables=None if given.tables is None else _listed(given.tables), arms=_listed(given.arms or ""), overrides=overrides,
                strategy=strategy,
            )  # fmt: skip
        except RequestError as fault:
            raise RequestError(*faults, *fault.faults) from None
        if faults:
            raise RequestError(*faults)
        return plan

    def _prepare(self) -> "tuple[Plan, Pack, dict[str, Any]]":
        """The plan and the data, or all faults of both at once."""
        from search.loggers import chosen
        from trainables.parts.errors import RequestError

        faults = self._address_faults()
        plan: Plan | None = None
        pack: Pack | None = None
        try:
            plan = self._make_plan("")
        except RequestError as fault:
            faults += fault.faults
        config = plan.baseline if plan else self.entry.procedure.config()
        if self.given.data is not None:
            source: dict[str, Any] = {"source": str(self.given.data)}
            try:
                pack = self.entry.procedure.read(self.given.data, config)
            except RequestError as fault:
                faults += fault.faults
        else:
            images = self.entry.study.presets[self.preset].synthetic_images if self.preset in self.entry.study.presets else 0
            source = {"source": "synthetic", "synthetic": {"images": images, "seed": 0}}
            if plan is not None and not faults:  # it takes seconds to draw
                pack = self._synthetic(plan, source)
        if pack is not None:
            try:
                self.external = self._external(config, pack, source)
            except RequestError as fault:
                faults += fault.faults
        if faults or plan is None or pack is None:
            raise RequestError(*faults)
        for config in (plan.baseline, *(run.config for run in plan.runs)):
            for stage in self.entry.procedure.stages:
                size = getattr(config, stage.batch)
                if getattr(config, stage.epochs) and size % self.given.workers_per_run:
                    faults.append(f"{stage.batch} must be a multiple of --workers-per-run, got {size} and {self.given.workers_per_run}")
        seen: set[str] = set()
        for run in plan.runs:
            if run.config_hash not in seen and run.seed == plan.seeds[0]:
                seen.add(run.config_hash)
                parts = self.entry.procedure.parts(run.config, pack, run.seed)
                faults += self.entry.procedure.faults(run.config, pack, parts)
        faults += self.entry.procedure.faults(plan.baseline, pack, self.entry.procedure.parts(plan.baseline, pack, plan.seeds[0]))
        faults += self._machine_faults()
        try:
            chosen(self.given.log)
        except RequestError as fault:
            faults += fault.faults
        if self.given.source is not None and plan.trials:
            from search.warm import kept, warm_start

            try:
                self.warm = kept(self.folder, plan) or warm_start(self.given.source, self.entry, plan, pack.hash)
            except RequestError as fault:
                faults += fault.faults
        if self.given.retune and (not plan.tables or not plan.trials or plan.strategy.second):
            faults.append(
                "--retune searches for the best settings of each arm by one score; name --tables, at least one trial and one objective"
            )
        if (self.step == "tune" and not plan.trials) or (self.step == "ablate" and not plan.tables):
            faults.append(
                f"{self.step} has nothing to do; give --trials at least 1"
                if self.step == "tune"
                else "ablate has nothing to do; name --tables"
            )
        if faults:
            raise RequestError(*dict.fromkeys(faults))
        return self._make_plan(pack.hash), pack, source

    def _address_faults(self) -> list[str]:
        """Whether a cluster answers at --address, before minutes go into reading images for it."""
        from trainables.parts.errors import RequestError

        if self.given.address is None or self.step == "plan":
            return []
        from search.tuner import find_cluster

        try:
            find_cluster(self.given.address)
        except RequestError as fault:
            return fault.faults
        return []

    def _machine_faults(self) -> list[str]:
        """What this machine cannot give (a cluster at --address may grow, and is not asked)."""
        import torch

        given, gpus, cpus = self.given, torch.cuda.device_count(), os.cpu_count() or 1
        if given.address is not None:
            return []
        faults = []
        if given.gpus_per_run and given.gpus_per_run > gpus:
            faults.append(
                f"--gpus-per-run must not be above this machine's {gpus} GPUs, got {given.gpus_per_run:g}; leave it out to use what is there"
            )
        if given.workers_per_run > max(gpus, cpus):
            faults.append(
                f"--workers-per-run must not be above this machine's {max(gpus, cpus)} {'GPUs' if gpus > cpus else 'CPUs'}, got {given.workers_per_run}"
            )
        return faults

    def _synthetic(self, plan: "Plan", source: dict[str, Any]) -> "Pack":
        """The built-in set; a study that has it already keeps it."""
        from search.study import read_study
        from trainables.parts.data import load_pack
        from trainables.parts.errors import RequestError

        old = read_study(self.folder)
        if old is not None and old["data"].get("synthetic") == source["synthetic"] and (self.folder / "data").exists():
            sizes = ("input_size", "canvas")
            if all(old["baseline"].get(name) == getattr(plan.baseline, name, None) for name in sizes):
                with suppress(RequestError):  # damaged: it is drawn anew, and put in its place
                    return load_pack(self.folder / "data", verify=True)
        return self.entry.procedure.synthesize(plan.baseline, **source["synthetic"])

    def _external(self, config: Any, pack: "Pack", source: dict[str, Any]) -> "dict[str, External]":
        """External test sets by name: the folders named, or those that come with the built-in set. RequestError with every fault of every set."""
        from search.study import External, external_names, external_packs, name_external, read_study
        from trainables.parts.errors import RequestError
        from trainables.parts.inspection import shared_files, shared_images

        found: dict[str, External] = {}
        faults: list[str] = []
        for slug, folder in name_external(self.given.external).items():
            try:
                other = self.entry.procedure.read(folder, config, pack.classes)
            except RequestError as fault:
                faults += [f"--external {folder}: {line}" for line in fault.faults]
                continue
            folders = self.given.data is not None and not any((place / "data.json").exists() for place in (self.given.data, folder))
            if both := shared_files(self.given.data, folder) if folders else shared_images(pack, other):
                faults.append(f"--external {folder}: {both}; an external set must hold other images than the study's own")
            found[slug] = External(str(folder), other)
        if faults:
            raise RequestError(*faults)
        if self.given.data is None and not found and self.entry.procedure.external is not None:
            old = read_study(self.folder)
            if old is not None and old["data"].get("synthetic") == source["synthetic"]:
                kept = {}
                if (self.folder / "external").exists():
                    with suppress(RequestError):  # damaged
                        kept = external_packs(self.folder, external_names(old), verify=True)
                found = {slug: External("synthetic", other) for slug, other in kept.items()}
            if not found:
                made = self.entry.procedure.external(config, **source["synthetic"])
                found = {slug: External("synthetic", other) for slug, other in made.items()}
        return found

    # -- plan -----------------------------------------------------------------------------------------------------------------------

    def _show_plan(self, plan: "Plan", pack: "Pack") -> int:
        import torch
        from rich.table import Table

        from search.compose import compose_study
        from search.estimate import estimate
        from search.ledger import Ledger
        from search.progress import duration
        from search.stages import Stages
        from search.study import read_study

        old = read_study(self.folder)
        if old is not None:  # a contradiction is shown before anything is timed
            compose_study(
                self.entry, plan, name=self.name, preset=self.preset, source={}, pack=pack, command=self.command, old=old,
                external=self.external, accept_code=self.given.accept_code,
            )  # fmt: skip
        ledger = Ledger(self.folder)
        ledger.read()
        done = [run for run in plan.runs if run.key in ledger.records]
        left = [run for run in plan.runs if run.key not in ledger.records]
        console = self.console
        table = Table("table", "arms", "runs asked for", title=f"{self.name}: {len(pack.labels):,} images, {len(plan.seeds)} seeds")
        for planned in plan.tables:
            table.add_row(
                f"{planned.number}: {planned.title}", ", ".join(arm.name for arm in planned.arms), str(len(planned.arms) * len(plan.seeds))
            )
        if plan.trials:
            fresh = (min(plan.strategy.finalists, plan.trials) + 1) * (len(plan.seeds) - 1)
            table.add_row("search", f"{len(plan.space)} dimensions, then the best on all seeds", f"{plan.trials} + at most {fresh}")
        if self.given.retune:
            from search.retune import retunings

            arms = retunings(self.entry, plan)
            each = f"{plan.trials} + at most {(min(plan.strategy.finalists, plan.trials) + 1) * (len(plan.seeds) - 1)}"
            table.add_row("retuned", f"{len(arms)} arms that differ, each searched for", f"{len(arms)} x ({each}), not in the times below")
        console.print(table)
        console.print(f"{plan.asked} runs stand in tables, {len(plan.runs)} of them are different; {len(done)} are done.")
        told = len({record["trial"] for record in ledger.records.values() if record["trial"] is not None})
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        guess = estimate(self.entry, plan, pack, left, max(0, plan.trials - told), device, Stages(self.folder).has)
        for words in guess.skipped:
            console.print(f"not counted: {words}", markup=False)
        slots = max(1, torch.cuda.device_count()) if device.type == "cuda" else max(1, os.cpu_count() or 1)
        total = guess.tables + guess.search
        console.print(
            f"to train: {guess.stages} stages ({guess.asked_stages - guess.stages} shared), about {duration(guess.tables)} for tables and at most {duration(guess.search)} "
            f"for the search on one {device.type.upper()}; about {duration(total / slots)} on {slots}"
            + (f", {total / 3600:.1f} GPU-hours" if device.type == "cuda" else "; no GPU here, 0 GPU-hours")
        )
        console.print("nothing was trained.")
        return 0

    # -- run ------------------------------------------------------------------------------------------------------------------------

    def _study(self, plan: "Plan", pack: "Pack", source: dict[str, Any]) -> int:
        from search.compose import chosen_by_searches, compose_study, unused, with_retunings, with_table
        from search.coordinator import Coordinator
        from search.ledger import Ledger
        from search.retune import Relay, Retuning, best_of, retuned_table, retunings
        from search.study import check_writable, external_names, held, read_study, store_data, store_external, write_study
        from search.warm import keep
        from trainables.parts.errors import StorageFault

        check_writable(self.folder)
        old = read_study(self.folder)
        study = compose_study(
            self.entry,
            plan,
            name=self.name,
            preset=self.preset,
            source=source,
            pack=pack,
            command=self.command,
            old=old,
            external=self.external,
            accept_code=self.given.accept_code,
        )
        with held(self.folder), Ledger(self.folder) as ledger:
            outside = [f"external {slug}: {note}" for slug, other in self.external.items() for note in other.pack.notes]
            known = self.warm.notes if self.warm is not None else ()
            for note in (*pack.notes, *outside, *known, *ledger.warnings):
                self.console.print(f"note: {note}", markup=False)
            for note in [*unused(study, ledger.records), *self._mend(ledger, old, pack)]:
                self.console.print(f"note: {note}", markup=False)
            if not (self.folder / "data" / "data.json").exists():
                splits = {
                    _split_name(run.config): self.entry.procedure.parts(run.config, pack, run.seed)
                    for run in plan.runs
                    if run.seed == plan.seeds[0]
                }
                pack = store_data(self.folder, pack, splits or {"split": self.entry.procedure.parts(plan.baseline, pack, plan.seeds[0])})
            store_external(self.folder, self.external)
            if self.warm is not None:
                keep(self.folder, self.warm)
            arms = retunings(self.entry, plan) if self.given.retune else ()
            study = with_retunings(study, arms)
            write_study(self.folder, study)
            common: dict[str, Any] = {
                "name": self.name, "data_hash": pack.hash, "retry_failed": self.given.retry_failed, "external": external_names(study),
                "deadline": None if self.given.max_hours is None else time.monotonic() + 3600 * self.given.max_hours,
                "kept": frozenset(chosen_by_searches(old or {})),
                "judged": len(self.entry.procedure.parts(plan.baseline, pack, plan.seeds[0])["val"]),
                "max_gpu_seconds": None if self.given.max_gpu_hours is None else 3600 * self.given.max_gpu_hours,
            }  # fmt: skip

            def main() -> Coordinator:
                steps: dict[str, Any] = {"with_search": self.step != "ablate", "with_tables": self.step != "tune", "warm": self.warm}
                return Coordinator(self.entry, plan, ledger, self.folder, **common, **steps)

            def of_arm(one: Retuning) -> Coordinator:
                return Coordinator(self.entry, one.plan, ledger, self.folder, **common, retuned=(one.name, one.arms))

            coordinator = Relay([main, *(functools.partial(of_arm, one) for one in arms)])
            before, damaged = len(ledger.records), set(_set_aside(self.folder))
            if not coordinator.finished():
                self._train(coordinator)
            for path in sorted(set(_set_aside(self.folder)) - damaged):
                coordinator.now.notes.append(f"{path.relative_to(self.folder)}: was damaged, and was set aside; its run did without it")
            for note in [note for one in coordinator.all for note in one.notes]:
                self.console.print(f"note: {note}", markup=False)
            if self.signal is not None:
                raise _Stopped(self.signal)
            if coordinator.halt is not None:
                raise StorageFault(coordinator.halt)
            study = self._with_confirmation(study, coordinator.all[0], plan)
            winners = best_of(coordinator, plan, arms)
            for table in plan.tables if winners else ():
                shape = next(one for one in study["tables"] if one["number"] == table.number)
                study = with_table(study, retuned_table(table, shape, winners, plan))
            write_study(self.folder, study)
            return self._finish(study, ledger, pack, coordinator, before)

    def _train(self, coordinator: "Relay") -> None:
        from search.loggers import Loggers, chosen
        from search.progress import live, words_to

        self.console.print(f"{self.name}: starting; log in {_short(self.folder / 'log.txt')}", markup=False)
        with words_to(self.folder / "log.txt") as console:
            from search.tuner import carry_out, cluster, share_out

            with (
                live(console, self.name, coordinator.progress),
                self._signals(coordinator, console),
                cluster(self.given.address, self.given.workers_per_run > 1) as resources,
            ):
                share = share_out(resources, self.given.gpus_per_run, self.given.workers_per_run)
                coordinator.slots = share.slots
                coordinator.gpus = share.gpus * share.workers or 1.0
                coordinator.on_change = reporter = _Reporter(self.folder)
                told: list[str] = []
                coordinator.on_record = loggers = Loggers(self.name, self.folder, chosen(self.given.log), told.append)
                ledger = coordinator.now.ledger
                for record in [record for record in ledger.records.values() if loggers.lacks(record)]:
                    loggers(ledger.whole(record["key"]))  # what an earlier command left unwritten
                try:
                    if not coordinator.finished():  # a signal may have come while Ray started
                        carry_out(
                            coordinator, share, checkpoint_seconds=10.0 if self.preset == "quick" else 60.0,
                            patience=60 * self.given.stall_minutes,
                        )  # fmt: skip
                finally:
                    reporter.stop()
                    loggers.stop()
        for words in told:
            self.console.print(f"note: {words}", markup=False)

    @contextmanager
    def _signals(self, coordinator: "Relay", console: "Console") -> Iterator[None]:
        """SIGINT or SIGTERM: the first one has the runs in flight save a checkpoint and end; the second one ends all at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                raise _Stopped(number)
            self.signal = number
            coordinator.stop()
            console.print(f"{self.name}: stopping; what runs saves its checkpoint after this epoch. Once more stops at once", markup=False)

        listened = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]  # nohup stays nohup
        kept = {number: signal.signal(number, stop) for number in listened}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _mend(self, ledger: "Ledger", old: dict[str, Any] | None, pack: "Pack") -> list[str]:
        """Set aside packed images that are damaged or of a command that died before it wrote study.json; words for what was found."""
        from trainables.parts.data import load_pack
        from trainables.parts.errors import RequestError

        notes = []
        if old is None and ledger.records:
            notes.append(f"study.json was lost; it is written anew from this command, beside {len(ledger.records)} record(s)")
        stored = self.folder / "data"
        for half in self.folder.glob(".data.*"):
            shutil.rmtree(half, ignore_errors=True)
        if old is None:
            shutil.rmtree(stored, ignore_errors=True)
        if not stored.exists():
            return notes
        try:
            if load_pack(stored, verify=True).hash == pack.hash:
                return notes
            words = "is of other images"
        except RequestError as fault:
            words = "; ".join(fault.faults)
        aside = self.folder / "data.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        stored.rename(aside)
        return [*notes, f"data was damaged and set aside as data.damaged ({words}); the images were packed again"]

    def _with_confirmation(self, study: dict[str, Any], coordinator: "Coordinator", plan: "Plan") -> dict[str, Any]:
        """The study with the race of its search, and, once that is decided, with the table of its winner."""
        from search.compose import with_confirmation
        from search.plan import point_of
        from trainables.parts.execution import config_hash

        race = coordinator.outcome()
        if race is None:
            return study
        study = study | {"race": race}
        winner = next((one for one in coordinator.candidates or [] if one.hash == race["winner"]), None)
        if winner is None:
            return study
        overrides = {plan.space[name].field: value for name, value in (point_of(winner.config, plan.space) or {}).items()}
        return with_confirmation(study, config_hash(self.entry.procedure, plan.baseline), winner.hash, winner.name, overrides)

    def _finish(self, study: dict[str, Any], ledger: "Ledger", pack: "Pack", coordinator: "Relay", before: int) -> int:
        """Export, report, a short summary."""
        import analysis
        from search.progress import duration
        from trainables.parts.failpoints import failpoint

        console, records = self.console, ledger.records
        if not records:
            limited = self.given.max_hours is not None or self.given.max_gpu_hours is not None
            words = "the limit of hours was too short for a run; the same command without it, or with more, goes on"
            console.print(words if limited else "nothing has run yet; the same command goes on", markup=False)
            return 0
        if not any(record["status"] == "completed" for record in records.values()):
            analysis.write_report(self.folder)
            reasons = sorted(
                {f"{record['status']}: {(record['error'] or {}).get('message', 'no reason recorded')}" for record in records.values()}
            )
            print(
                f"search: none of {len(records)} runs completed:",
                *reasons,
                f"see {_short(self.folder / 'log.txt')}",
                sep="\n  ",
                file=sys.stderr,
            )
            return 1
        exported = self._export(study, ledger, pack, complete=coordinator.complete())
        failpoint("report.begun")
        report = analysis.write_report(self.folder)
        failpoint("report.written")
        counts: dict[str, int] = {}
        for record in records.values():
            counts[record["status"]] = counts.get(record["status"], 0) + 1
        ends = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        console.print(
            f"\n{self.name}: {len(records)} runs ({ends}), {coordinator.new_records} of them now, in {duration(time.monotonic() - self.started)}",
            markup=False,
        )
        messages = {record["error"]["message"]: None for record in records.values() if record["error"]}
        for reason in list(messages)[:5]:
            console.print(f"  not completed: {reason}", markup=False)
        if not coordinator.complete():
            console.print("  the limit of hours was reached; the same command without it, or with more, goes on", markup=False)
        for line in exported:
            console.print(f"  {line}", markup=False)
        console.print(f"  tables   {_short(self.folder / 'tables')}", markup=False)
        console.print(f"  report   {_short(self.folder / 'report.html')}", markup=False)
        if (self.folder / "best").exists():
            console.print(f"  model    {_short(self.folder / 'best')}", markup=False)
        if len(report.warnings):
            for warning in report.warnings[:5]:
                console.print(f"  note: {warning}", markup=False)
        return 0

    def _export(self, study: dict[str, Any], ledger: "Ledger", pack: "Pack", anew: bool = False, complete: bool = True) -> list[str]:
        """Words for the summary. `anew`: also where `best/` holds the chosen run already; it is replaced only by a proven one. Not `complete`:
        a search goes on; what it alone wanted is not looked at on the test part, and its model may be gone."""
        import analysis
        from search.export import export, exported_key
        from trainables.parts.execution import MODEL

        best = analysis.best(analysis.load(self.folder))
        if best is None:
            return ["no completed run to export"]
        chosen = ledger.records[best.key]
        tested = f"test_{self.entry.procedure.headline[0]}" in chosen["metrics"]
        if not complete and not (tested and (self.folder / "checkpoints" / chosen["key"] / MODEL).exists()):
            return [f"best     so far {best.name}, on validation data; it is tested and exported when the search has ended"]
        words = f"best     {best.name}, seed {chosen['seed']}: {best.words}"
        if anew or exported_key(self.folder / "best") != chosen["key"]:
            export(self.entry, self.folder, study, ledger, pack, chosen, best.words)
        record = ledger.records[chosen["key"]]
        shown = ", ".join(
            f"{part} {self.entry.procedure.headline[0]} {100 * record['metrics'][f'{part}_{self.entry.procedure.headline[0]}']:.2f} %"
            for part in ("val", "test")
        )
        return [words, f"         its checkpoint: {shown} (loaded again and proven equal)"]

    def _existing(self) -> dict[str, Any]:
        from search.study import read_study
        from trainables.parts.errors import RequestError

        study = read_study(self.folder)
        if study is None:
            raise RequestError(
                f"no study in {self.folder}; run the procedure first, or name another with --name, --preset, --data, --storage"
            )
        return study

    def _report(self) -> int:
        import analysis

        self._existing()
        report = analysis.write_report(self.folder)
        for warning in report.warnings:
            self.console.print(f"note: {warning}", markup=False)
        self.console.print(f"report   {_short(self.folder / 'report.html')}", markup=False)
        return 0

    def _check(self) -> int:
        from search.history import check

        self._existing()
        history = check(self.folder, self.entry)
        for note in history.notes:
            self.console.print(f"note: {note}", markup=False)
        for violation in history.violations:
            self.console.print(f"violation: {violation}", markup=False)
        self.console.print(history.summary, markup=False)
        return 1 if history.violations else 0

    def _export_alone(self) -> int:
        from search.compose import race_decided
        from search.ledger import Ledger
        from search.study import held
        from trainables.parts.data import load_pack
        from trainables.parts.errors import RequestError

        study = self._existing()
        with held(self.folder), Ledger(self.folder) as ledger:
            if not any(record["status"] == "completed" for record in ledger.records.values()):
                raise RequestError(f"no run of {self.name} has completed, so there is nothing to export; repeat the study's command first")
            decided = not study["trials"] or race_decided(study)
            for line in self._export(study, ledger, load_pack(self.folder / "data", verify=True), anew=True, complete=decided):
                self.console.print(line, markup=False)
        if (self.folder / "best").exists():
            self.console.print(f"model    {_short(self.folder / 'best')}", markup=False)
        return 0


class _Reporter:
    """Rewrites the report while the study runs: a process of its own at low priority, at most one, and never more than a tenth of the time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.began = self.next = 0.0

    def __call__(self, coordinator: "Coordinator") -> None:
        if self.process is not None and self.process.poll() is None:
            return
        clock = time.monotonic()
        if self.process is not None:
            self.process = None
            self.next = max(self.next, clock + 9 * (clock - self.began))
        if clock < self.next:
            return
        self.began = clock
        self.next = clock + 30
        command = ["nice", "-n", "15", sys.executable, "-m", "analysis", str(self.folder), "--light"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # Ctrl-C is not for it

    def stop(self) -> None:
        """None is at work afterwards: an older report must not be written over the last one. Its writes are whole or not at all."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)  # the process that draws beside it too
            self.process.wait()


def _listed(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _set_aside(folder: Path) -> list[Path]:
    """Files of runs and stages that were found damaged."""
    return [path for name in ("checkpoints", "stages") for path in (folder / name).glob("*/*.damaged")]


def _split_name(config: Any) -> str:
    fractions = "-".join(f"{100 * part:.0f}" for part in getattr(config, "split", ()))
    return f"{fractions or 'split'}-seed{getattr(config, 'split_seed', 0)}"


def _short(path: Path) -> str:
    """Relative to here where that is shorter."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("../../..") else relative
