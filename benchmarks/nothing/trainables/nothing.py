"""A procedure that trains nothing: one weight, one step, a score that is its configuration. What a run of it takes is the engine's."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.data.pack import make_pack
from trainables.parts.procedure import Evaluation, Procedure, Setting, Stage, Task


@dataclass(frozen=True)
class Nothing:
    """A configuration of which every value is another run."""

    x: float = 0.5
    number: int = 0
    seconds: float = 0.0  # that its step waits, as a training would take them on a device: the CPU is free meanwhile
    epochs: int = 1
    batch: int = 1


class Step(Task):
    def __init__(self, config: Nothing, setting: Setting) -> None:
        super().__init__()
        self.score, self.seconds = config.x, config.seconds
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def steps(self) -> int:
        return 1

    def batches(self, epoch: int) -> Iterator[None]:
        time.sleep(self.seconds)
        yield None

    def loss(self, batch: None) -> Tensor:
        return self.weight.sum()

    def learning_rate(self, epoch: float) -> float:
        return 0.1

    def validate(self) -> dict[str, float]:
        return {"val_accuracy": self.score}

    def result(self) -> dict[str, Tensor]:
        return dict(self.state_dict())


def synthesize(config, *, images: int, seed: int):
    names = [f"one/{number}.png" for number in range(images)]
    sizes = np.full((images, 2), 4.0)
    return make_pack(np.full((images, 4, 4), 128, np.uint8), np.zeros(images, int), ("one",), names, None, sizes)


PROCEDURE = Procedure(
    name="nothing",
    config=Nothing,
    stages=(Stage("only", "epochs", "batch", ("x", "number", "seconds", "epochs", "batch"), Step),),
    canonical=lambda config: config,
    faults=lambda config, pack, parts: [],
    synthesize=synthesize,
    read=None,
    parts=lambda config, pack, seed: {part: np.arange(len(pack)) for part in ("train", "val", "test")},
    evaluate=lambda config, tensors, pack, chosen, device: Evaluation({"accuracy": config.x}),
    timm_settings=lambda config, classes: None,
    read_images=None,
    predict=None,
)
