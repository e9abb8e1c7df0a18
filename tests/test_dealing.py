"""Types dealt out within a karyotype: against all ways there are, both sexes, who is left alone; and the line that a report has of it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables import scl
from trainables.baselines.dealing import crowded, dealt
from trainables.data.pack import make_pack
from trainables.data.words import KARYOTYPE
from trainables.parts.classification import prediction_rows
from trainables.parts.evaluation import confusion_matrix

X, Y = KARYOTYPE.index("X"), KARYOTYPE.index("Y")


def logs_of(n, seed=0, sharpness=1.0):
    raw = np.random.default_rng(seed).normal(size=(n, 24)) * sharpness
    return raw - np.log(np.exp(raw).sum(1, keepdims=True))


@pytest.mark.parametrize("seed", range(4))
def test_the_likeliest_types_that_fit_are_those_of_all_ways_there_are(seed):
    sure = [label for label in range(22) for _ in range(1 if label in (0, 5) else 2)]  # of 0 and 5 one each is left to find, and the sex
    few = [0, 5, X, Y]
    logs = np.full((46, 24), -50.0)
    logs[range(42), sure] = 0
    logs[42:, few] = np.log(np.random.default_rng(seed).dirichlet([0.5, 0.3, 0.6, 2.0], 4))
    ways = (way for way in itertools.product(few, repeat=4) if sorted(way) in ([0, 5, X, X], [0, 5, X, Y]))
    wanted = max(ways, key=lambda way: logs[range(42, 46), way].sum())
    mixed = np.random.default_rng(9).permutation(46)
    types, hit = dealt(logs[mixed], ["p"] * 46, KARYOTYPE)
    assert types.tolist() == np.array([*sure, *wanted])[mixed].tolist() and hit.all()


def test_a_karyotype_has_two_of_each_and_the_likelier_sex():
    for y in (-60.0, 30.0):
        logs = logs_of(46)
        logs[:, Y] += y
        types, _ = dealt(logs, ["p"] * 46, KARYOTYPE)
        count = np.bincount(types, minlength=24)
        assert count[:22].tolist() == [2] * 22 and (count[X], count[Y]) == ((2, 0) if y < 0 else (1, 1))


def test_persons_are_dealt_to_one_by_one_and_who_has_more_or_fewer_than_46_images_is_left_alone():
    logs = logs_of(46 + 47 + 45 + 46)
    names = np.repeat(["a", "b", "c", "d"], [46, 47, 45, 46])
    mixed = np.random.default_rng(1).permutation(len(names))
    types, hit = dealt(logs[mixed], names[mixed].tolist(), KARYOTYPE)
    assert set(names[mixed][hit]) == {"a", "d"} == set(names) - set(names[mixed][~hit])
    assert (types[~hit] == logs[mixed][~hit].argmax(1)).all()
    for name in ("a", "d"):
        alone, _ = dealt(logs[names == name], [name] * 46, KARYOTYPE)
        back = np.argsort(mixed)[names == name]  # where each of the person's went
        assert (types[back] == alone).all() and (alone != logs[names == name].argmax(1)).any()
    assert dealt(logs[46:93], ["b"] * 47, KARYOTYPE) is None and dealt(logs[:, :3], names, ("a", "b", "c")) is None


def test_of_a_metaphase_in_part_no_type_is_given_more_than_two_and_the_likeliest_way_is_taken():
    few = [3, X, Y]
    logs = np.full((4, 24), -50.0)
    logs[:, few] = np.log(np.random.default_rng(2).dirichlet([6.0, 1.0, 1.0], 4))  # each by itself a 4
    assert set(logs.argmax(1)) == {3}
    ways = (way for way in itertools.product(few, repeat=4) if way.count(3) <= 2 and (way.count(X), way.count(Y)) in ((2, 0), (1, 1)))
    wanted = max(ways, key=lambda way: logs[range(4), way].sum())
    both = np.vstack([logs, logs, logs[:2]])
    cells = ["1"] * 8 + ["", "2"]  # two persons' metaphases 1, an image of none, and one that is alone in its own
    types, hit = dealt(both, ["p"] * 4 + ["q"] * 6, KARYOTYPE, cells)
    assert types.tolist() == [*wanted, *wanted, 3, 3] and hit.tolist() == [True] * 8 + [False] * 2
    assert dealt(logs, ["p"] * 4, KARYOTYPE, [*"1234"]) is None, "a name an image"
    assert dealt(np.vstack([logs] * 12), ["p"] * 48, KARYOTYPE, ["1"] * 48) is None, "more than a cell has"


@pytest.mark.parametrize(
    ("types", "cells", "full"),
    [
        ("21 21 21", "1 1 1", 1), ("21 21 21", "1 1 2", 0), ("21 21 21 4 4 4", "1 1 1 2 2 2", 2), ("X X", "1 1", 0), ("X Y", "1 1", 0),
        ("X X Y", "1 1 1", 1), ("Y Y", "1 1", 1),
    ],
)  # fmt: skip
def test_a_metaphase_with_more_of_a_type_than_is_dealt_out_is_counted(types, cells, full):
    n = len(cells.split())
    assert crowded(types.split(), ["p"] * n, cells.split()) == (full, len({*cells.split()}))
    assert crowded(types.split(), [*"pqrstu"][:n], cells.split()) == (0, n)
    assert crowded(types.split(), ["p"] * n, [""] * n) == (0, 0)


def test_a_folder_whose_metaphases_cannot_be_dealt_right_says_so(monkeypatch):
    labels, persons = np.array([0, 0, 0, *range(24)]), ["p"] * 27
    pack = make_pack(np.ones((27, 8, 8), np.uint8), labels, KARYOTYPE, [f"{i}.png" for i in range(27)], persons, np.ones((27, 2)))
    for cells, words in ((("1",) * 3 + ("",) + ("2",) * 23, "has: 1 of 2"), (("1",) * 2 + ("2",) * 25, ""), (None, "")):
        monkeypatch.setattr(scl, "read_folder", lambda *args, cells=cells, **more: replace(pack, metaphases=cells))
        notes = " ".join(scl.read("set", scl.SclConfig(), KARYOTYPE).notes)
        assert ("a trisomy, or several cells under one name" in notes) == bool(words) and words in notes


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
    assert found.metrics["accuracy"] == 48 / 49 and found.metrics["accuracy_dealt"] == 1 and found.metrics["share_dealt"] == 46 / 49
    assert found.confusion == confusion_matrix(labels, logits.argmax(1), 24).tolist()
    assert found.predictions["probability"] == prediction_rows(logits)
    told = scl.evaluate(config, {}, replace(pack, metaphases=("1",) * 46 + ("2", "2", "")), np.arange(49), torch.device("cpu"))
    assert told.metrics["share_dealt"] == 48 / 49
    without = scl.evaluate(config, {}, replace(pack, patients=None), np.arange(49), torch.device("cpu"))
    assert set(found.metrics) - set(without.metrics) == {"accuracy_dealt", "share_dealt"}
