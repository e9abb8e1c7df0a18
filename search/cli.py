"""The command line: words to a Request, faults to exit statuses.
Comes in: words. Goes out: an exit status, and every fault in a line that begins with `search:`, without a traceback.
Heavy imports stand inside functions, so that help and a misspelt word answer at once."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import shell_complete

from search import options, registry, verbs
from search.request import REQUEST, Request
from search.signals import SIGNALS
from trainables.parts.errors import ClusterLost, RequestError

PROGRAM = "python -m search"
STATUSES = """exit status:
  0  all that was asked for has ended and none has failed    3  unfinished: a limit of time or budget, or stop
  1  no run has completed, the machine ended the study, or   4  some runs have failed
     the best model did not give its recorded numbers again
  2  the request cannot be carried out                       128 + n  ended by signal n
"""
EPILOG = """examples:
  {0} supcam                                built-in synthetic set, minutes on a laptop
  {0} supcam --data FOLDER                  your images: a folder for each class, or a manifest.csv
  {0} plan supcam --data FOLDER             what would run, and how long it would take
  {0} describe supcam                       its settings, search space, tables, arms and presets
  {0} watch STUDY                           a study at work, from any machine that sees its folder
  {0} resume STUDY --max-hours 8            go on with what it was asked for
  {0} evaluate runs/STUDY/best --data OTHER
  {0} predict runs/STUDY/best IMAGES... --out predictions.csv
"""


class Commands(click.Group):
    """The verbs, and a command for each procedure that has its files."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*registry.names(), *sorted(self.commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return self.commands.get(name) or (study_command(name) if name in registry.names() else None)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name, names = args[0], registry.names()
        if name.startswith("-"):
            ctx.fail(f"unrecognized arguments: {name}")
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:  # while a shell completes, half a word is no fault
            near = registry.unknown("procedure", name, names)
            raise RequestError(
                near if "Did you mean" in near else registry.unknown("procedure or verb", name, [*names, *sorted(self.commands)])
            )
        return super().resolve_command(ctx, args)


COMMANDS = Commands("search", context_settings=options.SETTINGS)
COMMANDS.commands.update(verbs.VERBS)


def study_command(procedure: str) -> click.Command:
    """`search PROCEDURE`, with the options of its study."""

    @click.command(
        procedure, context_settings=options.SETTINGS, help=f"Search, ablation tables, report and best checkpoint of {procedure}."
    )
    @click.argument("step", type=options.STEP, default="run", shell_complete=options.steps)
    @options.with_options([options.FILE], options.ASKED, options.MACHINE)
    @click.option("--plan", is_flag=True, help="show what would run and what it would cost; nothing is trained")
    @options.as_json
    @click.pass_context
    def command(ctx: click.Context, /, step: str, file: Path | None, plan: bool, as_json: bool, **_: Any) -> int:
        asked = _checked(options.request_of(ctx, command=said(ctx), file=file, procedure=procedure), file)
        given = ctx.get_parameter_source("step") == click.core.ParameterSource.COMMANDLINE
        return verbs.step(asked, "plan" if plan else step if given else asked.step, as_json)

    return command


def _checked(request: Request, file: Path | None) -> Request:
    """RequestError where the file is of another procedure."""
    from search.request import read_file

    of_file = read_file(file).get("procedure", request.procedure) if file is not None else request.procedure
    if of_file != request.procedure:
        raise RequestError(f"--request {file} asks for {of_file}, and the command for {request.procedure}; say {of_file}, or leave one out")
    return request


@click.command("plan", context_settings=options.SETTINGS)
@click.argument("procedure", shell_complete=options.procedures)
@options.with_options([options.FILE], options.ASKED, options.MACHINE)
@options.as_json
@click.pass_context
def plan(ctx: click.Context, /, procedure: str, file: Path | None, as_json: bool, **_: Any) -> int:
    """What would run and how long it would take; nothing is trained."""
    return verbs.step(_checked(options.request_of(ctx, command=said(ctx), file=file, procedure=procedure), file), "plan", as_json)


@click.command("resume", context_settings=options.SETTINGS)
@options.study
@options.storage
@options.with_options(options.MACHINE)
@click.pass_context
def resume(ctx: click.Context, /, study: str, storage: Path, **_: Any) -> int:
    """Go on with a study as it was last asked for; words here win."""
    from search.folders import find, overview

    folder = find(study, storage)
    where = {"storage": folder.parent, "name": folder.name}
    if (folder / REQUEST).exists():
        asked = options.request_of(ctx, command=said(ctx), file=folder / REQUEST, **where)
        return verbs.step(asked, asked.step, False)
    words = shlex.split(overview(folder).command)  # of a study that is older than request files
    words = words[next((index for index, word in enumerate(words) if word in registry.names()), len(words)) :]
    if not words:
        raise RequestError(f"{folder} does not say by which command it was begun; repeat that command")
    return dispatch([*words, "--storage", str(folder.parent), "--name", folder.name], said(ctx).partition(" resume")[0])


COMMANDS.commands.update(plan=plan, resume=resume)


def said(ctx: click.Context) -> str:
    """The command as the user would repeat it."""
    return str(ctx.find_root().obj)


def overview(program: str) -> str:
    """Help on everything."""
    rows = "\n".join(f"  {name:<10}{verb.get_short_help_str(120)}" for name, verb in sorted(COMMANDS.commands.items()))
    return (
        f"usage: {program} PROCEDURE [options] | VERB ...\n\nprocedures: {', '.join(registry.names())}; a second word does one step alone: "
        f"plan, tune, ablate, export, report, check\noptions: {program} PROCEDURE --help\n\nverbs:\n{rows}\n\n{STATUSES}\n"
        + EPILOG.format(program)
    )


def dispatch(words: list[str], program: str) -> int:
    from trainables.parts.failpoints import asked

    try:
        asked()
    except ValueError as fault:
        raise RequestError(str(fault)) from None
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(program))
        return 0
    try:
        with COMMANDS.make_context(program, list(words), obj=f"{program} {shlex.join(words)}") as ctx:
            return int(COMMANDS.invoke(ctx) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.Abort:
        print("search: nothing was done", file=sys.stderr)
        return 2
    except click.ClickException as fault:
        raise RequestError(options.told(fault, words)) from None


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """The exit status. RequestError of any depth is printed line by line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with SIGNALS.heard():
        return _told(lambda: dispatch(words, program), f"{program} {shlex.join(words)}")


def _told(work: Callable[[], int], command: str) -> int:
    """What `work` ended with, and words for what it met."""

    def say(words: str) -> None:
        print(f"search: {words}", file=sys.stderr)

    try:
        return work()
    except RequestError as fault:
        for line in fault.faults:
            say(line)
        return 2
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be what is gone
            say(f"stopped; the same command continues: {command}")
        return 128 + (SIGNALS.last or signal.SIGINT)
    except BrokenPipeError:  # `ls | head`; a study goes on without a reader, see `show.Lasting`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (ClusterLost, OSError, RuntimeError) as fault:
        from search.faults import told

        found = told(fault)
        if found is None:
            raise
        say(found[0])
        return found[1]


def run_as(program: str) -> int:
    """One command of this process, or the answer to a shell that completes one."""
    asked = os.environ.get("_KARYOTUNE_COMPLETE")
    if asked:
        return shell_complete(COMMANDS, {}, "karyotune", "_KARYOTUNE_COMPLETE", asked)
    return main(program=program)


def leave(status: int) -> None:
    """End the process. By a signal all is written and closed, and threads of Ray may yet make the interpreter's own end a crash."""
    if status > 128:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                continue
        os._exit(status)
    sys.exit(status)
