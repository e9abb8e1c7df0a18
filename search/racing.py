"""Which configuration of a search is the best, once luck is taken out of its score.
Comes in: candidates and their validation scores on fresh seeds. Goes out: which runs are still needed, who is out and why, and the winner.
Pure: a function of the ledger alone, so that a driver that starts again decides the same. Exists because a search picks the luckiest
score as well as the best configuration, and because seeds that cannot change the choice need not be paid for.

Rule. Seeds come one after the other; a seed is judged when every candidate still in the race has ended it. The leader has the best mean
over the seeds so far. A candidate is out when its run broke; or when it is worse than the leader by a paired one-sided t test,
from three seeds on, at 0.05 over all seeds at which that is asked (Bonferroni: one that is as good would else be lost in a quarter of all
races over ten seeds); or when what is left cannot mend it, from two seeds on: it would stay behind even if each seed to come went its way
by twice the widest spread over seeds that any candidate has shown. The baseline runs to the end: it is what the winner is compared with.
Where all broke, the search's best stands."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import stdtr  # of `scipy.stats`, which takes a second to import, the one function that is asked for

LEVEL = 0.05
TEST_FROM = 3  # seeds: with two, a t test has one degree of freedom and says nothing
BROKEN = math.nan  # the score of a run that ended without one

Score = Callable[[str, int], float | None]  # (candidate, seed) -> its score, BROKEN, or None while it has not ended


@dataclass(frozen=True)
class Race:
    """Where a race stands. out: candidate -> (seeds that it ran, why); missing: what is run next; winner: None until it is decided."""

    out: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    missing: Sequence[tuple[str, int]] = ()
    winner: str | None = None
    leader: str | None = None


def race(candidates: Sequence[str], kept: str | None, seeds: Sequence[int], score: Score, sign: int = 1, stop: bool = True) -> Race:
    """candidates: in the order in which ties are broken, the search's best first; kept: runs to the end whatever its scores (the
    baseline), or None; seeds: fresh ones, in order; sign: -1 where less is better; stop=False: all run to the end."""
    scores: dict[str, list[float]] = {name: [] for name in candidates}
    out: dict[str, tuple[int, str]] = {}
    level = LEVEL / max(1, len(seeds) - TEST_FROM + 1)
    for done, seed in enumerate(seeds, 1):
        running = [name for name in candidates if name not in out or (name == kept and out[name][1] != _BROKE)]
        found = {name: score(name, seed) for name in running}
        missing = [(name, seed) for name in running if found[name] is None]
        if missing:
            if kept in running:  # it runs to the end whatever comes: no slot need wait for the others to know that
                missing += [(kept, later) for later in seeds[done:] if score(kept, later) is None]
            return Race(out, missing, None, _leader(scores, candidates, out))
        for name in running:
            value = found[name]
            if value is None or math.isnan(value):
                out[name] = (done - 1, _BROKE)
            else:
                scores[name].append(sign * value)
        leader = _leader(scores, candidates, out)
        if leader is None:  # all broke: fresh seeds say nothing, and the search's word stands
            return Race(out, (), candidates[0])
        for name in candidates:
            if stop and name not in out and name != leader:
                widest = max(max(all_of) - min(all_of) for all_of in scores.values() if all_of)
                reason = _worse(scores[name], scores[leader], widest, len(seeds) - done, level)
                if reason:
                    out[name] = (done, reason)
    leader = _leader(scores, candidates, out)
    return Race(out, (), leader, leader)


_BROKE = "a run of it ended without a score"


def _leader(scores: Mapping[str, Sequence[float]], candidates: Sequence[str], out: Mapping[str, tuple[int, str]]) -> str | None:
    able = [name for name in candidates if name not in out]
    if not able or not scores[able[0]]:
        return able[0] if able else None
    return max(able, key=lambda name: (round(math.fsum(scores[name]) / len(scores[name]), 12), -candidates.index(name)))


def _worse(mine: Sequence[float], best: Sequence[float], widest: float, left: int, level: float) -> str:
    """Why a candidate is out, or ''. Scores by seed, more is better; widest: spread over seeds of a candidate; left: seeds to come; level:
    of the test at one seed."""
    count = len(mine)
    behind = [b - a for a, b in zip(mine, best, strict=True)]
    mean = math.fsum(behind) / count
    if left and count >= 2 and math.fsum(behind) > 2 * widest * left:
        return f"behind by {100 * mean:.2f} points, more than {left} further seed{'s' if left > 1 else ''} could mend"
    if count >= TEST_FROM and mean > 0:
        spread = math.sqrt(math.fsum((one - mean) ** 2 for one in behind) / (count - 1))
        p = 0.0 if spread == 0 else float(stdtr(count - 1, -mean / spread * math.sqrt(count)))
        if p < level:
            return f"worse than the leader by {100 * mean:.2f} points (paired t test over {count} seeds, one-sided p = {p:.3f})"
    return ""
