"""Health of a contrast: against plain loops, without a look at the device, and of every procedure that has one."""

import numpy as np
import pytest
import torch
from recording import Watch
from test_precision import FULL, setting_of
from torch.nn import functional as F

from search.registry import load
from trainables.parts.loop import Fitting
from trainables.parts.pretext import Health, effective_rank
from trainables.parts.workers import Workers

QUEUED = {"pretext_queue", "pretext_queue_top1"}
ALWAYS = {"pretext_own", "pretext_step", "pretext_step_top1", "pretext_rank"}


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_loops(query, keys, first, queue):
    """(own, others, share nearest in the step, cosine to the queue, share nearest to all of the queue) of one step."""
    own, others, found, queued, in_queue = [], [], [], [], []
    for i, row in enumerate(query.double().numpy()):
        cosines = [float(row @ key) for key in keys.double().numpy()]
        mine, rest = cosines[first + i], cosines[: first + i] + cosines[first + i + 1 :]
        to_queue = [float(row @ key) for key in queue.double().numpy()]
        own.append(mine)
        others += rest
        found.append(mine > max(rest))
        queued += to_queue
        in_queue.append(all(mine > cosine for cosine in to_queue))
    return [float(np.mean(values)) if len(values) else 0.0 for values in (own, others, found, queued, in_queue)]


def test_what_an_epoch_tells_is_what_plain_loops_give_whichever_half_of_the_batch_is_asked():
    health, steps = Health(6), []
    for number, filled in enumerate((0, 5, 9)):
        keys, slots = unit(8, 6, seed=number), unit(9, 6, seed=10 + number)
        slots[filled:] = 0
        first = 4 * (number % 2)
        query = F.normalize(keys[first : first + 4] + 1.5 * unit(4, 6, seed=20 + number), dim=1)
        present = torch.arange(9) < filled
        with Watch():
            health.add(query, keys, first, query @ slots.T, present)
        steps.append(by_loops(query, keys, first, slots[:filled]))
    own, others, found, *_ = np.mean(steps, axis=0)
    queued, in_queue = np.mean(steps[1:], axis=0)[3:]  # before the first keys enter there is no queue
    row = health.read(Workers())
    assert row.keys() == ALWAYS | QUEUED
    assert [row[f"pretext_{name}"] for name in ("own", "step", "step_top1", "queue", "queue_top1")] == pytest.approx(
        [own, others, found, queued, in_queue], abs=1e-6
    )
    assert 0 < found < 1 and 0 < in_queue < 1  # else the test tells nothing


def test_a_reading_begins_anew_and_nothing_is_told_of_no_step():
    health = Health(6)
    assert health.read(Workers()) == {}
    health.add(unit(4, 6), unit(4, 6), 0)
    first = health.read(Workers())
    assert first["pretext_own"] == pytest.approx(1) and first["pretext_step_top1"] == 1 and first.keys() == ALWAYS
    assert health.read(Workers()) == {}
    health.add(unit(4, 6), unit(4, 6), 0)
    assert health.read(Workers()) == first


def test_the_effective_rank_is_that_of_the_singular_values():
    rows = unit(40, 5, seed=3).double()
    values = np.linalg.svd(rows.numpy(), compute_uv=False)
    share = values / values.sum()
    assert effective_rank(rows.T @ rows) == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert effective_rank(torch.eye(7, dtype=torch.float64) * 3) == pytest.approx(7)
    alike = unit(1, 5).double().expand(30, -1)
    assert effective_rank(alike.T @ alike) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", FULL)
def test_each_epoch_of_a_contrast_has_its_health(name):
    given = setting_of(name, FULL[name])
    fitting = Fitting(load(name).procedure.stages[0].build(FULL[name], given), given)
    for epoch in range(2):
        row = fitting.epoch(epoch)
        assert {key for key in row if key.startswith("pretext_")} == ALWAYS | (QUEUED if name != "scl" else set())
        assert 1 <= row["pretext_rank"] <= FULL[name].embedding_dim
        assert -1 <= row["pretext_step"] < row["pretext_own"] <= 1 or name == "ccrl"  # its predictor begins anywhere
