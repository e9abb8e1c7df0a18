"""A request, checked: against the declaration, the settings, the data, this machine and the study that is there. All faults come at once.
Comes in: a Request. Goes out: Prepared, all that a study is begun or gone on with. Nothing is written and nothing is trained."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search import registry
from search.declared import Narrowed, narrow, with_objective
from search.home import ready
from search.join import find_cluster
from search.loggers import chosen
from search.plan import Plan, make_plan, parse_settings
from search.registry import Entry
from search.request import Request, listed, refuse_misspelt
from search.source import Reader, Source
from search.study import code_of, read_study
from search.warm import Warm, kept, warm_start
from trainables.data.find import no_folder
from trainables.parts.errors import RequestError
from trainables.parts.machine import cpus


@dataclass(frozen=True)
class Prepared:
    """What is asked, as the engine knows it. old: study.json as it is, None for a new study."""

    request: Request
    entry: Entry
    preset: str
    name: str
    folder: Path
    plan: Plan
    source: Source
    old: dict[str, Any] | None
    warm: Warm | None = None


def default_preset(request: Request) -> str:
    """quick; or paper, where there are images and a GPU."""
    study = registry.declared(request.procedure)
    if request.preset is not None or request.data is None or "paper" not in study.presets:
        return request.preset or next(iter(study.presets))
    import torch

    return "paper" if torch.cuda.is_available() else next(iter(study.presets))


def prepare(request: Request, beside: Callable[[], AbstractContextManager[None]] = nullcontext) -> Prepared:
    """RequestError with every fault that can be found. beside: what goes on while images are read, of a request that is right so far."""
    refuse_misspelt(request)
    entry, preset = registry.load(request.procedure), default_preset(request)
    faults: list[str] = []
    told = _telling(faults)
    told(lambda: _answers(request))
    objective = told(lambda: with_objective(entry.study, request.objective))
    entry = replace(entry, study=objective or entry.study)
    narrowed = told(lambda: narrow(entry.study, preset, request.spaces, request.fixed)) or Narrowed(entry.study)
    entry = replace(entry, study=narrowed.study)
    plan = told(lambda: _plan(request, entry, preset, narrowed, "", ""))
    folder = request.folder(preset)
    away: list[str] = []
    _telling(away)(lambda: _ready(request, folder))
    if away:  # nothing else can be looked at
        raise RequestError(*dict.fromkeys(faults + away))
    old = told(lambda: read_study(folder))
    with nullcontext() if faults else beside():
        source = _read(request, entry, preset, plan, folder, old, faults)
    if faults or plan is None or source is None:
        raise RequestError(*dict.fromkeys(faults))
    faults += _batch_faults(request, entry, plan) + _data_faults(entry, plan, source) + machine_faults(request)
    told(lambda: chosen(request.log))
    warm = None
    if request.source is not None and plan.trials:
        start = request.source
        warm = told(lambda: kept(folder, plan) or warm_start(start, entry, plan, source.pack.hash))
    faults += _step_faults(request, plan)
    if faults:
        raise RequestError(*dict.fromkeys(faults))
    plan = _plan(request, entry, preset, narrowed, source.pack.hash, code_of(folder))
    return Prepared(request, entry, preset, request.study_name(preset), folder, plan, source, old, warm)


def _telling(faults: list[str]) -> Callable[[Callable[[], Any]], Any]:
    """Calls what it is given; a RequestError's faults are noted, and the result is None."""

    def told(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except RequestError as fault:
            faults.extend(fault.faults)
            return None

    return told


def _plan(request: Request, entry: Entry, preset: str, narrowed: Narrowed, data_hash: str, code: str) -> Plan:
    """The one place where a request becomes a plan."""
    faults: list[str] = []
    overrides = _telling(faults)(lambda: parse_settings(entry.procedure, request.settings)) or {}
    faults += [f"--fix {name} and --set {name} say it twice; leave one out" for name in narrowed.overrides if name in overrides]
    strategy = replace(request.strategy(), space=narrowed.space, fixed=narrowed.fixed)
    try:
        plan = make_plan(
            entry, preset=preset, data_hash=data_hash, code=code, seed=request.seed, trials=request.trials, repeats=request.repeats,
            tables=None if request.tables is None else listed(request.tables), arms=listed(request.arms),
            overrides=overrides | dict(narrowed.overrides), strategy=strategy,
        )  # fmt: skip
    except RequestError as fault:
        raise RequestError(*faults, *fault.faults) from None
    if faults:
        raise RequestError(*faults)
    return plan


def _read(
    request: Request, entry: Entry, preset: str, plan: Plan | None, folder: Path, old: dict[str, Any] | None, faults: list[str]
) -> Source | None:
    """The images. The built-in set takes seconds to draw: not for a request that is refused anyway."""
    named = [*([("", request.data)] if request.data is not None else []), *((f"--external {place}: ", place) for place in request.external)]
    if absent := [f"{of}{fault}" for of, place in named if (fault := no_folder(place))]:
        faults += absent  # before a set is read or drawn for nothing
        return None
    told = _telling(faults)
    reader = Reader(entry, request, plan.baseline if plan else entry.procedure.config(), folder, old)
    if request.data is not None:
        source: Source | None = told(lambda: reader.own(None))
    elif plan is None or faults:
        return None
    else:
        images = entry.study.presets[preset].synthetic_images
        source = told(lambda: reader.own({"images": images, "seed": 0}))
    if source is not None:
        found = source
        told(lambda: reader.outside(found))
    return source


def _ready(request: Request, folder: Path) -> None:
    """Have all on this machine that stands at addresses: the study as it was left, images, the study to start from."""
    ready(folder)
    for images in (request.data, *request.external):
        if images is not None:
            ready(images, "images")
    if request.source is not None:
        ready(request.source)


def _answers(request: Request) -> None:
    """RequestError unless a cluster answers at --address, before minutes go into reading images for it."""
    if request.address is not None and request.step != "plan":
        find_cluster(request.address)


def _batch_faults(request: Request, entry: Entry, plan: Plan) -> list[str]:
    return [
        f"{stage.batch} must be a multiple of --workers-per-run, got {getattr(config, stage.batch)} and {request.workers_per_run}"
        for config in (plan.baseline, *(run.config for run in plan.runs))
        for stage in entry.procedure.stages
        if getattr(config, stage.epochs) and getattr(config, stage.batch) % request.workers_per_run
    ]


def _data_faults(entry: Entry, plan: Plan, source: Source) -> list[str]:
    """What no configuration of the plan can do with these images."""
    procedure, pack, seed = entry.procedure, source.pack, plan.seeds[0]
    configs = {run.config_hash: run.config for run in plan.runs}
    return [
        fault
        for config in (*configs.values(), plan.baseline)
        for fault in procedure.faults(config, pack, procedure.parts(config, pack, seed))
    ]


def machine_faults(request: Request) -> list[str]:
    """What this machine cannot give (a cluster at --address may grow, and is not asked)."""
    import torch

    gpus, most = torch.cuda.device_count(), cpus()
    if request.address is not None:
        return []
    faults = []
    if request.gpus_per_run and request.gpus_per_run > gpus:
        faults.append(
            f"--gpus-per-run must not be above this machine's {gpus} GPUs, got {request.gpus_per_run:g}; leave it out to use what is there"
        )
    if request.workers_per_run > max(gpus, most):
        unit = "GPUs" if gpus > most else "CPUs"
        faults.append(f"--workers-per-run must not be above this machine's {max(gpus, most)} {unit}, got {request.workers_per_run}")
    return faults


def _step_faults(request: Request, plan: Plan) -> list[str]:
    """A step that has nothing to do."""
    faults = []
    if request.retune and (not plan.tables or not plan.trials or plan.strategy.second):
        faults.append(
            "--retune searches for the best settings of each arm by one score; name --tables, at least one trial and one objective"
        )
    if request.step == "tune" and not plan.trials:
        faults.append("tune has nothing to do; give --trials at least 1")
    if request.step == "ablate" and not plan.tables:
        faults.append("ablate has nothing to do; name --tables")
    return faults
