"""What single runs left, ready to be shown: of which arms and seed, the embedding as a map, heat laid over its image. In: a Study and `Beside`.
Out: arrays and names, for the page and for figures alike; nothing where the runs left no such thing."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis import artefacts
from analysis.beside import Beside, Side, class_names
from analysis.study import Study

Shown = list[tuple[str, Mapping[str, np.ndarray]]]
Seen = Mapping[tuple[str, int], Mapping[str, np.ndarray]]
# from dark to yellow, evenly rising in lightness (five of inferno's colours)
_HOT = np.array([[0.0, 0.0, 0.02], [0.34, 0.06, 0.43], [0.74, 0.22, 0.33], [0.98, 0.56, 0.04], [0.99, 1.0, 0.64]])


def seen_by(study: Study, beside: Beside) -> tuple[list[Side], Seen]:
    """The two sides (or the one), and what each of their runs left, by configuration and seed."""
    sides = [s for s in (beside.pairing.reference, beside.pairing.other) if s is not None]
    return sides, {(side.config_hash, seed): beside.left[key] for side in sides for seed, key in sorted(side.runs.items())}


def choose(sides: list[Side], seen: Seen, name: str, alone: bool = False) -> tuple[Shown, int]:
    """(arm name, its arrays) of one seed: the first that all sides have, else the last side's (the winner's) first alone. alone: of one side."""
    if alone:
        found = choose(sides[-1:], seen, name)
        return found if found[0] or not sides else choose(sides[:1], seen, name)
    have = [{seed for seed in s.runs if name in seen[s.config_hash, seed]} for s in sides]
    common = sorted(set.intersection(*have)) if have else []
    if common:
        return [(s.name, seen[s.config_hash, common[0]]) for s in sides], common[0]
    for side, seeds in reversed(list(zip(sides, have, strict=True))):
        if seeds:
            return [(side.name, seen[side.config_hash, min(seeds)])], min(seeds)
    return [], 0


def heat_of(shown: Shown) -> Shown:
    """Those that have all of a heat map; of the same images where there are two, else the last alone."""
    wanted = ("heat_image", "heat", "heat_index", "heat_label", "heat_prediction")
    shown = [(n, a) for n, a in shown if all(k in a for k in wanted) and len({len(a[k]) for k in wanted}) == 1]
    same = len(shown) < 2 or np.array_equal(shown[0][1]["heat_index"], shown[1][1]["heat_index"])
    return shown if same else shown[-1:]


def maps(study: Study, shown: Shown, compute: bool = True) -> list[tuple[str, np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]]:
    """(arm, (n, 2) places, (n,) group, names of the groups, (n,) index of the images) of the same test images for the arms, grouped by class, and by
    cluster too where there are clusters."""
    samples = [a["index"] for _, a in shown if "index" in a]
    if len(shown) == 2 and (len(samples) < 2 or not np.array_equal(samples[0], samples[1])):
        shown = shown[-1:]  # not of the same images
    found = []
    by_cluster = any("cluster" in a for _, a in shown)
    for name, arrays in shown:
        map_ = coordinates(study.folder / "figures" / ".cache", arrays["embedding"][: artefacts.MOST_POINTS], compute)
        if map_ is None or "label" not in arrays or len(arrays["label"]) < len(map_):
            continue
        label = arrays["label"][: len(map_)]
        index = arrays["index"][: len(map_)] if len(arrays.get("index", ())) >= len(map_) else np.full(len(map_), -1)
        types = class_names(study, max(len(study.classes), int(label.max()) + 1))
        found.append((name if not by_cluster else f"{name}: by type", map_, label, types, index))
        if "cluster" in arrays and len(arrays["cluster"]) >= len(map_):
            cluster = arrays["cluster"][: len(map_)]
            found.append((f"{name}: by cluster", map_, cluster, tuple(str(i) for i in range(int(cluster.max()) + 1)), index))
    return found


def coordinates(folder: Path, embedding: np.ndarray, compute: bool) -> np.ndarray | None:
    """t-SNE of (n, D) to (n, 2), scaled to [0, 1], kept in `folder` under a hash of the input; None where it is not there and must not be
    computed (it takes seconds), or where there are too few points."""
    points = np.ascontiguousarray(embedding, dtype=np.float32)
    if len(points) < 5 or not np.isfinite(points).all():
        return None
    path = folder / f"tsne-1-{hashlib.sha256(repr(points.shape).encode() + points.tobytes()).hexdigest()[:32]}.npy"
    try:
        kept = np.load(path, allow_pickle=False)
        if kept.shape == (len(points), 2) and kept.dtype.kind == "f" and np.isfinite(kept).all():
            return np.asarray(kept)
    except (OSError, ValueError, EOFError):
        pass  # not there or damaged: computed anew
    if not compute:
        return None
    from sklearn.manifold import TSNE  # here: a report without an embedding needs no scikit-learn
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):  # sums of several threads come in any order: the map would differ from run to run
        init: Any = "pca" if min(points.shape) > 2 and np.ptp(points) > 0 else "random"
        map_ = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), init=init, random_state=0, learning_rate="auto").fit_transform(points)
    spread = np.ptp(map_, axis=0)
    map_ = (map_ - map_.min(axis=0)) / np.where(spread > 0, spread, 1)
    out = io.BytesIO()
    np.save(out, map_.astype(np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(out.getvalue())
    partial.replace(path)
    return np.asarray(map_, dtype=np.float32)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8: the image in gray, the more of a dark-to-yellow scale over it the higher heat (s, s) is."""
    gray = image if image.ndim == 2 else image.mean(axis=2)
    large = np.asarray(Image.fromarray(np.ascontiguousarray(heat)).resize(gray.shape[::-1], Image.Resampling.BILINEAR)) / 255
    color = np.stack([np.interp(large, np.linspace(0, 1, len(_HOT)), channel) for channel in _HOT.T], axis=-1)
    weight = 0.65 * large[..., None]
    mixed = (1 - weight) * (gray[..., None] / 255) + weight * color
    return np.asarray(np.round(255 * np.clip(mixed, 0, 1)), dtype=np.uint8)
