"""A study's folder while one command is at work on it: what runs need in it before, and the tables that its searches make after.
Comes in: Prepared, an open ledger. Goes out: study.json, data/, splits/, external/, request.toml."""

import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from search.compose import unused, with_confirmation, with_retunings, with_table
from search.director import Director
from search.home import home
from search.ledger import Ledger
from search.plan import Plan, point_of
from search.prepare import Prepared
from search.request import REQUEST, to_toml
from search.retune import Retuning, best_of, retuned_table, retunings
from search.stopping import Asked
from search.study import store_data, store_external, write_study
from search.warm import keep
from trainables.data.pack import Pack, load_pack
from trainables.parts.checkpoint import write_atomically
from trainables.parts.errors import RequestError
from trainables.parts.execution import config_hash


@dataclass
class Work:
    """A study while a command is at work on it; study: study.json; pack: its images, packed."""

    prepared: Prepared
    ledger: Ledger
    study: dict[str, Any]
    pack: Pack
    console: Console
    arms: tuple[Retuning, ...] = ()
    asked: Asked = field(default_factory=Asked)
    until_end: ExitStack = field(default_factory=ExitStack)  # of the command

    @property
    def folder(self) -> Path:
        return self.prepared.folder

    def halted(self, why: str) -> None:
        """Have study.json say what ended the command, until the next one begins."""
        self.study = self.study | {"halted": why}
        with suppress(OSError):  # that may be what ended it
            write_study(self.folder, self.study)

    def note(self, *notes: str) -> None:
        for note in notes:
            self.console.print(f"note: {note}", markup=False)


def settle(work: Work) -> None:
    """Everything of the study's folder that runs need, and what was asked."""
    prepared, source = work.prepared, work.prepared.source
    outside = [f"external {slug}: {note}" for slug, other in source.external.items() for note in other.pack.notes]
    known = prepared.warm.notes if prepared.warm is not None else ()
    work.note(*source.pack.notes, *outside, *known, *work.ledger.warnings, *unused(work.study, work.ledger.records), *_mend(work))
    if not (work.folder / "data" / "data.json").exists():
        parts, plan = prepared.entry.procedure.parts, prepared.plan
        splits = {_split_name(run.config): parts(run.config, work.pack, run.seed) for run in plan.runs if run.seed == plan.seeds[0]}
        work.pack = store_data(work.folder, work.pack, splits or {"split": parts(plan.baseline, work.pack, plan.seeds[0])})
    store_external(work.folder, source.external)
    if prepared.warm is not None:
        keep(work.folder, prepared.warm)
    work.arms = retunings(prepared.entry, prepared.plan) if prepared.request.retune else ()
    work.study = with_retunings(work.study, work.arms)
    for word in ("halted", "aside"):  # of the command before
        work.study.pop(word, None)
    write_study(work.folder, work.study)
    asked = to_toml(prepared.request)
    write_atomically(work.folder / REQUEST, lambda path: path.write_text(asked, encoding="utf-8"))
    home(work.folder).put()


def _mend(work: Work) -> list[str]:
    """Set aside packed images that are damaged or of a command that died before it wrote study.json; words for what was found."""
    notes, folder, old = [], work.folder, work.prepared.old
    if old is None and work.ledger.records:
        notes.append(f"study.json was lost; it is written anew from this command, beside {len(work.ledger.records)} record(s)")
    stored = folder / "data"
    for half in folder.glob(".data.*"):
        shutil.rmtree(half, ignore_errors=True)
    if old is None:
        shutil.rmtree(stored, ignore_errors=True)
    if not stored.exists():
        return notes
    try:
        if load_pack(stored, verify=True).hash == work.pack.hash:
            return notes
        words = "is of other images"
    except RequestError as fault:
        words = "; ".join(fault.faults)
    aside = folder / "data.damaged"
    shutil.rmtree(aside, ignore_errors=True)
    stored.rename(aside)
    return [*notes, f"data was damaged and set aside as data.damaged ({words}); the images were packed again"]


def decide(work: Work, director: Director) -> None:
    """The tables that searches make: of the winner of the search, and of retuned arms."""
    plan = work.prepared.plan
    work.study = _with_confirmation(work, director, plan)
    winners = best_of(director.finals)
    for table in plan.tables if winners else ():
        shape = next(one for one in work.study["tables"] if one["number"] == table.number)
        work.study = with_table(work.study, retuned_table(table, shape, winners, plan))
    write_study(work.folder, work.study)


def _with_confirmation(work: Work, director: Director, plan: Plan) -> dict[str, Any]:
    """The study with the race of its search, and, once that is decided, with the table of its winner."""
    race = director.outcome()
    if race is None:
        return work.study
    study = work.study | {"race": race}
    winner = next(final.winner() for final in director.finals if not final.search.name)
    if winner is None:
        return study
    overrides = {plan.space[name].field: value for name, value in (point_of(winner.config, plan.space) or {}).items()}
    return with_confirmation(study, config_hash(work.prepared.entry.procedure, plan.baseline), winner.hash, winner.name, overrides)


def set_aside(folder: Path) -> set[Path]:
    """Files of runs and stages that were found damaged."""
    return {path for name in ("checkpoints", "stages") for path in (folder / name).glob("*/*.damaged")}


def _split_name(config: Any) -> str:
    fractions = "-".join(f"{100 * part:.0f}" for part in getattr(config, "split", ()))
    return f"{fractions or 'split'}-seed{getattr(config, 'split_seed', 0)}"
