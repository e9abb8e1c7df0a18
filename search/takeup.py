"""What an earlier command left in the middle of its work.
Comes in: a Director whose searches are made. Goes out: its queue, with what was begun in front; notes on what was lost."""

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from search.plan import PlannedRun
from search.queue import Active
from search.search import Asked
from trainables.parts.execution import EPOCHS, FLIGHT, RESULT, read_lives

if TYPE_CHECKING:
    from search.director import Director


def take_up(director: "Director", tabled: Sequence[PlannedRun]) -> None:
    """What an earlier command left in the middle comes first, before another run trains the stage that it was in."""
    for search in director.searches:
        for number in sorted(search.running):
            run = search.run_of(search.trial(number).params)
            run = director.planned.get(run.key, run)
            asked = Asked(search, number)
            known = next((active for active in director.queue.resumed if active.run.key == run.key), None)
            if known is not None:
                known.trials.append(asked)
            else:
                director.queue.resumed.append(Active(run, [asked]))
    taken = {active.run.key for active in director.queue.resumed}
    for run in tabled:
        if run.key in taken:
            director.queue.tabled.pop(run.key, None)
        elif (director.folder / "checkpoints" / run.key / FLIGHT).exists():
            director.queue.tabled.pop(run.key)
            director.queue.resumed.append(Active(run))
    for final in director.finals:
        for run in final.needed():
            if not director.queue.has(run.key) and (director.folder / "checkpoints" / run.key / FLIGHT).exists():
                director.queue.resumed.append(Active(run, retuned=final.search.name))
    begun = {active.run.key for active in director.queue.resumed if (director.folder / active.folder / FLIGHT).exists()}
    director.queue.resumed = deque(sorted(director.queue.resumed, key=lambda active: active.run.key not in begun))
    for active in director.queue.resumed:
        if active.run.key in begun:
            active.earlier = seconds_of(director.folder / active.folder / FLIGHT)
    _note_what_was_lost(director, tabled)


def seconds_of(flight: Path) -> float:
    """How long a run has been trained by its checkpoint in flight; 0 where that cannot be read, for the run will see to it."""
    try:
        with safe_open(str(flight), framework="pt") as file:
            seconds = json.loads((file.metadata() or {})["values"])["stage_seconds"]
        return float(sum(seconds.values()))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return 0.0


def complete_log(run: Path) -> None:
    """Say in a run's log what its checkpoint in flight proves: of a machine that died after it had put the one and before the other."""
    try:
        with safe_open(str(run / FLIGHT), framework="pt") as file:
            last = json.loads((file.metadata() or {})["values"])["history"][-1]
        stage, epoch = str(last["stage"]), int(last["epoch"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError):
        return  # none, or a damaged one, which the run will see to
    lives = read_lives(run) or [{"epochs": {}, "saved": {}}]
    if lives[-1]["saved"].get(stage, 0) >= epoch:
        return
    known = lives[-1]["epochs"].get(stage, [0, 0])[1]
    lines = ["\nlife ? 0 0"] if not read_lives(run) else []
    lines += [f"epoch {stage} {number}" for number in range(known + 1, epoch + 1)] + [f"saved {stage} {epoch}"]
    with open(run / EPOCHS, "a", encoding="utf-8") as log:
        log.write("\n".join(lines) + "\n")


def _note_what_was_lost(director: "Director", tabled: Sequence[PlannedRun]) -> None:
    checkpoints = director.folder / "checkpoints"
    if lost := sum(run.key not in director.ledger.records and (checkpoints / run.key / RESULT).exists() for run in director.plan.runs):
        director.notes.append(
            f"{lost} run(s) had ended and have no record (a command that died, or a damaged ledger); they are recorded anew"
        )
    if gone := sum(director.shelf.gone(run) for run in tabled):
        director.notes.append(f"{gone} run(s) of the search that a table now asks for are trained again: only the best one's model is kept")
