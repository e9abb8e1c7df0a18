"""What is written down of an ended run.
Comes in: the run, its rows, and the ending as its worker sent it (the result travels with it, not by a path: a file that another machine
wrote may not be seen yet). Goes out: one record, plain values. What trained it (code, versions, device, host) is the worker's own word."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.ledger import SCHEMA, now
from search.queue import Active
from trainables.parts import code
from trainables.parts.execution import EPOCHS, Outcome, read_lives
from trainables.parts.procedure import config_values

if TYPE_CHECKING:
    from search.director import Director

# what only the worker can say
WORKERS = ("code", "versions", "commit", "dirty", "host", "node", "device", "processor", "device_memory", "worker")


def ending_of_driver(end: str, facts: Mapping[str, Any], kind: str = "", message: str = "") -> dict[str, Any]:
    """An ending that no worker sent: early stopping, or the death of its process."""
    error = {"kind": kind, "message": message} if kind else {}
    return {"end": end, "started": now(), "ended": now(), "worker": "", "device": "", "peak_memory_bytes": None} | dict(facts) | error


def record_of_run(director: "Director", active: Active, ending: Mapping[str, Any]) -> dict[str, Any]:
    run, status = active.run, ending["end"]
    outcome = Outcome(**ending["outcome"]) if status == "completed" else None
    history = outcome.history if outcome else active.rows
    seconds = outcome.stage_seconds if outcome else _stage_seconds(active.rows)
    metrics, scores = _metrics(director, outcome, ending, history)
    facts = code.origin("") | {"host": "", "processor": "", "worker": ""}  # of the command, where no worker has spoken
    facts |= {name: ending[name] for name in WORKERS if name in ending} | dict(active.facts) | (outcome.origin if outcome else {})
    own = {"stage_codes": facts["code"], "stage_devices": code.trained_on(facts)}
    others = {kind: {stage: by for stage, by in (getattr(outcome, kind) if outcome else {}).items() if by != [own[kind]]} for kind in own}
    on_gpu = facts["device"] not in ("", "cpu")
    total, held = sum(seconds.values()), director.budget.held
    director.home.fetch(director.folder / active.folder / EPOCHS)
    lives = read_lives(director.folder / active.folder)
    return {
        "schema": SCHEMA, "study": director.name, "procedure": director.entry.procedure.name, "key": run.key, "arms": list(run.arms),
        **_trial(director, active), "seed": run.seed, "status": status, "params": config_values(run.config),
        "config_hash": run.config_hash, "stage_hashes": dict(run.stages), "stages_reused": outcome.stages_reused if outcome else [],
        "epochs": outcome.epochs if outcome else {row["stage"]: row["epoch"] for row in active.rows},
        "seconds": total, "gpu_seconds": held * total if on_gpu else 0.0,
        **({"worker_seconds": held * total} if not on_gpu and held != 1 else {}),
        "stage_seconds": seconds, "metrics": metrics, "scores": scores, "confusion": outcome.confusion if outcome else {},
        "history": history, "data_hash": director.plan.data_hash, "code": facts["code"], "commit": facts["commit"],
        "dirty": facts["dirty"], "versions": facts["versions"], "device": facts["device"], "processor": facts["processor"],
        "host": facts["host"],
        "started": outcome.started if outcome else ending["started"], "ended": ending["ended"], "worker": facts["worker"],
        "interruptions": outcome.interruptions if outcome else 0, "lives": lives,
        **{kind: found for kind, found in others.items() if found},
        **({"again": True} if active.again else {}),
        **({"kept_epochs": outcome.kept} if outcome and outcome.kept else {}),
        **({"micro_batches": outcome.micro_batches} if outcome and outcome.micro_batches > 1 else {}),
        "checkpoint": f"{active.folder}/model.safetensors" if outcome else None,
        "error": {"kind": ending["kind"], "message": ending["message"]} if "kind" in ending else None,
        "peak_memory_bytes": ending["peak_memory_bytes"],
    }  # fmt: skip


def _metrics(
    director: "Director", outcome: Outcome | None, ending: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float], list[float]]:
    """Metrics, and the scores on the way that early stopping goes by."""
    name, second = director.entry.study.intermediate, director.plan.strategy.second
    scores = [row[name] for row in history if name in row]
    metrics = {name: scores[-1]} if scores else {}
    if outcome:  # what each stage came to: its last `val_` scores
        metrics |= {key: value for row in history for key, value in row.items() if key.startswith("val_")}
        metrics |= outcome.metrics  # one that is judged at the end under the same name stands
        if second:
            metrics[second] = float(ending[second])
    return metrics, scores


def _trial(director: "Director", active: Active) -> dict[str, Any]:
    """Which trial a run is: of the study's own search, and of an arm's. What an earlier record says stands where nobody asks now."""
    old = director.ledger.records.get(active.run.key, {})
    own = next((asked.number for asked in active.trials if not asked.search.name), old.get("trial"))
    of_arm = next((asked for asked in active.trials if asked.search.name), None)
    retuned: dict[str, Any] | None
    if of_arm is not None:
        retuned = {"search": of_arm.search.name, "trial": of_arm.number}
    else:
        retuned = old.get("retuned") or ({"search": active.retuned, "trial": None} if active.retuned else None)
    rungs = active.trial.search.rungs(active.trial.number) if active.trial else old.get("rungs")
    return {"trial": own} | ({"retuned": retuned} if retuned else {}) | ({"rungs": rungs} if rungs else {})


def _stage_seconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row["stage"]] = seconds.get(row["stage"], 0.0) + row["seconds"]
    return seconds
