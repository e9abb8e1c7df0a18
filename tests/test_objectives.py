"""Scores of a stage: what a record keeps of them, and that a search may be after them."""

from types import SimpleNamespace

import pytest
from test_precision import FULL, setting_of

from search.declared import with_objective
from search.record import _metrics
from search.registry import load
from trainables.parts.execution import Outcome
from trainables.parts.loop import Fitting

HISTORY = [
    {"stage": "pretrain", "epoch": 1, "loss": 3.0, "val_knn_accuracy": 0.4, "val_probe_accuracy": 0.5, "pretext_own": 0.9},
    {"stage": "pretrain", "epoch": 2, "loss": 2.0, "val_knn_accuracy": 0.6, "val_probe_accuracy": 0.7},
    {"stage": "finetune", "epoch": 1, "loss": 1.0, "val_accuracy": 0.8},
]


def director(intermediate):
    return SimpleNamespace(entry=SimpleNamespace(study=SimpleNamespace(intermediate=intermediate)), plan=SimpleNamespace(strategy=SimpleNamespace(second=None)))  # fmt: skip


def test_a_record_has_the_last_scores_of_each_stage_and_what_is_judged_at_the_end_stands():
    metrics, scores = _metrics(director("val_knn_accuracy"), Outcome({"val_accuracy": 0.9, "test_accuracy": 0.85}), {}, HISTORY)
    assert scores == [0.4, 0.6]
    assert metrics == {"val_accuracy": 0.9, "test_accuracy": 0.85, "val_knn_accuracy": 0.6, "val_probe_accuracy": 0.7}
    assert _metrics(director("val_knn_accuracy"), None, {}, HISTORY)[0] == {"val_knn_accuracy": 0.6}  # one that did not end


@pytest.mark.parametrize("name", ["supcam", "ccrl"])
def test_a_search_may_be_after_the_neighbours_or_the_probe_of_a_pre_training(name):
    entry, given = load(name), setting_of(name, FULL[name])
    row = Fitting(entry.procedure.stages[0].build(FULL[name], given), given).validate(last=False)
    for objective in ("knn", "probe"):
        wanted = with_objective(entry.study, objective)
        assert wanted.objective == wanted.intermediate and 0 <= row[wanted.objective] <= 1
