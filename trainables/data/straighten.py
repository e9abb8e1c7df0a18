"""A bent chromosome straightened by its medial axis, after what SCL's table 2 has from Zhang et al. (JBHI 2021); re-implemented from its
description. Comes in: a gray image on black. Goes out: the same with its axis upright, or as it was where that cannot be told. Exists so
that any arm can be tried on straightened images: bends tell nothing of the class."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label, map_coordinates

from trainables.data.scale import foreground_box
from trainables.parts.libraries import library

SHORTEST = 2.0  # widths: what is not longer has no axis to tell
HOLE = 0.02  # of the object's pixels: a larger hole is enclosed by a chromosome that touches itself
ON_PATH = 0.7  # of the skeleton lies on its longest path, where it is one line
APART = 0.3  # by how much the axis' length times the width may differ from the object's area
SMOOTHING = 0.5  # pixels: mean distance, squared, of the axis from the skeleton


def straightened(gray: np.ndarray) -> tuple[np.ndarray, bool]:
    """uint8 (h, w) on black -> uint8 (length, width), and whether it was straightened; else the image as it is: one that is short,
    touches itself, or has no single axis."""
    inside = _object(gray)
    axis = medial_axis(inside) if inside.any() else None
    if axis is None:
        return gray, False
    half = (
        int(np.ceil(np.percentile(distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1][tuple(np.rint(axis).astype(int).T)], 90) * 1.3)) + 1
    )
    step = np.gradient(axis, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], 1) / np.linalg.norm(step, axis=1, keepdims=True)
    places = axis[:, None] + np.arange(-half, half + 1)[None, :, None] * normal[:, None]
    alone = np.where(label(gray > 0)[0] == _largest(gray > 0), gray, 0).astype(np.float32)
    seen = map_coordinates(alone, np.moveaxis(places, 2, 0), order=1, mode="constant")
    seen = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    return (foreground_box(seen), True) if seen.any() else (gray, False)


def medial_axis(inside: np.ndarray) -> np.ndarray | None:
    """(n, 2) places a pixel apart along the axis of an object (h, w) bool, from end to end; None where it has no single one."""
    solid = binary_fill_holes(inside)
    if (solid & ~inside).sum() > HOLE * inside.sum():
        return None
    solid = np.pad(solid, 1)
    skeleton = np.argwhere(library("skimage.morphology").skeletonize(solid))
    path = longest_path(skeleton)
    area = int(solid.sum())
    width = 2 * float(np.median(distance_transform_edt(solid)[tuple(skeleton[path].T)])) if len(path) else 0.0
    if len(path) < 4 or len(path) < ON_PATH * len(skeleton):
        return None
    cut = min(int(0.5 * width), (len(path) - 4) // 2)  # the skeleton forks towards the corners of a blunt end
    points = skeleton[path[cut : len(path) - cut]].astype(np.float64) - 1
    from scipy.interpolate import splev, splprep  # here: half of what a reading process imports, which few need

    spline, _ = splprep(points.T, s=len(points) * SMOOTHING, k=3)
    fine = np.stack(splev(np.linspace(0, 1, 20 * len(points)), spline), 1)
    fine = np.concatenate([_beyond(fine[::-1], solid, width)[::-1], fine, _beyond(fine, solid, width)])
    far = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    length = far[-1]
    if length < SHORTEST * width or abs(length * width / area - 1) > APART:
        return None
    even = np.arange(0.0, length)
    return np.stack([np.interp(even, far, fine[:, axis]) for axis in (0, 1)], 1)


def longest_path(places: np.ndarray) -> np.ndarray:
    """Indices, in order, of the longest of the shortest ways between pixels (n, 2) that touch, corners included: from any pixel to the
    farthest, from there to the farthest again."""
    if len(places) < 2:
        return np.zeros(0, np.int64)
    from scipy.sparse import csr_matrix  # here: see above
    from scipy.sparse.csgraph import dijkstra

    gaps = np.abs(places[:, None] - places[None])
    touch = gaps.max(2) == 1
    graph = csr_matrix(np.where(touch, np.hypot(gaps[..., 0], gaps[..., 1]), 0))
    far = dijkstra(graph, indices=0)
    first = int(np.where(np.isfinite(far), far, -1).argmax())
    far, before = dijkstra(graph, indices=first, return_predecessors=True)
    way = [int(np.where(np.isfinite(far), far, -1).argmax())]
    while way[-1] != first:
        way.append(int(before[way[-1]]))
    return np.array(way[::-1])


def _object(gray: np.ndarray) -> np.ndarray:
    """The largest part of the foreground, its ragged edge smoothed."""
    mask = np.pad(gray > 0, 2)
    smooth = gaussian_filter(mask.astype(np.float32), 1) > 0.5
    return ((label(smooth)[0] == _largest(smooth)) if smooth.any() else smooth)[2:-2, 2:-2]


def _largest(mask: np.ndarray) -> int:
    """The number, as `label` gives it, of the part with the most pixels."""
    parts = label(mask)[0]
    return 1 + int(np.bincount(parts.ravel())[1:].argmax()) if mask.any() else 0


def _beyond(fine: np.ndarray, solid: np.ndarray, width: float) -> np.ndarray:
    """The axis (n, 2) goes straight on from its end to the object's: (m, 2), half a pixel apart. solid: with a margin of one pixel."""
    back = max(1, int(len(fine) * min(1.0, width / max(1.0, np.linalg.norm(np.diff(fine, axis=0), axis=1).sum()))))
    ahead = fine[-1] - fine[-1 - min(back, len(fine) - 1)]
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9) / 2
    places = fine[-1] + ahead * np.arange(1, int(4 * width) + 2)[:, None]
    on = map_coordinates(solid.astype(np.float32), (places + 1).T, order=1, mode="constant") > 0.5
    return places[: int(on.argmin()) if not on.all() else len(on)]
