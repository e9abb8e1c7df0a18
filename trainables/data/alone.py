"""Images for an exported model in the hands of timm alone: what training and `predict` do to a file, and the model's answer.
Comes in: files, and what the export's config.json says under `images`. Goes out: the network's input; probabilities. Exists so that an
export carries this with it: `search.loader` writes it, and all of this package that it needs, into the one file loader.py beside the
model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.ground import TOLERANCE
from trainables.data.normal import Normal, brought
from trainables.data.open import UnreadableError, decode


def image_settings(canvas: int, size: int, normal: Normal, every_turn: bool = False) -> dict[str, Any]:
    """What config.json says of a classifier of gray images, under `images`: for `load` and `predict` below, and in words."""
    by_itself = bool(normal.width or normal.upright)
    resampled = (
        f"cut to its object, resampled once (Gaussian, then linear) and centred on black, {size} x {size} px for {canvas} x {canvas}"
        if by_itself
        else f"centred on a black square of {canvas} x {canvas} px (larger ones scaled down to it, never cropped), "
        f"which is averaged by area to {size} x {size}"
    )
    words = {
        "gray": "luma (ITU-R 601), 0 to 255, of fluorescence in colours the brightest band; more than 8 bits are scaled from the "
        "image's own range; upright as EXIF says, first page",
        "inversion": "a white ground is inverted, so that objects are bright on black; ground is told by "
        "the border and the extremes of the gray values",
        "ground": f"pixels within {TOLERANCE} gray levels of the ground become 0, the others their distance from it",
        "look": normal.words or "frame, scale, gray and turn stay as they are",
        "resampling": resampled,
        "answer": "softmax of the mean of the outputs over the image's four turns by 90 degrees"
        if every_turn
        else "softmax of the outputs",
    }
    return {
        "canvas": canvas, "size": size, "tolerance": TOLERANCE, "normal_width": normal.width, "normal_gray": normal.gray,
        "upright": normal.upright, "straighten": normal.straight, "every_turn": every_turn, "words": words,
    }  # fmt: skip


def own_settings() -> dict[str, Any]:
    """config.json beside this file."""
    settings: dict[str, Any] = json.loads(Path(__file__).with_name("config.json").read_text(encoding="utf-8"))
    return settings


def load(files: Sequence[str | Path], settings: Mapping[str, Any] | None = None) -> Tensor:
    """Image files -> (N, 1, size, size) float32, the network's input. settings: a config.json; None: the one beside this file. ValueError
    for a file that cannot be used."""
    settings = own_settings() if settings is None else settings
    how, scale = settings["images"], settings["pretrained_cfg"]
    normal = Normal(how["normal_width"], how["normal_gray"], how["upright"], how["straighten"])
    seen = np.zeros((len(files), 1, how["size"], how["size"]), np.uint8)
    for place, file in enumerate(files):
        try:
            gray = decode(Path(file), how["tolerance"]).gray
        except UnreadableError as fault:
            raise ValueError(f"{file} cannot be used: {fault}") from None
        seen[place, 0] = brought(gray, normal, how["canvas"], how["size"])[0]
        if not seen[place].any():
            raise ValueError(f"{file} cannot be used: it holds nothing but background")
    return (torch.from_numpy(seen).float() / 255 - scale["mean"][0]) / scale["std"][0]


@torch.no_grad()
def predict(model: nn.Module, files: Sequence[str | Path], settings: Mapping[str, Any] | None = None, batch: int = 128) -> Tensor:
    """Image files -> (N, C) probabilities, in the order of `label_names`, on the CPU. model: of `timm.create_model`, on any device."""
    settings = own_settings() if settings is None else settings
    device = next(model.parameters()).device
    model.eval()
    found = []
    for first in range(0, len(files), batch):
        images = load(files[first : first + batch], settings).to(device)
        turns = [model(images.rot90(turn, (2, 3))).float().cpu() for turn in range(4 if settings["images"]["every_turn"] else 1)]
        found.append(torch.stack(turns).mean(0).softmax(1))
    return torch.cat(found) if found else torch.zeros(0, len(settings["pretrained_cfg"]["label_names"]))
