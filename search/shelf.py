"""Which files of a study stay.
Comes in: what has ended, and what may still win. Goes out: nothing; models and stages that only a search wanted, and that are not its best,
are deleted, so that a longer search takes no more room. Records stay, and all that stands in a table. Of a search that this command does
not carry out nothing is deleted: which of its trials is the best is then not known."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import FloatDistribution

from search.home import home
from search.plan import Plan, PlannedRun, applies
from search.stages import Stages
from trainables.parts.execution import MODEL, RESULT
from trainables.parts.failpoints import failpoint
from trainables.parts.procedure import Procedure

STAGES_KEPT = 10  # results of stages that a later trial may share (the search draws nothing continuous for them), last used first

Records = Mapping[str, Mapping[str, Any]]


class Shelf:
    """searches: names of those at work; "" is the study's own."""

    def __init__(self, folder: Path, plan: Plan, stages: Stages, searches: Collection[str], records: Records) -> None:
        self.folder, self.plan, self.stages, self.searches, self.records = folder, plan, stages, set(searches), records
        self.home = home(folder)
        self.searched: set[str] = set()  # ended runs that searches at work alone wanted and that have files
        self.table_stages = {value for run in plan.runs for value in run.stages.values()}
        self.idle: dict[str, bool] = {}  # stages of the searches' ended runs, last used last; whether no other trial can share it
        self._survey()

    def _survey(self) -> None:
        """What an earlier command left; files that it was writing when it was killed are deleted."""
        for place in (".", "splits", "checkpoints/*", "stages/*"):
            for path in self.folder.glob(f"{place}/.*.tmp"):
                if path.is_file():
                    path.unlink(missing_ok=True)
        there = self.home.stages()
        for record in self.records.values():
            self.notice(record, there)
        self.searched &= {path.name for path in (self.folder / "checkpoints").glob("*")}

    def notice(self, record: Mapping[str, Any], stages: Collection[str] | None = None) -> None:
        """Remember what a record needs on the disk. stages: those that are there, where that is known."""
        hashes = record.get("stage_hashes", {})
        if any(not arm.startswith("search/") for arm in record.get("arms", ())):
            self.table_stages |= set(hashes.values())
        elif record["status"] != "failed" and self._wanted_by(record) <= self.searches:  # a failed one may be tried again, and has words
            self.searched.add(record["key"])
            for name, value in hashes.items():
                if stages is None or value in stages:
                    self.idle.pop(value, None)
                    self.idle[value] = self._once(name, record["params"])

    @staticmethod
    def _wanted_by(record: Mapping[str, Any]) -> set[str]:
        """The searches that a record stands in; a race's further seeds are of the search that ran them."""
        of = record.get("retuned")
        own = {""} if record.get("trial") is not None or of is None else set()
        return own | ({of["search"]} if of is not None else set())

    def gone(self, run: PlannedRun) -> bool:
        """Whether a run has completed and its model was not kept."""
        record = self.records.get(run.key)
        folder = self.folder / "checkpoints" / run.key
        return bool(record and record["status"] == "completed" and not all(self.home.has(folder / name) for name in (MODEL, RESULT)))

    def free(self, best: Collection[str], wanted: Iterable[PlannedRun]) -> None:
        """best: configurations that may still win; wanted: runs that are asked for or in flight."""
        wanted = [*wanted, *self.plan.runs]
        spared = {run.key for run in wanted}
        for key in sorted(self.searched - spared):
            if self.records[key]["config_hash"] in best:
                continue
            folder = self.folder / "checkpoints" / key
            self.home.remove(folder / RESULT)  # first: a result without its model would be taken for a run that has ended
            failpoint("files.freed")
            self.home.remove(folder)
            self.searched.discard(key)
        needed = self.table_stages | {value for run in wanted for value in run.stages.values()}
        for key in self.searched:  # they stayed
            needed |= set(self.records[key].get("stage_hashes", {}).values())
        spare = [value for value in self.idle if value not in needed]
        lasting = [value for value in spare if not self.idle[value]][-STAGES_KEPT:]
        for value in spare:
            if value not in lasting:
                self.home.remove(self.stages.path(value).parent)
                del self.idle[value]

    def _once(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether the search draws a real number for a field of this stage or of one before it: no other trial will share its result."""
        fields = fields_until(self.plan.procedure, name)
        return any(
            isinstance(dimension.distribution, FloatDistribution) and dimension.distribution.step is None and dimension.field in fields
            for dimension in self.plan.space.values()
            if applies(dimension, params)
        )


def fields_until(procedure: Procedure, name: str) -> set[str]:
    """The fields that a stage's result depends on, with those of the stages before it."""
    fields: set[str] = set()
    for stage in procedure.stages:
        fields |= set(stage.fields)
        if stage.name == name:
            break
    return fields
