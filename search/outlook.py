"""What a request would run, and how long it would take; nothing is trained and nothing is written.
Comes in: Prepared. Goes out: an Outlook, which `show` prints and a program may read."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from search.compose import compose_study
from search.estimate import Estimate, estimate
from search.ledger import Ledger
from search.machines import RUN_BYTES, Machines, gpus_of
from search.prepare import Prepared
from search.retune import retunings
from search.sharing import by_trial, divide, first_steps, measured
from search.stages import Stages
from trainables.parts.errors import RequestError, WeightsUnreachable
from trainables.parts.machine import cpus


@dataclass(frozen=True)
class Outlook:
    """rows: (table or search, its arms, runs asked for). guess: of what is left to do, one run after another on one device; slots: runs at
    once; gain: how much more a device does by runs that share it; speed: all that is there, in multiples of one run alone."""

    name: str
    images: int
    seeds: int
    rows: tuple[tuple[str, str, str], ...]
    asked: int
    different: int
    done: int
    guess: Estimate
    device: str
    slots: int
    gain: float
    speed: float
    notes: tuple[str, ...] = ()  # what was understood of the images

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": [dict(zip(("table", "arms", "runs"), row, strict=True)) for row in self.rows]}


def look_ahead(prepared: Prepared) -> Outlook:
    """RequestError where the request contradicts the study that is there: before anything is timed."""
    plan, entry, folder = prepared.plan, prepared.entry, prepared.folder
    if prepared.old is not None:
        compose_study(
            entry, plan, name=prepared.name, preset=prepared.preset, source={}, pack=prepared.source.pack, command=prepared.request.command,
            old=prepared.old, external=prepared.source.external, accept_code=prepared.request.accept_code,
        )  # fmt: skip
    ledger = Ledger(folder)
    ledger.read()
    left = [run for run in plan.runs if run.key not in ledger.records]
    told = len({record["trial"] for record in ledger.records.values() if record["trial"] is not None})
    gpus = gpus_of(ledger.records, prepared.request.gpus_per_run, prepared.request.workers_per_run)
    device = torch.device("cuda" if torch.cuda.is_available() and gpus != 0 else "cpu")
    slots, gain, speed = _pace(prepared, gpus, len(left) + max(0, plan.trials - told), device)
    guess = estimate(entry, plan, prepared.source.pack, left, max(0, plan.trials - told), device, Stages(folder).has)
    return Outlook(
        prepared.name, len(prepared.source.pack.labels), len(plan.seeds), _rows(prepared), plan.asked, len(plan.runs),
        len(plan.runs) - len(left), guess, device.type, slots, gain, speed, prepared.source.pack.notes,
    )  # fmt: skip


def _pace(prepared: Prepared, gpus: float | None, wanted: int, device: torch.device) -> tuple[int, float, float]:
    """`slots`, `gain` and `speed` of this machine. gpus: of a run, see `gpus_of`. On a GPU that runs may share their first steps are taken,
    as a study's own command takes them, unless it has."""
    request, most = prepared.request, prepared.request.slots or 1 << 30
    if device.type == "cpu":
        slots = min(most, max(1, cpus()))
        return slots, 1.0, slots
    devices = max(1, torch.cuda.device_count())
    known, asked = measured(prepared.old or {}), request.gpus_per_run
    part_asked = bool(asked and asked < 1 and request.workers_per_run == 1)
    if not part_asked and not by_trial(asked, request.workers_per_run, gpus, known):
        slots = min(most, max(1, devices // request.workers_per_run))
        return slots, 1.0, slots
    machines = Machines(({"CPU": float(cpus()), "GPU": float(devices)},))
    try:
        config = prepared.plan.baseline
        known = known or {"": first_steps(prepared.entry.procedure, config, prepared.source.pack, prepared.plan.seeds[0], device)}
        runs = int(1 / asked + 1e-9) if asked else divide(known, machines, min(most, max(1, wanted)), RUN_BYTES)[0]
        gain = min(float(runs), max(1.0, 1 / max(trial.busy for trial in known.values())))
    except (RequestError, WeightsUnreachable, torch.cuda.OutOfMemoryError):  # which say nothing of sharing: the study says it too
        runs = int(1 / asked + 1e-9) if asked else 1
        gain = 1.0
    slots = min(most, devices * runs)
    return slots, gain, min(slots, devices * gain)


def _rows(prepared: Prepared) -> tuple[tuple[str, str, str], ...]:
    plan = prepared.plan
    rows = [
        (f"{table.number}: {table.title}", ", ".join(arm.name for arm in table.arms), str(len(table.arms) * len(plan.seeds)))
        for table in plan.tables
    ]
    each = f"{plan.trials} + at most {(min(plan.strategy.finalists, plan.trials) + 1) * (len(plan.seeds) - 1)}"
    if plan.trials:
        rows.append(("search", f"{len(plan.space)} dimensions, then the best on all seeds", each))
    if prepared.request.retune:
        arms = retunings(prepared.entry, plan)
        rows.append(("retuned", f"{len(arms)} arms that differ, each searched for", f"{len(arms)} x ({each}), not in the times below"))
    return tuple(rows)
