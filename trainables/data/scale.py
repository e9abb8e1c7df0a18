"""Sizes: averaging down by area, the square canvas, an object's box.
Comes in: gray images on black. Goes out: uint8 images. Exists so that relative sizes stay true wherever an image is made smaller."""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(maxsize=256)
def area_weights(given: int, wanted: int) -> np.ndarray:
    """float32 (wanted, given): row i averages the stretch [i, i + 1) * given / wanted, partly covered pixels by their covered part."""
    edges = np.arange(wanted + 1) * (given / wanted)
    pixels = np.arange(given)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: np.ndarray = np.clip(covered, 0, None) * (wanted / given)
    return weights.astype(np.float32)


def shrink(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) -> uint8 (height, width) by exact area averaging."""
    if image.shape == (height, width):
        return image.astype(np.uint8)
    mean: np.ndarray = area_weights(image.shape[0], height) @ image.astype(np.float32) @ area_weights(image.shape[1], width).T
    return np.asarray(np.clip(np.rint(mean), 0, 255), np.uint8)


def on_canvas(gray: np.ndarray, canvas: int, size: int) -> np.ndarray:
    """uint8 (h, w) on black -> uint8 (size, size): centred on a square of `canvas` pixels, never cropped (a larger image is scaled
    down to it, its aspect kept), and the whole square averaged down to `size`, so that relative sizes of images stay true."""
    height, width = gray.shape
    largest = max(height, width)
    if largest > canvas:
        gray = shrink(gray, max(1, round(height * canvas / largest)), max(1, round(width * canvas / largest)))
        height, width = gray.shape
    top, left = (canvas - height) // 2, (canvas - width) // 2
    if size == canvas:
        square = np.zeros((canvas, canvas), np.uint8)
        square[top : top + height, left : left + width] = gray
        return square
    weights = area_weights(canvas, size)  # the rest of the square is 0 and need not be multiplied
    mean: np.ndarray = weights[:, top : top + height] @ gray.astype(np.float32) @ weights[:, left : left + width].T
    return np.asarray(np.clip(np.rint(mean), 0, 255), np.uint8)


def foreground_box(gray: np.ndarray) -> np.ndarray:
    """The smallest part of (h, w) that holds all foreground; (h, w) itself where there is none."""
    rows, columns = np.flatnonzero(gray.any(1)), np.flatnonzero(gray.any(0))
    return gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else gray
