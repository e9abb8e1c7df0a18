"""What has come to one answer or one direction is named, ends its run, and is never a result."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_loop import Line, run, setting

from search.kinds import KINDS
from search.verdict import Breaks, whose
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.collapse import FEWEST, one_class, one_direction, rank, said
from trainables.parts.errors import Collapsed
from trainables.parts.execution import execute
from trainables.parts.loop import Fitting, fit


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_a_rank_is_that_of_numpy_whatever_the_lengths_of_rows(directions):
    table = rows(40, directions) @ rows(directions, 12, seed=1)
    assert rank(table) == rank(table * rows(40, 1, seed=2).abs() * 100) == np.linalg.matrix_rank(table.numpy()) == directions


def test_equal_rows_and_rows_that_differ_by_rounding_are_one_direction_and_others_are_not():
    one = rows(1, 16).expand(30, -1)
    assert one_direction(one, "keys") == "the 30 keys lie in one direction"
    assert one_direction(one + 1e-3 * rows(30, 16, seed=1), "keys") and not one_direction(one + rows(30, 16, seed=1), "keys")
    signs = torch.where(torch.arange(30) % 2 == 0, 1.0, -1.0)[:, None]
    assert one_direction(one * signs, "keys")  # nothing but a yes and a no


def test_a_queue_without_keys_and_too_few_rows_say_nothing():
    assert (
        one_direction(torch.zeros(0, 8), "keys")
        == one_direction(torch.ones(FEWEST - 1, 8), "keys")
        == one_direction(torch.ones(40, 1), "keys")
        == ""
    )


def test_of_many_rows_some_are_looked_at_from_all_over():
    table = torch.cat([torch.ones(5000, 4), -torch.eye(4).repeat(1250, 1)])
    assert rank(table) == 4


def test_one_class_for_all_is_named_unless_all_are_of_one():
    same, labels = torch.full((FEWEST,), 2), torch.arange(FEWEST) % 3
    assert one_class(same, labels, ("a", "b", "c")) == f"each of {FEWEST} validation images is taken for c"
    assert one_class(same[1:], labels[1:], ("a", "b", "c")) == ""
    assert one_class(labels, labels, ("a", "b", "c")) == one_class(same, same, ("a", "b", "c")) == ""
    assert said("", "x", "", "y") == "x; y" and said("", "") == ""


@pytest.mark.parametrize(
    ("others", "elsewhere", "words"),
    [
        (2, 1000, "all but 2 of 2,000 validation images are taken for b"), (3, 1000, ""),  # one in a thousand, and no more
        (2, 20, "all but 2 of 2,000 validation images are taken for b"), (2, 19, ""),  # a set with one large class: two of 19 may be found
        (0, 1, "each of 2,000 validation images is taken for b"),
    ],
)  # fmt: skip
def test_a_model_that_says_one_class_for_all_but_a_few_is_named_unless_the_set_is_nearly_of_one(others, elsewhere, words):
    predictions, labels = torch.ones(2000, dtype=torch.int64), torch.ones(2000, dtype=torch.int64)
    predictions[:others], labels[-elsewhere:] = 0, 2
    assert one_class(predictions, labels, ("a", "b", "c")) == words


class Falling(Line):
    """Says from an epoch on that it has collapsed; its score rises to an epoch and falls after it."""

    def __init__(self, falls=0, best=0, keeps=""):
        super().__init__()
        self.falls, self.best, self.keeps = falls, best, keeps

    @property
    def epoch(self):
        return int(self.seen) // self.count

    def validate(self):
        return {"val_score": -abs(self.epoch - self.best)}

    def validate_at(self, epoch):
        return True

    def collapse(self):
        return "all is one" if self.epoch >= self.falls else ""

    def result(self):
        return {"weight": self.model[0].weight}


@pytest.mark.parametrize(("keeps", "falls", "best", "words"), [
    ("", 1, 1, "collapsed at the last epoch: all is one"), ("", 4, 1, "collapsed at the last epoch: all is one"), ("", 5, 1, None),
    ("val_score", 3, 2, None), ("val_score", 2, 2, "collapsed at epoch 2, the best: all is one"),
])  # fmt: skip
def test_a_stage_whose_handed_on_weights_have_collapsed_ends_so_also_after_an_interruption(tmp_path, keeps, falls, best, words):
    fitting, rows = Fitting(Falling(falls, best, keeps), setting()), []

    def after(row):
        rows.append(row)
        save_state(tmp_path / str(row["epoch"]), fitting.tensors(), {})

    def end(fitting, start=0):
        fit(fitting, epochs=4, start=start, after_epoch=after if not start else lambda row: None)

    if words is None:
        end(fitting)
    else:
        with pytest.raises(Collapsed, match=words):
            end(fitting)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]  # all of its epochs are told before
    for start in (1, 2, 3, 4):  # 4: killed after its last checkpoint
        again = Fitting(Falling(falls, best, keeps), setting())
        again.restore(load_state(tmp_path / str(start))[0])
        if words is None:
            end(again, start)
        else:
            with pytest.raises(Collapsed, match=words):
                end(again, start)


def test_the_result_of_the_best_epoch_is_kept_over_worse_ones_and_interruptions(tmp_path):
    weights, task = [], Falling(falls=9, best=2, keeps="val_score")
    whole = Fitting(task, setting())

    def after(row):
        weights.append(task.model[0].weight.detach().clone())
        save_state(tmp_path / str(row["epoch"]), whole.tensors(), {})

    fit(whole, epochs=5, after_epoch=after)
    assert whole.kept_epoch == 2 and torch.equal(whole.result()["weight"], weights[1]) and not torch.equal(weights[1], weights[4])
    for start in (1, 2, 4):
        again = Fitting(Falling(9, 2, "val_score"), setting())
        again.restore(load_state(tmp_path / str(start))[0])
        run(again.task, 5, start=start, fitting=again)
        assert again.kept_epoch == 2 and torch.equal(again.result()["weight"], weights[1])
    last = Fitting(Falling(falls=9), setting())
    run(last.task, 5, fitting=last)
    assert torch.equal(last.result()["weight"], weights[4])


def test_of_equal_scores_the_later_epoch_is_kept():
    task = Falling(falls=9, keeps="val_score")
    task.validate = lambda: {"val_score": 0.5}
    fitting = Fitting(task, setting())
    run(task, 3, fitting=fitting)
    assert fitting.kept_epoch == 3


@pytest.mark.parametrize("name", ["supcam", "scl", "ccrl"])
def test_a_training_that_came_to_one_direction_leaves_no_model_and_shares_no_stage(name, tmp_path, monkeypatch):
    from test_precision import FULL, setting_of

    from search.registry import load
    from trainables.parts import batch_norm

    config = replace(FULL[name], queue_size=20) if name == "supcam" else FULL[name]
    given, store = setting_of(name, config), {}
    monkeypatch.setattr(batch_norm, "AT_THE_END", 100)

    class Store:
        get = store.get

        def put(self, key, tensors, values):
            store[key] = tensors

    def level(self, last, epoch=0, real=Fitting.validate):
        with torch.no_grad():
            for parameter in self.task.parameters():
                parameter.zero_()  # every image now gives the same
            for key, tensor in self.task.state_dict().items():
                if key.endswith("queue.keys"):
                    tensor.fill_(1.0)
        return real(self, last, epoch)

    monkeypatch.setattr(Fitting, "validate", level)
    with pytest.raises(Collapsed, match=r"one direction|is taken for"):
        execute(load(name).procedure, config, seed=0, pack=given.pack, folder=tmp_path, store=Store())
    assert not store and not (tmp_path / "model.safetensors").exists()


def test_a_collapse_is_the_configurations_and_not_asked_again():
    [(end, kind)] = [(end, kind) for known, end, kind in KINDS if known is Collapsed]
    assert (end, kind) == ("collapsed", "collapsed")
    assert whose({"end": end, "kind": kind}, Breaks(), machines=3) == "configuration"
