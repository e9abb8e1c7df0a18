"""What a request would run, and how long it would take; nothing is trained and nothing is written.
Comes in: Prepared. Goes out: an Outlook, which `show` prints and a program may read."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from search.compose import compose_study
from search.estimate import Estimate, estimate
from search.ledger import Ledger
from search.prepare import Prepared
from search.retune import retunings
from search.stages import Stages
from trainables.parts.machine import cpus


@dataclass(frozen=True)
class Outlook:
    """rows: (table or search, its arms, runs asked for). guess: of what is left to do."""

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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    slots = max(1, torch.cuda.device_count()) if device.type == "cuda" else max(1, cpus())
    guess = estimate(entry, plan, prepared.source.pack, left, max(0, plan.trials - told), device, Stages(folder).has)
    return Outlook(
        prepared.name, len(prepared.source.pack.labels), len(plan.seeds), _rows(prepared), plan.asked, len(plan.runs),
        len(plan.runs) - len(left), guess, device.type, min(slots, prepared.request.slots or slots),
        prepared.source.pack.notes,
    )  # fmt: skip


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
