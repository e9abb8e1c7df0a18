"""What a plan is told to cost."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from search import estimate as estimating
from search import registry
from search.plan import make_plan, planned_run
from trainables.data.synthetic_cells import cell_set
from trainables.parts.errors import WeightsUnreachable
from trainables.parts.procedure import config_from


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


@pytest.mark.parametrize("first", ["baseline", "probe"])
def test_weights_that_cannot_be_had_are_named_and_a_probe_is_timed_apart(monkeypatch, first):
    def time(entry, config, *more):
        if config.weights == "imagenet":
            raise WeightsUnreachable("timm's weights are not here")
        return 2.0 if config.classifier == "probe" else 7.0

    monkeypatch.setattr(estimating, "_time", time)
    entry = registry.load("supcam")
    base = config_from(entry.procedure.config, dict(entry.study.presets["quick"].overrides) | {"pretrain_epochs": 0, "finetune_epochs": 10})
    configs = {"baseline": base, "probe": replace(base, classifier="probe"), "published": replace(base, weights="imagenet")}
    order = [first, *(name for name in configs if name != first)]
    runs = [planned_run(entry.procedure, configs[name], 0, "data", "code") for name in order]
    plan = SimpleNamespace(seeds=(0,), baseline=base)
    found = estimating.estimate(entry, plan, None, runs, 0, torch.device("cpu"), lambda key: False)
    assert found.skipped == ("timm's weights are not here",)
    assert found.tables == 7.0 * 10 + 2.0
