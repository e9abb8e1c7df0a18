"""What a plan is told to cost."""

import math

import pytest
import torch

from search import estimate as estimating
from search import registry
from search.plan import make_plan
from trainables.data.synthetic_cells import cell_set


def estimate(*arms):
    entry, pack = registry.load("ccrl"), cell_set(80, seed=0)
    small = {"pretrain_batch": 1024, "kmeans_starts": 1, "pretrain_epochs": 1000}
    plan = make_plan(
        entry, preset="paper", data_hash=pack.hash, code="c", trials=0, repeats=1, tables=["3"], arms=arms, overrides=small
    )  # the preset whose network is the default: a yardstick has it too
    return estimating.estimate(entry, plan, pack, plan.runs, 0, torch.device("cpu"), lambda key: False)


def test_arms_that_train_nothing_can_be_timed():
    found = estimate("nine colour numbers", "the tile's number", "area of the nucleus")
    assert (found.runs, found.stages, found.skipped) == (3, 3, ()) and math.isfinite(found.tables)


@pytest.mark.parametrize("arms", [("with all", "nine colour numbers"), ("nine colour numbers", "with all")])
def test_arms_that_train_nothing_are_timed_apart_from_those_that_train(monkeypatch, arms):
    monkeypatch.setattr(estimating, "_time", lambda entry, config, *more: 7.0 if config.features == "encoder" else 2.0)
    assert estimate(*arms).tables == 7.0 * 1000 + 2.0
