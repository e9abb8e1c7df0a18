"""What a file is beside its picture: format, colours, resolution, compression, who wrote it.
Comes in: an opened file. Goes out: words. Exists because a class whose files are all of one kind can be told without looking, see
`size.told_by_files`."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from PIL import Image

TRAITS = ("format", "colours", "resolution", "compression", "program", "frame")
_WRITERS = (271, 272, 305)  # Make, Model, Software of EXIF and TIFF


def traits_of(opened: Image.Image) -> tuple[str, ...]:
    """A word for each of TRAITS, '' for what the file does not say; of a file that was not loaded yet."""
    info: dict[Any, Any] = opened.info
    tables = getattr(opened, "quantization", None)
    packed = f"quantised by {sum(tables[0])}" if tables else str(info.get("compression", ""))
    said = [str(opened.format), opened.mode, "", packed, "", f"{opened.size[0]} x {opened.size[1]}"]
    with suppress(TypeError, ValueError, ZeroDivisionError, OverflowError):  # 0/0 per inch
        if dpi := info.get("dpi"):
            said[2] = " x ".join(f"{float(value):.0f}" for value in dpi) + " dpi"
    tags = [str(opened.getexif().get(tag, "")).strip("\0 ") for tag in _WRITERS]
    said[4] = " ".join(filter(None, [*tags, str(info.get("Software", ""))]))[:80]
    return tuple(map(sys.intern, said))  # of 100,000 files a few
