"""The best configuration's checkpoint, in a form that others can load: `best/`.
Comes in: a study that has ended, and which run was chosen (without test data). Goes out: safetensors, timm's config.json, metrics, a
confusion matrix, a model card. Before it says that it is done it loads the files again and proves that they give the recorded metrics;
where another processor than the one that trained classes some images otherwise, they are counted on the card."""

import json
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from search.card import confusion_csv, model_card
from search.exported import MODEL_FILE, SCHEMA, SETTINGS, exported_key, sum_of
from search.home import here, home
from search.invariance import invariances
from search.ledger import Ledger, now
from search.registry import Entry
from search.study import external_names, external_packs
from trainables.data.pack import Pack
from trainables.parts.checkpoint import load_state
from trainables.parts.errors import NotProven, RequestError
from trainables.parts.execution import MODEL, device_name, read_outcome
from trainables.parts.failpoints import failpoint
from trainables.parts.procedure import Evaluation, config_from
from trainables.parts.sealing import set_mode

EQUAL = 1e-9  # of two metrics of the same predictions
ROUNDING = 0.005  # by which a metric of probabilities or distances may move though no image changes its class
FLIPS = 2  # images of a part, or one in a hundred of them: those between two classes


def export(entry: Entry, folder: Path, study: Mapping[str, Any], ledger: Ledger, pack: Pack, record: Mapping[str, Any], why: str) -> Path:
    """Write `best/` for one completed record. Test metrics are computed here only if the record has none (a configuration that only the
    search asked for); they then go into the ledger. NotProven if the written files do not give the recorded metrics."""
    source = folder / "checkpoints" / record["key"] / MODEL
    home(folder).fetch(source)
    if not source.exists():
        raise RequestError(
            f"the checkpoint of the chosen run is gone: {source.relative_to(folder)}; delete its line in records.jsonl and repeat the "
            "command to train it again"
        )
    tensors, _ = load_state(source)
    config = config_from(entry.procedure.config, record["params"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sets = _judged(entry, config, folder, study, pack, record["seed"])
    for part, (images, chosen) in sets.items():
        if f"{part}_{entry.procedure.headline[0]}" not in record["metrics"]:
            record = _with(part, entry.procedure.evaluate(config, tensors, images, chosen, device), ledger, record)
    if entry.procedure.exported is not None:
        tensors = entry.procedure.exported(config, tensors)
    temporary = folder / ".best.tmp"
    timm_settings = entry.procedure.timm_settings(config, pack.classes)
    _write_model(temporary, tensors, timm_settings)
    outcome = read_outcome(source.parent)
    notes = prove(temporary, entry, record, sets, device, outcome.predictions if outcome else {})
    images, test = sets["test"]
    same = invariances(entry.procedure, config, tensors, images, test, source_of(study), device)
    _describe(temporary, study, pack, record, why, timm_settings, notes, same)
    return _put(temporary, folder)


def _write_model(folder: Path, tensors: Mapping[str, Tensor], timm_settings: Mapping[str, Any] | None) -> None:
    """The files that a model is loaded from, into a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(folder / MODEL_FILE), metadata={"format": "pt"})
    set_mode(folder / MODEL_FILE, 0o644)  # safetensors writes for the owner alone; the model is to be shared
    if timm_settings is not None:
        (folder / "config.json").write_text(json.dumps(timm_settings, indent=1) + "\n")


def _describe(
    folder: Path,
    study: Mapping[str, Any],
    pack: Pack,
    record: Mapping[str, Any],
    why: str,
    timm_settings: Mapping[str, Any] | None,
    notes: list[str],
    same: Mapping[str, float],
) -> None:
    """All that is said of the model beside it. notes: what differs on the machine that exports it."""
    settings: dict[str, Any] = {
        "schema": SCHEMA, "procedure": record["procedure"], "classes": list(pack.classes), "config": record["params"],
        "study": study["study"], "seed": record["seed"], "key": record["key"], "data_hash": record["data_hash"],
        "commit": record["commit"], "versions": record["versions"], "timm": timm_settings is not None,
    }  # fmt: skip
    metrics = {"chosen_by": why, "metrics": record["metrics"], "confusion": record["confusion"]}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"differs_here": notes, "same_class": dict(same)}, indent=1) + "\n")
    for part, matrix in record["confusion"].items():
        if part != "val":
            (folder / f"confusion_{part}.csv").write_text(confusion_csv(matrix, pack.classes))
    (folder / "README.md").write_text(model_card(study, record, why, pack, timm_settings, notes, same))
    settings["files"] = {path.name: sum_of(path) for path in sorted(folder.iterdir())}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")


def _put(temporary: Path, folder: Path) -> Path:
    """The export in place of the one before, at no moment without either."""
    best = folder / "best"
    old = folder / ".best.old"
    shutil.rmtree(old, ignore_errors=True)
    failpoint("export.written")
    if best.exists():
        best.rename(old)
    failpoint("export.moved")
    temporary.rename(best)
    failpoint("export.renamed")
    shutil.rmtree(old, ignore_errors=True)
    return best


Judged = Mapping[str, tuple[Pack, np.ndarray]]  # part -> its images


def export_best(
    entry: Entry, folder: Path, study: Mapping[str, Any], ledger: Ledger, pack: Pack, *, anew: bool = False, complete: bool = True
) -> list[str]:
    """Words on the best configuration, after its export. `anew`: also where `best/` holds the chosen run already; it is replaced only by a
    proven one. Not `complete`: a search goes on; what it alone wanted is not looked at on the test part, and its model may be gone."""
    import analysis

    best = analysis.best(analysis.load(folder))
    if best is None:
        return ["no completed run to export"]
    chosen, headline = ledger.records[best.key], entry.procedure.headline[0]
    tested = f"test_{headline}" in chosen["metrics"]
    if not complete and not (tested and home(folder).has(folder / "checkpoints" / chosen["key"] / MODEL)):
        return [f"best     so far {best.name}, on validation data; it is tested and exported when the search has ended"]
    if anew or exported_key(folder / "best") != chosen["key"]:
        export(entry, folder, study, ledger, pack, chosen, best.words)
    metrics = ledger.records[chosen["key"]]["metrics"]
    differs = json.loads((folder / "best" / "metrics.json").read_text()).get("differs_here", [])  # exports of before have none
    shown = ", ".join(f"{part} {headline} {100 * metrics[f'{part}_{headline}']:.2f} %" for part in ("val", "test"))
    return [
        f"best     {best.name}, seed {chosen['seed']}: {best.words}",
        f"         its checkpoint: {shown} (loaded again{'' if differs else ' and proven equal'})",
        *(f"         {line}" for line in differs),
    ]


def _judged(entry: Entry, config: Any, folder: Path, study: Mapping[str, Any], pack: Pack, seed: int) -> Judged:
    """All that a final model is judged on: validation and test part, and the external sets."""
    parts = entry.procedure.parts(config, pack, seed)
    others = external_packs(folder, external_names(study))
    return {part: (pack, parts[part]) for part in ("val", "test")} | {
        f"external_{name}": (other, np.arange(len(other))) for name, other in others.items()
    }


def _with(part: str, judged: Evaluation, ledger: Ledger, record: Mapping[str, Any]) -> dict[str, Any]:
    metrics = dict(record["metrics"]) | {f"{part}_{name}": value for name, value in judged.metrics.items()}
    confusion = dict(record["confusion"]) | ({part: judged.confusion} if judged.confusion is not None else {})
    new = ledger.whole(record["key"]) | {"metrics": metrics, "confusion": confusion, "ended": now()}
    ledger.append(new)
    return new


Predicted = Mapping[str, Mapping[str, list[Any]]]  # part -> columns, a value for each of its images


def prove(
    best: Path, entry: Entry, record: Mapping[str, Any], sets: Judged, device: torch.device, before: Predicted | None = None
) -> list[str]:
    """Load what was written, by timm's one documented line (where timm has the model) and as plain tensors, and compare metrics with the
    record. before: what the run itself predicted. Words for each part in which this machine classes a few images otherwise: a GPU rounds
    otherwise than a CPU, and one CPU than another. NotProven where that does not explain it."""
    tensors = load_file(str(best / MODEL_FILE))
    if (best / "config.json").exists():
        import timm  # three seconds, which a command with nothing to export can do without

        model = timm.create_model(f"local-dir:{best}", pretrained=True)
        state: dict[str, Tensor] = model.state_dict()
        if set(state) != set(tensors) or any(not torch.equal(state[name].cpu(), tensor) for name, tensor in tensors.items()):
            raise NotProven("the exported file, loaded by timm, does not hold the trained weights; nothing was exported")
    config = config_from(entry.procedure.config, record["params"])
    here = f"{device_name(device)} of {socket.gethostname()}"
    there = f"{record['device']} of {record.get('host') or 'another machine'}"
    notes = []
    for part, (images, chosen) in sets.items():
        judged = entry.procedure.evaluate(config, tensors, images, chosen, device)
        gaps = {name: abs(value - record["metrics"][f"{part}_{name}"]) for name, value in judged.metrics.items()}
        worst = max(gaps, key=lambda name: gaps[name])
        if gaps[worst] <= EQUAL:
            continue
        flips = _flips((before or {}).get(part, {}), judged.predictions)
        if flips is None and judged.confusion is not None and part in record["confusion"]:  # so many at least
            flips = int(np.abs(np.subtract(judged.confusion, record["confusion"][part])).sum()) // 2
        values = f"{part}_{worst} {judged.metrics[worst]:.6f}, its record says {record['metrics'][f'{part}_{worst}']:.6f}"
        counted = f"{'an unknown number' if flips is None else flips} of {len(chosen)} {part} images"
        counted += f" are classed otherwise by the {here} than by the {there}"
        _, sizes = np.unique(images.labels[chosen], return_counts=True)
        if (flips or 0) > max(FLIPS, len(chosen) / 100) or gaps[worst] > ROUNDING + (flips or 0) / sizes.min():
            raise NotProven(
                f"the exported model gives {values}; {counted}, and rounding does not explain the difference: "
                "the checkpoint, the record or the images were changed. Nothing was exported"
            )
        notes.append(f"{counted}: {values}")
    return notes


def _flips(before: Mapping[str, list[Any]], now: Mapping[str, list[Any]]) -> int | None:
    """Images that are classed otherwise; None where it is not known how they were."""
    if before.get("index") != now.get("index") or not now.get("index"):
        return None
    was, is_now = (np.asarray(one["cluster"]) if "cluster" in one else np.asarray(one["probability"]).argmax(1) for one in (before, now))
    return int((was != is_now).sum())


def source_of(study: Mapping[str, Any]) -> Path | None:
    """The folder that the study's images were read from; None for the built-in set."""
    source = study["data"]["source"]
    return None if source == "synthetic" else here(source)
