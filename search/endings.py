"""The end of a run: recorded, told to who asked for it, or placed again.
Comes in: a Director, its lock held, a run in flight and its ending. Goes out: a record, or the run back in the queue."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.budget import lost_seconds, spent_seconds
from search.queue import Active
from search.record import ending_of_driver, record_of_run
from search.verdict import ELSEWHERE, again, whose
from trainables.parts.execution import FLIGHT, RESULT

STARTS = 8  # processes that die as they start, one after the other, before a study gives up

if TYPE_CHECKING:
    from search.director import Director


def settle(director: "Director", active: Active, ending: Mapping[str, Any]) -> None:
    """Record it, or place the run again: see `verdict`."""
    ending = active.facts | dict(ending)
    if active.beside and "neighbours" in ending:  # one that ran out of memory at the same moment may have left it first
        ending["neighbours"] = True
    director.nodes.met(ending)  # a run that ended before its first epoch has said nothing else
    node, kind, message = str(ending.get("node", "")), str(ending.get("kind", "")), str(ending.get("message", ""))
    nodes, counted = director.nodes, "misplaced" if ending["end"] == "misplaced" and kind != "card_hidden" else kind
    several = nodes.several(node)
    if words := nodes.fault(node, active.run.key, counted, message, str(ending.get("card", ""))):
        director.notes.append(words)
    judged = whose(ending, active.breaks, nodes.largest, nodes.machines, several)
    if not again(judged, ending, active.breaks, nodes.largest, several):
        write_down(director, active, ending)
        return
    if judged == "machine" or kind == "device" or (kind in ELSEWHERE and nodes.machines > 1):
        how = "no fault of its own" if judged == "machine" else f"on another {'card' if several else 'machine'} where there is one"
        director.notes.append(f"{active.name}: placed again, {how} ({nodes.names.get(node) or 'a machine'}: {message})")
    director.queue.again(active)
    director.on_change(director)


def stillborn(director: "Director", active: Active, node: str, host: str) -> None:
    """A process died as it started, before it began with its run: no fault of the run's. Its machine is set aside where that comes again
    and others do well; where it happens everywhere the study ends. node: where it was placed, '' where nobody knows; host: its name, ''
    where that machine is gone."""
    if node and not host:
        settle(director, active, ending_of_driver("failed", active.facts, "node_lost", "its machine is gone"))
        return
    director.unborn += 1
    if node:
        director.nodes.names.setdefault(node, host)
        active.breaks.avoid.add(node)
        if words := director.nodes.fault(node, active.run.key, "stillborn", f"processes die on {host or node[:12]} as they start"):
            director.notes.append(f"{words}; log.txt may say why")
            director.unborn = 0  # the others go on
    director.queue.again(active)
    if director.unborn >= STARTS:
        director.stop(f"{STARTS} processes in a row died as they started, before they began with a run; log.txt may say why")


def write_down(director: "Director", active: Active, ending: Mapping[str, Any]) -> None:
    """Record first, tell Optuna second: what is told is never more than what is recorded."""
    key = active.run.key
    before = director.ledger.records.get(key)
    fresh = before is None or before["status"] != "completed"  # not where test metrics alone were missing
    record = record_of_run(director, active, ending)
    if active.earlier:
        record["lost_seconds"] = lost_seconds(record, director.budget.held * active.worked(time.monotonic()))
    director.ledger.append(record)
    director.new_records += fresh
    if fresh or record["started"] != (before or {}).get("started"):  # trained again for a table that wants its model
        director.budget.spent += spent_seconds(record)
    del director.queue.active[key]
    director.retried.discard(key)
    if record["status"] in ("failed", "diverged", "collapsed"):
        director.broken.add(key)
    stands = director.ledger.records[key]
    if stands["status"] == "completed" and active.began is not None:
        director.seconds.append(time.monotonic() - active.began)
    if "micro_batches" in record:
        director.notes.append(
            f"{active.name}: too large for the memory; each step was computed in {record['micro_batches']} slices, which is the same "
            "training"
        )
    for asked in active.trials:
        director.mirror.ended(asked.search, asked.search.tell(asked.number, stands))
    _tidy(director, active, record["status"], stands)
    director.on_record(record)
    director.on_change(director)


def _tidy(director: "Director", active: Active, status: str, stands: Mapping[str, Any]) -> None:
    """A run that failed keeps its checkpoint: `--retry-failed` goes on from it."""
    folder = director.folder / active.folder
    if status != "failed":
        director.home.remove(folder / FLIGHT)
    if stands["checkpoint"] is None:
        director.home.remove(folder / RESULT)
    director.shelf.notice(stands)
    director.free()
