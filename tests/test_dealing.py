"""Types dealt out within a karyotype: against all ways there are, both sexes, who is left alone; and the line that a report has of it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables import scl
from trainables.baselines.dealing import dealt
from trainables.data.pack import make_pack
from trainables.data.words import KARYOTYPE
from trainables.parts.classification import prediction_rows
from trainables.parts.evaluation import confusion_matrix

X, Y = KARYOTYPE.index("X"), KARYOTYPE.index("Y")


def logs_of(n, seed=0, sharpness=1.0):
    raw = np.random.default_rng(seed).normal(size=(n, 24)) * sharpness
    return raw - np.log(np.exp(raw).sum(1, keepdims=True))


def fits(types):
    count = np.bincount(types, minlength=24)
    return count.max() <= 2 and (count[X], count[Y]) in {(x, y) for x in range(3) for y in range(2) if x + y <= 2}


@pytest.mark.parametrize("seed", range(3))
def test_the_likeliest_types_that_fit_are_those_of_all_ways_there_are(seed):
    few = [0, 5, X, Y]  # the types that any of four chromosomes may be
    logs = np.full((4, 24), -50.0)
    logs[:, few] = np.log(np.random.default_rng(seed).dirichlet([0.5, 0.3, 0.6, 2.0], 4))
    wanted = max((way for way in itertools.product(few, repeat=4) if fits(way)), key=lambda way: logs[range(4), way].sum())
    types, hit = dealt(logs, ["p"] * 4, KARYOTYPE)
    assert tuple(types) == wanted and hit.all() and not fits(logs.argmax(1))


def test_a_whole_karyotype_has_two_of_each_and_the_likelier_sex_whatever_is_said_of_each_alone():
    for y, wanted in ((0.0, (2, 0)), (30.0, (1, 1))):
        logs = logs_of(46)
        logs[7, Y] += y
        types, _ = dealt(logs, ["p"] * 46, KARYOTYPE)
        assert np.bincount(types, minlength=24)[:22].tolist() == [2] * 22
        if y:
            assert (int((types == X).sum()), int((types == Y).sum())) == wanted and types[7] == Y
    assert len(dealt(logs_of(1), ["p"], KARYOTYPE)[0]) == 1


def test_persons_are_dealt_to_one_by_one_and_who_has_more_than_a_cell_is_left_alone():
    logs = logs_of(46 + 47 + 3)
    names = np.array(["a"] * 46 + ["b"] * 47 + ["c"] * 3)
    mixed = np.random.default_rng(1).permutation(len(names))
    types, hit = dealt(logs[mixed], names[mixed].tolist(), KARYOTYPE)
    assert set(names[mixed][hit]) == {"a", "c"} and (types[~hit] == logs[mixed][~hit].argmax(1)).all()
    for name in ("a", "c"):
        alone, _ = dealt(logs[names == name], [name] * int((names == name).sum()), KARYOTYPE)
        assert dict(zip(mixed[names[mixed] == name], types[names[mixed] == name], strict=True)) == dict(
            zip(np.flatnonzero(names == name), alone, strict=True)
        )
    assert dealt(logs[46:93], ["b"] * 47, KARYOTYPE) is None and dealt(logs[:, :3], names, ("a", "b", "c")) is None


def test_a_run_on_karyotypes_is_judged_with_its_types_dealt_out_too_and_each_images_own_stay_what_they_were(monkeypatch):
    labels = np.concatenate([np.repeat(np.arange(23), 2), np.arange(3)])  # one woman, and three chromosomes of somebody
    persons = ["p"] * 46 + ["q"] * 3
    pack = make_pack(np.ones((49, 8, 8), np.uint8), labels, KARYOTYPE, [f"{i}.png" for i in range(49)], persons, np.ones((49, 2)))
    logits = torch.eye(24)[torch.from_numpy(labels)] * 4
    logits[0] = torch.eye(24)[1] * 1.0  # taken for a 2, of which there are two surer ones
    monkeypatch.setattr(scl, "predict_logits", lambda *args, **more: logits)
    monkeypatch.setattr(scl, "_network", lambda *args: None)
    config = scl.SclConfig()
    found = scl.evaluate(config, {}, pack, np.arange(49), torch.device("cpu"))
    assert found.metrics["accuracy"] == 48 / 49 and found.metrics["accuracy_dealt"] == 1 and found.metrics["share_dealt"] == 1
    assert found.confusion == confusion_matrix(labels, logits.argmax(1), 24).tolist()
    assert found.predictions["probability"] == prediction_rows(logits)
    without = scl.evaluate(config, {}, replace(pack, patients=None), np.arange(49), torch.device("cpu"))
    assert set(found.metrics) - set(without.metrics) == {"accuracy_dealt", "share_dealt"}
