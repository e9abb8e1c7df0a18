"""Made studies with the schema of a real one: tables 2 and 5 of SupCAM with the full method shared, an ImageNet arm whose weights cannot be
reached, an arm that diverged, and a search with pruned trials. In: a folder. Out: study.json and records.jsonl in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ["instance", "overlapping", "touching", "touching_overlapping"]
METRICS = ["accuracy", "precision", "sensitivity", "specificity", "f1"]
DATA_HASH = "d" * 64
BASELINE = {
    "form": "self_margin",
    "margin": 0.2,
    "temperature": 0.07,
    "table": "middle",
    "blend": "equal",
    "threshold": 200.0,
    "initial_weights": "random",
    "learning_rate": 0.03,
    "queue_size": 1024,
}
SPACE = {
    "margin": {"low": 0.05, "high": 0.5, "log": False},
    "temperature": {"low": 0.02, "high": 0.5, "log": True},
    "learning_rate": {"low": 0.003, "high": 0.1, "log": True},
    "form": {"choices": ["self_margin", "all_margin", "cluster_margin"]},
}
TABLE_2 = [  # name, published arm, overrides, true accuracy
    ("Training from scratch", "scratch", {"pretrain_epochs": 0}, 0.74),
    ("ImageNet weights", "imagenet", {"pretrain_epochs": 0, "initial_weights": "imagenet"}, 0.85),
    ("MoCo", "moco", {"loss": "info_nce", "table": "none"}, 0.76),
    ("MoCo + SupCon", "moco+supcon", {"loss": "sup_con", "table": "none"}, 0.80),
    ("MoCo + SupCon + CatVar", "moco+supcon+catvar", {"loss": "sup_con"}, 0.83),
    ("MoCo + SupCon + CatVar + self-margin", "moco+supcon+catvar+self_margin", {}, 0.85),
]
TABLE_5 = [
    (f"m = {m}", f"m={m}", {} if m == 0.2 else {"margin": m}, a)
    for m, a in ((0.1, 0.845), (0.2, 0.85), (0.3, 0.84), (0.4, 0.81), (0.5, 0.0))
]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def scores(part: str, matrix: np.ndarray) -> dict[str, float]:
    """The metrics of a part that a confusion matrix gives, as fractions: macro means over classes."""
    hit, truth, guessed, whole = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0), matrix.sum()
    each = {
        "precision": hit / np.maximum(guessed, 1),
        "sensitivity": hit / truth,
        "specificity": (whole - truth - guessed + hit) / (whole - truth),
        "f1": 2 * hit / (truth + guessed),
    }
    return {f"{part}_accuracy": float(hit.sum() / whole)} | {f"{part}_{name}": float(v.mean()) for name, v in each.items()}


def record(
    overrides: dict[str, Any],
    seed: int,
    accuracy: float,
    *,
    status: str = "completed",
    trial: int | None = None,
    test: bool = True,
    error: dict[str, str] | None = None,
    arms: list[str] | None = None,
    started: int = 0,
    epochs: int = 8,
    classes: int = 4,
) -> dict[str, Any]:
    """A record that looks like a trainable's; the numbers are drawn around `accuracy` (a fraction)."""
    params = {**BASELINE, **overrides}
    config_hash = digest(params)
    rng = np.random.default_rng(int(config_hash[:8], 16) + seed)
    metrics: dict[str, float] = {}
    confusion = {}
    if status == "completed":
        for part, images in (("val", 60), ("test", 180)) if test else (("val", 60),):
            matrix = rng.multinomial(
                images // classes,
                np.full((classes, classes), (1 - accuracy) / (classes - 1)) + np.eye(classes) * (accuracy - (1 - accuracy) / (classes - 1)),
            )
            metrics |= scores(part, matrix)
            confusion[part] = matrix.tolist()
    ran = {"completed": epochs, "pruned": epochs // 2, "diverged": 2, "failed": 0}[status]
    knn = [0.3 + (accuracy - 0.35) * (1 - np.exp(-(e + 1) / 3)) + rng.normal(0, 0.01) for e in range(ran)]
    history = [
        {
            "stage": "pretrain",
            "epoch": e + 1,
            "loss": 7.5 - 2 * accuracy * (1 - np.exp(-(e + 1) / 3)) + rng.normal(0, 0.05),
            "learning_rate": 0.03 * (1 - e / epochs),
            "val_knn_accuracy": knn[e],
            "seconds": 1.2,
        }
        for e in range(ran)
    ]
    if status == "completed":
        history += [
            {
                "stage": "finetune",
                "epoch": e + 1,
                "loss": 1.4 * np.exp(-(e + 1) / 4) + rng.normal(0, 0.02),
                "learning_rate": 0.01,
                "seconds": 0.9,
            }
            for e in range(epochs)
        ]
    if knn:
        metrics["val_knn_accuracy"] = knn[-1]
    seconds = float(2.1 * ran + rng.uniform(0, 2))
    key = digest(["supcam", config_hash, seed, DATA_HASH])
    clock = f"2026-11-21T14:{started // 60 % 60:02d}:{started % 60:02d}+00:00"
    return {
        "schema": 1,
        "study": "supcam-quick-synthetic",
        "procedure": "supcam",
        "key": key,
        "arms": arms or [],
        "trial": trial,
        "seed": seed,
        "status": status,
        "params": params,
        "config_hash": config_hash,
        "stage_hashes": {"pretrain": digest([config_hash, seed])[:16]},
        "stages_reused": [],
        "epochs": {"pretrain": ran, "finetune": epochs if status == "completed" else 0},
        "seconds": seconds,
        "gpu_seconds": 0.0,
        "stage_seconds": {"pretrain": 0.6 * seconds, "finetune": 0.4 * seconds},
        "metrics": metrics,
        "confusion": confusion,
        "history": history,
        "code": "c0de" * 8,
        "commit": "c0ffee" + "0" * 34,
        "dirty": False,
        "host": "node",
        "data_hash": DATA_HASH,
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "device": "cpu",
        "started": clock,
        "ended": f"2026-11-21T14:{(started + int(seconds)) // 60 % 60:02d}:{(started + int(seconds)) % 60:02d}+00:00",
        "worker": f"node:{100 + started // 7 % 2}",
        "checkpoint": f"checkpoints/{key}/model.safetensors" if status == "completed" else None,
        "error": error,
        "peak_memory_bytes": 700_000_000,
    }


def study_and_records(seeds: int = 3, trials: int = 6) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The study.json and the records, as Python values."""
    records: dict[str, dict[str, Any]] = {}

    def add(new: dict[str, Any]) -> None:
        old = records.get(new["key"])
        if old is None:
            records[new["key"]] = new
        else:
            old["arms"] = sorted({*old["arms"], *new["arms"]})

    tables, clock = [], 0
    for number, title, arms in (("2", "What each part of SupCAM adds", TABLE_2), ("5", "Angular margin of the self-margin loss", TABLE_5)):
        listed = []
        for name, published, overrides, accuracy in arms:
            listed.append({"name": name, "published": published, "config_hash": digest({**BASELINE, **overrides}), "overrides": overrides})
            for seed in range(seeds):
                status, error = "completed", None
                if published == "imagenet":
                    status, error = "failed", {"kind": "unreachable_weights", "message": "no network"}
                if published == "m=0.5":
                    status, error = "diverged", {"kind": "not_finite", "message": "the loss is not finite in epoch 2"}
                add(record(overrides, seed, accuracy, status=status, error=error, arms=[f"{number}/{name}"], started=clock))
                clock += 9
        tables.append(
            {
                "number": number,
                "title": title,
                "metric": "test_accuracy",
                "metrics": [f"test_{m}" for m in METRICS],
                "dataset": "ChrCluster 60/10/30",
                "baseline_arm": "Training from scratch" if number == "2" else "m = 0.2",
                "arms": listed,
            }
        )
    rng = np.random.default_rng(0)
    for trial in range(trials):
        overrides = (
            {
                "margin": round(float(rng.uniform(0.05, 0.5)), 3),
                "temperature": round(float(np.exp(rng.uniform(-3.9, -0.7))), 4),
                "form": str(rng.choice(SPACE["form"]["choices"])),
            }
            if trial
            else {}
        )
        good = 0.86 - 0.3 * abs(overrides.get("margin", 0.2) - 0.2) - 0.04 * abs(np.log(overrides.get("temperature", 0.07) / 0.07))
        status = "pruned" if trial % 3 == 2 else "completed"
        new = record(overrides, 0, good, status=status, trial=trial, test=False, started=clock)
        if new["key"] in records:
            records[new["key"]]["trial"] = trial
        else:
            records[new["key"]] = new
        clock += 9
    asked = {
        "schema": 1,
        "study": "supcam-quick-synthetic",
        "procedure": "supcam",
        "preset": "quick",
        "created": "2026-11-21T14:00:00+00:00",
        "command": "python -m search supcam",
        "objective": {"metric": "val_accuracy", "direction": "maximize", "intermediate": "val_knn_accuracy"},
        "data": {
            "source": "synthetic",
            "hash": DATA_HASH,
            "classes": CLASSES,
            "images": 600,
            "counts": dict.fromkeys(CLASSES, 150),
            "parts": {"train": 360, "val": 60, "test": 180},
            "notes": [],
            "size_baseline": {"accuracy": 0.55, "low": 0.51, "high": 0.59},
        },
        "seed": 0,
        "repeats": seeds,
        "seeds": list(range(seeds)),
        "trials": trials,
        "baseline": BASELINE,
        "space": SPACE,
        "tables": tables,
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "commit": "c0ffee" + "0" * 34,
        "dirty": False,
    }
    return asked, list(records.values())


def write(folder: Path, asked: Any, records: list[Any]) -> Path:
    """Writes a study folder and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(asked), encoding="utf-8")
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return folder


def make(folder: Path, seeds: int = 3, trials: int = 6) -> Path:
    """A whole study in a folder."""
    return write(folder, *study_and_records(seeds, trials))


def leave(
    folder: Path, asked: dict[str, Any], records: list[dict[str, Any]], *, images: int = 600, clusters: int = 0, heat: bool = True
) -> None:
    """What runs leave beside their records: data/, and for each run with test metrics result.json and artefacts.npz. Images are drawn by a
    generator; image i shows a bright square whose place tells its class, so that a test can tell images apart."""
    classes = asked["data"]["classes"]
    count, rng = len(classes), np.random.default_rng(5)
    labels = np.arange(images) % count
    pixels = rng.integers(0, 60, size=(images, 24, 24)).astype(np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 2 + label % 20 : 6 + label % 20, i % 20 : i % 20 + 4] = 230
    (folder / "data").mkdir(parents=True, exist_ok=True)
    np.save(folder / "data/images.npy", pixels)
    files = [f"{classes[label]}/cell{i:04d}.png" for i, label in enumerate(labels)]
    (folder / "data/data.json").write_text(json.dumps({"files": files, "labels": labels.tolist(), "classes": classes}))
    sizes = next(np.sum(r["confusion"]["test"], axis=1) for r in records if "test_accuracy" in r["metrics"])
    test = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:size] for c, size in enumerate(sizes)]))
    shown = test[rng.permutation(len(test))[:150]]
    for record_ in records:
        if "test_accuracy" not in record_["metrics"]:
            continue
        draw = np.random.default_rng(int(record_["key"][:8], 16))
        made = folder / "checkpoints" / record_["key"]
        made.mkdir(parents=True, exist_ok=True)
        sure = record_["metrics"]["test_accuracy"]
        guess = np.zeros(len(test), dtype=int)
        for c, row in enumerate(record_["confusion"]["test"]):  # as the record has it
            guess[labels[test] == c] = draw.permutation(np.resize(np.repeat(np.arange(count), row), (labels[test] == c).sum()))
        top = draw.uniform(max(0.4, 1 / count), 0.99, len(test))
        probability = np.repeat((1 - top)[:, None] / (count - 1), count, axis=1)
        probability[np.arange(len(test)), guess] = top
        predictions = {"test": {"index": test.tolist(), "label": labels[test].tolist(), "probability": probability.tolist()}}
        (made / "result.json").write_text(json.dumps({"predictions": predictions}))
        (made / "model.safetensors").write_bytes(b"")
        centres = draw.normal(size=(count, 16)) * 4 * sure
        arrays = {
            "embedding": (centres[labels[shown]] + draw.normal(size=(len(shown), 16))).astype(np.float16),
            "index": shown.astype(np.int64),
            "label": labels[shown].astype(np.int64),
        }
        if heat:
            some = np.array([np.flatnonzero(labels[test] == c)[0] for c in range(min(count, 24))])
            arrays |= {
                "heat_image": pixels[test[some]],
                "heat": draw.integers(0, 256, size=(len(some), 6, 6)).astype(np.uint8),
                "heat_index": test[some].astype(np.int64),
                "heat_label": labels[test[some]].astype(np.int64),
                "heat_prediction": guess[some].astype(np.int64),
            }
        if clusters:
            cluster = draw.integers(0, clusters, len(shown))
            by_type = np.zeros((clusters, count), dtype=np.int64)
            np.add.at(by_type, (cluster, labels[shown]), 1)
            nearest = np.stack([test[draw.permutation(len(test))[:6]] for _ in range(clusters)])
            arrays |= {"cluster": cluster, "cluster_by_type": by_type, "nearest_index": nearest, "nearest_image": pixels[nearest]}
        np.savez_compressed(made / "artefacts.npz", **arrays)


def doubt(folder: Path, count: int = 5) -> None:
    """Gives each image of a study that `leave` has filled one of 40 patients, and has every run get the first test images wrong; the records
    are of it."""
    data = json.loads((folder / "data/data.json").read_text())
    data["patients"] = [f"p{i % 40:02d}" for i in range(len(data["files"]))]
    (folder / "data/data.json").write_text(json.dumps(data))
    for path in (folder / "checkpoints").glob("*/result.json"):
        given = json.loads(path.read_text())
        test = given["predictions"]["test"]
        for i in range(count):
            classes = len(test["probability"][i])
            row = [0.06 / (classes - 1)] * classes
            row[(test["label"][i] + 1) % classes] = 0.94
            test["probability"][i] = row
        path.write_text(json.dumps(given))
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    for r in records:
        path = folder / "checkpoints" / r["key"] / "result.json"
        if path.exists():
            test = json.loads(path.read_text())["predictions"]["test"]
            matrix = np.zeros((len(test["probability"][0]),) * 2, dtype=int)
            np.add.at(matrix, (test["label"], np.argmax(test["probability"], axis=1)), 1)
            r["confusion"]["test"] = matrix.tolist()
            r["metrics"] |= {name: value for name, value in scores("test", matrix).items() if name in r["metrics"]}
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def many_classes(count: int = 24, external: str = "qband") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same study with `count` classes, an external set, its metrics in every table, and simpler methods beside it."""
    asked, records = study_and_records()
    names = [str(i + 1) for i in range(count - 2)] + ["X", "Y"]
    asked["data"] |= {"classes": names, "counts": dict.fromkeys(names, 25)}
    asked["data"]["external"] = [{"slug": external, "source": external, "hash": "e" * 64, "images": 240, "counts": {}, "notes": []}]
    asked["data"]["baselines"] = [
        {"name": "raw pixels, PCA, K-means", "metrics": {"test_accuracy": 0.31, "test_f1": 0.28}},
        {"name": "areas", "metrics": {"test_accuracy": 0.2}},
    ]
    for table in asked["tables"]:
        table["external_dataset"] = ""
        table["metrics"] = [*table["metrics"][:2], f"external_{external}_accuracy", f"external_{external}_f1"]
    for r in records:
        if "test_accuracy" not in r["metrics"]:
            continue
        rng = np.random.default_rng(int(r["key"][:8], 16))
        for part, share in (("test", r["metrics"]["test_accuracy"]), (f"external_{external}", r["metrics"]["test_accuracy"] - 0.1)):
            rates = np.full((count, count), (1 - share) / (count - 1)) + np.eye(count) * (share - (1 - share) / (count - 1))
            matrix = rng.multinomial(10, rates)
            r["confusion"][part] = matrix.tolist()
            r["metrics"] |= {
                name: value for name, value in scores(part, matrix).items() if not name.endswith("y") or name.endswith("accuracy")
            }
        r["confusion"].pop("val")
        r["metrics"]["test_accuracy_kmeans_std"] = 0.004
        for entry in r["history"]:
            if entry["stage"] == "pretrain":
                entry["queue_age"] = 4.0 * min(entry["epoch"], 4)
    return asked, records
