"""Colours and deeper values -> one gray value a pixel.
Comes in: bands. Goes out: 0..255. Exists because luma keeps a ninth of blue: of a nucleus in DAPI's colour with the spots of two probes it
keeps the spots."""

from __future__ import annotations

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601
DARK = 0.25  # of the brightest value: light on a ground that is darker, in a tenth of the border at least, is fluorescence or dark field
PURE = 0.75  # of its brightest band, by which a colour's faintest is below it: light of single dyes, and no stain
TRACE = 8 / 255  # of the brightest value: what is fainter has no colour


class UnreadableError(ValueError):
    """Why an image cannot be used, in a few words."""


def scaled(values: np.ndarray) -> np.ndarray:
    """float32 0..255 of deeper values, from their own range; a few hot pixels, far above all others, do not set it."""
    if not np.isfinite(values).all():
        raise UnreadableError("holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    if values.size >= 2000:
        most = float(np.partition(values.ravel(), -values.size // 1000)[-values.size // 1000])
        high = most if high - most > 2 * (most - low) > 0 else high
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return np.clip((values - low) * (255.0 / (high - low)), 0, 255).astype(np.float32)


def by_depth(values: np.ndarray) -> np.ndarray:
    """float32 0..255 of colours, by the depth that holds their highest value: those of a copy of 8 bits, whatever is on the image."""
    bits = next((bits for bits in (8, 10, 12, 14) if values.max() < 2**bits), 16)
    return np.clip(values * (255.0 / (2**bits - 1)), 0, 255).astype(np.float32)


def is_lit(bands: np.ndarray) -> bool:
    """Whether (h, w, 3) shows light in the colours of single dyes on black, as composites of fluorescence do: half of what is above its
    ground is of pure colours."""
    border = np.concatenate([bands[0], bands[-1], bands[:, 0], bands[:, -1]])
    most = float(bands.max())
    if not most > 0 or np.quantile(border.max(1), 0.1) > DARK * most:
        return False
    own = bands - np.quantile(border, 0.1, axis=0)  # a camera's offset has no colour
    top = own.max(2)
    visible = top > TRACE * most
    top = top[visible]
    return bool(len(top)) and float(np.median((top - own.min(2)[visible]) / top)) >= PURE


def gray_of(bands: np.ndarray) -> np.ndarray:
    """(h, w, bands) -> float (h, w): luma of three; of fluorescence in colours the brightest at each pixel, so that each dye counts as it
    does alone."""
    if bands.shape[2] != 3:
        return np.asarray(bands[..., 0], np.float32)
    return np.asarray(bands.max(2), np.float32) if is_lit(bands) else np.asarray(bands @ LUMA)
