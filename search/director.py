"""Every decision of a study: what runs next, whose fault an ending was, what is recorded, what the searches are told.
Comes in: a plan, a ledger, the study's folder, and rows as runs report them. Goes out: records. Knows no Ray (`tune` hands Tune's events to
it), so that all of it is tested without a cluster. Ties together: `queue` (what may start), `search` (an Optuna study in memory; several at
once), `final` (the race of a search's best), `shelf` (which files stay), `verdict` (the configuration's or the machine's). Holds the
lock."""

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.budget import Budget, epoch_seconds, spent_ever
from search.endings import settle, stillborn, write_down
from search.final import Final
from search.holding import begun, spares
from search.home import home
from search.ledger import Ledger
from search.mirror import Mirror
from search.nodes import Nodes
from search.plan import Plan, PlannedRun
from search.queue import Active, Queue
from search.record import ending_of_driver
from search.registry import Entry
from search.search import Search
from search.shelf import Shelf
from search.stages import Stages
from search.standing import Progress, progress_of
from search.study import takes_files
from search.takeup import take_up
from trainables.parts.code import fingerprint
from trainables.parts.procedure import config_values


class Director:
    """`next`, `row`, `lost`, `stalled` and `progress` may be called by any thread: the live view looks while the study is at work."""

    def __init__(
        self,
        entry: Entry,
        plan: Plan,
        ledger: Ledger,
        folder: Path,
        *,
        name: str,
        with_tables: bool = True,
        slots: int = 1,
        budget: Budget | None = None,
        retry_failed: bool = False,
        external: Sequence[str] = (),
        kept: frozenset[str] = frozenset(),
        searches: Callable[["Director"], Sequence[Search]] = lambda director: (),
        on_change: Callable[["Director"], None] = lambda director: None,
    ) -> None:
        """searches: made once the Director knows what has ended; kept: configurations that stand in tables which searches made: their
        models stay until a race is decided."""
        self.entry, self.plan, self.ledger, self.folder, self.name = entry, plan, ledger, folder, name
        self.home = home(folder)
        self.on_change = on_change
        self.on_record: Callable[[Mapping[str, Any]], None] = lambda record: None  # told of each ended run; must not raise
        self.budget = budget or Budget()
        self.budget.spent = spent_ever(ledger.every())
        self.external, self.kept = tuple(external), kept
        self.last_looks = tuple(f"{part}_{entry.procedure.headline[0]}" for part in ("test", *(f"external_{word}" for word in external)))
        self.lock = threading.RLock()
        self.stopping, self.halt = False, None
        self.notes: list[str] = []  # what was found damaged, and what became of it
        self.nodes = Nodes()
        self.machines = ""  # words on machines that are awaited, or stay idle
        self.seconds: list[float] = []
        self.new_records = self.unborn = 0
        self.broken: set[str] = set()  # failed in this session
        self.retried = {key for key, record in ledger.records.items() if retry_failed and record["status"] == "failed"}
        self.slowest = max((epoch_seconds(record) for record in ledger.records.values()), default=0.0)
        self.planned = {run.key: run for run in plan.runs}
        self.stages = Stages(folder)
        tabled = [run for run in plan.runs if with_tables and self.ended(run) is None]
        self.queue = Queue(entry.procedure, self.stages, folder, tabled)
        self.searches = list(searches(self))
        self.finals = [Final(search, self.planned) for search in self.searches]
        self.shelf = Shelf(folder, plan, self.stages, [search.name for search in self.searches], ledger.records)
        self.slots = slots  # runs at once
        self.mirror = Mirror(folder, self.searches, self.notes)
        take_up(self, tabled)
        self.free()

    halt: str | None  # why nothing more can be written, or done

    # -- what is known already ------------------------------------------------------------------------------------------------------

    def ended(self, run: PlannedRun) -> Mapping[str, Any] | None:
        """The record of a run that holds all that is asked of it, or as much as this session can get; else None."""
        record = self.ledger.records.get(run.key)
        if record is None or run.key in self.retried:
            return None
        if run.key in self.broken:
            return record
        if run.arms and record["status"] == "pruned":
            return None  # the search gave it up; a table needs its end
        whole = not run.arms or record["status"] != "completed" or all(name in record["metrics"] for name in self.last_looks)
        return record if whole else None

    # -- what runs next -------------------------------------------------------------------------------------------------------------

    def next(self) -> Active | None:
        """The next run to place, or None: nothing to do now (see `finished`). What was begun comes first, then the race of a search that
        has ended (others wait for its word), then searches, then tables."""
        with self.lock:
            if self._over():
                return None
            if any(active.breaks.alone for active in self.queue.active.values()):
                return None
            active = self.queue.take_resumed()
            if active is None and self.queue.exclusive():
                return None
            active = active or self._raced() or self._asked()
            active = active or self._raced() or self.queue.take_tabled()  # the last trials may have been told from the ledger
            active = active or self.queue.take_resumed(yielding=True)
            if active is not None:
                active.again = self.shelf.gone(active.run)
                self.queue.place(active)
            return active

    def _raced(self) -> Active | None:
        for final in self.finals:
            for run in final.needed():
                if not self.queue.has(run.key) and self.queue.free(run):
                    return Active(run, retuned=final.search.name)
        return None

    def _asked(self) -> Active | None:
        """Ask the searches in turn, that with the fewest in flight first. A point that is in the ledger costs nothing; one whose stage
        another run trains is kept until then, but no more of them than there are free slots: a search that asked on would learn nothing."""
        for search in sorted(self.searches, key=lambda one: len(one.running)):
            while search.left and self.queue.holding() < max(1, self.slots - len(self.queue.active)):
                asked, run = search.ask(self.slots)
                self.mirror.asked(search, asked.number)
                faults = self.entry.procedure.faults(run.config, None, None)
                record = search.recorded(run)  # whatever a table wants of it: else a trial's end depends on where a command dies
                run = self.planned.get(run.key, run)
                if faults:
                    self.mirror.ended(search, search.refuse(asked.number, "; ".join(faults)))
                elif record is not None:
                    self.mirror.ended(search, search.tell(asked.number, record))
                elif not self.queue.hold(run, asked):
                    return Active(run, [asked])
        return None

    def _left(self) -> bool:
        return bool(
            self.queue.resumed or self.queue.tabled or any(search.left for search in self.searches)
            or any(run.key not in self.queue.active for final in self.finals for run in final.needed())
        )  # fmt: skip

    def finished(self) -> bool:
        """Nothing in flight and nothing that may be started."""
        with self.lock:
            return not self.queue.active and (self._over() or not self._left())

    def complete(self) -> bool:
        """All that was asked for has ended."""
        with self.lock:
            return not self.queue.active and not self._left()

    def _over(self) -> bool:
        return self.stopping or self.budget.over(self.queue.begun())

    def all_paid(self) -> bool:
        """Whether it is --max-cost that lets nothing more start."""
        with self.lock:
            return self.budget.all_paid(self.queue.begun())

    def stop(self, why: str | None = None) -> None:
        """Start nothing more, and have the runs in flight save a checkpoint and end. why: what keeps the study from going on."""
        self.stopping = True
        self.halt = self.halt or why
        with suppress(OSError):  # a full disk: the runs notice it themselves
            self.home.stop(wait=False)  # a signal's handler calls this

    def drop(self, key: str, why: str) -> None:
        """What came of a run could not be written. It stays as its process left it, and is taken up by the next command."""
        self.stop(why)
        with self.lock:
            self.queue.active.pop(key, None)

    def at_work(self) -> bool:
        """Whether a process is at work on a run; the others wait for a machine."""
        with self.lock:
            return any(self.queue.has_begun(active) for active in list(self.queue.active.values()))

    def waits_in_vain(self) -> bool:
        """Nothing may be started any more, and what was placed waits for a machine: that may take for ever."""
        with self.lock:
            return bool(self.queue.active) and self._over() and not self.at_work()

    def job(self, active: Active) -> dict[str, Any]:
        """What a worker is given: plain values."""
        nodes, active.shunned = self.nodes.shunned(active.breaks)
        return {
            "procedure": self.entry.procedure.name, "study": str(self.home), "folder": active.folder, "key": active.run.key,
            "placement": active.placement, "config": config_values(active.run.config), "seed": active.run.seed,
            "code": fingerprint(), "key_code": self.plan.code, "evaluate_test": bool(active.run.arms), "external": list(self.external),
            "avoid": sorted(nodes), "cards": sorted(active.shunned),
        }  # fmt: skip

    # -- what comes back ------------------------------------------------------------------------------------------------------------

    def row(self, key: str, row: Mapping[str, Any], placement: int | None = None) -> bool:
        """Take a row of a run; True if the run is to be stopped. Rows of a resumed run come again and change nothing."""
        with self.lock:
            if "holds" in row:
                return spares(self, str(row["holds"]))
            active = self.queue.active.get(key)
            if active is None or (placement is not None and placement != active.placement):
                # A process that was given up and works on is stopped: it must not train beside the new one.
                return placement is not None and "end" not in row
            self.unborn = 0
            self.slowest = max(self.slowest, self.queue.hear(active, row.get("origin") or {}))
            self.nodes.met(active.facts)
            if row.get("end") == "stopped":
                self._stopped(active, row)
                return False
            if "end" in row:
                settle(self, active, row)
                return False
            if "stage" not in row:
                return begun(self, active)
            return self._epoch(active, row)

    def _stopped(self, active: Active, row: Mapping[str, Any]) -> None:
        """A run has saved its checkpoint and ended: it was told to, or (with words) its machine could not write to the study's folder.
        Where that machine is another one and this one can, the fault is that machine's."""
        words = str(row.get("message", ""))
        host = {**row, **active.facts}.get("host", "")  # a group's workers may not have said it before
        if words and host not in ("", socket.gethostname()) and takes_files(self.folder):
            settle(self, active, {**row, "end": "misplaced", "kind": "storage"})
            return
        # A worker may see the word to stop before this command does; one of an earlier command, in a shared folder's cache, is none.
        self.stopping = self.stopping or bool(words) or self.home.stopped()
        self.queue.again(active)  # for the next command: its trials stay asked and not told
        if words:
            self.stop(words)

    def _epoch(self, active: Active, row: Mapping[str, Any]) -> bool:
        if (row["stage"], row["epoch"]) in {(old["stage"], old["epoch"]) for old in active.rows}:
            return False
        active.rows.append({name: value for name, value in row.items() if name != "origin"})
        here = str(active.facts.get("node", ""))
        for node, why in active.breaks.progress(here).items():
            if words := self.nodes.fault(node, active.run.key, "misplaced", why):
                self.notes.append(words)
        self.nodes.well(here, str(active.facts.get("card", "")))
        score = row.get(self.entry.study.intermediate)
        if score is None:
            return False
        active.steps += 1
        said = [asked.search.report(asked.number, active.steps, score) for asked in active.trials]
        if active.stoppable and all(said):
            write_down(self, active, ending_of_driver("pruned", active.facts))
            return True
        return False

    def lost(
        self, key: str, placement: int | None = None, *, node_lives: bool = True, placed: Callable[[], tuple[str, str]] = lambda: ("", "")
    ) -> None:
        """The process of a run has died; node_lives: whether its machine is still there; placed: gives that machine and its name where the
        process has not said it. A run that no process had begun with is placed again as if nothing had been."""
        with self.lock:
            active = self.queue.active.get(key)
            if active is None or (placement is not None and placement != active.placement):
                return
            if not node_lives:
                settle(self, active, ending_of_driver("failed", active.facts, "node_lost", "its machine is gone"))
                return
            if not self.queue.has_begun(active):
                stillborn(self, active, *placed())
                return
            message = "the worker process died repeatedly (killed, or out of host memory)"
            settle(self, active, ending_of_driver("failed", active.facts, "worker_killed", message))

    def stalled(self, patience: float) -> list[tuple[Active, float]]:
        """Runs in flight of which nothing was heard for longer than any epoch of this study can explain, and for how long (s): ten times
        the slowest so far, and at least `patience` seconds; four times that as long as no epoch is known. A run that waits for a machine is
        not among them: its clock starts with its process."""
        with self.lock:
            return self.queue.silent(max(patience, 10 * self.slowest) if self.slowest else 4 * patience)

    def free(self) -> None:
        """Delete what nobody needs any more. Without a search nothing is deleted."""
        if not self.searches:
            return
        best = {hashed for final in self.finals for hashed in final.hashes()}
        if any(final.winner() is None for final in self.finals):
            best |= self.kept
        wanted = [run for final in self.finals for run in final.needed()]
        self.shelf.free(best, [*wanted, *(active.run for active in (*self.queue.resumed, *self.queue.active.values()))])

    # -- what is shown --------------------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        with self.lock:
            return progress_of(self)

    def outcome(self) -> dict[str, Any] | None:
        """The race of the study's own search, as study.json keeps it."""
        return next((final.outcome() for final in self.finals if not final.search.name), None)
