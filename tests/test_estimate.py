"""What a plan is told to cost."""

import itertools
import math
import time
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


def estimate(*arms, tables=("3",), small=None):
    entry, pack = registry.load("ccrl"), cell_set(80, seed=0)
    small = {"pretrain_batch": 1024, "kmeans_starts": 1, "pretrain_epochs": 1000} | (small or {})
    plan = make_plan(
        entry, preset="paper", data_hash=pack.hash, code="c", trials=0, repeats=1, tables=list(tables), arms=arms, overrides=small
    )  # the preset whose network is the default: a yardstick has it too
    return estimating.estimate(entry, plan, pack, plan.runs, 0, torch.device("cpu"), lambda key: False)


def test_arms_that_train_nothing_can_be_timed():
    found = estimate("nine colour numbers", "the tile's number", "area of the nucleus")
    assert (found.runs, found.stages, found.skipped) == (3, 3, ()) and math.isfinite(found.tables)


@pytest.mark.parametrize("arms", [("with all", "nine colour numbers"), ("nine colour numbers", "with all")])
def test_arms_that_train_nothing_are_timed_apart_from_those_that_train(monkeypatch, arms):
    monkeypatch.setattr(estimating, "_time", lambda entry, config, *more: 7.0 if config.features == "encoder" else 2.0)
    assert estimate(*arms).tables == 7.0 * 1000 + 2.0


@pytest.mark.parametrize("arms", [("CCRL", "GAN*", "DCEC*"), ("GAN*", "DCEC*", "CCRL")])
def test_another_methods_stages_are_timed_by_its_own_step_and_as_often_as_it_has_epochs(monkeypatch, arms):
    monkeypatch.setattr(estimating, "_time", lambda entry, config, stage, *more: {"ccrl": 7.0, "dcec": 2.0, "gan": 300.0}[config.method])
    small = {"pretrain_epochs": 10, "reconstruct_epochs": 3, "cluster_epochs": 4, "gan_epochs": 2}
    assert estimate(*arms, tables=["2"], small=small).tables == 7.0 * 10 + 2.0 * 7 + 300.0 * 2
    entry = registry.load("scl")
    base = config_from(entry.procedure.config, dict(entry.study.presets["quick"].overrides))
    configs = [entry.procedure.canonical(replace(base, **over)) for over in ({"lambda1": 0.0}, {"method": "varifocal"})]
    monkeypatch.setattr(estimating, "_time", lambda entry, config, stage, *more: {"scl": 5.0, "varifocal": 11.0}[config.method])
    runs = [planned_run(entry.procedure, config, 0, "data", "code") for config in configs[:: 1 if arms[0] == "CCRL" else -1]]
    found = estimating.estimate(entry, SimpleNamespace(seeds=(0,), baseline=base), None, runs, 0, torch.device("cpu"), lambda key: False)
    other = configs[1]
    assert found.tables == 5.0 * base.epochs + 11.0 * (other.epochs + other.part_epochs + other.both_epochs + other.fusion_epochs)


def test_what_else_the_machine_does_while_a_plan_is_timed_is_not_the_runs_time(monkeypatch):
    ticks = itertools.count(step=1000)
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    small = {"pretrain_epochs": 1, "warmup_epochs": 0, "pretrain_batch": 16, "backbone": "cell_preact_tiny"}
    assert 0 < estimate("with all", small=small).tables < 500


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
