"""What must not change a prediction: copies of the same images, given to an exported model as a user would give them.
Comes in: an export's procedure, configuration and tensors, a sample of the test part. Goes out: for each kind of copy the part of the
images that keep their class or cluster, of as many images as a limit of time allows. Exists because a model that is right on its own
files may say something else of the same image in another format, and of the same cell in another position or a darker stain.
"""

from __future__ import annotations

import struct
import tempfile
import time
import zlib
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
from trainables.parts.errors import RequestError
from trainables.parts.procedure import Procedure

SAMPLE = 100  # images at most
LEAST = 10  # and at least, or the measurement says nothing and is left out
SECONDS = 120.0  # that it may take: a large network on a CPU needs seconds an image
WANTED = 0.97  # of the images keep their class, or the card says so


class Deep:
    """Colours of 16 bits as a PNG, which Pillow does not write."""

    def __init__(self, image: np.ndarray) -> None:
        self.pixels = (image.astype(np.uint16) * 257).astype(">u2")

    def save(self, path: Path) -> None:
        height, width = self.pixels.shape[:2]
        lines = b"".join(b"\0" + line.tobytes() for line in self.pixels)
        parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(lines), b"IEND")
        chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


Made = Callable[[np.ndarray], Image.Image | Deep]
Copy = tuple[Made, str, Mapping[str, Any]]  # of gray on white or of colour, how its file ends, how it is saved


def _changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Image.Image]:
    return lambda image: Image.fromarray(change(image))


def _mode(mode: str) -> Callable[[np.ndarray], Image.Image]:
    return lambda white: Image.fromarray(white).convert(mode)


def _sized(factor: float, how: Image.Resampling) -> Callable[[np.ndarray], Image.Image]:
    return lambda white: Image.fromarray(white).resize(tuple(max(1, round(side * factor)) for side in white.shape[1::-1]), how)


def _padded(white: np.ndarray, side: int) -> np.ndarray:
    rest = [max(0, side - length) for length in white.shape]
    return np.pad(white, [(length // 2, length - length // 2) for length in rest], constant_values=255)


COPIES: Mapping[str, Copy] = {
    "inverted": (_changed(lambda white: 255 - white), ".png", {}),
    "RGB": (_mode("RGB"), ".png", {}),
    "RGBA": (_mode("RGBA"), ".png", {}),
    "TIFF": (_mode("L"), ".tif", {}),
    "16 bits": (_changed(lambda white: white.astype(np.uint16) * 257), ".png", {}),
    "JPEG 90": (_mode("L"), ".jpg", {"quality": 90}),
    "padded by 10": (_changed(lambda white: np.pad(white, 10, constant_values=255)), ".png", {}),
    "padded to 300": (_changed(lambda white: _padded(white, 300)), ".png", {}),
    "background 240": (_changed(lambda white: np.rint(white * (240 / 255)).astype(np.uint8)), ".png", {}),  # a weaker lamp
    "clipped at 240": (_changed(lambda white: np.minimum(white, 240)), ".png", {}),
    "half size": (_sized(0.5, Image.Resampling.BOX), ".png", {}),
    "double size": (_sized(2.0, Image.Resampling.BICUBIC), ".png", {}),
    "turned by 90 degrees": (_changed(lambda white: np.ascontiguousarray(np.rot90(white))), ".png", {}),
}


def _level(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Image.Image]:
    """Of colours in 0..1."""
    return _changed(lambda image: np.clip(np.rint(255 * change(image / 255)), 0, 255).astype(np.uint8))


COLOUR_COPIES: Mapping[str, Copy] = {
    "RGBA": (_mode("RGBA"), ".png", {}),
    "TIFF": (_mode("RGB"), ".tif", {}),
    "16 bits": (Deep, ".png", {}),
    "JPEG 90": (_mode("RGB"), ".jpg", {"quality": 90}),
    "double size": (_sized(2.0, Image.Resampling.BICUBIC), ".png", {}),
    "turned by 90 degrees": (_changed(lambda image: np.ascontiguousarray(np.rot90(image))), ".png", {}),
    "turned by 180 degrees": (_changed(lambda image: np.ascontiguousarray(np.rot90(image, 2))), ".png", {}),
    "mirrored": (_changed(lambda image: np.ascontiguousarray(image[:, ::-1])), ".png", {}),
    "shifted by 2 px": (_changed(lambda image: np.pad(image, ((2, 0), (2, 0), (0, 0)), "reflect")[:-2, :-2]), ".png", {}),
    "brightness 0.9": (_level(lambda image: 0.9 * image), ".png", {}),
    "contrast 0.8": (_level(lambda image: image.mean() + 0.8 * (image - image.mean())), ".png", {}),
    "optical densities 1.2": (_level(lambda image: image**1.2), ".png", {}),  # a longer staining, a thicker section
}
ALONE, ONE_CLASS = "alone in its folder", "among its own class only"
PLAIN: Copy = (_changed(lambda image: image), ".png", {})
ELSEWHERE_COPY: Copy = (lambda white: Image.fromarray(seen_by(ELSEWHERE, 255 - white)), ".png", {})
LABORATORY = f"another laboratory's ({ELSEWHERE.words})"
OF_AXES: Mapping[int, Mapping[str, Copy]] = {
    3: {**COPIES, LABORATORY: ELSEWHERE_COPY},
    4: COLOUR_COPIES,
}  # by how many axes a pack's images have: gray, colour
BESIDE = 3  # of each image: itself, alone, among its class


@dataclass(frozen=True)
class Copies:
    """What was found. same: kind of copy -> fraction of the images that keep their class; none where a procedure reads no single images, or
    there was too little time."""

    same: Mapping[str, float] = field(default_factory=dict)
    images: int = 0
    wanted: int = 0  # images that there would have been without a limit of time
    what: str = "class"  # that they keep: class | cluster
    packed: int = 0  # side in pixels to which the images had been brought before, where their files were not at hand; 0: as these have them

    @property
    def words(self) -> str:
        """Of which images."""
        small = f", brought to {self.packed} x {self.packed} px before, since their files were not at hand," if self.packed else ""
        if self.images == self.wanted:
            return f"Of {self.images} test images{f' (a fixed sample of {SAMPLE})' if self.images == SAMPLE else ''}{small}"
        return (
            f"Of {self.images} test images (the first of a fixed sample of {self.wanted}: as many as {SECONDS:g} s were enough for){small}"
        )


def as_given(pack: Pack, index: int, source: Path | None) -> np.ndarray:
    """An image as its file has it, uint8 on white with a margin; the packed one where the file is gone. One in colour as it is packed: its
    file may be a tile of many cells."""
    gray = pack.images[index]
    if gray.ndim == 3:
        return np.array(gray)
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
    """Which part of up to `SAMPLE` test images, the same for every export of a split, keep the class or cluster that they have as 8-bit
    PNG. Fewer images where `SECONDS` are not enough, by the time that ten of them take; none where ten take too long."""
    if procedure.read_images is None or not len(test):
        return Copies()
    copies = OF_AXES[pack.images.ndim]
    drawn = np.random.default_rng(0).permutation(test)[:SAMPLE]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:

        def read(paths: Sequence[Path]) -> np.ndarray:
            return procedure.read_images(list(paths), config)[0]

        def said(images: np.ndarray) -> np.ndarray:
            return np.asarray(procedure.predict(config, tensors, images, pack.classes, device)[column])

        def saved(images: Sequence[np.ndarray], copy: Copy) -> list[Path]:
            made, end, how = copy
            place = Path(tempfile.mkdtemp(dir=folder))
            paths = [place / f"{number}{end}" for number in range(len(images))]
            for path, image in zip(paths, images, strict=True):
                made(image).save(path, **how)
            return paths

        def kept(some: np.ndarray) -> dict[str, np.ndarray]:
            """Kind of copy -> which of the images keep their class."""
            images = [as_given(pack, int(index), source) for index in some]
            plain = saved(images, PLAIN)
            seen = {name: read(saved(images, copy)) for name, copy in copies.items()}
            seen[ALONE] = np.concatenate([read([path]) for path in plain])
            # in one call: each builds the network anew
            own, *others = np.split(said(np.concatenate([read(plain), *seen.values()])), 1 + len(seen))
            found = dict(zip(seen, others, strict=True))
            of_class = np.empty_like(own)
            for label in np.unique(pack.labels[some]):
                those = np.flatnonzero(pack.labels[some] == label)
                of_class[those] = said(read([plain[place] for place in those]))
            found[ONE_CLASS] = of_class
            return {name: other == own for name, other in found.items()}

        first, rest = drawn[:LEAST], drawn[LEAST:]
        plain = read(saved([as_given(pack, int(index), source) for index in first], PLAIN))
        try:  # what comes with a first time is no part of an image's time
            columns = procedure.predict(config, tensors, plain[:1], pack.classes, device)
        except RequestError:  # of yardsticks that an image alone does not show
            return Copies()
        column, what = ("prediction", "class") if "prediction" in columns else ("cluster", "cluster")
        tried = time.monotonic()
        said(plain)
        if (len(copies) + BESIDE) * (time.monotonic() - tried) > SECONDS:
            return Copies(wanted=len(drawn), what=what)
        tried = time.monotonic()
        parts = [kept(first)]
        now = time.monotonic()
        more = int(len(first) * max(0.0, SECONDS - (now - begun)) / max(now - tried, 1e-6))
        if some := rest[:more].tolist():
            parts.append(kept(np.array(some)))
    same = {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}
    files = pack.images.ndim > 3 or (source is not None and all((source / pack.files[index]).is_file() for index in drawn.tolist()))
    return Copies(same, len(first) + len(some), len(drawn), what, 0 if files else pack.images.shape[1])


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
        f"{HEADING}\n\n{copies.words}, copies with the same {copies.what} as the image itself:\n\n"
        f"| copy | same {copies.what} |\n|---|---|\n{rows}\n\n{note}"
    ]
