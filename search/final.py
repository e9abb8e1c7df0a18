"""The end of a search: who may be its best, which seeds are still needed, who has won.
Comes in: a Search whose trials have ended, and the ledger. Goes out: candidates, the race between them, runs that it needs, and what
study.json keeps of it. A function of the ledger, so that a command that starts again decides the same. The rule is `racing`'s."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from search.plan import BASELINE, PlannedRun, search_config
from search.racing import BROKEN, Race, race
from search.search import Search


@dataclass(frozen=True)
class Candidate:
    """A configuration that may be the search's best. score: what the search had seen of it, None for one that it did not finish."""

    name: str
    config: Any
    hash: str
    trial: int | None
    score: float | None


class Final:
    """tabled: the runs that stand in tables, by key; they carry their arms."""

    def __init__(self, search: Search, tabled: Mapping[str, PlannedRun]) -> None:
        self.search, self.plan, self.tabled = search, search.plan, tabled
        self._candidates: list[Candidate] | None = None

    @property
    def candidates(self) -> list[Candidate]:
        """The search's best configurations by its own score, the earliest of equals, and the baseline; none before it has ended."""
        if not self.search.over:
            return []
        if self._candidates is None:
            found = self._leading()
            baseline = self.plan.run_of(self.plan.baseline, self.plan.seeds[0])
            refused = self.search.entry.procedure.faults(self.plan.baseline, None, None)
            if found and baseline.config_hash not in found and not refused:
                score = self._score(baseline)
                found[baseline.config_hash] = Candidate(self._baseline, self.plan.baseline, baseline.config_hash, None, score)
            self._candidates = list(found.values())
        return self._candidates

    def _leading(self) -> dict[str, Candidate]:
        found: dict[str, Candidate] = {}
        baseline = self.plan.run_of(self.plan.baseline, self.plan.seeds[0]).config_hash
        for trial in self.search.ranking:
            config = search_config(self.plan.baseline, self.plan.space, trial.params)
            hashed = self.plan.run_of(config, self.plan.seeds[0]).config_hash
            name = self._baseline if hashed == baseline else f"trial {trial.number}"
            found.setdefault(hashed, Candidate(name, config, hashed, trial.number, trial.values[0]))
            if len(found) == self.plan.strategy.finalists:
                break
        return found

    @property
    def _baseline(self) -> str:
        return BASELINE if not self.search.name else "as it stands in its table"

    def _score(self, run: PlannedRun) -> float | None:
        """A run's validation score; BROKEN where it ended without one, None where it has not ended."""
        record = self.search.ledger.records.get(run.key)
        if record is None or record["status"] == "pruned":
            return None
        if record["status"] == "completed":
            return float(record["metrics"][self.search.entry.study.objective])
        return None if self.search.ended_run(run) is None else BROKEN  # tried again in this session

    def race(self) -> Race | None:
        """How the candidates do on fresh seeds; None while the search goes on, or where it found nothing."""
        of = {one.hash: one for one in self.candidates}
        if not of:
            return None
        kept = next((one.hash for one in of.values() if one.name == BASELINE), None)

        def score(hashed: str, seed: int) -> float | None:
            return self._score(self.plan.run_of(of[hashed].config, seed))

        sign = 1 if self.search.entry.study.direction == "maximize" else -1
        return race(list(of), kept, self.plan.seeds[1:], score, sign, stop=self.plan.strategy.second is None)

    def needed(self) -> list[PlannedRun]:
        """Once every trial has ended: the next seeds of the race, on validation data; then the winner and the baseline on every seed,
        which alone are evaluated on the test part."""
        state = self.race()
        if state is None:
            return []
        of = {one.hash: one for one in self.candidates}
        if state.winner is None:
            runs = [self.plan.run_of(of[hashed].config, seed) for hashed, seed in state.missing]
            return [self.tabled.get(run.key, run) for run in runs]
        last = []
        for one in of.values():
            if one.hash == state.winner or one.name == BASELINE:
                for seed in self.plan.seeds:
                    run = self.plan.run_of(one.config, seed)
                    arms = self.tabled[run.key].arms if run.key in self.tabled else ()
                    last.append(replace(run, arms=(*arms, *self._names(one))))
        return [run for run in last if self.search.ended_run(run) is None]

    def _names(self, one: Candidate) -> list[str]:
        return [f"search/{one.name}"] if not self.search.name else [f"{table}-retuned/{arm}" for table, arm in self.search.arms]

    def waiting(self) -> int:
        """Runs to come after the search, at most."""
        plan, state = self.plan, self.race()
        if state is None:
            return 0 if self.search.over else (min(plan.strategy.finalists, plan.trials) + 1) * (len(plan.seeds) - 1)
        needed = self.needed()
        if state.winner is not None:
            return len(needed)
        reached = max((plan.seeds.index(run.seed) for run in needed), default=0)
        able = len(self.candidates) - len(state.out)
        return len(needed) + max(0, able - 1) * max(0, len(plan.seeds) - 1 - reached)

    def hashes(self) -> set[str]:
        """Configurations whose models may still be wanted: those that may win; once it is decided, the winner and the baseline."""
        state = self.race()
        if state is None:
            return set(self._leading()) | {self.plan.run_of(self.plan.baseline, self.plan.seeds[0]).config_hash}
        decided = state.winner is not None
        return {one.hash for one in self.candidates if not decided or one.hash == state.winner or one.name == BASELINE}

    def outcome(self) -> dict[str, Any] | None:
        """The race as study.json keeps it, plain values; None while the search goes on."""
        state = self.race()
        if state is None:
            return None
        return {
            "winner": state.winner, "seeds": list(self.plan.seeds[1:]), "trials": self.plan.trials,
            "finalists": [
                {
                    "name": one.name, "config_hash": one.hash, "trial": one.trial, "score": one.score,
                    "out": None if one.hash not in state.out else {"after": state.out[one.hash][0], "why": state.out[one.hash][1]},
                }
                for one in self.candidates
            ],
        }  # fmt: skip

    def winner(self) -> Candidate | None:
        state = self.race()
        return None if state is None else next((one for one in self.candidates if one.hash == state.winner), None)
