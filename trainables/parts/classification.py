"""What every classifier of images needs around its network: its part of a data set where it is trained, and its scores on a part.
Comes in: a `Pack`, indices, a timm model. Goes out: gray images on the device; logits; columns of predictions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.pack import Pack
from trainables.parts.encoders import standardise, statistics_of

AT_ONCE = 512  # images


class PartImages:
    """Part of a pack where it is trained: on a GPU the uint8 array is copied there once, on a CPU it stays the shared memory map.
    resident: whether it is copied; None: to a GPU."""

    def __init__(self, pack: Pack, indices: np.ndarray, device: torch.device, resident: bool | None = None) -> None:
        self.pack, self.indices, self.device = pack, indices, device
        self.labels = torch.from_numpy(np.ascontiguousarray(pack.labels[indices])).to(device)
        self.resident: Tensor | None = None
        if device.type != "cpu" if resident is None else resident:
            self.resident = torch.empty((len(indices), *pack.images.shape[1:]), dtype=torch.uint8, device=device)
            for first in range(0, len(indices), AT_ONCE):  # not all at once: the host would hold the part a second time
                some = torch.from_numpy(pack.images[indices[first : first + AT_ONCE]])
                self.resident[first : first + len(some)] = some.to(device)

    def __len__(self) -> int:
        return len(self.indices)

    def pixels(self, chosen: Tensor) -> Tensor:
        """(N,) positions within the part -> (N, ...) uint8, as the pack has them."""
        if self.resident is not None:
            return self.resident[chosen.to(self.device)]
        return torch.from_numpy(self.pack.images[self.indices[chosen.numpy()]])

    def gray(self, chosen: Tensor) -> Tensor:
        """(N,) positions within the part -> (N, H, W) float32 gray levels 0-255."""
        return self.pixels(chosen).float()

    def colour(self, chosen: Tensor) -> Tensor:
        """(N,) positions within the part -> (N, 3, H, W) float32 in [0, 1]."""
        return self.pixels(chosen).permute(0, 3, 1, 2).float() / 255


def positions(images: np.ndarray, every_turn: bool, mirrored: bool = False) -> Iterator[np.ndarray]:
    """Images (N, S, S, ...) as they lie; with every_turn in their four turns by 90 degrees, and where `mirrored` in those of their mirror
    images. Nothing is copied."""
    for seen in (images, images[:, :, ::-1]) if every_turn and mirrored else (images,):
        for turn in range(4 if every_turn else 1):
            yield np.rot90(seen, turn, (1, 2))


@torch.no_grad()
def predict_logits(
    model: nn.Module, images: np.ndarray, chosen: np.ndarray, device: torch.device, batch: int = 128, normalise: bool = True
) -> Tensor:
    """Outputs (N, C) on the CPU for the chosen gray images (uint8), unaugmented. normalise: by the mean and deviation that
    the network expects; else it sees 0 to 1."""
    model.eval()
    logits = []
    for first in range(0, len(chosen), batch):
        gray = torch.from_numpy(images[chosen[first : first + batch]]).to(device).float()
        seen = gray[:, None] / 255
        logits.append(model(standardise(seen, statistics_of(model)) if normalise else seen).float().cpu())
    return torch.cat(logits)


def prediction_rows(logits: Tensor) -> list[list[float]]:
    """(N, C) logits as probabilities, for records and tables: of twelve significant digits. With five decimals those of a sure network
    would be ties, and its AUC, which is of double precision, could not be worked out again."""
    return [[float(f"{p:.12g}") for p in row] for row in logits.double().softmax(1).tolist()]


def prediction_columns(logits: Tensor, classes: tuple[str, ...]) -> dict[str, list[Any]]:
    """The class of each image and the probability of each class, for a table with a row an image."""
    columns: dict[str, list[Any]] = {"prediction": [classes[index] for index in logits.argmax(1)]}
    return columns | {f"p_{name}": list(column) for name, *column in zip(classes, *prediction_rows(logits), strict=True)}
