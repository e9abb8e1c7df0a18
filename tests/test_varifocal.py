"""Varifocal-Net as an arm of scl: its square against plain loops and finite differences, what each phase moves, a toy set whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import references
import torch
from torch.nn import functional as F

from trainables import scl
from trainables.baselines.varifocal import LEAST, Both, Fusion, Net, Network, Part, Whole, coarse, cut, placed
from trainables.data.pack import make_pack
from trainables.parts.checkpoint import load_state
from trainables.parts.encoders import standardise
from trainables.parts.errors import Interrupted
from trainables.parts.execution import MODEL, execute, stage_hashes, stages_of
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting
from trainables.parts.views import apply_views
from trainables.scl import PROCEDURE, SclConfig, canonical, faults

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PHASES = (Whole, Part, Both, Fusion)
TINY = canonical(
    SclConfig(
        method="varifocal",
        canvas=32,
        input_size=32,
        split=(0.6, 0.2, 0.2),
        backbone="test_resnet",
        steps_per_epoch=4,
        learning_rate=3e-3,
        schedule="cosine",
        rotation=0.0,
        epochs=2,
        part_epochs=2,
        both_epochs=2,
        fusion_epochs=2,
        whole_karyotype=False,
    )
)


@pytest.fixture(scope="module")
def setting():
    """Four classes that are the thickness of bands on a bar; the bar lies anywhere."""
    chance = np.random.default_rng(0)
    labels = np.arange(120) % 4
    images = np.zeros((120, 32, 32), np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = chance.integers(1, 9), chance.integers(2, 20)
        bands = np.arange(22) // (label + 1) % 2
        image[y : y + 22, x : x + 8] = np.where(bands, 230, 90)[:, None] + chance.integers(0, 20, (22, 8))
    names = ("a", "b", "c", "d")
    pack = make_pack(images, labels, names, [f"{i}.png" for i in range(120)], [f"p{i // 4}" for i in range(120)], np.ones((120, 2)))
    return Setting(pack, scl.split_of(TINY, pack, 0), seed=3)


def numbers(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def images(n=3, side=16, seed=0):
    return torch.rand(n, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------ the square


@pytest.mark.parametrize("square", [(0.5, 0.5, 0.25), (0.4, 0.63, 0.21), (0.5, 0.5, 0.5), (0.87, 0.13, 0.125)])
def test_a_steep_mask_cuts_and_enlarges_as_plain_loops_do_with_a_hard_one(square):
    given = images()
    found = cut(given, numbers(square).expand(3, 3), steepness=1e4)
    for image, wanted in zip(given, found, strict=True):
        assert wanted[0].numpy() == pytest.approx(references.enlarged_square(image[0].tolist(), *square), abs=1e-3)


def test_the_soft_mask_differs_from_the_hard_one_at_the_edges_of_the_square_alone():
    square = numbers((0.5, 0.5, 0.25)).expand(3, 3)  # its edges lie between pixels
    soft, hard = (cut(images(), square, steepness=k) for k in (10.0, 1e4))
    assert torch.allclose(soft, hard, atol=0.02) and not torch.equal(soft, hard)


def test_whatever_the_three_numbers_are_the_square_lies_within_the_image():
    found = placed(numbers((-90, 90, 90), (90, -90, -90), (0, 0, 0), (5, -3, 1)))
    assert bool((found[:, :2] - found[:, 2:] >= -1e-12).all()) and bool((found[:, :2] + found[:, 2:] <= 1 + 1e-12).all())
    assert found[0].tolist() == pytest.approx([0.5, 0.5, 0.5]) and found[1].tolist() == pytest.approx([1 - LEAST, LEAST, LEAST])


def test_the_first_squares_are_the_middle_half_of_the_foreground_along_its_longer_side():
    given = torch.zeros(3, 1, 16, 16)
    given[0, 0, 2:14, 5:9] = 1  # 12 high, 4 wide: its middle is (7, 8), half the length 6
    given[1, 0, 15, 0] = 1  # a corner: the smallest square there is, moved inside
    found = coarse(given)
    assert found[0].tolist() == pytest.approx([7 / 16, 8 / 16, 3 / 16])
    assert found[1].tolist() == pytest.approx([LEAST, 1 - LEAST, LEAST])
    assert found[2].tolist() == pytest.approx([0.5, 0.5, 0.25])


def test_the_gradient_of_the_second_networks_loss_in_the_three_numbers_is_that_of_finite_differences():
    net = Net(TINY, 4, seed=0, square=False).double().eval()
    given, labels = images(side=32), torch.tensor([0, 1, 2])

    def loss(at):
        return F.cross_entropy(net.parts(net(standardise(cut(given, placed(at)))))[1], labels)

    at = numbers((0.3, -0.2, 0.1), (-0.7, 0.4, -0.5), (0.1, 0.9, 0.6)).requires_grad_()
    [found] = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        for row in range(3):
            for column in range(3):
                step = torch.zeros_like(at)
                step[row, column] = 1e-6
                wanted = float(loss(at + step) - loss(at - step)) / 2e-6
                assert float(found[row, column]) == pytest.approx(wanted, rel=1e-3, abs=1e-8) and wanted != 0


# ------------------------------------------------------------------------------------------------------ phases


def after(setting, number):
    """What the phases before this one hand on, untrained."""
    return replace(setting, previous=None if number == 0 else {k: t.clone() for k, t in Whole(TINY, setting).result().items()})


@pytest.mark.parametrize(("number", "moved"), list(enumerate([{"whole"}, {"part"}, {"whole", "part"}, {"fusion"}])))
def test_each_phase_moves_its_own_parts_and_leaves_all_others_as_they_are_to_the_bit(setting, number, moved):
    task = PHASES[number](TINY, after(setting, number))
    before = {name: tensor.clone() for name, tensor in task.result().items()}
    fitting = Fitting(task, setting)
    fitting.epoch(0)
    fitting.validate(last=True)
    found = task.result()
    assert {name.partition(".")[0] for name in found if not torch.equal(found[name], before[name])} == moved
    assert {name.partition(".")[0] for name, _ in task.named_parameters()} == moved


def test_the_first_phase_shows_squares_and_the_third_moves_them_by_the_second_networks_loss_alone(setting):
    slopes = {}
    for number in (0, 2):
        task = PHASES[number](TINY, after(setting, number)).eval()
        batch = next(iter(task.batches(0)))
        seen = apply_views(task.train_images.pixels(batch.chosen.flatten())[:, None] / 255, batch.views, keep_background=True)
        labels = task.train_images.labels[batch.chosen.flatten()]
        network = task.all[0]
        with torch.no_grad():
            of_whole, of_part, _ = network.rows(seen)
            squares = placed(network.whole.parts(network.whole(standardise(seen)))[2])
        terms = {0: F.cross_entropy(of_whole, labels) + F.smooth_l1_loss(squares, coarse(seen)),
                 2: F.cross_entropy(of_whole, labels) + F.cross_entropy(of_part, labels)}  # fmt: skip
        loss = task.loss(batch)
        assert float(loss.detach()) == pytest.approx(float(terms[number]), rel=1e-5)
        loss.backward()
        slopes[number] = network.whole.square.weight.grad.clone()
    assert all(float(slope.abs().max()) > 0 for slope in slopes.values()) and not torch.allclose(slopes[0], slopes[2])
    [of_the_second] = torch.autograd.grad(F.cross_entropy(network.rows(seen)[1], labels), network.whole.square.weight)
    assert torch.allclose(slopes[2], of_the_second, rtol=1e-3, atol=1e-7)


def test_the_last_layers_see_the_features_of_both_networks_side_by_side():
    network = Network(TINY, 4, "random", seed=1).double().eval()
    given = images(side=32)
    wide, of_whole, at = network.whole.parts(network.whole(standardise(given)))
    near, of_part = network.part.parts(network.part(standardise(cut(given, placed(at)))))
    first, _, _, second = network.fusion
    rows = torch.cat([wide, near], 1) @ first.weight.T + first.bias
    wanted = rows.clamp_min(0) @ second.weight.T + second.bias
    assert torch.allclose(network(given), wanted) and first.out_features == 1024 and network.fusion[2].p == 0.5
    assert torch.allclose(network.scores(given), torch.stack([of_whole, of_part, wanted]))


# ------------------------------------------------------------------------------------------------------ runs


@pytest.mark.slow
def test_a_run_of_all_phases_tells_a_toy_set_apart_and_an_export_gives_the_same(setting, tmp_path):
    config, rows = replace(TINY, steps_per_epoch=25, epochs=4, part_epochs=4), []
    outcome = execute(PROCEDURE, config, seed=0, pack=setting.pack, folder=tmp_path, report=rows.append, evaluate_test=True)
    assert [row["stage"] for row in rows] == ["train"] * 4 + ["part"] * 4 + ["both"] * 2 + ["fusion"] * 2
    assert rows[-1]["val_accuracy"] == rows[-1]["fused_accuracy"] and rows[0]["val_accuracy"] == rows[0]["whole_accuracy"]
    assert outcome.metrics["test_accuracy"] > 0.9
    tensors, chosen = load_state(tmp_path / MODEL)[0], scl.split_of(config, setting.pack, 0)["test"]
    said = scl.predict(config, scl.exported(config, tensors), setting.pack.images[chosen], setting.pack.classes, CPU)["prediction"]
    judged = outcome.predictions["test"]
    assert [setting.pack.classes[int(np.argmax(row))] for row in judged["probability"]] == said
    with np.load(tmp_path / "artefacts.npz") as kept:
        assert kept["embedding"].shape[0] == len(chosen) and set(kept) == {"embedding", "index", "label"}


@pytest.fixture(scope="module")
def straight(setting, tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("straight"), []
    execute(PROCEDURE, TINY, seed=1, pack=setting.pack, folder=folder, report=rows.append)
    return load_state(folder / MODEL)[0], [{**row, "seconds": 0} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("place", [("part", 1), ("both", 1)], ids=["between two phases", "in the third"])
def test_a_run_that_is_stopped_ends_with_the_weights_and_rows_of_the_straight_run(setting, straight, place, tmp_path):
    wanted, rows = straight
    at, again = [], []
    with pytest.raises(Interrupted):
        execute(
            PROCEDURE, TINY, seed=1, pack=setting.pack, folder=tmp_path, report=lambda row: at.append((row["stage"], row["epoch"])),
            stopping=lambda: at[-1:] == [place],
        )  # fmt: skip
    execute(PROCEDURE, TINY, seed=1, pack=setting.pack, folder=tmp_path, report=again.append)
    found, _ = load_state(tmp_path / MODEL)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [{**row, "seconds": 0} for row in again] == rows


def test_what_belongs_to_the_other_method_changes_nothing_and_what_does_not_fit_is_a_fault():
    other = {"lambda1": 0.0, "temperature": 0.5, "embedding_dim": 7, "head": "code", "contrast_balance": 0.3, "focal_gamma": 1.0}
    assert canonical(replace(TINY, **other)) == TINY and canonical(replace(TINY, part_epochs=9)) != TINY
    plain = canonical(SclConfig())
    assert canonical(replace(plain, part_epochs=5, both_epochs=6, fusion_epochs=7)) == plain == SclConfig()
    assert [stage.name for stage in stages_of(PROCEDURE, replace(plain, part_epochs=5, both_epochs=6))] == ["train"]
    assert [stage.name for stage in stages_of(PROCEDURE, TINY)] == ["train", "part", "both", "fusion"]
    first, second = (stage_hashes(PROCEDURE, config, 1, "d", "c") for config in (TINY, replace(TINY, learning_rate=1e-3)))
    assert all(first[name] != second[name] for name in first)
    assert faults(TINY) == []
    [fault] = faults(replace(TINY, both_epochs=0))
    assert fault.startswith("both_epochs must be above 0 where method is varifocal")
    assert any("trains its own layers" in fault for fault in faults(replace(TINY, classifier="probe")))
    assert scl.timm_settings(TINY, ("a", "b")) is None
