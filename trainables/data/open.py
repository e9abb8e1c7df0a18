"""One image file -> gray values on a background of exactly 0.
Comes in: a path. Goes out: `Decoded`, or why the file cannot be used. Exists so that all readers see a file in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
TOLERANCE = 8  # grey levels of 255 above the background that still count as background: JPEG's ringing on a flat field stays below it


@dataclass(frozen=True)
class Decoded:
    """One image as gray on black, in its own size."""

    gray: np.ndarray  # uint8 (h, w), background exactly 0
    inverted: bool  # its background was white
    deep: bool  # had more than 8 bits per pixel
    pages: int  # a TIFF may hold several; the first is taken


class UnreadableError(ValueError):
    """Why an image cannot be used, in a few words."""


def decode(path: Path, tolerance: int = TOLERANCE) -> Decoded:
    """The image at `path` as gray values on a background of exactly 0; UnreadableError where that cannot be had.

    More than 8 bits: scaled from the image's own minimum and maximum to 0..255. Colour: luma (ITU-R 601). Transparency: composited
    on the background. Polarity: a median of the border pixels of 128 or more is a white background, and the image is inverted.
    Where most of the border is transparent, a dark foreground stood on white and a bright one on black. Then every pixel at most
    `tolerance` levels above the border's median becomes 0; the others keep their value."""
    try:
        if path.stat().st_size == 0:
            raise UnreadableError("empty file")
        with Image.open(path) as opened:
            pages = int(getattr(opened, "n_frames", 1))
            gray, alpha, deep = _gray_and_alpha(opened)
    except UnreadableError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableError("too many pixels") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        TypeError,
        KeyError,
        IndexError,
    ) as error:  # what Pillow's readers raise on damaged files
        reason = "not an image" if "cannot identify" in str(error) else (str(error).splitlines() or ["damaged"])[0][:80]
        raise UnreadableError(reason) from None
    border = np.concatenate([gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]])
    if alpha is not None:
        seen = np.concatenate([alpha[0], alpha[-1], alpha[1:-1, 0], alpha[1:-1, -1]]) >= 0.5
        if seen.mean() >= 0.5:
            level = float(np.median(border[seen]))
        else:
            visible = gray[alpha >= 0.5]
            level = 255.0 if visible.size and np.median(visible) < 128 else 0.0
        gray = alpha * gray + (1 - alpha) * level
    else:
        level = float(np.median(border))
    inverted = level >= 128
    if inverted:
        gray, level = 255 - gray, 255 - level
    gray = np.where(gray <= level + tolerance, 0, gray)
    return Decoded(np.rint(gray).astype(np.uint8), inverted, deep, pages)


def _gray_and_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """float32 (h, w) in 0..255, alpha in 0..1 or None, and whether it had more than 8 bits."""
    if image.mode.startswith(("I", "F")):
        raw = np.asarray(image, dtype=np.float64)
        if not np.isfinite(raw).all():
            raise UnreadableError("holds values that are not finite")
        low, high = raw.min(), raw.max()
        scaled = (raw - low) * (255.0 / (high - low)) if high > low else np.zeros_like(raw)
        return scaled.astype(np.float32), None, True
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"), dtype=np.float32) / 255
        gray = np.asarray(rgba.convert("RGB").convert("L"), dtype=np.float32)
        return gray, (None if alpha.min() == 1 else alpha), False
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"), dtype=np.float32), None, False
