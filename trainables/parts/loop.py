"""The one training loop of all procedures.
Comes in: a Task, a number of epochs, a place to resume from. Goes out: one row an epoch, through `after_epoch(row)`.
Exists once, because a copied loop is how training code rots. Knows no Ray: tests pass a list's append."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainables.parts.batch_norm import AT_THE_END, ON_THE_WAY, renew_statistics
from trainables.parts.checkpoint import optimizer_tensors, part, restore_optimizer, under
from trainables.parts.errors import Diverged
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import derive_seed


class Fitting:
    """A Task on its way through its epochs; `tensors()` is all that is needed to go on elsewhere."""

    def __init__(self, task: Task, setting: Setting) -> None:
        self.task, self.workers, self.device, self.seed, self.parts = task, setting.workers, setting.device, setting.seed, setting.parts
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=setting.precision == torch.float16)
        self.model = self.workers.parallel(task)

    def tensors(self) -> dict[str, Tensor]:
        scaler = {name: torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        return under("task", self.task.state_dict()) | under("optimizer", optimizer_tensors(self.task.optimizer)) | under("scaler", scaler)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.task.load_state_dict(part(tensors, "task"))
        restore_optimizer(self.task.optimizer, part(tensors, "optimizer"))
        if scaler := part(tensors, "scaler"):
            self.scaler.load_state_dict({name: value.item() for name, value in scaler.items()})  # whole numbers stay whole, as it demands

    def step(self, batch: Any, rate: float) -> Tensor:
        """One optimiser step; the loss, a scalar still on the device."""
        for group in self.task.optimizer.param_groups:
            group["lr"] = rate
        loss = self.model(batch)
        self.task.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.task.optimizer)
        self.scaler.update()
        self.task.after_step()
        return loss.detach()

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over `task.batches(epoch)`, epoch counted from 0: {"loss", "learning_rate"}. Diverged where the loss is not finite;
        beside a CPU this is looked at every 20 steps, so that the device need not wait for the host."""
        self.task.train()
        started, total, steps, rate = time.perf_counter(), torch.zeros((), dtype=torch.float64, device=self.device), self.task.steps(), 0.0
        # Dropout and stochastic depth inside of a backbone (Swin has it by default) ask the process's own generators: they start each epoch
        # from the seed too, so that neither a run before nor an interruption changes what they give.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, type(self.task).__name__, epoch, self.workers.rank))
            for number, batch in enumerate(self.task.batches(epoch)):
                rate = self.task.learning_rate(epoch + number / steps)
                total += self.step(batch, rate)
                # asked of the mean over the workers, so that all of them end at the same step and none waits for another
                if (self.device.type == "cpu" or number % 20 == 19 or number == steps - 1) and not math.isfinite(
                    float(self.workers.mean(total))
                ):
                    raise Diverged(f"the loss was not finite at epoch {epoch + 1}, step {number + 1}")
        mean = float(self.workers.mean(total / steps))
        return {"loss": mean, "learning_rate": rate, "seconds": time.perf_counter() - started}

    def validate(self, last: bool) -> dict[str, float]:
        """The task's `val_` metrics, under its weights' own statistics of batch normalisation. last: what is handed on has the same."""
        renew_statistics(self.task, len(self.parts["train"]), AT_THE_END if last else ON_THE_WAY)
        return self.task.validate()


def fit(fitting: Fitting, *, epochs: int, start: int = 0, after_epoch: Callable[[dict[str, Any]], None]) -> None:
    """Epochs start + 1 ... epochs; after each `after_epoch({"epoch", "loss", "learning_rate", "seconds", "val_..."})`.
    Diverged where any of them is not finite."""
    for epoch in range(start, epochs):
        row: dict[str, Any] = {"epoch": epoch + 1} | fitting.epoch(epoch)
        last = epoch + 1 == epochs
        if fitting.task.validate_at(epoch + 1) or last:
            row |= fitting.validate(last)
        for name, value in row.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} was not finite at epoch {epoch + 1}")
        after_epoch(row)
