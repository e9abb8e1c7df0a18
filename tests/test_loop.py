"""The training loop on a small task: schedule, modes, validation, resume = straight run, and the end at a value that is not finite."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.data.pack import make_pack
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.errors import Diverged
from trainables.parts.loop import Fitting, fit
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import derive_seed, generator
from trainables.parts.workers import Workers

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1.0, momentum=0.9, weight_decay=1e-3),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1.0),
}


class Line(Task):
    """Least squares with batch normalisation; keeps a diary of what the loop asked of it."""

    def __init__(self, optimizer="sgd", spoil=None, steps=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.optimizer = OPTIMIZERS[optimizer](self.parameters())
        self.spoil, self.count, self.diary, self.val = spoil, steps, [], 0.5

    def steps(self):
        return self.count

    def batches(self, epoch):
        chance = generator("line", epoch)
        for number in range(self.count):
            yield (epoch, number), torch.randn(6, 3, generator=chance)

    def loss(self, batch) -> Tensor:
        place, x = batch
        self.diary.append(("loss", *place, self.training, self.optimizer.param_groups[0]["lr"]))
        loss = (self.model(x)[:, 0] - x.sum(1)).square().mean()
        return loss * float("nan") if place == self.spoil else loss

    def look(self, chosen):
        self.diary.append(("look", len(chosen), self.training))
        self.model(torch.randn(40, 3, generator=generator("plain"))[chosen])

    def after_step(self):
        self.seen += 1
        self.diary.append(("after",))

    def learning_rate(self, epoch):
        return 0.01 / (1 + epoch)

    def validate_at(self, epoch):
        return epoch % 2 == 0

    def validate(self):
        self.diary.append(("validate", self.training))
        return {"val_score": self.val}


def setting():
    pack = make_pack(np.ones((1, 4, 4), np.uint8), [0], ["a"], ["a.png"], None, np.ones((1, 2)))
    return Setting(pack, {"train": np.arange(40)}, 0)


def run(task, epochs, start=0, fitting=None):
    rows = []
    fit(fitting or Fitting(task, setting()), epochs=epochs, start=start, after_epoch=rows.append)
    return rows


def test_a_row_an_epoch_with_the_mean_loss_and_the_last_rate():
    task = Line()
    losses = []
    task.register_forward_hook(lambda module, inputs, output: losses.append(float(output.detach())))
    rows = run(task, 3)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and len(losses) == 12
    for epoch, row in enumerate(rows):
        assert row["loss"] == pytest.approx(sum(losses[4 * epoch : 4 * epoch + 4]) / 4, rel=1e-12)
        assert row["learning_rate"] == task.learning_rate(epoch + 3 / 4) and row["seconds"] > 0


def test_each_step_has_the_rate_of_its_fraction_of_the_epoch_and_is_followed_by_after_step():
    task = Line()
    run(task, 2)
    steps = [entry for entry in task.diary if entry[0] in ("loss", "after")]
    assert [entry[0] for entry in steps] == ["loss", "after"] * 8
    rates = [entry[4] for entry in steps if entry[0] == "loss"]
    assert rates == [task.learning_rate(number / 4) for number in range(8)]


def test_training_is_in_training_mode_and_validation_in_evaluation_mode():
    task = Line()
    run(task, 4)
    assert {entry[3] for entry in task.diary if entry[0] == "loss"} == {True}
    assert [entry for entry in task.diary if entry[0] == "validate"] == [("validate", False)] * 2


def test_validation_comes_when_the_task_asks_and_always_after_the_last_epoch():
    assert ["val_score" in row for row in run(Line(), 5)] == [False, True, False, True, True]


def test_a_step_is_that_of_the_optimiser_on_the_gradient_of_the_batch():
    task, by_hand = Line(steps=1), Line(steps=1)
    run(task, 1)
    [batch] = by_hand.batches(0)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=by_hand.learning_rate(0), momentum=0.9, weight_decay=1e-3)
    by_hand.loss(batch).backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), by_hand.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_is_the_straight_run_bit_for_bit(tmp_path, optimizer, stop):
    straight = Line(optimizer)
    rows = run(straight, 5)
    first, before = Fitting(Line(optimizer), setting()), []

    def until_stopped(row):
        before.append(row)
        if row["epoch"] == stop:
            save_state(tmp_path / "s", first.tensors(), {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(first, epochs=5, after_epoch=until_stopped)
    torch.rand(3)
    second = Fitting(Line(optimizer), setting())
    second.restore(load_state(tmp_path / "s")[0])
    after = run(second.task, 5, start=stop, fitting=second)
    assert all(torch.equal(tensor, second.task.state_dict()[name]) for name, tensor in straight.state_dict().items())
    assert int(second.task.seen) == 20

    def timeless(row):
        return {name: value for name, value in row.items() if name != "seconds"}

    assert [timeless(row) for row in before + after] == [timeless(row) for row in rows]


def test_dropout_inside_of_a_backbone_depends_on_seed_and_epoch_alone():
    def losses(start, seed=0):
        task = Line()
        task.model.insert(1, nn.Dropout(0.5))
        return run(task, 3, start=start, fitting=Fitting(task, replace(setting(), seed=seed)))

    torch.manual_seed(1)
    first = losses(0)
    state = torch.random.get_rng_state()
    again, other, late = losses(0), losses(0, seed=1), losses(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [row["loss"] for row in first] == [row["loss"] for row in again] != [row["loss"] for row in other]
    assert len({row["loss"] for row in first + late}) == 4


def test_a_state_taken_is_not_changed_by_training_on_once_it_is_saved(tmp_path):
    fitting = Fitting(Line(), setting())
    run(fitting.task, 1, fitting=fitting)
    save_state(tmp_path / "s", fitting.tensors(), {})
    kept = {name: tensor.clone() for name, tensor in fitting.tensors().items()}
    run(fitting.task, 3, start=1, fitting=fitting)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in load_state(tmp_path / "s")[0].items())


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step():
    task, rows = Line(spoil=(1, 2)), []
    with pytest.raises(Diverged, match="the loss was not finite at epoch 2, step 3"):
        fit(Fitting(task, setting()), epochs=5, after_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [1]
    assert [entry[1:3] for entry in task.diary if entry[0] == "loss"][-1] == (1, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_that_is_not_finite_ends_the_run_without_a_row(value):
    task, rows = Line(), []
    task.val = value
    with pytest.raises(Diverged, match="val_score was not finite at epoch 2"):
        fit(Fitting(task, setting()), epochs=5, after_epoch=rows.append)
    assert len(rows) == 1


def test_nothing_is_trained_when_all_epochs_are_done():
    task = Line()
    assert run(task, 3, start=3) == [] and task.diary == []


def test_an_exception_of_the_reader_ends_the_run():
    def stop(row):
        raise KeyboardInterrupt

    task = Line()
    with pytest.raises(KeyboardInterrupt):
        fit(Fitting(task, setting()), epochs=5, after_epoch=stop)
    assert int(task.seen) == 4


def test_one_worker_calls_the_task_itself():
    task = Line()
    assert Fitting(task, setting()).model is task and Workers().slice(7) == slice(0, 7)
    value = torch.ones(3)
    assert Workers().gather(value) is value and Workers().mean(value) is value


def test_seeds_are_a_function_of_their_parts_on_every_machine():
    assert derive_seed(0, "pretrain", 3) == 8258514206197355691  # sha256 of the words, its first 8 bytes halved
    parts = [
        (0, "pretrain"),
        (0, "finetune"),
        (1, "pretrain"),
        (0, "pretrain", 0),
        ("0pretrain",),
        (0, "pretrain", 10),
        (0, "pretrain", 1, 0),
    ]
    assert len({derive_seed(*one) for one in parts}) == len(parts) and all(0 <= derive_seed(*one) < 2**63 for one in parts)
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))
