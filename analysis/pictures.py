"""Small pictures in the page: data URIs of JPEGs, and sheets of them. In: uint8 arrays. Out: text that an <img> or a style takes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from analysis import artefacts
from analysis.beside import Beside, class_names
from analysis.inside import choose, heat_of, overlay, seen_by
from analysis.study import Study

TILE = 48  # pixels of a picture in a sheet; a hundred of them are about 100 kB
ACROSS = 12
_HEAT = 12  # images whose heat maps are shown
_NEAREST = (40, 8)  # clusters, and cells of each


def data_uri(pixels: np.ndarray, quality: int = 72) -> str:
    """A JPEG. pixels: (H, W) or (H, W, 3) uint8."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def tile(pixels: np.ndarray, side: int = TILE) -> np.ndarray:
    """(side, side) or (side, side, 3): the whole image, its longer side fitted, the rest black."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(image.size)
    small = np.asarray(image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))), Image.Resampling.BOX))
    out = np.zeros((side, side, *small.shape[2:]), dtype=np.uint8)
    top, left = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
    out[top : top + small.shape[0], left : left + small.shape[1]] = small
    return out


def sheet(pictures: Sequence[np.ndarray]) -> str:
    """All of them on one JPEG, `ACROSS` in a row. All gray or all in colour."""
    lines = -(-len(pictures) // ACROSS)
    out = np.zeros((lines * TILE, min(ACROSS, len(pictures)) * TILE, *pictures[0].shape[2:]), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        y, x = divmod(i, ACROSS)
        out[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] = tile(picture)
    return data_uri(out, 60)


Strips = tuple[
    str, list[tuple[str, str, int]]
]  # what is shown; of each picture its data, its words, and its image in the pack (-1: of several)


def heat(study: Study, beside: Beside) -> Strips | None:
    """Each picture: the image, then where each arm looks. None where no run left heat maps."""
    shown, seed = choose(*seen_by(study, beside), "heat")
    shown = heat_of(shown)
    if not shown:
        return None
    first, names = shown[0][1], class_names(study, len(study.classes))
    out = []
    for row in np.argsort(first["heat_label"], kind="stable")[:_HEAT]:
        image = first["heat_image"][row]
        strip = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2), *(overlay(image, a["heat"][row]) for _, a in shown)]
        truth = int(first["heat_label"][row])
        said = [_named(names, int(a["heat_prediction"][row])) for _, a in shown]
        out.append((data_uri(np.hstack(strip)), f"{_named(names, truth)}; said: {', '.join(said)}", int(first["heat_index"][row])))
    return f"seed {seed}; each picture: the image, then {', then '.join(n for n, _ in shown)}; below it the truth, and what each said", out


def nearest(study: Study, beside: Beside) -> Strips | None:
    """As `heat`, of the cells nearest to each cluster's centre."""
    shown, seed = choose(*seen_by(study, beside), "nearest_image", alone=True)
    images = shown[0][1]["nearest_image"] if shown else np.zeros((0, 0))
    if not images.shape[0] * images.shape[1]:
        return None
    strips = [(data_uri(np.hstack(list(cells[: _NEAREST[1]]))), f"cluster {i}", -1) for i, cells in enumerate(images[: _NEAREST[0]])]
    return f"{shown[0][0]}, seed {seed}; the nearest first", strips


def _named(names: Sequence[str], i: int) -> str:
    return names[i] if 0 <= i < len(names) else str(i)


def cluster_matrix(study: Study, beside: Beside) -> tuple[str, np.ndarray] | None:
    """(arm and seed, cells of each type (columns) in each cluster (rows)); None where no run left it."""
    shown, seed = choose(*seen_by(study, beside), "cluster_by_type", alone=True)
    matrix = shown[0][1]["cluster_by_type"] if shown else None
    return None if matrix is None or (matrix < 0).any() else (f"{shown[0][0]}, seed {seed}", matrix.astype(np.float64))


def thumbnails(study: Study, index: Sequence[int]) -> tuple[str, Mapping[int, int]]:
    """(a sheet, place on it by index into the pack); ('', {}) where the images cannot be had."""
    try:
        pack = artefacts.images(study)
    except artefacts.Damaged:
        return "", {}  # said where the page lists what is damaged
    there = [i for i in index if pack is not None and 0 <= i < len(pack.pixels)]
    if pack is None or not there:
        return "", {}
    return sheet([pack.pixels[i] for i in there]), {i: place for place, i in enumerate(there)}
