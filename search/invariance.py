"""What must not change a prediction: copies of the same images, given to an exported model as a user would give them.
Comes in: an export's procedure, configuration and tensors, a sample of the test part. Goes out: for each kind of copy the part of the
images that keep their class, of as many images as a limit of time allows. Exists because a classifier that is right on its own files may
say something else of the same image in another format.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainables.data.laboratory import ELSEWHERE, seen_by
from trainables.data.open import UnreadableError, decode
from trainables.data.pack import Pack
from trainables.parts.procedure import Procedure

SAMPLE = 100  # images at most
LEAST = 10  # and at least, or the measurement says nothing and is left out
SECONDS = 120.0  # that it may take: a large network on a CPU needs seconds an image
WANTED = 0.97  # of the images keep their class, or the card says so

Copy = tuple[Callable[[np.ndarray], Image.Image], str, Mapping[str, Any]]  # of a gray image on white, how its file ends, how it is saved


def _gray(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Image.Image]:
    return lambda white: Image.fromarray(change(white))


def _mode(mode: str) -> Callable[[np.ndarray], Image.Image]:
    return lambda white: Image.fromarray(white).convert(mode)


def _sized(factor: float, how: Image.Resampling) -> Callable[[np.ndarray], Image.Image]:
    return lambda white: Image.fromarray(white).resize(tuple(max(1, round(side * factor)) for side in reversed(white.shape)), how)


def _padded(white: np.ndarray, side: int) -> np.ndarray:
    rest = [max(0, side - length) for length in white.shape]
    return np.pad(white, [(length // 2, length - length // 2) for length in rest], constant_values=255)


COPIES: Mapping[str, Copy] = {
    "inverted": (_gray(lambda white: 255 - white), ".png", {}),
    "RGB": (_mode("RGB"), ".png", {}),
    "RGBA": (_mode("RGBA"), ".png", {}),
    "TIFF": (_mode("L"), ".tif", {}),
    "16 bits": (_gray(lambda white: white.astype(np.uint16) * 257), ".png", {}),
    "JPEG 90": (_mode("L"), ".jpg", {"quality": 90}),
    "padded by 10": (_gray(lambda white: np.pad(white, 10, constant_values=255)), ".png", {}),
    "padded to 300": (_gray(lambda white: _padded(white, 300)), ".png", {}),
    "background 240": (_gray(lambda white: np.rint(white * (240 / 255)).astype(np.uint8)), ".png", {}),  # a weaker lamp
    "clipped at 240": (_gray(lambda white: np.minimum(white, 240)), ".png", {}),
    "half size": (_sized(0.5, Image.Resampling.BOX), ".png", {}),
    "double size": (_sized(2.0, Image.Resampling.BICUBIC), ".png", {}),
    "turned by 90 degrees": (_gray(lambda white: np.ascontiguousarray(np.rot90(white))), ".png", {}),
}
PASSES = len(COPIES) + 4  # of each image: itself, alone, among its class, another laboratory's
ALONE, ONE_CLASS = "alone in its folder", "among its own class only"
PLAIN: Copy = (_mode("L"), ".png", {})
ELSEWHERE_COPY: Copy = (lambda white: Image.fromarray(seen_by(ELSEWHERE, 255 - white)), ".png", {})
LABORATORY = f"another laboratory's ({ELSEWHERE.words})"


@dataclass(frozen=True)
class Copies:
    """What was found. same: kind of copy -> fraction of the images that keep their class; none where there are no such copies of images in
    colour, or too little time."""

    same: Mapping[str, float] = field(default_factory=dict)
    images: int = 0
    wanted: int = 0  # images that there would have been without a limit of time

    @property
    def words(self) -> str:
        """Of which images."""
        if self.images == self.wanted:
            return f"Of {self.images} test images{f' (a fixed sample of {SAMPLE})' if self.images == SAMPLE else ''}"
        return f"Of {self.images} test images (the first of a fixed sample of {self.wanted}: as many as {SECONDS:g} s were enough for)"


def on_white(pack: Pack, index: int, source: Path | None) -> np.ndarray:
    """An image as its file has it, uint8 on white with a margin; the packed one where the file is gone."""
    gray = pack.images[index]
    if source is not None and (source / pack.files[index]).is_file():
        with suppress(UnreadableError):  # damaged since it was packed
            gray = decode(source / pack.files[index]).gray
    return np.pad(255 - np.asarray(gray), 2, constant_values=255)


def invariances(
    procedure: Procedure,
    config: Any,
    tensors: Mapping[str, Tensor],
    pack: Pack,
    test: np.ndarray,
    source: Path | None,
    device: torch.device,
) -> Copies:
    """Which part of up to `SAMPLE` test images, the same for every export of a split, keep the class which they have as 8-bit PNG on white.
    Fewer images where `SECONDS` are not enough, by the time that ten of them take; none where ten take too long."""
    if procedure.read_images is None or pack.images.ndim != 3 or not len(test):
        return Copies()
    drawn = np.random.default_rng(0).permutation(test)[:SAMPLE]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:

        def read(paths: Sequence[Path]) -> np.ndarray:
            return procedure.read_images(list(paths), config)[0]

        def said(images: np.ndarray) -> np.ndarray:
            return np.asarray(procedure.predict(config, tensors, images, pack.classes, device)["prediction"])

        def saved(whites: Sequence[np.ndarray], name: str, copy: Copy) -> list[Path]:
            made, end, how = copy
            paths = [Path(folder) / f"{name} {number}{end}" for number in range(len(whites))]
            for path, white in zip(paths, whites, strict=True):
                made(white).save(path, **how)
            return paths

        def kept(some: np.ndarray) -> dict[str, np.ndarray]:
            """Kind of copy -> which of the images keep their class."""
            whites = [on_white(pack, int(index), source) for index in some]
            plain = saved(whites, "plain", PLAIN)
            own = said(read(plain))
            found = {name: said(read(saved(whites, name, copy))) for name, copy in COPIES.items()}
            found[ALONE] = said(np.concatenate([read([path]) for path in plain]))
            of_class = np.empty_like(own)
            for label in np.unique(pack.labels[some]):
                those = np.flatnonzero(pack.labels[some] == label)
                of_class[those] = said(read([plain[place] for place in those]))
            found[ONE_CLASS] = of_class
            found[LABORATORY] = said(read(saved(whites, "elsewhere", ELSEWHERE_COPY)))
            return {name: other == own for name, other in found.items()}

        first, rest = drawn[:LEAST], drawn[LEAST:]
        plain = read(saved([on_white(pack, int(index), source) for index in first], "plain", PLAIN))
        said(plain[:1])  # what comes with a first time is no part of an image's time
        tried = time.monotonic()
        said(plain)
        if PASSES * (time.monotonic() - tried) > SECONDS:
            return Copies(wanted=len(drawn))
        tried = time.monotonic()
        parts = [kept(first)]
        now = time.monotonic()
        more = int(len(first) * max(0.0, SECONDS - (now - begun)) / max(now - tried, 1e-6))
        if some := rest[:more].tolist():
            parts.append(kept(np.array(some)))
    same = {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}
    return Copies(same, len(first) + len(some), len(drawn))


HEADING = "## What does not change a prediction"


def card_lines(copies: Copies | None) -> list[str]:
    """Of a model card: a table, and a note on what falls short. copies: None before they were looked at."""
    if copies is None:
        return [f"{HEADING}\n\nNot measured yet; `python -m search export STUDY` does it.\n\n"]
    if not copies.wanted:
        return []
    if not copies.images:
        words = (
            f"Not measured: copies of {LEAST} images would have taken more than {SECONDS:g} seconds on the machine that exported the model"
        )
        return [f"{HEADING}\n\n{words}; `python -m search export STUDY` on one with a GPU does it.\n\n"]
    short = [f"{name} ({100 * part:.0f} %)" for name, part in copies.same.items() if part < WANTED and name != LABORATORY]
    note = (
        f"Below {100 * WANTED:.0f} %: {', '.join(short)}. Give such images to it only after a look at what it makes of them.\n"
        if short
        else ""
    )
    rows = "\n".join(f"| {name} | {100 * part:.0f} % |" for name, part in copies.same.items())
    return [
        f"{HEADING}\n\n{copies.words}, copies with the same class as the image itself:\n\n"
        f"| copy | same class |\n|---|---|\n{rows}\n\n{note}"
    ]
