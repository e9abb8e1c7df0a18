"""SCL: the loss against float64 loops from the paper, the sampler's promises, folding, faults, and a whole run."""

import math
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import references
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from trainables import scl
from trainables.data.ground import TOLERANCE
from trainables.data.normal import width_of
from trainables.data.pack import make_pack
from trainables.data.split import split
from trainables.data.synthetic_karyotypes import HOSPITALS, karyotype_bands, karyotype_set
from trainables.data.words import KARYOTYPE
from trainables.parts import losses
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.encoders import create_backbone, standardise, statistics_of
from trainables.parts.errors import RequestError
from trainables.parts.evaluation import auc_macro
from trainables.parts.execution import MODEL, config_hash, execute
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting
from trainables.parts.views import ViewSet, apply_views, draw_views
from trainables.parts.workers import Workers
from trainables.scl import PROCEDURE, SclConfig, Train, canonical, draw_pairs, faults

TINY = SclConfig(
    canvas=160, input_size=32, split=(0.6, 0.2, 0.2), backbone="test_resnet", embedding_dim=16, epochs=3, steps_per_epoch=4, learning_rate=1e-3,
)  # fmt: skip
CPU = torch.device("cpu")
BACKBONES = (
    "vit_small_patch8_224", "vit_large_patch14_224", "davit_small", "davit_large", "swin_small_patch4_window7_224",
    "swin_large_patch4_window7_224", "resnet34", "resnet50",
)  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    pack = karyotype_set(12, homologues=1, size=32, canvas=160)
    return Setting(pack, scl.split_of(TINY, pack, 0), seed=3)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def state_of(task):
    return {name: tensor.clone() for name, tensor in task.state_dict().items()}


# ------------------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_is_that_of_the_reference_and_of_cross_entropy_at_gamma_zero(gamma):
    scores, targets = 3 * rows(7, 5), torch.tensor([0, 1, 2, 3, 4, 0, 2])
    wanted = np.mean([references.focal_loss(row, target, gamma) for row, target in zip(scores.tolist(), targets.tolist(), strict=True)])
    assert float(losses.focal(scores, targets, gamma)) == pytest.approx(wanted, rel=1e-12)
    if gamma == 0:
        assert float(losses.focal(scores, targets, gamma)) == pytest.approx(float(F.cross_entropy(scores, targets)), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_row_that_is_certain_has_no_loss_and_a_finite_gradient(gamma):
    scores = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0], [1.0, 0.0, 200.0]], requires_grad=True)
    loss = losses.focal(scores, torch.tensor([0, 1, 2]), gamma)
    loss.backward()
    assert float(loss.detach()) == 0 and bool(torch.isfinite(scores.grad).all())
    wrong = losses.focal(-scores.detach(), torch.tensor([0, 1, 2]), gamma)
    assert math.isfinite(float(wrong)) and float(wrong) > 100


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_gradient_of_the_focal_loss_is_that_of_finite_differences(gamma):
    scores = rows(4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: losses.focal(values, torch.tensor([0, 1, 2, 3]), gamma), scores)


@pytest.mark.parametrize(("gamma", "temperature"), [(2.0, 0.07), (2.0, 0.01), (0.0, 0.5), (1.3, 0.2)])
def test_the_contrastive_loss_is_that_of_algorithm_1(gamma, temperature):
    first, second = rows(6, 9), rows(6, 9, seed=1)
    found = losses.paired_contrast(first, second, temperature, gamma)
    assert float(found) == pytest.approx(references.scl_contrast(first.tolist(), second.tolist(), 1 / temperature, gamma), rel=1e-9)


@pytest.mark.parametrize(("gamma", "temperature"), [(2.0, 0.07), (0.0, 0.5)])
def test_the_authors_contrast_is_three_blocks_where_the_equation_has_eight_terms(gamma, temperature):
    first, second = rows(6, 9), rows(6, 9, seed=1)
    found = losses.paired_contrast(first, second, temperature, gamma, "code")
    wanted = references.scl_contrast_of_the_authors(first.tolist(), second.tolist(), 1 / temperature, gamma)
    assert float(found) == pytest.approx(wanted, rel=1e-9)
    same = [float(losses.paired_contrast(first, first, temperature, gamma, summed)) for summed in ("code", "equation")]
    assert same[1] / same[0] == pytest.approx(8 / 3, rel=1e-12)  # of equal batches every term is the same


@pytest.mark.parametrize("summed", losses.CONTRAST_SUMS)
def test_the_gradient_of_the_contrast_is_that_of_finite_differences(summed):
    first, second = rows(3, 4).requires_grad_(), rows(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: losses.paired_contrast(a, b, 0.3, 2.0, summed), (first, second))


def test_s_21_is_s_12_transposed_so_that_the_mixed_block_counts_twice():
    first, second = rows(5, 4), rows(5, 4, seed=1)
    one, two = (references.similarity(*pair, 10.0) for pair in ((first.tolist(), second.tolist()), (second.tolist(), first.tolist())))
    assert np.allclose(np.array(one), np.array(two).T, atol=1e-12)
    targets = torch.arange(5)
    mixed = torch.tensor(one, dtype=torch.float64)
    own = [torch.tensor(references.similarity(e.tolist(), e.tolist(), 10.0), dtype=torch.float64) for e in (first, second)]
    parts = [losses.focal(block, targets, 2.0) for block in (*own, mixed, mixed.T)]
    assert float(losses.paired_contrast(first, second, 0.1, 2.0)) == pytest.approx(2 * float(sum(parts)), rel=1e-9)


def test_the_loss_does_not_ask_which_batch_is_first_nor_for_the_order_of_classes_nor_for_the_length_of_rows():
    first, second = rows(6, 9), rows(6, 9, seed=1)
    value = float(losses.paired_contrast(first, second, 0.07, 2.0))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    longer = rows(6, 1, seed=2).abs() + 0.1
    assert float(losses.paired_contrast(second, first, 0.07, 2.0)) == pytest.approx(value, rel=1e-12)
    assert float(losses.paired_contrast(first[order], second[order], 0.07, 2.0)) == pytest.approx(value, rel=1e-12)
    assert float(losses.paired_contrast(first * longer, second * 3, 0.07, 2.0)) == pytest.approx(value, rel=1e-12)
    assert float(losses.paired_contrast(first, second[order], 0.07, 2.0)) != pytest.approx(value, rel=1e-3)


def test_groups_are_independent_pairs_whose_mean_counts():
    first, second = rows(3, 5, 4), rows(3, 5, 4, seed=1)
    alone = [float(losses.paired_contrast(a, b, 0.1, 2.0)) for a, b in zip(first, second, strict=True)]
    assert float(losses.paired_contrast(first, second, 0.1, 2.0)) == pytest.approx(np.mean(alone), rel=1e-12)


def test_the_gradient_of_the_temperature_is_that_of_finite_differences():
    first, second = rows(5, 4), rows(5, 4, seed=1)
    log_temperature = torch.tensor(math.log(0.07), dtype=torch.float64, requires_grad=True)
    losses.paired_contrast(first, second, log_temperature.exp(), 2.0).backward()
    step = 1e-5
    up, down = (float(losses.paired_contrast(first, second, math.exp(math.log(0.07) + move), 2.0)) for move in (step, -step))
    assert float(log_temperature.grad) == pytest.approx((up - down) / (2 * step), rel=1e-6)
    assert abs(float(log_temperature.grad)) > 0.1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.focal(rows(3, 4), torch.tensor([0, 1, 2]), -1.0), "gamma must be 0 or above"),
        (lambda: losses.focal(rows(3, 4), torch.tensor([0, 1]), 2.0), r"got \(3, 4\) and \(2,\)"),
        (lambda: losses.paired_contrast(rows(3, 4), rows(2, 4), 0.1, 2.0), r"got \(3, 4\) and \(2, 4\)"),
        (lambda: losses.paired_contrast(rows(3, 4), rows(3, 4), 0.0, 2.0), "temperature must be above 0, got 0.0"),
        (lambda: losses.paired_contrast(rows(3, 4), rows(3, 4), 0.1, 2.0, "all"), "one of equation, code, got 'all'"),
    ],
)
def test_what_a_loss_cannot_take_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ------------------------------------------------------------------------------------------------------ a step


CODE = {  # all that the authors' program does otherwise than the paper's equations, and that a step shows
    "contrast_sum": "code", "head": "code", "first_epochs": 1, "normalise": False, "flips": "vertical", "rotation": 90.0, "brightness": 0.2,
    "contrast": 0.2,
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "epoch"), [
    ({}, 0), ({"groups": 2}, 0), ({"lambda1": 0.0}, 0), ({"lambda1": 0.3, "lambda2": 2.0, "focal_gamma": 0.7}, 0), ({"contrast_sum": "code"}, 0),
    ({"first_epochs": 1}, 0), ({"first_epochs": 1}, 1), ({"first_epochs": 2, "lambda1": 0.5}, 1), (CODE, 0), (CODE, 1),
], ids=str)  # fmt: skip
def test_the_loss_of_a_step_is_that_of_the_paper_or_of_the_authors_program(setting, overrides, epoch):
    config = replace(TINY, **overrides)
    task = Train(config, setting).train()
    batch = next(iter(task.batches(epoch)))
    found = float(task(batch).detach())
    again = Train(config, setting).train()
    gray = again.train_images.gray(batch.chosen.flatten())[:, None] / 255
    with torch.no_grad():
        seen = apply_views(gray, batch.views, keep_background=True)
        embedding = again.model(standardise(seen) if config.normalise else seen)
        scores = again.classifier(embedding)
    shape = (config.groups, 2, 24, -1)
    wanted, first = 0.0, epoch < config.first_epochs
    gamma, part = (0.0, 0.1 * config.lambda1) if first else (config.focal_gamma, config.lambda1)
    contrast_of = references.scl_contrast_of_the_authors if config.contrast_sum == "code" else references.scl_contrast
    for e, s in zip(embedding.double().view(shape).tolist(), scores.double().view(shape).tolist(), strict=True):
        contrast = contrast_of(*e, 1 / config.temperature, gamma) if config.lambda1 else 0.0
        wanted += part * contrast + config.lambda2 * references.scl_classification(*s, gamma)
    assert found == pytest.approx(wanted / config.groups, rel=1e-4)


def test_a_balanced_contrast_has_its_part_of_the_classifications_gradient_on_the_embeddings(setting):
    config, found, slopes = replace(TINY, contrast_balance=0.3, lambda2=1.5, first_epochs=1), [], ([], [])
    task = Train(config, setting).train()

    def summed(embedding, contrast, classification, sum_up=task._balanced):
        asked = [embedding, *task.parameters()]
        apart = [
            torch.autograd.grad(loss, asked, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in (contrast, classification)
        ]
        for kept, gradients in zip(slopes, apart, strict=True):
            kept.append(gradients[0].double().flatten(0, -2).tolist())
        value = sum_up(embedding, contrast, classification)
        found.append(float(task._weight()))
        wanted = found[-1] * contrast + classification
        assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
        together = torch.autograd.grad(value, asked, retain_graph=True)
        for gradient, one, other in zip(together, *apart, strict=True):  # of every weight, the temperature's and the classifier's too
            wanted = found[-1] * one + other
            assert float((gradient - wanted).norm()) <= 1e-3 * float(wanted.norm())
        return value

    task._balanced = summed
    fitting = Fitting(task, setting)
    for epoch in (0, 1):
        for batch in task.batches(epoch):
            fitting.step(batch, 1e-3)
    assert found == pytest.approx(references.balanced_weights(*slopes, 0.3, scl.MEMORY), rel=1e-4) and len(set(found)) == len(found)
    length = [math.sqrt(sum(x * x for row in gradient[0] for x in row)) for gradient in slopes]
    assert found[0] * length[0] == pytest.approx(0.3 * length[1], rel=1e-5)
    task.eval()
    before = task.gradients.clone()
    task(next(iter(task.batches(0))))
    assert torch.equal(task.gradients, before)  # what is judged moves nothing
    del task._balanced  # the real one again
    with torch.no_grad():
        assert math.isfinite(float(task.train()(next(iter(task.batches(0))))))
    assert task.validate()["contrast_weight"] == pytest.approx(found[-1], rel=1e-5)


@pytest.mark.parametrize("lambda1", [0.0, 1.0])
def test_every_parameter_has_a_finite_gradient_and_is_optimised_once(setting, lambda1):
    task = Train(replace(TINY, lambda1=lambda1), setting).train()
    task(next(iter(task.batches(0)))).backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
    optimised = [id(p) for group in task.optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised)) and set(optimised) == {id(p) for p in task.parameters()}
    assert ("log_temperature" in dict(task.named_parameters())) == (lambda1 > 0)


def test_the_temperature_starts_where_it_is_set_is_learned_and_never_below_one_hundredth(setting):
    task = Train(TINY, setting)
    assert float(task.log_temperature.detach().exp()) == pytest.approx(0.07)
    with torch.no_grad():
        task.log_temperature.fill_(-20.0)
    task.after_step()
    assert float(task.log_temperature.detach().exp()) == pytest.approx(0.01)
    assert [group["weight_decay"] for group in Train(replace(TINY, weight_decay=0.1), setting).optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize("lambda1", [0.0, 1.0])
def test_two_workers_with_a_group_each_have_the_mean_loss_of_one_worker_with_both(setting, lambda1):
    config = replace(TINY, groups=2, lambda1=lambda1)
    whole = Train(config, setting).eval()  # fixed batch statistics: those of several workers have a test of their own
    batch = next(iter(whole.batches(0)))
    parts = []
    for rank in (0, 1):
        task = Train(config, setting).eval()
        task.workers = Workers(rank, 2)
        parts.append(float(task(batch).detach()))
    assert float(whole(batch).detach()) == pytest.approx(np.mean(parts), rel=1e-5) and parts[0] != parts[1]


SHARED = ({"lambda1": 0.0}, {}, CODE | {"contrast_balance": 0.3})  # what is trained by two


def several_steps(workers, overrides):
    """Losses and weights after three steps, in float64: in float32 the order in which two workers add is seen within a few steps."""
    pack = karyotype_set(12, homologues=1, size=32, canvas=160)
    given = Setting(pack, scl.split_of(TINY, pack, 0), seed=3, workers=workers)
    task = Train(replace(TINY, groups=2, **overrides), given).double().train()
    task.model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    fitting = Fitting(task, given)
    found = [workers.mean(fitting.step(batch, 1e-3)) for _, batch in zip(range(3), task.batches(0), strict=False)]
    return {"losses": torch.stack(found)} | {name: t for name, t in task.state_dict().items() if t.is_floating_point()}


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for number, overrides in enumerate(SHARED):
        save_state(folder / f"{number}-{rank}", several_steps(Workers(rank, 2), overrides), {})
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_steps_of_two_processes_are_those_of_one(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    for number, overrides in enumerate(SHARED):
        alone = several_steps(Workers(), overrides)
        for rank in (0, 1):
            together, _ = load_state(tmp_path / f"{number}-{rank}")
            assert alone.keys() == together.keys()
            for name, tensor in alone.items():
                assert torch.allclose(tensor, together[name], rtol=1e-6, atol=1e-8), name


def test_the_views_are_rotations_flips_and_contrast(setting):
    draw = next(iter(Train(replace(TINY, rotation=30.0, contrast=0.2, groups=8), setting).batches(0))).views
    turns = draw.affine[:, :, :2].double()
    assert torch.allclose(turns @ turns.mT, torch.eye(2, dtype=torch.float64).expand_as(turns), atol=1e-6)
    assert (draw.affine[:, :, 2] == 0).all() and (draw.sigma == 0).all() and (draw.colour[:, 0] == 1).all()
    assert 0.8 <= float(draw.colour[:, 1].min()) < 0.85 and 1.15 < float(draw.colour[:, 1].max()) <= 1.2
    mirrored = torch.linalg.det(turns) < 0
    assert 0.3 < float(mirrored.double().mean()) < 0.7
    assert next(iter(Train(replace(TINY, contrast=0.0, flip=0.0), setting).batches(0))).views.colour.eq(1).all()


def test_contrast_leaves_the_background_at_zero_and_the_foregrounds_mean_where_it_was(setting):
    images = torch.from_numpy(setting.pack.images[:40]).float()[:, None] / 255
    draw = draw_views(40, ViewSet(contrast=0.4, jitter=1.0), torch.Generator().manual_seed(0))
    plain, kept = apply_views(images, draw), apply_views(images, draw, keep_background=True)
    shown = images > (TOLERANCE + 0.5) / 255
    weaker = draw.colour[:, 1] < 0.9
    assert bool((plain[weaker][~shown[weaker]] > 0.004).any()) and torch.allclose(kept[~shown], images[~shown], atol=1e-6)
    for image, view, mask, factor in zip(images, kept, shown, draw.colour[:, 1], strict=True):
        mean = image[mask].double().mean()
        assert torch.allclose(view[mask].double(), (mean + factor * (image[mask].double() - mean)).clamp(0, 1), atol=1e-5)


def test_the_authors_views_are_mirrored_one_way_only_and_differ_in_brightness_too(setting):
    draw = next(iter(Train(replace(TINY, **CODE | {"rotation": 0.0, "groups": 8}), setting).batches(0))).views
    assert draw.affine[:, 0, 0].eq(1).all() and 0.3 < float(draw.affine[:, 1, 1].lt(0).double().mean()) < 0.7
    for factors in draw.colour.unbind(1):
        assert 0.8 <= float(factors.min()) < 0.85 and 1.15 < float(factors.max()) <= 1.2
    images = torch.from_numpy(setting.pack.images[np.arange(384) % len(setting.pack)]).float()[:, None] / 255
    ground = apply_views(images, draw, keep_background=True)[apply_views(images, replace(draw, colour=torch.ones(384, 2))) == 0]
    assert ground.eq(0).all()


# ------------------------------------------------------------------------------------------------------ the sampler

SIZES = (1, 2, 3, 4, 7, 10, 31)


def members_of(sizes):
    ends = np.cumsum(sizes)
    return [torch.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def test_every_step_shows_each_class_exactly_twice_in_class_order(setting):
    task = Train(replace(TINY, groups=3), setting)
    labels = setting.pack.labels[setting.parts["train"]]
    for epoch in (0, 1):
        batches = list(task.batches(epoch))
        assert len(batches) == task.steps() == 4
        for batch in batches:
            assert batch.chosen.shape == (3, 2, 24)
            assert (labels[batch.chosen.numpy()] == np.arange(24)).all()


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_every_image_is_seen_before_any_is_seen_again(groups):
    drawn = draw_pairs(members_of(SIZES), 0, 0, 200, groups)
    for label, members in enumerate(members_of(SIZES)):
        sequence = drawn[..., label].flatten().tolist()
        size = len(members)
        for start in range(0, len(sequence) - size + 1, size):
            assert sorted(sequence[start : start + size]) == members.tolist()


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_a_pair_never_holds_one_image_twice_where_a_class_has_two(groups):
    drawn = draw_pairs(members_of(SIZES), 1, 0, 500, groups)
    same = (drawn[:, :, 0] == drawn[:, :, 1]).flatten(0, 1)
    assert same[:, 0].all() and not same[:, 1:].any()  # a class of one image shows it twice, under two views


@pytest.mark.parametrize("groups", [1, 2])
def test_what_a_step_shows_follows_from_its_number_alone(groups):
    whole = draw_pairs(members_of(SIZES), 4, 0, 60, groups)
    for first, steps in ((0, 7), (7, 20), (33, 27)):
        assert torch.equal(draw_pairs(members_of(SIZES), 4, first, steps, groups), whole[first : first + steps])
    assert not torch.equal(draw_pairs(members_of(SIZES), 5, 0, 60, groups), whole)


def test_decks_are_shuffled_and_differ_from_deck_to_deck_and_class_to_class():
    drawn = draw_pairs(members_of((10, 10)), 0, 0, 500, 1).view(-1, 2)
    decks = [tuple(deck.tolist()) for deck in drawn[:, 0].view(-1, 10)]
    assert len(set(decks)) == len(decks)
    assert not torch.equal(drawn[:10, 0], drawn[:10, 1] - 10)
    firsts = Counter(deck[0] for deck in decks)
    assert set(firsts) == set(range(10)) and max(firsts.values()) < 30


def test_an_epoch_is_the_same_whatever_was_drawn_before_it(setting):
    straight = Train(TINY, setting)
    for _ in straight.batches(0):
        pass
    one, two = next(iter(straight.batches(1))), next(iter(Train(TINY, setting).batches(1)))
    assert torch.equal(one.chosen, two.chosen) and torch.equal(one.views.affine, two.views.affine)


# ------------------------------------------------------------------------------------------------------ folding, export


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_the_folded_classifier_gives_the_scores_of_the_two_layers(setting, backbone):
    config = replace(TINY, backbone=backbone)
    task = Train(config, setting).eval()
    with torch.no_grad():
        task.classifier.bias.uniform_(-1, 1)
    tensors = task.result()
    network = create_backbone(backbone, channels=1, classes=24, weights="random", seed=9, input_size=32).eval()
    network.load_state_dict(scl.exported(config, tensors))
    images = standardise(torch.from_numpy(setting.pack.images[:6]).float()[:, None] / 255)
    with torch.no_grad():
        assert torch.allclose(network(images), task.classifier(task.model(images)), atol=1e-5)
    own = sorted(set(tensors) - set(scl.exported(config, tensors)))
    assert own == ["scl.classifier.bias", "scl.classifier.weight", "scl.embedding.bias", "scl.embedding.weight", "scl.log_temperature"]
    assert tensors["scl.embedding.weight"].shape[0] == 16 and tensors["scl.classifier.weight"].shape == (24, 16)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_the_authors_head_is_judged_exported_and_drawn_as_it_was_trained(setting, backbone):
    config = replace(TINY, **CODE, backbone=backbone)
    task = Train(config, setting).eval()
    names = [type(module).__name__ for module in (*task.model.get_classifier(), *task.classifier)]
    shapes = [tuple(p.shape) for p in (*task.model.get_classifier().parameters(), *task.classifier.parameters())]
    assert names == ["Linear", "Linear", "Linear", "ReLU", "Linear"] and [s for s in shapes if s[0] == 4096 or s[-1] == 4096][1:] == [
        (4096,),
        (16, 4096),
    ]
    assert shapes[-3:] == [(1024, 16), (1024,), (24, 1024)]
    tensors, images = task.result(), torch.from_numpy(setting.pack.images[:6]).float()[:, None] / 255
    network = scl._network(config, 24, scl.exported(config, tensors), CPU)
    with torch.no_grad():
        assert torch.allclose(network(images), task.classifier(task.model(images)), atol=1e-5)
        wanted = task.model(torch.from_numpy(setting.pack.images[setting.parts["test"]]).float()[:, None] / 255)
    assert {name for name in tensors if name not in scl.exported(config, tensors)} == {"scl.log_temperature"}
    assert scl.timm_settings(config, KARYOTYPE) is None
    chosen = setting.parts["test"]
    stored, exported = (scl.evaluate(config, given, setting.pack, chosen, CPU) for given in (tensors, scl.exported(config, tensors)))
    assert stored == exported
    drawn = scl.artefacts(config, tensors, setting.pack, chosen, CPU)
    order = [list(chosen).index(index) for index in drawn["index"]]
    assert np.allclose(drawn["embedding"], wanted[order].numpy(), atol=2e-3, rtol=2e-3) and drawn["heat"].shape[0] == 24


def test_images_that_are_not_normalised_are_so_for_timm_and_as_a_start(setting, tmp_path):
    config = replace(TINY, normalise=False)
    said = scl.timm_settings(config, KARYOTYPE)["pretrained_cfg"]
    assert (said["mean"], said["std"]) == ([0.0], [1.0])
    tensors, chosen = Train(config, setting).result(), setting.parts["test"]
    images = torch.from_numpy(setting.pack.images[chosen]).float()[:, None] / 255
    with torch.no_grad():
        wanted = scl._network(config, 24, tensors, CPU)(images).softmax(1)
    assert np.allclose(scl.evaluate(config, tensors, setting.pack, chosen, CPU).predictions["probability"], wanted, atol=2e-5)
    save_file({name: tensor.contiguous() for name, tensor in scl.exported(config, tensors).items()}, tmp_path / "model.safetensors")
    start = create_backbone(config.backbone, channels=1, classes=0, weights=str(tmp_path / "model.safetensors"), seed=0)
    assert torch.equal(standardise(images, statistics_of(start)), images)  # another training that begins with it gives it such images


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_timm_loads_the_exported_model_from_a_folder_at_the_trained_size(setting, backbone, tmp_path):
    import json

    import timm
    from safetensors.torch import save_file

    config = replace(TINY, backbone=backbone)
    task = Train(config, setting).eval()
    save_file({name: t.contiguous() for name, t in scl.exported(config, task.result()).items()}, str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text(json.dumps(scl.timm_settings(config, setting.pack.classes)))
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    chosen = setting.parts["test"]
    judged = scl.evaluate(config, task.result(), setting.pack, chosen, CPU)
    images = standardise(torch.from_numpy(setting.pack.images[chosen]).float()[:, None] / 255)
    with torch.no_grad():
        probability = model(images).double().softmax(1).numpy()
    assert np.allclose(probability, judged.predictions["probability"], atol=2e-5)
    assert judged.metrics["auc"] == pytest.approx(auc_macro(setting.pack.labels[chosen], probability), abs=1e-3)


def test_evaluation_takes_what_is_stored_and_what_is_exported_and_gives_the_same(setting):
    tensors, chosen = Train(TINY, setting).result(), setting.parts["test"]
    stored, exported = (scl.evaluate(TINY, given, setting.pack, chosen, CPU) for given in (tensors, scl.exported(TINY, tensors)))
    assert stored == exported and list(stored.metrics) == ["accuracy", "recall", "auc"]
    said = scl.predict(TINY, scl.exported(TINY, tensors), setting.pack.images[chosen], KARYOTYPE, CPU)
    assert said["prediction"] == [KARYOTYPE[np.argmax(row)] for row in stored.predictions["probability"]]


def test_a_class_that_a_set_lacks_is_left_out_of_recall_and_auc(setting):
    from sklearn.metrics import recall_score, roc_auc_score

    tensors = Train(TINY, setting).result()
    chosen = np.flatnonzero((setting.pack.labels != 23) & (setting.pack.labels != 4))
    judged = scl.evaluate(TINY, tensors, setting.pack, chosen, CPU)
    labels, probability = setting.pack.labels[chosen], np.array(judged.predictions["probability"])
    held = [label for label in range(24) if label not in (4, 23)]
    wanted = np.mean([roc_auc_score(labels == label, probability[:, label]) for label in held])
    assert judged.metrics["auc"] == pytest.approx(wanted, abs=1e-5)
    assert judged.metrics["recall"] == pytest.approx(recall_score(labels, probability.argmax(1), labels=held, average="macro"))
    alone = scl.evaluate(TINY, tensors, setting.pack, np.flatnonzero(setting.pack.labels == 3), CPU)
    assert alone.metrics["auc"] is None  # one class has no other to be told from


def test_auc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    labels = np.arange(120) % 24
    probability = (rows(120, 24) + 2 * F.one_hot(torch.from_numpy(labels), 24)).softmax(1).numpy()
    assert auc_macro(labels, probability) == pytest.approx(roc_auc_score(labels, probability, multi_class="ovr", average="macro"))


# ------------------------------------------------------------------------------------------------------ backbones


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_backbone_of_table_1_builds_with_one_linear_classifier_and_takes_224_pixels(backbone):
    assert faults(SclConfig(backbone=backbone)) == []
    with torch.device("meta"):
        model = create_backbone(backbone, channels=1, classes=1024, weights="random", seed=0, input_size=224)
    assert scl._classifier_name(model) in ("head", "head.fc", "fc") and model.get_classifier().out_features == 1024


@pytest.mark.parametrize(
    "backbone",
    ["test_vit", "test_resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin_tiny_patch4_window7_224", "davit_tiny"))],
)
def test_a_small_one_of_each_family_trains_and_is_drawn(setting, backbone):
    config = replace(TINY, backbone=backbone, steps_per_epoch=2, learning_rate=2e-4)
    task = Train(config, setting).train()
    before = state_of(task)
    for batch in task.batches(0):
        loss = task(batch)
        task.optimizer.zero_grad()
        loss.backward()
        task.optimizer.step()
        task.after_step()
    assert math.isfinite(float(loss.detach()))
    assert not torch.equal(before["classifier.weight"], task.classifier.weight) and float(task.log_temperature.detach()) != math.log(0.07)
    found = scl.artefacts(config, task.result(), setting.pack, setting.parts["test"], CPU)
    heat = found["heat"]
    assert heat.dtype == np.uint8 and heat.shape[0] == 24 and heat.shape[1] == heat.shape[2] and set(heat.max((1, 2))) <= {0, 255}
    assert (heat.max((1, 2)) == 255).mean() > 0.5


def test_a_network_that_does_not_end_in_one_linear_layer_or_does_not_take_the_size_is_a_fault(setting):
    [fault] = faults(SclConfig(backbone="deit_tiny_distilled_patch16_224"))
    assert fault.startswith("backbone must end in one linear classifier, which deit_tiny_distilled_patch16_224 does not")
    [fault] = faults(SclConfig(backbone="inception_v4", input_size=32))
    assert fault.startswith("input_size must be one that backbone inception_v4 takes, got 32")
    with pytest.raises(RequestError, match="must end in one linear classifier"):
        Train(replace(TINY, backbone="deit_tiny_distilled_patch16_224"), setting)


# ------------------------------------------------------------------------------------------------------ artefacts


def test_artefacts_show_the_same_images_for_every_run_of_a_split_and_fit_the_pack(setting):
    test = setting.parts["test"]
    one, two = (
        scl.artefacts(replace(TINY, lambda1=lambda1), Train(replace(TINY, lambda1=lambda1), replace(setting, seed=seed)).result(), setting.pack, test, CPU)
        for lambda1, seed in ((1.0, 0), (0.0, 5))
    )  # fmt: skip
    for name in ("index", "label", "heat_index", "heat_label", "heat_image"):
        assert np.array_equal(one[name], two[name])
    assert (
        one["embedding"].shape == (len(test), 16)
        and one["embedding"].dtype == np.float16
        and not np.array_equal(one["embedding"], two["embedding"])
    )
    assert np.array_equal(one["label"], setting.pack.labels[one["index"]]) and set(one["index"]) <= set(test)
    assert np.array_equal(one["heat_label"], np.arange(24)) and set(one["heat_index"]) <= set(test)
    assert np.array_equal(one["heat_image"], setting.pack.images[one["heat_index"]])
    assert all(array.dtype != object for array in one.values())


def test_embeddings_are_those_of_the_projection_before_folding(setting):
    task = Train(TINY, setting).eval()
    found = scl.artefacts(TINY, task.result(), setting.pack, setting.parts["test"], CPU)
    with torch.no_grad():
        z = task.model(standardise(torch.from_numpy(setting.pack.images[found["index"]]).float()[:, None] / 255))
    assert np.allclose(found["embedding"], z.numpy(), atol=2e-3, rtol=2e-3)
    assert "embedding" not in scl.artefacts(TINY, scl.exported(TINY, task.result()), setting.pack, setting.parts["test"], CPU)


def test_grad_cam_is_the_relu_of_activations_weighed_by_mean_slopes(setting):
    network = create_backbone("test_resnet", channels=1, classes=24, weights="random", seed=0).eval()
    images, labels = setting.pack.images[:3], setting.pack.labels[:3]
    heat, _ = scl.grad_cam(network, images, labels, CPU)
    for i in range(3):
        layer = {}
        hook = scl.heat_layer(network, 32).register_forward_hook(lambda module, inputs, output, layer=layer: layer.update(out=output))
        score = network(standardise(torch.from_numpy(images[i : i + 1]).float()[:, None] / 255))[0, int(labels[i])]
        hook.remove()
        [slope] = torch.autograd.grad(score, layer["out"])
        activation, weights = layer["out"][0].detach().numpy(), slope[0].numpy().mean((1, 2))
        wanted = np.maximum(sum(w * a for w, a in zip(weights, activation, strict=True)), 0)
        assert np.allclose(heat[i], np.rint(255 * wanted / wanted.max()), atol=1)


@pytest.mark.parametrize(("backbone", "mapped"), [("hrnet_w18_small", True), ("xcit_nano_12_p8_224", False), ("coat_mini", False)])
def test_a_network_whose_stages_are_branches_has_its_heat_and_one_without_a_map_of_places_has_none(setting, backbone, mapped, monkeypatch):
    network = create_backbone(backbone, channels=1, classes=24, weights="random", seed=0, input_size=64).eval()
    images, test = np.repeat(np.repeat(setting.pack.images, 2, 1), 2, 2), setting.parts["test"]
    found = scl.grad_cam(network, images[test[:2]], setting.pack.labels[test[:2]], CPU)
    assert (found is not None) == mapped
    if mapped:
        assert found[0].shape == (2, 8, 8), "the deepest branch of 7 x 7 places"
    monkeypatch.setattr(scl, "_network", lambda *_, **__: network)
    config = replace(TINY, backbone=backbone, input_size=64)
    shown = scl.artefacts(config, {}, replace(setting.pack, images=images), test[:4], CPU)
    assert ("heat" in shown) == mapped, "a run that has trained is not lost for want of a picture"


# ------------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def straight(setting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    external = scl.synthesize_external(TINY, images=60, seed=0)
    outcome = execute(PROCEDURE, TINY, seed=1, pack=setting.pack, folder=folder, evaluate_test=True, external=external)
    return folder, outcome


def test_a_run_ends_with_the_metrics_of_each_set_a_history_and_artefacts(straight):
    folder, outcome = straight
    names = {f"{part}_{metric}" for part in ("val", "test", "external_reverse_stain") for metric in ("accuracy", "recall", "auc")}
    assert set(outcome.metrics) == names and outcome.epochs == {"train": 3}
    for row in outcome.history:
        assert (
            row["loss"] == pytest.approx(row["contrastive_loss"] + row["classification_loss"], rel=1e-5) and 0.01 <= row["temperature"] < 1
        )
    with np.load(folder / "artefacts.npz", allow_pickle=False) as arrays:
        assert arrays["embedding"].shape[1] == 16 and arrays["heat"].shape[0] == 24


def test_an_interrupted_run_ends_with_the_weights_of_a_straight_one(setting, straight, tmp_path):
    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        execute(PROCEDURE, TINY, seed=1, pack=setting.pack, folder=tmp_path, checkpoint_seconds=0, report=stop)
    resumed = execute(PROCEDURE, TINY, seed=1, pack=setting.pack, folder=tmp_path, checkpoint_seconds=0, evaluate_test=True)
    assert resumed.interruptions == 1
    one, two = load_state(straight[0] / MODEL)[0], load_state(tmp_path / MODEL)[0]
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert resumed.metrics["test_accuracy"] == straight[1].metrics["test_accuracy"]


def test_the_best_epoch_is_kept_and_named_and_judged_whatever_interrupts_the_run(setting, tmp_path):
    config = replace(TINY, **CODE, keep="best", epochs=4, learning_rate=0.02)
    whole = execute(PROCEDURE, config, seed=2, pack=setting.pack, folder=tmp_path / "whole", evaluate_test=True)
    scores = [row["val_accuracy"] for row in whole.history]
    assert len(scores) == 4 and whole.metrics["val_accuracy"] == max(scores)
    assert whole.kept == {"train": 4 - scores[::-1].index(max(scores))}  # of equal ones the later
    assert whole.kept["train"] < 4  # else this shows nothing

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 3:
            raise Stop

    again = {"seed": 2, "pack": setting.pack, "folder": tmp_path / "again", "checkpoint_seconds": 0}
    with pytest.raises(Stop):
        execute(PROCEDURE, config, report=stop, **again)
    resumed = execute(PROCEDURE, config, evaluate_test=True, **again)
    assert resumed.kept == whole.kept and resumed.metrics == whole.metrics
    one, two = (load_state(tmp_path / name / MODEL)[0] for name in ("whole", "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_one_answer_for_every_image_is_named_as_a_collapse(setting):
    task = Train(TINY, setting).eval()
    with torch.no_grad():
        task.classifier.weight.zero_()
        task.classifier.bias.copy_(torch.arange(24.0))
    n = len(setting.parts["val"])
    assert task.collapse() == f"each of {n} validation images is taken for Y"
    with torch.no_grad():
        task.model.fc.weight.zero_()
    assert task.collapse() == f"each of {n} validation images is taken for Y; the {n} validation embeddings lie in one direction"


def test_a_balanced_contrast_takes_no_lambda1_and_without_contrast_none_of_its_settings_counts():
    [fault] = faults(replace(TINY, contrast_balance=0.1, lambda1=0.3))
    assert fault.startswith("lambda1 must be 1, or 0 for none, where the contrast is balanced (contrast_balance=0.1), got 0.3")
    assert [faults(replace(TINY, contrast_balance=0.1, lambda1=value)) for value in (0, 1)] == [[], []]
    without = [
        config_hash(PROCEDURE, replace(TINY, lambda1=0.0, contrast_balance=value, contrast_sum=summed))
        for value, summed in ((0.1, "code"), (0.0, "equation"))
    ]
    assert without[0] == without[1] != config_hash(PROCEDURE, replace(TINY, contrast_balance=0.1))


def test_without_scl_the_temperature_does_not_matter_and_with_it_it_does():
    without = [config_hash(PROCEDURE, replace(TINY, lambda1=0.0, temperature=value)) for value in (0.07, 0.5)]
    with_scl = [config_hash(PROCEDURE, replace(TINY, temperature=value)) for value in (0.07, 0.5)]
    assert without[0] == without[1] and with_scl[0] != with_scl[1] and canonical(TINY) == TINY


@pytest.mark.slow
def test_the_small_network_learns_the_synthetic_classes(tmp_path):
    config = replace(
        TINY, input_size=64, embedding_dim=64, epochs=6, steps_per_epoch=40, learning_rate=3e-3, schedule="cosine", rotation=0.0
    )
    pack = scl.synthesize(config, images=1104, seed=0)
    outcome = execute(PROCEDURE, config, seed=0, pack=pack, folder=tmp_path, evaluate_test=True)
    assert outcome.metrics["test_accuracy"] > 0.4 and outcome.history[-1]["contrastive_loss"] < outcome.history[0]["contrastive_loss"]


# ------------------------------------------------------------------------------------------------------ configuration

FAULTS = {
    "canvas": 8, "input_size": 4096, "normal_width": -1.0, "normal_gray": 256.0, "split": (0.5, 0.5, 0.1), "split_seed": -1, "patients": "folder", "backbone": "resnt50", "weights": "coco",
    "embedding_dim": 1, "epochs": 0, "steps_per_epoch": 0, "groups": 0, "learning_rate": 0.0, "schedule": "steps", "weight_decay": -0.1,
    "lambda1": -1.0, "lambda2": 0.0, "focal_gamma": -1.0, "temperature": 0.001, "rotation": 200.0, "flip": 1.5, "contrast": -0.1,
    "brightness": 1.5, "flips": "sideways", "head": "wide", "classifier": "forest", "contrast_sum": "all", "contrast_balance": -1.0, "first_epochs": -1, "keep": "first",
    "method": "gan", "part_epochs": -1, "both_epochs": -1, "fusion_epochs": -1,
}  # fmt: skip


def test_the_defaults_are_the_published_values_and_have_no_fault():
    published = {
        "input_size": 224, "embedding_dim": 1024, "epochs": 200, "steps_per_epoch": 2000, "groups": 1, "learning_rate": 1e-5, "lambda1": 1.0,
        "lambda2": 1.0, "schedule": "constant", "weight_decay": 0.0, "backbone": "vit_small_patch8_224", "focal_gamma": 2.0,
    }  # fmt: skip
    assert {name: getattr(SclConfig(), name) for name in published} == published and faults(SclConfig()) == []
    assert SclConfig().split == pytest.approx([n / (106260 + 2300 + 11818) for n in (106260, 2300, 11818)], abs=5e-4)


@pytest.mark.parametrize("field", FAULTS)
def test_each_bad_value_is_a_fault_that_names_field_and_value(field):
    [fault] = faults(replace(TINY, **{field: FAULTS[field]}))
    assert fault.startswith(f"{field} must be") and str(FAULTS[field]) in fault


def test_every_field_but_switches_has_a_bad_value_in_the_table_above_and_all_are_listed_at_once():
    switches = {entry.name for entry in fields(SclConfig) if isinstance(entry.default, bool)}
    assert FAULTS.keys() | switches == {entry.name for entry in fields(SclConfig)}
    found = faults(replace(SclConfig(), **FAULTS))
    assert [field for field in FAULTS if not any(fault.startswith(f"{field} must") for fault in found)] == [] and len(found) == len(FAULTS)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", [entry.name for entry in fields(SclConfig) if isinstance(entry.default, float)])
def test_what_is_not_finite_is_a_fault(field, value):
    assert any(fault.startswith(field) for fault in faults(replace(TINY, **{field: value})))


def test_a_cosine_falls_from_the_rate_to_nothing_and_a_constant_stays(setting):
    task = Train(replace(TINY, schedule="cosine"), setting)
    assert [task.learning_rate(epoch) for epoch in (0, 1.5, 3)] == pytest.approx([1e-3, 5e-4, 0.0])
    assert {Train(TINY, setting).learning_rate(epoch) for epoch in (0, 1.5, 3)} == {1e-3}
    decay = Train(replace(TINY, schedule="decay"), setting)
    assert [decay.learning_rate(epoch) for epoch in (0, 0.99, 1, 2.5)] == pytest.approx([1e-3, 1e-3, 0.95e-3, 0.95**2 * 1e-3])


# ------------------------------------------------------------------------------------------------------ data, individuals


def test_a_class_without_a_training_image_is_a_fault_at_the_start(setting):
    train = setting.parts["train"]
    lacking = dict(setting.parts) | {"train": train[(setting.pack.labels[train] != 23) & (setting.pack.labels[train] != 0)]}
    [fault] = faults(TINY, setting.pack, lacking)
    assert "the training part has none of 1, Y" in fault
    with pytest.raises(RequestError, match="none of 1, Y"):
        Train(TINY, replace(setting, parts=lacking))


def test_two_images_of_a_class_are_enough(setting):
    train = setting.parts["train"]
    of_y = train[setting.pack.labels[train] == 23]
    few = np.sort(np.concatenate([train[setting.pack.labels[train] != 23], of_y[:2]]))
    task = Train(TINY, replace(setting, parts=dict(setting.parts) | {"train": few}))
    for batch in task.batches(0):
        pair = few[batch.chosen[0, :, 23].numpy()]
        assert set(pair) == set(of_y[:2]) and math.isfinite(float(task(batch).detach()))


def test_an_individual_on_two_sides_is_refused(setting):
    torn = dict(setting.parts) | {"test": np.sort(np.append(setting.parts["test"], setting.parts["train"][0]))}
    [fault] = faults(TINY, setting.pack, torn)
    assert fault == (
        f"an individual must stand in one part of the split, in two: {setting.pack.patients[setting.parts['train'][0]]}; split by individual"
    )
    assert faults(TINY, setting.pack, setting.parts) == []
    with pytest.raises(RequestError, match="an individual must stand in one part"):
        Train(TINY, replace(setting, parts=torn))


def folder_of(path, pack, columns=lambda i: {}, white=False):
    """Write a pack as a folder of images with a manifest; columns(i): its cells beside file and label."""
    lines = []
    for i, (file, label) in enumerate(zip(pack.files, pack.labels, strict=True)):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - pack.images[i] if white else pack.images[i]).save(path / file)
        lines.append({"file": file, "label": pack.classes[label]} | columns(i))
    text = [",".join(lines[0]), *(",".join(line.values()) for line in lines)]
    (path / "manifest.csv").write_text("\n".join(text) + "\n")
    return path


READ = replace(TINY, canvas=32)


def test_a_manifest_whose_own_split_tears_an_individual_is_refused(setting, tmp_path):
    def columns(i):
        return {"patient": setting.pack.patients[i], "split": "train" if setting.pack.labels[i] % 2 else "test"}

    with pytest.raises(RequestError, match=r"a patient must stand on one side, 12 patients on two: p00000 \(train, test\)"):
        scl.read(folder_of(tmp_path, setting.pack, columns), READ)


def test_a_manifest_whose_split_is_by_individual_is_read(setting, tmp_path):
    def columns(i):
        return {"patient": setting.pack.patients[i], "split": "train" if setting.pack.patients[i] < "p00006" else "test"}

    pack = scl.read(folder_of(tmp_path, setting.pack, columns), READ)
    assert len(pack) == len(setting.pack) and pack.classes == KARYOTYPE
    assert "12 individuals, each kept in one part of the split" in pack.notes
    parts = scl.split_of(READ, pack, 0)
    assert faults(READ, pack, parts) == [] and sorted(np.concatenate(list(parts.values()))) == list(range(len(pack)))


def test_a_copy_under_another_individual_keeps_both_on_one_side(setting, tmp_path):
    gray = setting.pack.images[7].astype(float)
    images = np.concatenate([setting.pack.images, np.where(gray > 0, np.clip(gray * 0.9 + 8, 1, 255), 0)[None].astype(np.uint8)])
    copy = make_pack(
        images,
        [*setting.pack.labels, setting.pack.labels[7]],
        setting.pack.classes,
        [*setting.pack.files, setting.pack.files[7].replace("/", "/other_")],
        [*setting.pack.patients, "another"],
        np.ones((len(images), 2)),
    )
    pack = scl.read(folder_of(tmp_path, copy, lambda i: {"patient": copy.patients[i]}), READ)
    [both] = [pair for pair in pack.ties if len({pack.patients[i] for i in pair}) > 1]
    assert {pack.files[i] for i in both} == {setting.pack.files[7], setting.pack.files[7].replace("/", "/other_")}
    assert any("kept on one side of each split" in note for note in pack.notes)


def test_individuals_are_taken_from_the_names_of_files_where_that_is_asked_for(setting, tmp_path):
    pack = scl.read(folder_of(tmp_path, setting.pack), replace(READ, patients="prefix"))
    assert set(pack.patients) == {f"p{i:05d}" for i in range(12)} and pack.hash != scl.read(tmp_path, READ).hash


def test_without_individuals_the_reader_warns_and_ties_near_duplicates(setting, tmp_path):
    pack = scl.read(folder_of(tmp_path, setting.pack), READ)
    assert pack.patients is None and any("individuals are not known" in note for note in pack.notes)


def test_a_karyotype_that_lacks_classes_is_refused_unless_that_is_wanted(setting, tmp_path):
    held = np.flatnonzero(~np.isin(setting.pack.labels, (3, 23)))
    some = make_pack(
        setting.pack.images[held],
        setting.pack.labels[held],
        KARYOTYPE,
        [setting.pack.files[i] for i in held],
        None,
        setting.pack.areas[held],
    )
    folder = folder_of(tmp_path, some)
    with pytest.raises(
        RequestError, match="has none of 4, Y; add images, or train on the classes that are there with whole_karyotype=false"
    ):
        scl.read(folder, READ)
    assert len(scl.read(folder, replace(READ, whole_karyotype=False)).classes) == 22
    external = scl.read(folder, READ, KARYOTYPE)  # an external set may lack some
    assert external.classes == KARYOTYPE and "no image of class 4, Y" in external.notes
    (folder / "manifest.csv").unlink(missing_ok=True)  # folders decide
    (folder / "marker").mkdir()
    for turn in (1, 2):
        Image.fromarray(np.rot90(some.images[0], turn).copy()).save(folder / "marker" / f"{turn}.png")
    with pytest.raises(RequestError, match="has none of 4, Y"):  # a folder that is no chromosome's does not make up for those that lack
        scl.read(folder, READ)


def test_a_white_external_set_is_read_as_the_same_images_on_black(setting, tmp_path):
    white = scl.read(folder_of(tmp_path, setting.pack, white=True), READ, KARYOTYPE)
    order = [setting.pack.files.index(name) for name in white.files]
    wanted = setting.pack.images[order]
    assert np.array_equal(white.images, np.where(wanted > TOLERANCE, wanted, 0)) and any(
        "white background inverted" in note for note in white.notes
    )


NORMAL = replace(TINY, canvas=128, input_size=64, normal_width=14.0, normal_gray=190.0, upright=True)


def test_sets_of_two_magnifications_stains_and_frames_are_read_as_one(setting, tmp_path):
    one = karyotype_set(4, homologues=1, size=160, canvas=160)
    framed = np.stack(
        [np.pad(image[::2, ::2] * 0.6, 40).astype(np.uint8) for image in one.images]
    )  # half as large, paler, in another frame
    other = make_pack(framed, one.labels, KARYOTYPE, one.files, one.patients, one.areas)
    plain, small = (scl.read(folder_of(tmp_path / name, pack), NORMAL) for name, pack in (("a", one), ("b", other)))
    sides = [np.array([np.ptp(np.argwhere(image), axis=0).max() + 1 for image in pack.images]) for pack in (plain, small)]
    assert np.median(sides[0]) == pytest.approx(np.median(sides[1]), rel=0.1) and np.corrcoef(*sides)[0, 1] > 0.97
    tops = [np.median([np.percentile(image[image > 0], 95) for image in pack.images]) for pack in (plain, small)]
    assert tops == pytest.approx([190, 190], rel=0.1)
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(plain.images, small.images, strict=True)]
    assert np.median(likeness) > 0.95
    assert any("until its object is 14 px wide" in note for note in small.notes)


def test_what_becomes_of_an_image_depends_on_no_other_image_of_its_folder(setting, tmp_path):
    folder = folder_of(tmp_path / "all", karyotype_set(4, homologues=1, size=160, canvas=160))
    whole = scl.read(folder, NORMAL)
    of_one = [i for i, label in enumerate(whole.labels) if whole.classes[label] == "21"]
    alone, _, notes, broken = scl.read_files([folder / whole.files[of_one[0]]], NORMAL)
    assert np.array_equal(alone[0], whole.images[of_one[0]]) and broken == [] and any("each image by itself" in note for note in notes)
    kind, _, _, _ = scl.read_files([folder / whole.files[i] for i in of_one], NORMAL)
    assert np.array_equal(kind, whole.images[of_one])


def test_the_synthetic_sets_of_both_hospitals_are_brought_to_one_width(setting):
    packs = [scl.synthesize(NORMAL, images=300, seed=0), scl.synthesize_external(NORMAL, images=300, seed=0)["reverse_stain"]]
    widths = [np.median([width_of(image) for image in pack.images]) for pack in packs]
    assert widths == pytest.approx([7, 7], abs=0.7)


# ------------------------------------------------------------------------------------------------------ the synthetic set


def test_the_synthetic_set_has_the_chromosomes_of_whole_individuals():
    pack = karyotype_set(4, size=32)
    assert pack.classes == KARYOTYPE and len(pack) == 4 * 46
    assert set(list(pack.counts.values())[:22]) == {8} and (pack.counts["X"], pack.counts["Y"]) == (6, 2)
    assert set(Counter(pack.patients).values()) == {46} and pack.images.shape == (184, 32, 32)
    assert len(karyotype_set(4, homologues=1, size=32)) == 2 * 24 + 2 * 23
    assert karyotype_set(4, size=32).hash == pack.hash != karyotype_set(4, size=32, seed=1).hash


def test_classes_differ_in_length_centromere_and_bands_and_keep_them_in_every_hospital():
    bands = {name: karyotype_bands(name) for name in KARYOTYPE}
    assert len(set(bands.values())) == 24 and all(pattern[-1][0] == 1.0 for pattern in bands.values())
    assert len(bands["1"]) > 1.5 * len(bands["21"])
    sets = [karyotype_set(6, size=64, canvas=160, hospital=name) for name in HOSPITALS]
    lengths = [[np.sqrt(pack.areas[pack.labels == label, 1].mean()) for label in range(24)] for pack in sets]
    assert np.corrcoef(*lengths)[0, 1] > 0.97 and np.mean(np.divide(*lengths)) == pytest.approx(1 / 0.8, rel=0.1)


def test_the_reverse_stain_has_dark_bands_where_the_other_has_pale_ones():
    from trainables.data.synthetic import Chromosome, draw

    plain, reverse = (HOSPITALS[name] for name in ("g_bands", "reverse_stain"))
    levels = {}
    for style in (plain, reverse):
        bands = tuple((end, 1 - style.contrast * (dark if style.reverse else 1 - dark)) for end, dark in karyotype_bands("1"))
        drawn = draw(Chromosome(length=140, width=17, waist=1.0, bands=bands)).values
        levels[style.reverse] = drawn[drawn.shape[0] // 2, 8:-8]
    assert np.corrcoef(levels[False], levels[True])[0, 1] < -0.9


@pytest.mark.slow
def test_the_built_in_set_can_be_split_by_individual_for_every_preset():
    from search_spaces.scl import STUDY

    for preset in STUDY.presets.values():
        config = replace(SclConfig(), **preset.overrides)
        assert faults(config) == []
    quick = replace(SclConfig(), **STUDY.presets["quick"].overrides)
    for images in (100, STUDY.presets["quick"].synthetic_images):
        pack = scl.synthesize(quick, images=images, seed=0)
        assert faults(quick, pack, split(pack, (0.6, 0.2, 0.2) if images == 100 else quick.split)) == []


@pytest.mark.parametrize(("arguments", "words"), [({"individuals": 1}, "at least 2 individuals, got 1"), ({"homologues": 3}, "got 3"), ({"size": 8}, "got 8"), ({"hospital": "q"}, "one of g_bands, reverse_stain, got 'q'")])  # fmt: skip
def test_impossible_sets_are_refused(arguments, words):
    with pytest.raises(RequestError, match=words):
        karyotype_set(**arguments)


# ------------------------------------------------------------------------------------------------------ the tables


def test_the_paper_preset_is_the_authors_program_and_the_equation_read_literally_an_arm():
    from search_spaces.scl import STUDY

    authors = {
        "contrast_sum": "code", "lambda1": 1.0, "lambda2": 1.0, "contrast_balance": 0.0, "first_epochs": 1, "head": "code", "weight_decay": 0.01,
        "schedule": "decay", "rotation": 90.0, "flips": "vertical", "brightness": 0.2, "contrast": 0.2, "normalise": False, "keep": "best",
        "epochs": 100, "steps_per_epoch": 3000, "learning_rate": 1e-5,
    }  # fmt: skip
    paper = replace(SclConfig(), **STUDY.presets["paper"].overrides)
    assert {name: getattr(paper, name) for name in authors} == authors
    arms = {arm.name: replace(paper, **arm.overrides) for table in STUDY.tables if table.number in ("S3", "S4") for arm in table.arms}
    assert arms["Eq. 3 read literally"] == replace(paper, contrast_sum="equation")
    assert arms["the authors' program's"] == arms["all of it"] == paper


def test_tables_name_the_papers_rows_and_change_at_most_two_fields():
    import csv
    from pathlib import Path

    from search_spaces.scl import STUDY

    with (Path(__file__).parents[1] / "analysis" / "published.csv").open() as stream:
        table = [row[:4] for row in csv.reader(stream) if row[0] == "scl"]
    rows_of = {(number, arm, dataset) for _, number, arm, dataset in table}
    for wanted in STUDY.tables:
        for arm in wanted.arms:
            assert len(arm.overrides) <= 2 or wanted.number in ("S3", "S4", "F")  # of F, others' networks have weights of their own
            if arm.published is not None:
                assert {(wanted.number, arm.published, name) for name in (wanted.dataset, wanted.external_dataset)} <= rows_of
    published = {arm.published for wanted in STUDY.tables if wanted.number == "1" for arm in wanted.arms}
    assert published == {arm for _, number, arm, _ in table if number == "1"}


def test_names_without_individuals_are_refused_where_they_are_to_tell_them(setting, tmp_path):
    folder = folder_of(tmp_path / "part", setting.pack)
    (folder / "manifest.csv").unlink()
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(path.with_name(f"{number}.png"))
    with pytest.raises(RequestError, match="names have none"):
        scl.read(folder, replace(TINY, patients="prefix"), setting.pack.classes)
