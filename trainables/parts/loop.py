"""The one training loop of all procedures.
Comes in: a Task, a number of epochs, a place to resume from. Goes out: one row an epoch, through `after_epoch(row)`.
Exists once, because a copied loop is how training code rots. Knows no Ray: tests pass a list's append."""

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from trainables.parts.batch_norm import AT_THE_END, ON_THE_WAY, renew_statistics
from trainables.parts.checkpoint import optimizer_tensors, part, restore_optimizer, under
from trainables.parts.errors import Collapsed, Diverged
from trainables.parts.numbers import Layout
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import derive_seed
from trainables.parts.replay import Replay

LOOKED_AT = 20  # steady steps between two looks at whether the loss is finite


class Fitting:
    """A Task on its way through its epochs; `tensors()` is all that is needed to go on elsewhere.

    Where the setting asks for steady steps (on a GPU), an epoch's random choices are sent at once, each step copies its own into one row of
    bytes that stays where it is, and the same function computes on it, which `Replay` may record. Elsewhere a step is called with its
    batch."""

    def __init__(self, task: Task, setting: Setting) -> None:
        self.task, self.workers, self.device, self.seed, self.parts = task, setting.workers, setting.device, setting.seed, setting.parts
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=setting.precision == torch.float16)
        self.model = self.workers.parallel(task, task.partial)
        self.steady = setting.is_steady
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)  # of an epoch's losses
        self.layout: Layout | None = None  # of a step's numbers: known with the first batch
        self.replay: Replay | None = None
        self.kept: dict[str, Tensor] = {}  # the result at the epoch with the best `task.keeps` so far
        self.kept_epoch, self.kept_score = 0, -math.inf
        self.collapsed = ""  # what has, under the weights that are handed on

    def tensors(self) -> dict[str, Tensor]:
        scaler = {name: torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        kept = {"epoch": torch.tensor(self.kept_epoch), "score": torch.tensor(self.kept_score, dtype=torch.float64)} if self.kept else {}
        words = {"collapsed": torch.tensor(list(self.collapsed.encode()), dtype=torch.uint8)} if self.collapsed else {}
        return (
            under("task", self.task.state_dict())
            | under("optimizer", optimizer_tensors(self.task.optimizer))
            | under("scaler", scaler)
            | under("kept", kept)
            | under("kept.result", self.kept)
            | words
        )

    def close(self) -> None:
        """Let go of the recording, which holds this and is held by it: what it has of the device is free at once, not when Python next
        looks for circles."""
        self.layout = self.replay = None

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.task.load_state_dict(part(tensors, "task"))
        restore_optimizer(self.task.optimizer, part(tensors, "optimizer"))
        if scaler := part(tensors, "scaler"):
            self.scaler.load_state_dict({name: value.item() for name, value in scaler.items()})  # whole numbers stay whole, as it demands
        if kept := part(tensors, "kept"):
            self.kept_epoch, self.kept_score, self.kept = int(kept["epoch"]), float(kept["score"]), part(tensors, "kept.result")
        if "collapsed" in tensors:
            self.collapsed = bytes(tensors["collapsed"].tolist()).decode()
        self.layout = None  # the optimiser's state lies elsewhere now

    def step(self, batch: Any, rate: float) -> Tensor:
        """One step; its loss, the sum over its turns, a scalar still on the device."""
        if not self.steady:
            for group in self.task.optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            return self._step(batch)
        self._play(self._rows([batch], [rate])[0])
        return self.loss.clone()

    def _step(self, batch: Any) -> Tensor:
        losses = []
        for turn in self.task.turns(batch):
            loss = self.model(turn)
            self.task.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.task.optimizer)
            self.scaler.update()
            losses.append(loss.detach())
        self.task.after_step()
        whole = functools.reduce(torch.add, losses)
        self.total += whole
        return whole

    def _rows(self, batches: Iterable[Any], rates: Iterable[float]) -> Tensor:
        """(steps, bytes) on the device: the numbers of each step, its rate among them."""
        steps = [(batch, torch.tensor(rate)) for batch, rate in zip(batches, rates, strict=True)]
        if self.layout is None:
            self.layout = Layout.of(steps[0])
            self.row = torch.zeros(self.layout.size, dtype=torch.uint8, device=self.device)
            self.batch, lr = self.layout.batch(steps[0], self.row)
            self.shared = []  # rates that are a share of the step's
            for group in self.task.optimizer.param_groups:
                group["lr"] = lr if group.get("share", 1.0) == 1 else torch.zeros_like(lr)
                self.shared += [] if group["lr"] is lr else [(group["lr"], group["share"])]
            self.loss, self.lr = torch.zeros((), device=self.device), lr
            self.replay = Replay(self._recorded, self.device, self.workers.size == 1)
        return self.layout.rows(steps, self.device)

    def _recorded(self) -> None:
        for rate, share in self.shared:
            torch.mul(self.lr, share, out=rate)
        self.loss.copy_(self._step(self.batch))

    def _play(self, row: Tensor) -> None:
        assert self.replay is not None  # made with the first rows
        self.row.copy_(row)
        self.replay()

    def _epoch(self, epoch: int, rates: list[float]) -> Iterator[None]:
        """The steps of an epoch, one each time that it is asked."""
        if self.steady:
            for row in self._rows(self.task.batches(epoch), rates):
                yield self._play(row)
        else:
            for batch, rate in zip(self.task.batches(epoch), rates, strict=True):
                self.step(batch, rate)
                yield

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over `task.batches(epoch)`, epoch counted from 0: {"loss", "learning_rate", "seconds"} and the task's `health`.
        Diverged where the loss is not finite;
        in steady steps this is looked at every 20 of them, so that the device need not wait for the host."""
        self.task.train()
        self.total.zero_()
        started, steps = time.perf_counter(), self.task.steps()
        if not steps:  # a stage that trains nothing: all that it hands on is worked out by `result`
            return {"loss": 0.0, "learning_rate": 0.0, "seconds": time.perf_counter() - started}
        rates = [self.task.learning_rate(epoch + number / steps) for number in range(steps)]
        # Dropout and stochastic depth inside of a backbone (Swin has it by default) ask the process's own generators: they start each epoch
        # from the seed too, so that neither a run before nor an interruption changes what they give.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, type(self.task).__name__, epoch, self.workers.rank))
            for number, _ in enumerate(self._epoch(epoch, rates)):
                # asked of the mean over the workers, so that all of them end at the same step and none waits for another
                if (not self.steady or number % LOOKED_AT == LOOKED_AT - 1 or number == steps - 1) and not math.isfinite(
                    float(self.workers.mean(self.total))
                ):
                    raise Diverged(f"the loss was not finite at epoch {epoch + 1}, step {number + 1}")
        mean = float(self.workers.mean(self.total / steps))
        row = {"loss": mean, "learning_rate": rates[-1] if rates else 0.0, "seconds": time.perf_counter() - started}
        return row | self.task.health()

    def validate(self, last: bool, epoch: int = 0) -> dict[str, float]:
        """The task's `val_` metrics after this epoch (counted from 1), under its weights' own statistics of batch normalisation. last: what
        is handed on has the same. Of a task that keeps its best epoch each may be the one: all are judged as the last is. Of equal scores
        the later stands."""
        renew_statistics(self.task, len(self.parts["train"]), AT_THE_END if last or self.task.keeps else ON_THE_WAY)
        row = self.task.validate()
        if self.task.keeps:
            score = float(self.workers.mean(torch.tensor(row[self.task.keeps], dtype=torch.float64, device=self.device)))
            if score >= self.kept_score:
                self.kept, self.kept_epoch, self.kept_score = self._result(), epoch, score
                self.collapsed = self._collapse()
        elif last:
            self.collapsed = self._collapse()
        return row

    def _collapse(self) -> str:
        """In words that all workers have or none, so that none waits for another."""
        words = self.task.collapse()
        some = float(self.workers.mean(torch.tensor(float(bool(words)), device=self.device))) > 0
        return words or ("another worker saw a collapse" if some else "")

    def _result(self) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.task.result().items()}

    def result(self) -> dict[str, Tensor]:
        """What the stage hands on, on the CPU: of its last epoch, or of that with the best `task.keeps`."""
        return self.kept if self.task.keeps else self._result()


def fit(fitting: Fitting, *, epochs: int, start: int = 0, after_epoch: Callable[[dict[str, Any]], None]) -> None:
    """Epochs start + 1 ... epochs; after each `after_epoch({"epoch", "loss", "learning_rate", "seconds", "pretext_...", "val_..."})`.
    Diverged where any of them is not finite; Collapsed, after the last epoch, where what is handed on says the same of every image."""
    for epoch in range(start, epochs):
        row: dict[str, Any] = {"epoch": epoch + 1} | fitting.epoch(epoch)
        last = epoch + 1 == epochs
        if fitting.task.validate_at(epoch + 1) or last:
            row |= fitting.validate(last, epoch + 1)
        for name, value in row.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} was not finite at epoch {epoch + 1}")
        after_epoch(row)
    if fitting.collapsed:  # a run that was interrupted here comes here again
        at = f"epoch {fitting.kept_epoch}, the best" if fitting.task.keeps else "the last epoch"
        raise Collapsed(f"collapsed at {at}: {fitting.collapsed}")
