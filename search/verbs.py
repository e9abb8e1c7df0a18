"""What can be asked beside a run: of studies, of exports, of images.
Comes in: words. Goes out: lines or JSON, and an exit status. Each verb has its own help with its own options."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from search import options, registry, show
from search.home import here, home, is_address, place_of, ready
from search.request import Request
from trainables.parts.errors import RequestError

VERBS: dict[str, click.Command] = {}
LOOK_SECONDS = 2.0


def verb(name: str, *decorators: options.Decorator) -> Callable[[Callable[..., int]], click.Command]:
    """A command of its own."""

    def decorate(function: Callable[..., int]) -> click.Command:
        VERBS[name] = command = click.command(name, context_settings=options.SETTINGS)(options.with_options(decorators)(function))
        return command

    return decorate


def step(request: Request, word: str, as_json: bool) -> int:
    """One step of a study: the whole, or what the second word says."""
    request = replace(request, step=word)
    if as_json and word not in ("plan", "check"):
        raise RequestError(
            f"--json is for plan and check, and {word} tells what it does as it goes; `show STUDY --json` says what came of it"
        )
    out = show.console(errors=as_json)
    if request.told or request.address is not None:
        out.print(_where(request), markup=False, soft_wrap=True)
    if word in ("report", "export", "check"):
        from search.prepare import default_preset

        return {"report": _report, "export": _export, "check": _check}[word](request.folder(default_preset(request)), as_json)
    from search.request import refuse_misspelt

    refuse_misspelt(request)
    if out.is_terminal:
        out.print(f"{request.procedure}: loading …", markup=False)  # torch and timm take a few seconds
    from search import api

    if word == "plan":
        outlook = api.plan(request)
        if as_json:
            show.as_json(outlook.json())
        else:
            show.plan(outlook, out)
        return 0
    from search.prepare import default_preset

    result = api.run(request, show.Lasting(request.folder(default_preset(request)) / "log.txt"))
    with suppress(BrokenPipeError):  # of standard error, where that goes to the same reader: the status says how the study ended
        show.summary(result, show.Lasting(result.folder / "log.txt"))
    return result.status


def _where(request: Request) -> str:
    """Which cluster, images and storage these are, and where each was said: what an environment says is easily forgotten."""
    variables = {option: variable for option, _, variable in request.told}

    def one(what: str, option: str, value: object, default: str) -> str:
        words = str(value or default)
        return f"{what} {words} ({variables.get(option) or ('default' if words == default else option)})"

    return ", ".join(
        (
            one("cluster", "--address", request.address, "of its own"),
            one("data", "--data", place_of(request.data) if request.data is not None else None, "built-in set"),
            one("storage", "--storage", place_of(request.storage), "runs"),
        )
    )


# -- studies that are there ---------------------------------------------------------------------------------------------------------------


@verb("ls", options.storage, options.as_json)
def ls(storage: Path, as_json: bool) -> int:
    """The studies of a storage, and how they stand."""
    from search.folders import overview, studies

    found = [overview(ready(folder, "glance")) for folder in studies(storage)]
    if as_json:
        show.as_json([one.json() for one in found])
        return 0
    if not found:
        print(f"no study in {place_of(storage)}")
    for one in found:
        show.console().print(show.line_of(one), markup=False)
    return 0


@verb("show", options.study, options.storage, options.as_json)
def show_(study: str, storage: Path, as_json: bool) -> int:
    """How a study stands, and what it was asked for."""
    from search.folders import find, overview

    found = overview(ready(find(study, storage), "glance"))
    if as_json:
        show.as_json(found.json())
    else:
        show.study(found, show.console())
    return 0


@verb("watch", options.study, options.storage)
def watch(study: str, storage: Path) -> int:
    """A study at work, from any machine that sees its folder. Ends with the command that is at work on it."""
    from search.folders import find, overview

    folder, out = find(study, storage), show.console()
    with show.watching(out) as look:
        while True:
            found = overview(ready(folder, "glance"))
            look(found)
            if found.state != "at work":
                break
            time.sleep(LOOK_SECONDS)
    show.study(found, out)
    return 0


@verb("stop", options.study, options.storage)
def stop(study: str, storage: Path) -> int:
    """Have the command at work on a study save its checkpoints and end."""
    from search.folders import ask_to_stop, find

    folder = find(study, storage)
    ask_to_stop(folder)
    where = home(folder).url or show.short(folder)
    print(f"{folder.name}: asked to stop; what runs saves its checkpoint after this epoch. It goes on with: resume {where}")
    return 0


@verb("rm", options.study, options.storage, click.option("--yes", is_flag=True, help="do not ask"))
def rm(study: str, storage: Path, yes: bool) -> int:
    """Delete a study with all its records and models."""
    from search.folders import find, overview, remove

    folder = find(study, storage)
    if not yes:
        click.confirm(f"delete {home(folder)} with {overview(ready(folder, 'glance')).done} runs, its models and its report?", abort=True)
    remove(folder)
    print(f"{home(folder)} is deleted")
    return 0


@verb(
    "report", options.study, options.storage,
    click.option("--figures", is_flag=True, help="each figure as PDF too, for a paper; also at the width of one column"),
    click.option("--price-per-hour", type=click.FloatRange(min=0), help="of a GPU, or of a worker without: says the money spent"),
    click.option("--light", is_flag=True, help="without the embedding map: for a report while the study runs"),
    click.option("--checklist", type=click.Choice(["claim", "tripod", "reforms"]), help="only what the study fills of it"),
    click.option("--bundle", metavar="FILE.zip", help="only a zip file for others: settings, records, predictions, splits; no images"),
)  # fmt: skip
def report(study: str, storage: Path, **given: str | float | bool | None) -> int:
    """Write a study's tables and report anew: what `python -m analysis STUDY` does, with its options for one study."""
    from analysis.__main__ import main
    from search.folders import at_work, find

    folder = ready(find(study, storage))
    words = [str(folder)]
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is not None and value is not False:
            words += [option] if value is True else [option, str(value)]
    status = main(words)
    if not at_work(folder):  # else that command's own is put in a minute
        home(folder).put()
    return status


@verb("export", options.study, options.storage)
def export(study: str, storage: Path) -> int:
    """Export a study's best run anew, and prove that it gives the recorded numbers."""
    from search.folders import find

    return _export(find(study, storage), False)


@verb("check", options.study, options.storage, options.as_json)
def check(study: str, storage: Path, as_json: bool) -> int:
    """Prove from a study's folder that every planned run was done once and every number is that of its records."""
    from search.folders import find

    return _check(find(study, storage), as_json)


def _report(folder: Path, as_json: bool) -> int:
    from search import api

    opened, out = api.open(folder), show.console(errors=as_json)
    for warning in opened.report().warnings:
        out.print(f"note: {warning}", markup=False)
    out.print(f"report   {show.short(opened.folder / 'report.html')}", markup=False)
    return 0


def _export(folder: Path, as_json: bool) -> int:
    from search import api

    opened, out = api.open(folder), show.console(errors=as_json)
    for line in opened.export():
        out.print(line, markup=False)
    if (opened.folder / "best").exists():
        out.print(f"model    {show.short(opened.folder / 'best')}", markup=False)
    return 0


def _check(folder: Path, as_json: bool) -> int:
    from search import api

    history, out = api.open(folder).check(), show.console()
    if as_json:
        show.as_json({"violations": history.violations, "notes": history.notes, "summary": history.summary})
    else:
        for word, lines in (("note", history.notes), ("violation", history.violations)):
            for line in lines:
                out.print(f"{word}: {line}", markup=False)
        out.print(history.summary, markup=False)
    return 1 if history.violations else 0


# -- machines -----------------------------------------------------------------------------------------------------------------------------


@verb("doctor", options.address, options.storage, options.as_json)
def doctor(address: str | None, storage: Path, as_json: bool) -> int:
    """Whether this machine, or each node of a cluster, is fit for runs, and what to do where it is not."""
    from search.doctor import doctor

    return doctor(None if address == "local" else address, storage, show.console(errors=as_json), as_json)


# -- procedures, exports, images ----------------------------------------------------------------------------------------------------------


@verb("describe", click.argument("procedure", shell_complete=options.procedures), options.as_json)
def describe(procedure: str, as_json: bool) -> int:
    """A procedure's settings, search space, tables, arms and presets, on one page."""
    registry.declared(procedure)
    from search import describe as describing

    found = describing.page(registry.load(procedure))
    if as_json:
        show.as_json(found)
    else:
        describing.show(found, show.console())
    return 0


@verb(
    "evaluate", click.argument("best", type=options.PLACE),
    click.option("--data", type=options.PLACE, required=True, help="a labelled folder"),
    click.option("--out", type=options.PATH, help="write the metrics as JSON, and the confusion matrix as csv beside it"), options.as_json,
)  # fmt: skip
def evaluate(best: Path, data: Path, out: Path | None, as_json: bool) -> int:
    """Metrics and confusion matrix of an export on a labelled folder."""
    from search.infer import evaluate

    return evaluate(ready(best, "images"), ready(data, "images"), out, show.console(errors=as_json), as_json)


@verb(
    "predict", click.argument("best", type=options.PLACE), click.argument("images", nargs=-1, required=True),
    click.option("--out", type=options.PATH, default=Path("predictions.csv"), help="default: predictions.csv"),
)  # fmt: skip
def predict(best: Path, images: tuple[str, ...], out: Path) -> int:
    """Predictions of an export for images, as csv."""
    from search.infer import predict

    brought = [str(ready(here(name), "images")) if is_address(name) else name for name in images]
    return predict(ready(best, "images"), brought, out, show.console())


@click.group("data", invoke_without_command=True, context_settings=options.SETTINGS)
@click.pass_context
def data(ctx: click.Context) -> None:
    """Look at a data set, write the built-in one as files, pack a published one."""
    if ctx.invoked_subcommand is None:
        raise RequestError(
            f"the following arguments are required: command ({', '.join(sorted(data.commands))}); see python -m search data --help"
        )


VERBS["data"] = data


@data.command("check")
@click.argument("folder", type=options.PLACE)
@click.option("--layout", default="", metavar="WORDS", help="what the levels of folders are, such as class/patient or part/class/-")
@click.option("--html", type=options.PATH, metavar="FILE", help="write a page with images of each class, what was cut away, copies")
@click.option("--fix", type=options.PATH, metavar="FILE", help="write a manifest of what was understood, to be corrected by hand")
def data_check(folder: Path, layout: str, html: Path | None, fix: Path | None) -> int:
    """Classes, sizes, damage, duplicates, leaks, and how much size alone tells."""
    from search import data_commands

    return data_commands.check(ready(folder, "images"), layout=layout, html=html, fix=fix)


@data.command("prepare")
@click.argument("name")
@click.argument("source", type=options.PATH)
@click.argument("out", type=options.PATH)
def data_prepare(name: str, source: Path, out: Path) -> int:
    """Turn a published download (such as consep) into one packed set that --data takes."""
    from search import data_commands

    return data_commands.prepare(name, source, out)


@data.command("synth")
@click.argument("procedure", shell_complete=options.procedures)
@click.argument("out", type=options.PATH)
@click.option("--images", type=options.COUNT, default=600, help="default: 600")
@click.option("--seed", type=options.SEED, default=0, help="default: 0")
@click.option("--external", metavar="NAME", help="write an external set that comes with it, by name, instead")
def data_synth(procedure: str, out: Path, images: int, seed: int, external: str | None) -> int:
    """Write a procedure's synthetic set as images."""
    registry.declared(procedure)
    from search import data_commands

    return data_commands.synthesize_of(procedure, out, images=images, seed=seed, external=external)
