"""The best configuration's checkpoint, in a form that others can load: `best/`.
Comes in: a study that has ended, and which run was chosen (without test data). Goes out: safetensors, timm's config.json, metrics, a
confusion matrix, a model card, a file that reads images for timm's users. Before it says that it is done it loads the files again and
proves that they give the recorded metrics; where another processor than the one that trained classes some images otherwise, they are
counted on the card."""

import json
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from search import loader
from search.card import Described, confusion_csv, model_card
from search.exported import MODEL_FILE, SCHEMA, SETTINGS, exported_key, sum_of
from search.home import here, home
from search.invariance import SAMPLE, SECONDS, Copies, invariances
from search.ledger import Ledger, now
from search.registry import Entry
from search.study import external_names, external_packs
from trainables.data.pack import Pack, judged_on
from trainables.data.size import typical_areas
from trainables.parts.checkpoint import load_state
from trainables.parts.errors import NotProven, RequestError
from trainables.parts.execution import MODEL, device_name, read_outcome
from trainables.parts.failpoints import failpoint
from trainables.parts.procedure import Evaluation, config_from
from trainables.parts.sealing import set_mode
from trainables.parts.weights import STATISTICS, read_tensors, statistics_in

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
    _write_model(temporary, tensors, _timm(entry, config, pack.classes, tensors.get(STATISTICS)))
    outcome = read_outcome(source.parent)
    notes = prove(temporary, entry, record, sets, device, outcome.predictions if outcome else {})
    _describe(temporary, _described(entry, folder, study, pack, record, why, notes, None, tensors.get(STATISTICS)))
    return _put(temporary, folder)


def _write_model(folder: Path, tensors: Mapping[str, Tensor], timm_settings: Mapping[str, Any] | None) -> None:
    """The files that a model is loaded from, into a fresh folder. What input it expects stands beside its tensors: timm loads no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = {name: tensor.contiguous() for name, tensor in tensors.items() if name != STATISTICS}
    expected = {STATISTICS: json.dumps(_rounded(tensors[STATISTICS]))} if STATISTICS in tensors else {}
    save_file(own, str(folder / MODEL_FILE), metadata={"format": "pt"} | expected)
    set_mode(folder / MODEL_FILE, 0o644)  # safetensors writes for the owner alone; the model is to be shared
    if timm_settings is not None:
        (folder / "config.json").write_text(json.dumps(timm_settings, indent=1) + "\n")


def _rounded(statistics: Tensor) -> list[list[float]]:
    """As their source has written them, before they became float32."""
    return [[round(value, 6) for value in row] for row in statistics.tolist()]


def _timm(entry: Entry, config: Any, classes: tuple[str, ...], statistics: Tensor | None) -> dict[str, Any] | None:
    """config.json, with the input that the weights expect where it is not ImageNet's."""
    settings = entry.procedure.timm_settings(config, classes)
    if settings is not None and statistics is not None:
        settings["pretrained_cfg"] |= dict(zip(("mean", "std"), _rounded(statistics), strict=True))
    return settings


def _described(
    entry: Entry,
    folder: Path,
    study: Mapping[str, Any],
    pack: Pack,
    record: Mapping[str, Any],
    why: str,
    notes: Sequence[str],
    copies: Copies | None,
    statistics: Tensor | None,
) -> Described:
    """What there is to say of the model of a run, by the records and predictions of its configuration's seeds as they are now."""
    import analysis
    from analysis.crossed import Crossed
    from analysis.levels import by_class, levels

    procedure, told = entry.procedure, analysis.load(folder)
    config = config_from(procedure.config, record["params"])
    shares = by_class(Crossed(told).read(record["key"], "test"), pack.classes)
    return Described(
        study, record, why, pack, procedure.parts(config, pack, record["seed"]), procedure.headline,
        _timm(entry, config, pack.classes, statistics), notes, copies, levels(told, record["config_hash"]), shares,
    )  # fmt: skip


def _texts(told: Described) -> dict[str, str]:
    """The files that say something of the model, without their sums."""
    record, levels = told.record, told.levels
    metrics = {
        "chosen_by": told.why, "seed": record["seed"], "metrics": told.metrics, "confusion": record["confusion"],
        "over_seeds": {
            name: {
                "mean": level.estimate.value / 100, "low": _share(level.interval.low), "high": _share(level.interval.high),
                "seeds": level.estimate.seeds, "cases": level.estimate.cases,
                "cases_are": level.estimate.unit if level.estimate.cases else None,
            }
            for name, level in levels.items()
        },
        "test_images": len(told.parts["test"]), "test_patients": told.patients or None,
        "differs_here": list(told.notes), "same_class": None if told.copies is None else dict(told.copies.same),
        "copies_of": None
        if told.copies is None
        else {"images": told.copies.images, "wanted": told.copies.wanted, "keep": told.copies.what, "packed": told.copies.packed},
    }  # fmt: skip
    texts = {"metrics.json": json.dumps(metrics, indent=1, allow_nan=False) + "\n", "README.md": model_card(told)}
    if told.timm is not None:
        texts |= {"config.json": json.dumps(told.timm, indent=1) + "\n", loader.NAME: loader.source()}
    matrices = {part: matrix for part, matrix in record["confusion"].items() if part != "val"}
    return texts | {f"confusion_{part}.csv": confusion_csv(matrix, told.pack.classes) for part, matrix in matrices.items()}


def _share(per_cent: float) -> float | None:
    return None if np.isnan(per_cent) else per_cent / 100


def _describe(folder: Path, told: Described) -> None:
    """All that is said of the model beside it."""
    record = told.record
    for name, text in _texts(told).items():
        (folder / name).write_text(text, encoding="utf-8")
    settings: dict[str, Any] = {
        "schema": SCHEMA, "procedure": record["procedure"], "classes": list(told.pack.classes), "config": record["params"],
        "study": told.study["study"], "seed": record["seed"], "key": record["key"], "data_hash": record["data_hash"],
        "commit": record["commit"], "versions": record["versions"], "timm": told.timm is not None,
        "areas": typical_areas(told.pack, told.parts["train"]),
    }  # fmt: skip
    settings["files"] = {path.name: sum_of(path) for path in sorted(folder.iterdir()) if path.name != SETTINGS}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")


def _told(folder: Path) -> dict[str, Any]:
    """metrics.json of the export in a study's folder; exports of before say less."""
    told: dict[str, Any] = json.loads((folder / "best" / "metrics.json").read_text(encoding="utf-8"))
    return told


def renew(
    entry: Entry, folder: Path, study: Mapping[str, Any], pack: Pack, record: Mapping[str, Any], why: str, copies: Copies | None = None
) -> None:
    """Say anew what stands beside the exported model, where more is known now: more seeds of its configuration, copies of test images."""
    best, temporary, had = folder / "best", folder / ".best.tmp", _told(folder)
    if copies is None and had.get("same_class") is not None:
        of = had.get("copies_of") or dict.fromkeys(("images", "wanted"), SAMPLE if had["same_class"] else 0)
        copies = Copies(had["same_class"], of["images"], of["wanted"], of.get("keep", "class"), of.get("packed", 0))
    told = _described(entry, folder, study, pack, record, why, had.get("differs_here", []), copies, statistics_in(best / MODEL_FILE))
    if all((best / name).is_file() and (best / name).read_text(encoding="utf-8") == text for name, text in _texts(told).items()):
        return
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for path in best.iterdir():  # not as a tree with its modes, which not every file system keeps
        shutil.copyfile(path, temporary / path.name)
    _describe(temporary, told)
    _put(temporary, folder)


def measure_copies(
    entry: Entry, folder: Path, study: Mapping[str, Any], ledger: Ledger, pack: Pack, say: Callable[[str], None] = lambda words: None
) -> bool:
    """Look at copies of test images, where nobody has for the model in `best/`, and say on its card what came of it. Whether it was done.
    It takes up to two minutes, so whoever calls has written the report before."""
    best = folder / "best"
    record = ledger.records.get(exported_key(best) or "")
    if record is None or _told(folder).get("same_class") is not None:
        return False
    config = config_from(entry.procedure.config, record["params"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    test = entry.procedure.parts(config, pack, record["seed"])["test"]
    say(f"looking at copies of test images, {SECONDS:g} s at most; the report is written")
    copies = invariances(entry.procedure, config, read_tensors(best / MODEL_FILE), pack, test, source_of(study), device)
    renew(entry, folder, study, pack, record, _told(folder)["chosen_by"], copies)
    return True


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
    home(folder).replaced(best)
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
    else:
        renew(entry, folder, study, pack, chosen, best.words)
    metrics = ledger.records[chosen["key"]]["metrics"]
    differs = _told(folder).get("differs_here", [])
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
        f"external_{name}": (other, judged_on(other, pack, parts["test"])) for name, other in others.items()
    }


def _with(part: str, judged: Evaluation, ledger: Ledger, record: Mapping[str, Any]) -> dict[str, Any]:
    metrics = dict(record["metrics"]) | {f"{part}_{name}": value for name, value in judged.metrics.items() if value is not None}
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
    tensors = read_tensors(best / MODEL_FILE)
    if (best / "config.json").exists():
        import timm  # three seconds, which a command with nothing to export can do without

        model = timm.create_model(f"local-dir:{best}", pretrained=True)
        state: dict[str, Tensor] = model.state_dict()
        own = {name: tensor for name, tensor in tensors.items() if name != STATISTICS}
        if set(state) != set(own) or any(not torch.equal(state[name].cpu(), tensor) for name, tensor in own.items()):
            raise NotProven("the exported file, loaded by timm, does not hold the trained weights; nothing was exported")
    config = config_from(entry.procedure.config, record["params"])
    here = f"{device_name(device)} of {socket.gethostname()}"
    there = f"{record['device']} of {record.get('host') or 'another machine'}"
    notes = []
    for part, (images, chosen) in sets.items():
        judged = entry.procedure.evaluate(config, tensors, images, chosen, device)
        values = {name: value for name, value in judged.metrics.items() if value is not None}
        gaps = {name: abs(value - record["metrics"][f"{part}_{name}"]) for name, value in values.items()}
        worst = max(gaps, key=lambda name: gaps[name])
        if gaps[worst] <= EQUAL:
            continue
        flips = _flips((before or {}).get(part, {}), judged.predictions)
        if flips is None and judged.confusion is not None and part in record["confusion"]:  # so many at least
            flips = int(np.abs(np.subtract(judged.confusion, record["confusion"][part])).sum()) // 2
        differ = f"{part}_{worst} {values[worst]:.6f}, its record says {record['metrics'][f'{part}_{worst}']:.6f}"
        counted = f"{'an unknown number' if flips is None else flips} of {len(chosen)} {part} images"
        counted += f" are classed otherwise by the {here} than by the {there}"
        _, sizes = np.unique(images.labels[chosen], return_counts=True)
        if (flips or 0) > max(FLIPS, len(chosen) / 100) or gaps[worst] > ROUNDING + (flips or 0) / sizes.min():
            raise NotProven(
                f"the exported model gives {differ}; {counted}, and rounding does not explain the difference: "
                "the checkpoint, the record or the images were changed. Nothing was exported"
            )
        notes.append(f"{counted}: {differ}")
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
