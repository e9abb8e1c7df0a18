"""One image file -> its pixels, and from them gray values on a background of exactly 0.
Comes in: a path. Goes out: `Opened` (pixels as the file has them, upright) and `Decoded`, or why the file cannot be used. Exists so that
all readers see a file in the same way: its orientation, its pages, its depth, its size before its pixels."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from trainables.data.gray import UnreadableError as UnreadableError  # whoever opens a file asks for it here
from trainables.data.gray import by_depth, gray_of, is_lit, scaled
from trainables.data.ground import TOLERANCE, on_black
from trainables.data.stand_ins import is_pointer, text_link
from trainables.data.traits import traits_of
from trainables.data.words import count, few, them

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
KINDS = (("PNG",), *[("JPEG", "MPO")] * 2, *[("TIFF",)] * 2, ("BMP", "DIB"))
LARGEST = 40_000_000  # pixels of one file; a frame of a microscope's camera has up to 25 million, a whole-slide image thousands of millions
AT_ONCE = 4_000_000  # pixels: larger files are opened one at a time, so that eight readers hold a few hundred megabytes
one_large = threading.Lock()  # processes that read together have one between them, see `readers`
# What Pillow's readers raise on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError, MemoryError)


class FileFault(str):
    """A fault that concerns single files, by name: the others can be used."""

    files: tuple[str, ...]

    def __new__(cls, words: str, files: Sequence[str] = ()) -> FileFault:
        fault = super().__new__(cls, words)
        fault.files = tuple(files)
        return fault


@dataclass(frozen=True)
class Opened:
    """A file as its viewer shows it."""

    image: Image.Image  # loaded and upright
    deep: np.ndarray | None  # float64 (h, w) or (h, w, bands) where a band has more than 8 bits
    pages: int  # a TIFF may hold several; the first is taken
    turned: bool  # by what the file says of its orientation
    traits: tuple[str, ...] = ()  # see `traits.TRAITS`

    @property
    def most(self) -> float:
        """The highest value of a file of more than 8 bits; 0 of others."""
        return 0.0 if self.deep is None else float(np.nanmax(self.deep))


@dataclass(frozen=True)
class Decoded:
    """One image as gray on black, in its own size."""

    gray: np.ndarray  # uint8 (h, w), background exactly 0
    inverted: bool  # its background was white
    deep: bool  # had more than 8 bits a band
    pages: int = 1
    turned: bool = False
    unsure: str = ""  # why the ground may be another one than was taken, in a few words
    framed: bool = False  # a frame of another ground was cut away
    most: float = 0.0  # the highest value of a file of more than 8 bits
    traits: tuple[str, ...] = ()  # see `traits.TRAITS`
    luma: np.ndarray | None = None  # float32 (h, w) in 0..255, as the file has it, ground and all

    @property
    def without_pixels(self) -> Decoded:
        return replace(self, gray=self.gray[:0].copy(), luma=None)  # a slice would keep the whole


def kinds_of(name: str) -> tuple[str, ...]:
    """What a file of this name may be, in Pillow's words."""
    return KINDS[SUFFIXES.index(Path(name).suffix.lower())] if Path(name).suffix.lower() in SUFFIXES else ()


def open_image(path: Path) -> Opened:
    """The one way to a file's pixels. UnreadableError with the reason in a few words."""
    try:
        if path.stat().st_size == 0:
            raise UnreadableError("empty file")
        with (
            path.open("rb") as stream,
            Image.open(stream) as opened,
        ):  # by name Pillow maps raw TIFFs, and scrambles those that lie on their side
            width, height = opened.size
            if width * height > LARGEST:
                raise UnreadableError(f"{width} x {height} pixels, too many for one object: a whole slide? cut the objects out")
            if reason := _scrambled(opened):
                raise UnreadableError(reason)
            with one_large if width * height > AT_ONCE else nullcontext():
                raw = _raw(opened)
                traits = traits_of(opened)
                pages = int(getattr(opened, "n_frames", 1))
                turned = opened.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
                deep = _deep(path, opened, raw)
                opened.load()
                return Opened(ImageOps.exif_transpose(opened), deep, pages, turned, traits)
    except UnreadableError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableError("too many pixels for one object: a whole slide? cut the objects out") from None
    except DAMAGE as error:
        if target := text_link(path):
            raise UnreadableError(f"a link that was copied as text, to {target}") from None
        if is_pointer(path):
            raise UnreadableError("a pointer of Git LFS; git lfs pull brings the image") from None
        reason = (
            (_unknown_tiff(path) or "not an image")
            if "cannot identify" in str(error)
            else getattr(error, "strerror", "") or (str(error).splitlines() or ["damaged"])[0][:80]
        )
        raise UnreadableError(reason) from None


def _sample(opened: Image.Image) -> tuple[int, int]:
    """A TIFF's bits of a band, and what they are: 1 whole numbers without a sign, 2 with one, 3 floating point; 0 where it does not say."""
    return _sample_of(getattr(opened, "tag_v2", {}))


def _sample_of(tags: Any) -> tuple[int, int]:
    bits, kind = (int(np.max(tags.get(number, 0))) for number in (258, 339))  # BitsPerSample, SampleFormat
    return bits, kind


def _scrambled(opened: Image.Image) -> str:
    """Why Pillow would give other values than a TIFF holds, without a word; '' where it does not."""
    tags = getattr(opened, "tag_v2", {})
    bits, kind = _sample(opened)
    if bits == 8 and kind == 2:
        return "8 bits with signs, which are read as others; save it as unsigned 8 or 16 bits"
    if bits == 16 and tags.get(284) == 2 and tags.get(277, 1) > 1:  # PlanarConfiguration, SamplesPerPixel
        return "16 bits in planes of one colour each, which are read mixed up; save it with the colours of a pixel together"
    if tags.get(277, 1) == 2 and not set(np.atleast_1d(tags.get(338, ())).tolist()) & {1, 2}:  # ExtraSamples: transparency
        return "two bands, of which neither is said to be transparency; save the one that shows the objects, or the third of RGB as black"
    return ""


def _unknown_tiff(path: Path) -> str:
    """What a TIFF holds that Pillow cannot read, by its tags; '' for what is no TIFF."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            directory = TiffImagePlugin.ImageFileDirectory_v2(head + (stream.read(8) if 43 in head[2:4] else b""))  # 43: BigTIFF
            stream.seek(directory.next)
            directory.load(stream)
    except (*DAMAGE, struct.error):
        return ""
    kinds = {2: "whole numbers with a sign", 3: "floating point", 5: "complex integers", 6: "complex numbers"}
    bits, kind = _sample_of(directory)
    bands = int(np.max(directory.get(277, 1)))
    as_colours = directory.get(262) not in (0, 1)  # PhotometricInterpretation: white or black is 0, and nothing says what the bands are
    if not bits or (bits in (1, 8, 16) and kind in (0, 1) and (bands == 1 or (bands in (3, 4) and as_colours and directory.get(284) != 2))):
        return ""  # these are read: it is damaged
    said = "" if as_colours or bands == 1 else ", of which none is said to be a colour"
    return (
        f"a TIFF of {count(bands, 'band')} of {bits} bits ({kinds.get(kind, 'whole numbers')}{said}), which is not read; "
        "save it as gray or RGB of 8 or 16 bits"
    )


def _deep(path: Path, opened: Image.Image, raw: str) -> np.ndarray | None:
    """float64 pixels of a file with more than 8 bits a band; None for others. Pillow keeps the high byte alone of colours of 16 bits, so
    those are decoded twice, the second time as if their bytes stood in the other order, which gives the low byte."""
    mode = opened.mode
    if mode.startswith(("I", "F")):
        unsigned = _sample(opened) in ((32, 0), (32, 1)) and mode == "I"
        values = np.array(ImageOps.exif_transpose(opened), dtype=np.float64)
        return np.where(values < 0, values + 2.0**32, values) if unsigned else values  # Pillow takes the highest bit for a sign
    order = {"L": "B", "B": "L", "N": "B"}  # little, big, the machine's (which is little wherever this runs)
    if mode not in ("RGB", "RGBA", "LA") or raw[-1:] not in order:
        return None
    opened.load()
    high = ImageOps.exif_transpose(opened)
    with path.open("rb") as stream, Image.open(stream) as again:
        other = raw[:-1] + order[raw[-1]]
        again.tile = [tile._replace(args=_replaced(tile.args, raw, other)) for tile in again.tile]  # type: ignore[attr-defined]
        again.load()
        low = ImageOps.exif_transpose(again)
        return np.asarray(high, dtype=np.float64) * 256 + np.asarray(low)


def _raw(opened: Image.Image) -> str:
    """How the bytes of a file of 16 bits a band are read ("RGB;16B"); '' for others. To be asked before anything is loaded."""
    return next((word for tile in getattr(opened, "tile", ()) for word in _words(tile[3]) if ";16" in word), "")


def _words(args: Any) -> tuple[str, ...]:
    return tuple(word for word in ((args,) if isinstance(args, str) else args or ()) if isinstance(word, str))


def _replaced(args: Any, old: str, new: str) -> Any:
    return new if args == old else tuple(new if word == old else word for word in args)


def gray_and_alpha(opened: Opened) -> tuple[np.ndarray, np.ndarray | None]:
    """float32 (h, w) in 0..255, see `gray_of`, and alpha in 0..1 or None."""
    image, deep = opened.image, opened.deep
    if deep is not None:
        if deep.ndim == 2:
            return scaled(deep), None
        alpha = (deep[..., -1] / 65535).astype(np.float32) if deep.shape[2] in (2, 4) else None
        return scaled(gray_of(deep[..., :3] if deep.shape[2] >= 3 else deep[..., :1])), _unless_solid(alpha)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return _gray(rgba.convert("RGB")), _unless_solid(np.asarray(rgba.getchannel("A"), dtype=np.float32) / 255)
    return _gray(image if image.mode in ("L", "RGB") else image.convert("RGB")), None


def _unless_solid(alpha: np.ndarray | None) -> np.ndarray | None:
    return None if alpha is None or alpha.min() == 1 else alpha


def _gray(image: Image.Image) -> np.ndarray:
    """float32 (h, w) of an image of 8 bits a band, gray or RGB."""
    if image.mode == "RGB" and is_lit(bands := np.asarray(image)):
        return np.asarray(bands.max(2), dtype=np.float32)
    return np.asarray(image.convert("L"), dtype=np.float32)


def decode(path: Path, tolerance: int = TOLERANCE) -> Decoded:
    """The image at `path` as gray values on a background of exactly 0; UnreadableError where that cannot be had. See `ground.on_black`."""
    return decoded_of(open_image(path), tolerance)


def decoded_of(opened: Opened, tolerance: int = TOLERANCE) -> Decoded:
    """The same of a file that was opened."""
    gray, alpha = gray_and_alpha(opened)
    found = on_black(gray, alpha, tolerance)
    deep = opened.deep is not None
    said = (opened.pages, opened.turned, found.unsure, found.framed, opened.most, opened.traits)
    return Decoded(found.black, found.inverted, deep, *said, gray)


def read_picture(path: Path) -> tuple[np.ndarray, Decoded]:
    """uint8 (H, W, 3) in colour, and what was done to the file (without its pixels)."""
    return picture_of(open_image(path))


def picture_of(opened: Opened) -> tuple[np.ndarray, Decoded]:
    """The same of a file that was opened."""
    return _colour(opened), Decoded(np.zeros((0, 0), np.uint8), False, opened.deep is not None, opened.pages, opened.turned)


def _colour(opened: Opened) -> np.ndarray:
    """What is transparent becomes white. More than 8 bits: colours by their depth, gray from the image's own range."""
    deep = opened.deep
    if deep is not None:
        deep = deep if deep.ndim == 3 else deep[..., None]
        alpha = deep[..., -1:] / 65535 if deep.shape[2] in (2, 4) else 1
        bands = 255 + alpha * ((by_depth(deep[..., :3]) if deep.shape[2] >= 3 else scaled(deep[..., :1])) - 255)
        return np.ascontiguousarray(np.rint(np.broadcast_to(bands, (*bands.shape[:2], 3))), np.uint8)
    image = opened.image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


def unreadable_fault(unreadable: Sequence[tuple[str, str]]) -> list[str]:
    """The one fault of all files (name, reason) that cannot be read; none where there are none."""
    if not unreadable:
        return []
    named = [f"{name} ({reason})" for name, reason in unreadable]
    words = f"every image must be readable, {len(named)} cannot be read: {few(named)}; replace or remove {them(named)}"
    return [FileFault(words, [name for name, _ in unreadable])]


def blank_fault(blank: Sequence[str], tolerance: int) -> list[str]:
    """The one fault of all files that show nothing; none where there are none."""
    if not blank:
        return []
    words = (
        f"every image must show something, {len(blank)} hold nothing but background (within {tolerance} gray levels): {few(blank)}; "
        f"replace or remove {them(blank)}"
    )
    return [FileFault(words, blank)]
