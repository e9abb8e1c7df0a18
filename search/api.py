"""What a notebook calls, and what the command line calls: run a study, open one.
Comes in: a Request, or a study's folder. Goes out: a Result, or an Opened study. Faults of a request are RequestErrors; nothing here reads
the command line or ends the process.

    from search.api import Request, open, run
    result = run(Request("supcam", data="images", tables="2"))
    open(result.folder).records"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from search import live, registry, show
from search.ahead import QUIET_SECONDS, ahead
from search.budget import Budget
from search.compose import chosen_by_searches, compose_study, race_decided
from search.director import Director
from search.faults import told
from search.folders import at_work
from search.home import here, home, place_of, ready
from search.ledger import Ledger
from search.machines import gpus_of
from search.outlook import Outlook, look_ahead
from search.prepare import Prepared, prepare
from search.request import Request
from search.retune import make_searches
from search.signals import SIGNALS, first_saves
from search.source import with_signatures
from search.status import telling
from search.stopping import heed
from search.study import check_writable, external_names, held, read_study
from search.work import Work, decide, set_aside, settle
from trainables.data.pack import load_pack
from trainables.parts.errors import ClusterLost, NotProven, RequestError, StorageFault
from trainables.parts.failpoints import failpoint

if TYPE_CHECKING:
    import analysis
    from search.history import History

TO_RUN = ("search.cluster", "search.admission", "search.tune")  # Ray; the first sets what it reads as it is imported
TO_END = ("analysis", "search.export")
ESCAPE_SECONDS = 10.0  # to leave Ray in order takes one or two

__all__ = ["Opened", "Request", "Result", "open", "plan", "run"]


@dataclass(frozen=True)
class Result:
    """What came of a command. runs: how many ended how, in the whole study; new: ended now. why: `limit`, `cost` or `stop`, where not all
    has run. exported: words on the best configuration; reasons: why runs did not complete."""

    folder: Path
    name: str
    runs: Mapping[str, int]
    new: int
    complete: bool
    seconds: float
    why: str = ""
    exported: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), repr=False)
    fault: str = ""  # why the best configuration was not exported

    @property
    def status(self) -> int:
        """As an exit status: 0 all, 1 none completed or the best not exported, 3 unfinished, 4 some failed."""
        if self.fault or (self.runs and not self.runs.get("completed")):
            return 1
        if not self.complete or not self.runs:
            return 3
        return 4 if self.runs.get("failed") else 0


def plan(request: Request) -> Outlook:
    """What would run and how long it would take. RequestError with every fault of the request."""
    return look_ahead(prepare(request))


def run(request: Request, console: Console | None = None) -> Result:
    """Begin a study, go on with it, or extend it. RequestError with every fault of the request; KeyboardInterrupt where a signal
    ended it."""
    started = time.monotonic()
    prepared = prepare(request, lambda: ahead(*TO_RUN))
    folder = prepared.folder
    check_writable(folder)
    if prepared.old is not None:
        _compose(prepared)  # a request that contradicts its study touches nothing
    with ExitStack() as stack:
        stack.enter_context(held(folder))
        home(folder).bring()
        if read_study(folder) != prepared.old:  # another command was at work on it meanwhile
            prepared = prepare(request)
        source, study = prepared.source, _compose(prepared)
        home(folder).forget_stop()  # of a command that was killed while it stopped; from here on the word is for this one
        ledger = stack.enter_context(Ledger(folder))  # once nothing is refused any more: it mends its files
        work = Work(prepared, ledger, with_signatures(study, source), source.pack, console or show.console(), until_end=stack)
        settle(work)
        before = set_aside(folder)
        try:
            director = _conduct(work)
        except (ClusterLost, StorageFault) as fault:
            work.halted(str(fault))
            raise
        except KeyboardInterrupt:  # nothing was at work that could save, or the second signal
            if not SIGNALS.again:
                _last_report(work)
            raise
        for path in sorted(set_aside(folder) - before):
            director.notes.append(f"{path.relative_to(folder)}: was damaged, and was set aside; its run did without it")
        work.note(*director.notes)
        work.study |= {"aside": aside} if (aside := director.nodes.words()) else {}  # for the report
        if SIGNALS.last is not None:
            _last_report(work)
            raise KeyboardInterrupt
        if director.halt is not None:
            work.halted(director.halt)
            raise StorageFault(director.halt)
        decide(work, director)
        return _finish(work, director, started)


def _compose(prepared: Prepared) -> dict[str, Any]:
    """study.json as this request makes it. RequestError where the two contradict each other."""
    source, request = prepared.source, prepared.request
    return compose_study(
        prepared.entry, prepared.plan, name=prepared.name, preset=prepared.preset, source=source.about, pack=source.pack,
        command=request.command, old=prepared.old, external=source.external, accept_code=request.accept_code,
    )  # fmt: skip


def _conduct(work: Work) -> Director:
    """The one place where a study's decisions are made and carried out."""
    prepared, request, plan = work.prepared, work.prepared.request, work.prepared.plan
    judged = len(prepared.entry.procedure.parts(plan.baseline, work.pack, plan.seeds[0])["val"])
    budget = Budget(
        deadline=None if request.max_hours is None else time.monotonic() + 3600 * request.max_hours,
        seconds=None if request.max_gpu_hours is None else 3600 * request.max_gpu_hours,
        held=gpus_of(work.ledger.records, request.gpus_per_run, request.workers_per_run) or float(request.workers_per_run),
        paid=None if request.max_cost is None or request.price_per_hour is None else 3600 * request.max_cost / request.price_per_hour,
    )
    director = Director(
        prepared.entry, plan, work.ledger, work.folder, name=prepared.name, with_tables=request.step != "tune", budget=budget,
        retry_failed=request.retry_failed, external=external_names(work.study), kept=frozenset(chosen_by_searches(prepared.old or {})),
        searches=lambda director: make_searches(director, work.arms, own=request.step != "ablate", warm=prepared.warm, judged=judged),
    )  # fmt: skip
    if not director.finished():
        _carry_out(work, director)
    return director


def _carry_out(work: Work, director: Director) -> None:
    """Have Ray run it, with the live view, the report beside it, and the loggers."""
    from search.loggers import Loggers, chosen
    from search.reporter import Reporter

    prepared, request = work.prepared, work.prepared.request
    work.console.print(f"{prepared.name}: starting; log in {show.short(work.folder / 'log.txt')}", markup=False)
    told: list[str] = []
    with live.words_to(work.folder / "log.txt") as console:
        from search.cluster import open_cluster  # first: it sets what Ray reads as it is imported
        from search.admission import admission, gather  # isort: skip
        from search.gpus import free_gpus
        from search.machines import idle, run_bytes, share_out
        from search.metrics import gauges
        from search.tryout import share
        from search.tune import carry_out

        def say(words: str) -> None:
            console.print(f"{prepared.name}: {words}", markup=False)

        gpus, own = gpus_of(work.ledger.records, request.gpus_per_run, request.workers_per_run), None
        if request.address is None and gpus != 0:
            own = work.until_end.enter_context(free_gpus(request.wait_for, say))
        with (
            _escape(work, console) as on_loss,
            live.live(console, prepared.name, director.progress),
            open_cluster(SIGNALS, request.address, request.workers_per_run > 1, own) as machines,
            first_saves(director, say),
            heed(director, say, lambda: SIGNALS.last is not None) as work.asked,
            admission(work.folder, request.workers_per_run > 1, gpus != 0, say) if machines.running else nullcontext() as opened,
            ExitStack() as stack,
        ):
            if opened is not None:
                machines = gather(opened, director, request, gpus)
                if director.finished():  # told to stop while it waited
                    return
            shared = share(work, director, machines, gpus, run_bytes(work.ledger.records), say)
            resources = share_out(machines, shared.gpus, request.workers_per_run, shared.run_bytes, request.slots)
            if gpus == 0 and request.gpus_per_run is None and (words := idle(gpus, machines.here)):
                told.append(words)
                say(words)
            director.slots, director.budget.held = resources.slots, resources.held
            stack.enter_context(telling(director, request.price_per_hour, gauges(prepared.name)))
            director.on_change = reporter = Reporter(work.folder)
            director.on_record = loggers = Loggers(prepared.name, work.folder, chosen(request.log), told.append)
            for record in [record for record in work.ledger.records.values() if loggers.lacks(record)]:
                loggers(work.ledger.whole(record["key"]))  # what an earlier command left unwritten
            try:
                seconds = 10.0 if prepared.preset == "quick" else 60.0
                with ahead(*TO_END, after=QUIET_SECONDS):
                    carry_out(director, resources, opened, checkpoint_seconds=seconds, patience=60 * request.stall_minutes, on_loss=on_loss)
            finally:
                reporter.stop()
                loggers.stop()
    work.note(*told)


@contextmanager
def _escape(work: Work, console: Console) -> Iterator[Callable[[], None]]:
    """What to call when the cluster is lost: unless the block ends soon after, the process does, with words. Ray would end it without any,
    out of C++, a minute after the death of a cluster's head."""
    from search.cluster import end_own
    from search.watch import lost

    def leave() -> None:
        if (ended := lost()) and (words := told(ended)):
            end_own()
            work.halted(str(ended))
            live.leave(console, *words)

    late = threading.Timer(ESCAPE_SECONDS, leave)
    late.daemon = True
    try:
        yield late.start
    finally:
        late.cancel()


def _last_report(work: Work) -> None:
    """Of a study that a signal has ended: what the reporter left may lack its last runs, and calls itself at work. A second signal ends
    this too."""
    if work.ledger.records:
        _report(work)


def _report(work: Work) -> "analysis.Report":
    import analysis  # here, before and below: two seconds, which do not stand before the first step

    failpoint("report.begun")
    report = analysis.write_report(work.folder)
    failpoint("report.written")
    return report


def _finish(work: Work, director: Director, started: float) -> Result:
    """Export and report, and what to say of them."""
    import analysis
    from search.export import export_best, measure_copies

    records, request, complete = work.ledger.records, work.prepared.request, director.complete()
    runs: dict[str, int] = {}
    for record in records.values():
        runs[record["status"]] = runs.get(record["status"], 0) + 1
    limited = request.max_hours is not None or request.max_gpu_hours is not None
    why = "" if complete else "stop" if work.asked.by_another else "cost" if director.all_paid() else "limit" if limited else ""
    errors = dict.fromkeys(record["error"]["message"] for record in records.values() if record["error"])
    result = Result(work.folder, work.prepared.name, runs, director.new_records, complete, 0.0, why, reasons=tuple(errors))
    if not runs:
        return result
    home(work.folder).bring("results")
    exported: tuple[str, ...] = ()
    if runs.get("completed"):
        try:
            exported = tuple(export_best(work.prepared.entry, work.folder, work.study, work.ledger, work.pack, complete=complete))
        except NotProven as fault:  # the report comes all the same
            result = replace(result, fault=str(fault))
            exported = (f"best     was not exported: {fault}",)
        report = _report(work)
        of = (work.prepared.entry, work.folder, work.study, work.ledger, work.pack)
        if not result.fault and measure_copies(*of, say=lambda words: work.console.print(words, markup=False)):
            report = analysis.write_report(work.folder)  # it says what came of it
    else:
        report = analysis.write_report(work.folder)
        reasons = {f"{record['status']}: {(record['error'] or {}).get('message', 'no reason recorded')}" for record in records.values()}
        result = replace(result, reasons=tuple(sorted(reasons)))
    return replace(result, exported=exported, warnings=tuple(report.warnings), seconds=time.monotonic() - started)


class Opened:
    """A study that is there. Reading it disturbs no command at work."""

    def __init__(self, folder: Path | str) -> None:
        folder = ready(here(folder))
        study = read_study(folder)
        if study is None:
            raise RequestError(
                f"no study in {place_of(folder)}; run the procedure first, or name another with --name, --preset, --data, --storage"
            )
        self.folder, self.study = folder.resolve(), study
        self.name = str(study["study"])

    @property
    def entry(self) -> registry.Entry:
        return registry.load(self.study["procedure"])

    @property
    def records(self) -> Any:
        """A pandas table, one row for each run."""
        import analysis

        return analysis.load(self.folder).records

    @property
    def best(self) -> "analysis.Best | None":
        import analysis

        return analysis.best(analysis.load(self.folder))

    def report(self) -> "analysis.Report":
        """Write tables, figures and report anew."""
        import analysis

        written = analysis.write_report(self.folder)
        if not at_work(self.folder):  # else that command's own is put in a minute
            home(self.folder).put()
        return written

    def check(self) -> "History":
        from search.history import check

        return check(ready(self.folder, "whole"), self.entry)

    def export(self) -> list[str]:
        """Export the best run anew; words on it. RequestError where none has completed, or a command is at work."""
        from search.export import export_best, measure_copies

        with held(self.folder), Ledger(self.folder) as ledger:
            if not any(record["status"] == "completed" for record in ledger.records.values()):
                raise RequestError(f"no run of {self.name} has completed, so there is nothing to export; repeat the study's command first")
            decided = not self.study["trials"] or race_decided(self.study)
            pack = load_pack(self.folder / "data", verify=True)
            words = export_best(self.entry, self.folder, self.study, ledger, pack, anew=True, complete=decided)
            measure_copies(self.entry, self.folder, self.study, ledger, pack)
            return words


def open(folder: Path | str) -> Opened:
    """The study in a folder. RequestError where there is none, or its study.json cannot be read."""
    return Opened(folder)
