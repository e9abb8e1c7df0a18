"""What another study knows: `--from STUDY`.
Comes in: its folder and this study's plan. Goes out: trials for the sampler, points to ask first, and words.
Exists because a space that was searched once need not be searched from nothing. Scores are only taken over where they mean the same: the
same data and code, and the same settings beside the searched ones. Of any other study of the procedure the best points are asked first."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from search.ledger import Ledger
from search.plan import Plan, point_of, search_config
from search.registry import Entry
from search.study import read_study
from trainables.parts.checkpoint import write_atomically
from trainables.parts.errors import RequestError
from trainables.parts.execution import config_hash
from trainables.parts.procedure import config_from
from trainables.parts.sealing import sealed, unsealed

ASKED_FIRST = 3  # of the other study's best points
KEPT = "from.json"  # in the folder of the study that starts from another


@dataclass(frozen=True)
class Known:
    """A configuration that another study ran, as a point of this study's space."""

    key: str
    point: Mapping[str, Any]
    score: float | None  # mean over its seeds; None: stopped early
    curve: Mapping[int, float]  # of one that was stopped
    second: float | None = None  # by the second objective, where there is one


@dataclass(frozen=True)
class Warm:
    """What is known before a search begins."""

    source: str
    trials: tuple[Known, ...]
    first: tuple[Mapping[str, Any], ...]
    space: Mapping[str, Any]  # name -> distribution
    notes: tuple[str, ...] = ()


def keep(folder: Path, warm: Warm) -> None:
    """Write what a search started from into its study: the other study may grow, or be moved, and trial numbers count from here."""
    known = [
        {
            "key": one.key,
            "point": dict(one.point),
            "score": one.score,
            "curve": {str(k): v for k, v in one.curve.items()},
            "second": one.second,
        }
        for one in warm.trials
    ]
    values = sealed({"source": warm.source, "trials": known, "first": [dict(point) for point in warm.first], "notes": list(warm.notes)})
    write_atomically(folder / KEPT, lambda path: path.write_text(json.dumps(values) + "\n"))


def kept(folder: Path, plan: Plan) -> Warm | None:
    """What `keep` wrote; None where there is nothing, or nothing that can be read."""
    try:
        values = unsealed(json.loads((folder / KEPT).read_text()))
        trials = tuple(
            Known(one["key"], one["point"], one["score"], {int(k): v for k, v in one["curve"].items()}, one.get("second"))
            for one in values["trials"]
        )
        distributions = {name: dimension.distribution for name, dimension in plan.space.items()}
        return Warm(values["source"], trials, tuple(values["first"]), distributions, tuple(values["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def warm_start(folder: Path, entry: Entry, plan: Plan, data_hash: str) -> Warm:
    """RequestError where there is no study of this procedure with this objective, or nothing in it fits."""
    study = read_study(folder)
    if study is None:
        raise RequestError(f"--from must be the folder of a study, got {folder}; it holds no study.json")
    if study["procedure"] != entry.procedure.name:
        raise RequestError(f"--from must be a study of {entry.procedure.name}, got one of {study['procedure']}")
    if study["objective"]["metric"] != entry.study.objective:
        raise RequestError(f"--from must be a study with the objective {entry.study.objective}, got {study['objective']['metric']}")
    ledger = Ledger(folder)
    ledger.read()
    theirs = config_from(entry.procedure.config, study["baseline"])
    equal, other, outside, unmeasured, second = [], [], 0, 0, plan.strategy.second
    sign = 1 if entry.study.direction == "maximize" else -1
    same = study["data"]["hash"] == data_hash and study.get("code", "") == plan.code
    for hashed, records in _by_configuration(ledger, study["data"]["hash"]).items():
        config = config_from(entry.procedure.config, records[0]["params"])
        if second and any(second not in record["metrics"] for record in records):
            unmeasured += 1
            continue
        point = point_of(config, plan.space)
        if point is None:
            outside += 1
        elif config_hash(entry.procedure, search_config(plan.baseline, plan.space, point)) == hashed and same:
            equal.append(_known(hashed, point, records, entry, second, ledger))
        elif config_hash(entry.procedure, search_config(theirs, plan.space, point)) == hashed:
            other.append(_known(hashed, point, records, entry, second, ledger))
    able = [known for known in (equal or other) if known.score is not None]
    if not able and unmeasured:
        raise RequestError(f"--from {folder.name}: its runs were not measured by {second}, the second objective here; leave --from out")
    if not able:
        raise RequestError(f"--from {folder.name}: none of its configurations is a point of this search's space; leave --from out")
    able.sort(key=lambda known: (-sign * (known.score or 0.0), known.key))
    distributions = {name: dimension.distribution for name, dimension in plan.space.items()}
    notes = []
    if study["data"]["hash"] != data_hash:
        notes.append(f"{folder.name} was made on other data: its scores are no measure here, and its best points are asked first")
    elif not same:
        notes.append(f"{folder.name} was trained by other code: its scores are no measure here, and its best points are asked first")
    elif not equal:
        notes.append(
            f"{folder.name} has other settings beside the searched ones: its scores are no measure here, and its best points are asked "
            "first"
        )
    else:
        notes.append(f"the search starts from {len(equal)} configurations of {folder.name}")
    if outside:
        notes.append(f"{outside} configurations of {folder.name} lie outside of this search's space")
    points = tuple(known.point for known in able[:ASKED_FIRST])
    return Warm(folder.name, tuple(equal), points, distributions, tuple(notes))


def _by_configuration(ledger: Ledger, data_hash: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(ledger.records.values(), key=lambda record: str(record["key"])):
        if record.get("data_hash") == data_hash and record["status"] in ("completed", "pruned"):
            found.setdefault(record["config_hash"], []).append(record)
    return found


def _known(hashed: str, point: Mapping[str, Any], records: list[dict[str, Any]], entry: Entry, second: str | None, ledger: Ledger) -> Known:
    completed = [record["metrics"] for record in records if record["status"] == "completed"]
    if not completed:
        seen = [row[entry.study.intermediate] for row in ledger.history(records[0]["key"]) if entry.study.intermediate in row]
        return Known(hashed, point, None, dict(enumerate(seen, 1)))
    score, other = (
        sum(metrics[name] for metrics in completed) / len(completed) if name else None for name in (entry.study.objective, second)
    )
    return Known(hashed, point, score, {}, other)


def imported_trials(warm: Warm) -> Iterator[optuna.trial.FrozenTrial]:
    """Such trials carry `from`, are no trials of this study, and are never its best."""
    for known in warm.trials:
        if known.score is None and not known.curve:
            continue
        yield optuna.trial.create_trial(
            state=TrialState.COMPLETE if known.score is not None else TrialState.PRUNED,
            values=None if known.score is None else [known.score, *([] if known.second is None else [known.second])],
            params=dict(known.point),
            distributions={name: warm.space[name] for name in known.point},
            intermediate_values=dict(known.curve),
            user_attrs={"from": known.key},
        )
