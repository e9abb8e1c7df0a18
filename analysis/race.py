"""How the search's best configurations did on fresh seeds. In: a Study. Out: words, and the configurations that lost.

Who took part, who was stopped and why stands in study.json (`race`), as the engine decided it; every number is computed from the records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from analysis.statistics import mean_std
from analysis.study import Study, finite, listed, mapping, plural, whole


def finalists(study: Study) -> tuple[Mapping[str, Any], ...]:
    """Those that raced, the search's best first; () before the search has ended."""
    given = mapping(study.asked.get("race")).get("finalists")
    return tuple(one for one in map(mapping, given) if one.get("config_hash")) if isinstance(given, list) else ()


def losers(study: Study) -> frozenset[str]:
    """Configurations that raced and did not win, and that no table of the paper asks for: they were looked at to find the winner, and are
    no candidates beside it. None before the race is decided."""
    winner = mapping(study.asked.get("race")).get("winner")
    asked = {arm.config_hash for table in study.tables if table.number != "search" for arm in table.arms}
    return frozenset(str(one["config_hash"]) for one in finalists(study)) - {str(winner)} - asked if winner else frozenset()


def words(study: Study) -> tuple[str, ...]:
    """What each finalist has on fresh seeds, who won, and by how much the search had flattered it."""
    race = mapping(study.asked.get("race"))
    seeds = [seed for seed in map(whole, listed(race.get("seeds"))) if seed is not None]
    if len(finalists(study)) < 2 or not seeds or study.metric not in study.usable:
        return ()
    runs = study.usable[(study.usable["status"] == "completed") & study.usable["seed"].isin(seeds) & study.usable[study.metric].notna()]
    parts, winner = [], ""
    sign = 1 if study.maximize else -1
    for one in finalists(study):
        values = 100 * runs.loc[runs["config_hash"] == one["config_hash"], study.metric].to_numpy()
        mean = mean_std(values)[0]
        known = f"{mean:.2f} % over {plural(len(values), 'seed')}" if len(values) else "no score"
        seen = 100 * finite(one.get("score"))
        out = mapping(one.get("out"))
        stopped = f", out: {out['why']}" if out.get("why") else ""
        parts.append(f"{one.get('name')} {known}{'' if math.isnan(seen) else f' (the search had seen {seen:.2f} %)'}{stopped}")
        if one["config_hash"] == race.get("winner"):
            winner = f"{one.get('name')} won"
            if len(values) and not math.isnan(seen):
                change = sign * (mean - seen)
                winner += f"; the search had flattered it by {-change:.2f} points" if change < 0 else "; the search had not flattered it"
    told = [f"On fresh seeds, one after the other, {plural(len(parts), 'configuration')} raced: {'; '.join(parts)}."]
    return (*told, f"{winner}.") if winner else tuple(told)
