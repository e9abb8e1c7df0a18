"""CCRL: the loss of a whole step against plain float64 loops, the views, the queue, the schedules, the scores, the faults."""

import copy
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import references
import timm
import torch
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TV

from search_spaces.ccrl import STUDY
from trainables import ccrl
from trainables.ccrl import CENTERS, PROCEDURE, CcrlConfig, Pretrain, canonical, evaluate, exported, faults, predict, standardise, view_sets
from trainables.data.labels import CONSEP_CLASSES
from trainables.data.pack import Masks, save_pack
from trainables.data.synthetic_cells import cell_set
from trainables.parts import libraries
from trainables.parts.clustering import (
    assign,
    cluster,
    clustering_metrics,
    contingency,
    kmeans,
    purity,
    silhouette,
    within_tiles,
)
from trainables.parts.errors import Diverged, RequestError
from trainables.parts.execution import execute, stage_hashes
from trainables.parts.loop import Fitting, fit
from trainables.parts.probe import fit_probe, probed
from trainables.parts.procedure import Setting
from trainables.parts.views import Draw, ViewSet, apply_views, draw_views
from trainables.parts.workers import Workers

TINY = CcrlConfig(
    backbone="cell_preact_tiny", pretrain_epochs=4, warmup_epochs=1, pretrain_batch=8, queue_size=21, embedding_dim=6, projector_hidden=10,
    predictor_hidden=5, kmeans_starts=2,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setting():
    pack = cell_set(70, seed=0)
    return Setting(pack, ccrl.split_of(TINY, pack, 0), seed=3)


def pretrain(setting, filled=13, **overrides):
    """A task in the midst of its training: other weights in the key encoder, a queue with empty slots, and one batch."""
    task = Pretrain(replace(TINY, **overrides), setting).train()
    chance = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in task.key.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=chance)
        if filled:
            task.queue.enqueue(F.normalize(torch.randn(filled, task.queue.keys.shape[1], generator=chance), dim=1))
    return task, next(iter(task.batches(0)))


def cells(setting, chosen):
    return torch.from_numpy(setting.pack.images[setting.parts["train"][chosen.numpy()]]).permute(0, 3, 1, 2).float() / 255


def seen(setting, batch, side):
    return standardise(apply_views(cells(setting, batch.chosen), batch.views[side], "reflection"))


@torch.no_grad()
def embedded(task, setting, batch):
    """(queries, keys) of a batch, as float64 arrays that need not have unit length."""
    queries = task.query.projector(task.query.backbone(seen(setting, batch, 0)))
    if task.config.predictor:
        queries = task.predictor(queries)
    keys = task.key.projector(task.key.backbone(seen(setting, batch, 1)))
    return queries.double().numpy(), keys.double().numpy()


ARMS = {
    "published": {},
    "without predictor": {"predictor": False},
    "both crop": {"local_side": "both"},
    "the key crops": {"local_side": "key", "temperature": 0.3},
    "normalised heads": {"head_norm": True},
}


@pytest.mark.parametrize("filled", [0, 13, 21], ids=["empty queue", "part of the queue", "full queue"])
@pytest.mark.parametrize("arm", ARMS)
def test_the_loss_of_a_step_is_equation_2(setting, arm, filled):
    task, batch = pretrain(setting, filled, **ARMS[arm])
    queries, keys = embedded(task, setting, batch)
    queue = task.queue.keys[task.queue.present].double().numpy()
    assert len(queue) == filled
    wanted = references.contrast_of_cells(queries, keys, queue, task.config.temperature)
    assert float(task(batch).detach()) == pytest.approx(wanted, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("arm", ARMS)
def test_the_gradient_reaches_the_query_side_alone_and_is_finite(setting, arm):
    task, batch = pretrain(setting, **ARMS[arm])
    task(batch).backward()
    for name, parameter in task.named_parameters():
        if name.startswith("key."):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
    trained = {id(parameter) for group in task.optimizer.param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in task.parameters() if parameter.requires_grad}


def test_identical_query_and_key_give_a_finite_gradient(setting):
    task, batch = pretrain(setting, predictor=False)
    task.key.load_state_dict(task.query.state_dict())
    task(replace(batch, views=(batch.views[0], batch.views[0]))).backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in task.query.parameters())


def test_the_predictor_is_on_the_querys_side_alone(setting):
    task, batch = pretrain(setting)
    assert not any("predictor" in name for name, _ in task.key.named_parameters())
    assert "predictor" not in dict(pretrain(setting, predictor=False)[0].named_children())
    before = float(task(batch).detach())
    keys = task.new_keys
    with torch.no_grad():
        for parameter in task.predictor.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert float(task(batch).detach()) != before
    assert torch.allclose(task.new_keys, keys, atol=1e-6)


def test_the_heads_have_two_layers_of_the_published_sizes_with_relu_between():
    encoder = ccrl.Encoder(CcrlConfig(), 0)
    predictor = ccrl.head(64, 32, 64, False)
    sizes = [[tuple(part.weight.shape) for part in head if hasattr(part, "weight")] for head in (encoder.projector, predictor)]
    assert sizes == [[(128, 512), (64, 128)], [(32, 64), (64, 32)]]
    assert [type(part).__name__ for part in predictor] == ["Linear", "ReLU", "Linear"]


# ------------------------------------------------------------------------------------------------------ after the loss


def test_the_key_encoder_follows_after_the_step_by_the_configured_decay(setting):
    task, batch = pretrain(setting, ema_decay=0.75)
    keys, queries = ([p.detach().clone().numpy() for p in encoder.parameters()] for encoder in (task.key, task.query))
    task(batch)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(keys, task.key.parameters(), strict=True))
    task.after_step()
    for moved, wanted in zip(task.key.parameters(), references.moving_average(keys, queries, 0.75), strict=True):
        assert np.allclose(moved.numpy(), wanted, rtol=1e-5, atol=1e-7)


def test_the_batchs_keys_enter_the_queue_after_the_loss_without_labels(setting):
    task, batch = pretrain(setting)
    before = [*task.queue.keys[:13].tolist()]
    _, keys = embedded(task, setting, batch)
    task(batch)
    assert int(task.queue.present.sum()) == 13  # the loss alone moves nothing
    task.after_step()
    entered = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    assert np.allclose(task.queue.keys.numpy(), np.concatenate([before, entered]), atol=1e-5)
    assert task.queue.labels.tolist() == [0] * 13 + batch.chosen.tolist() and int(task.queue.pointer) == 0  # whose they are, no types


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("mask_own", [False, True])
def test_a_cells_own_old_keys_are_negatives_unless_they_are_masked_and_both_directions_are_their_mean(setting, mask_own, symmetric):
    task, batch = pretrain(setting, filled=0, mask_own=mask_own, symmetric=symmetric)
    owners = torch.cat([batch.chosen[:5], batch.chosen[2:4], torch.tensor([40, 41])])  # two cells have two old keys each
    task.queue.enqueue(F.normalize(torch.randn(9, 6, generator=torch.Generator().manual_seed(1)), dim=1), owners)
    queue = task.queue.keys[:9].double().numpy()
    sides = [embedded(task, setting, replace(batch, views=views)) for views in (batch.views, batch.views[::-1])[: 1 + symmetric]]
    more = {"cells": batch.chosen.tolist(), "owners": owners.tolist()} if mask_own else {}
    wanted = np.mean([references.contrast_of_cells(*side, queue, task.config.temperature, **more) for side in sides])
    assert float(task(batch).detach()) == pytest.approx(wanted, rel=2e-5)
    task.after_step()
    entered = sides[0][1] / np.linalg.norm(sides[0][1], axis=1, keepdims=True)
    assert (
        np.allclose(task.queue.keys[9:17].numpy(), entered, atol=1e-5) and int(task.queue.present.sum()) == 17
    )  # the first direction's alone


def test_the_gradient_of_both_directions_with_own_keys_masked_is_that_of_the_loss(setting):
    task, batch = pretrain(setting, filled=0, mask_own=True, symmetric=True)
    task.queue.enqueue(F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), dim=1), batch.chosen[:4])
    task.eval()  # the statistics of the batch would need a finer step
    weight = task.query.projector[2].bias
    task(batch).backward()
    slopes = []
    with torch.no_grad():
        for i in range(3):
            ends = []
            for way in (1, -1):
                weight[i] += way * 1e-2
                ends.append(float(task(batch)))
                weight[i] -= way * 1e-2
            slopes.append((ends[0] - ends[1]) / 2e-2)
    assert weight.grad[:3].tolist() == pytest.approx(slopes, rel=0.02, abs=1e-4)


def test_crops_are_standardised_by_the_training_parts_own_statistics_where_asked(setting):
    task, batch = pretrain(setting, statistics="set")
    pixels = setting.pack.images[setting.parts["train"]].reshape(-1, 3) / 255
    assert task.statistics.numpy() == pytest.approx(np.stack([pixels.mean(0), pixels.std(0)]), abs=1e-6)
    views = apply_views(cells(setting, batch.chosen), batch.views[0], "reflection")
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (pixels.mean(0), pixels.std(0)))
    assert torch.allclose(task.see(cells(setting, batch.chosen), batch.views[0]), (views - mean) / std, atol=1e-5)
    tensors = task.eval().result()
    judged = evaluate(task.config, tensors, setting.pack, setting.parts["test"], CPU)
    assert evaluate(task.config, exported(task.config, tensors), setting.pack, setting.parts["test"], CPU).metrics == judged.metrics
    plain = {name: tensor for name, tensor in tensors.items() if name != "statistics"}
    assert evaluate(task.config, plain, setting.pack, setting.parts["test"], CPU).metrics != judged.metrics


def test_types_are_not_looked_at_in_training(setting):
    other = replace(setting, pack=replace(setting.pack, labels=(setting.pack.labels + 1) % 4))
    task, batch = pretrain(setting)
    again, same = pretrain(other)
    assert float(task(batch).detach()) == float(again(same).detach()) and torch.equal(batch.chosen, same.chosen)


def test_the_queue_never_holds_more_keys_than_there_are_training_cells_and_the_data_set_says_so(setting):
    n = len(setting.parts["train"])
    assert [len(Pretrain(replace(TINY, queue_size=size), setting).queue.keys) for size in (5, n, n + 1, 65536)] == [5, n, n, n]
    assert any("the queue holds about 42 keys" in note for note in ccrl.synthesize(CcrlConfig(), images=70, seed=0).notes)
    assert not any("queue" in note for note in ccrl.synthesize(TINY, images=70, seed=0).notes)


def test_the_age_of_the_queue_is_the_mean_number_of_steps_since_its_keys_came(setting):
    task, _ = pretrain(setting, filled=0, queue_size=20)
    ages = []
    for step in range(5):
        ages = [0] * 8 + [age + 1 for age in ages]
        ages = ages[:20]
        task.queue.enqueue(F.normalize(torch.randn(8, 6, generator=torch.Generator().manual_seed(step)), dim=1))
        assert task.validate()["queue_age"] == pytest.approx(sum(ages) / len(ages))


def test_the_loss_of_two_workers_is_that_of_one_on_the_whole_batch(setting):
    whole, batch = pretrain(setting)
    whole.eval()  # batch statistics of two workers are tested with the workers
    wanted, keys = float(whole(batch).detach()), whole.new_keys

    class Half(Workers):
        def gather(self, tensor):
            assert torch.allclose(tensor, keys[self.slice(8)], atol=1e-6)
            return keys

    losses = []
    for rank in (0, 1):
        whole.workers = Half(rank, 2)
        losses.append(float(whole(batch).detach()))
        assert whole.new_keys is keys
    assert sum(losses) / 2 == pytest.approx(wanted, rel=1e-5)


# ------------------------------------------------------------------------------------------------------ views


@pytest.mark.parametrize(("side", "cropped"), [("query", (True, False)), ("key", (False, True)), ("both", (True, True))])
def test_only_the_local_side_crops_and_all_else_is_the_same(setting, side, cropped):
    sets = view_sets(CcrlConfig(local_side=side))
    assert [views.crop is not None for views in sets] == list(cropped)
    assert replace(sets[0], crop=None) == replace(sets[1], crop=None)
    draws = next(iter(Pretrain(replace(TINY, local_side=side), setting).batches(0))).views
    for draw, crops in zip(draws, cropped, strict=True):
        whole = torch.linalg.det(draw.affine[:, :, :2]).abs()
        assert (whole < 0.999).any() if crops else torch.allclose(whole, torch.ones(8), atol=1e-5) and (draw.affine[:, :, 2] == 0).all()
    assert not torch.equal(draws[0].affine, draws[1].affine)


def test_the_views_are_those_of_the_paper():
    local, whole = view_sets(CcrlConfig())
    assert (whole.brightness, whole.contrast, whole.saturation, whole.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (whole.horizontal_flip, whole.vertical_flip, whole.rotation, local.crop) == (0.5, 0.5, 180.0, (0.2, 1.0))
    assert [sigma * 32 / 224 for sigma in whole.sigma] == pytest.approx([0.1, 2.0])  # pixels of the crop itself
    strong = view_sets(CcrlConfig(jitter_strength=2.5))[0]
    assert (strong.brightness, strong.hue) == (1.0, 0.25)


def colours(n=6, side=16, seed=0, dtype=torch.float64):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drawn(n, colour=(1.0, 1.0), tint=(1.0, 0.0, 0.0)):
    affine = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(n, 2, 3)
    return Draw(affine, torch.tensor([colour] * n), torch.zeros(n), torch.tensor([tint] * n))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.03, 0.1, 0.4])
def test_hue_saturation_and_gray_are_those_of_torchvision(turn):
    images = colours()
    images[0] = images[0].mean(0)  # gray: no hue
    images[1, :, :4] = 0
    plain = apply_views(images, drawn(6))
    assert torch.allclose(apply_views(images, drawn(6, tint=(1.0, turn, 0.0))), TV.adjust_hue(plain, turn), atol=1e-6)
    factor = 1 + turn
    luma = (plain * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]).sum(1, keepdim=True)
    assert torch.allclose(apply_views(images, drawn(6, tint=(factor, 0.0, 0.0))), (luma + factor * (plain - luma)).clamp(0, 1), atol=1e-6)
    assert torch.allclose(apply_views(images, drawn(6, tint=(1.0, 0.0, 1.0))), luma.expand_as(plain), atol=1e-6)


def test_colours_are_changed_as_often_and_as_far_as_asked():
    views = ViewSet(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter=0.8, gray=0.2)
    tint = draw_views(20000, views, torch.Generator().manual_seed(0)).tint
    assert float((tint[:, 0] != 1).float().mean()) == pytest.approx(0.8, abs=0.02) and float(tint[:, 2].mean()) == pytest.approx(
        0.2, abs=0.02
    )
    changed = tint[tint[:, 0] != 1]
    assert 0.6 <= float(changed[:, 0].min()) < 0.61 and 1.39 < float(changed[:, 0].max()) <= 1.4
    assert float(changed[:, 1].abs().max()) <= 0.1 and float(changed[:, 1].std()) == pytest.approx(0.2 / math.sqrt(12), rel=0.05)


def test_a_view_does_not_depend_on_the_batch_and_a_slice_is_a_part_of_it():
    images, views = colours(8, dtype=torch.float32), view_sets(CcrlConfig())[0]
    draw = draw_views(8, views, torch.Generator().manual_seed(0))
    whole = apply_views(images, draw, "reflection")
    assert torch.allclose(whole[2:5], apply_views(images[2:5], draw[2:5], "reflection"), atol=1e-6)
    assert float(whole.min()) >= 0 and float(whole.max()) <= 1


@pytest.mark.parametrize("steady", [False, True])
def test_stain_jitter_changes_the_densities_of_three_stains_and_nothing_where_it_is_0(steady):
    images, views = colours(3, 8), ViewSet(stain=0.3)
    images[0, :, 0, 0] = 0
    draw = draw_views(3, views, torch.Generator().manual_seed(2))
    assert draw.stain.shape == (3, 2, 3) and torch.equal(draw[1:].stain, draw.stain[1:])
    found = apply_views(images, draw, steady=steady)
    for n in range(3):
        for y, x in ((0, 0), (3, 5)):
            wanted = references.restained(images[n, :, y, x].tolist(), draw.stain[n, 0].tolist(), draw.stain[n, 1].tolist())
            assert found[n, :, y, x].tolist() == pytest.approx(wanted, abs=1e-6)
    same = replace(draw, stain=torch.tensor([[1.0] * 3, [0.0] * 3]).expand(3, 2, 3))
    assert torch.allclose(apply_views(images, same, steady=steady), images.clamp_min(1 / 255), atol=1e-6)


def test_stain_jitter_is_drawn_last_and_as_far_as_asked():
    first, second = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    plain, more = (
        draw_views(4000, ViewSet(hue=0.1, gray=0.2, jitter=0.8, blur=0.5, stain=stain), chance)
        for stain, chance in ((0.0, first), (0.2, second))
    )
    assert plain.stain is None and torch.equal(plain.tint, more.tint) and torch.equal(plain.sigma, more.sigma)
    factor, offset = more.stain.unbind(1)
    assert 0.8 <= float(factor.min()) < 0.81 and 1.19 < float(factor.max()) <= 1.2
    assert float(offset.abs().max()) <= 0.2 and abs(float(offset.mean())) < 0.01


def test_gray_image_sets_draw_the_numbers_that_they_always_drew():
    views = ViewSet(crop=(0.2, 1.0), horizontal_flip=0.5, brightness=0.4, contrast=0.4, jitter=0.8, blur=0.5)
    first, second = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    plain, more = draw_views(50, views, first), draw_views(50, replace(views, saturation=0.4), second)
    assert plain.tint is None and torch.equal(plain.affine, more.affine) and torch.equal(plain.colour, more.colour)


def test_beyond_the_border_of_a_crop_a_turned_view_shows_its_reflection_not_black():
    images = 0.6 + 0.4 * colours()
    turned = draw_views(6, ViewSet(rotation=180.0), torch.Generator().manual_seed(1))
    assert float(apply_views(images, turned).min()) == 0 and float(apply_views(images, turned, "reflection").min()) > 0.55


# ------------------------------------------------------------------------------------------------------ the backbone


def test_the_published_backbone_is_a_pre_activation_resnet_18_for_32_pixels():
    model = timm.create_model("cell_preact_resnet18", num_classes=0)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len([module for module in convolutions if module.kernel_size == (3, 3)]) == 17 and model.num_features == 512
    assert convolutions[0].stride == (1, 1) and not any(isinstance(module, torch.nn.MaxPool2d) for module in model.modules())
    assert model.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    block = model.stages[0].blocks[0]
    images = torch.randn(2, 64, 8, 8)
    inside = model.eval().stages[0].blocks[0].norm1(images)
    assert torch.allclose(block(images), images + block.conv2(block.norm2(block.conv1(inside))), atol=1e-5)


@pytest.mark.parametrize("name", ["cell_preact_tiny", "cell_preact_resnet18", "test_resnet"])
def test_any_timm_backbone_encodes_cells_the_same_for_equal_seeds(name):
    config = replace(TINY, backbone=name)
    first, second, other = (ccrl.Encoder(config, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert not torch.equal(first.projector[0].weight, other.projector[0].weight)
    assert first(torch.rand(2, 3, 32, 32)).shape == (2, 6)


# ------------------------------------------------------------------------------------------------------ schedules, resume


def test_the_rate_warms_up_over_ten_epochs_and_then_falls_as_a_cosine(setting):
    task = Pretrain(replace(CcrlConfig(), backbone="cell_preact_tiny", pretrain_batch=8), setting)
    rates = [task.learning_rate(number / task.steps()) for number in range(500 * task.steps())]
    warm = 10 * task.steps()
    assert rates[warm] == pytest.approx(1e-3) and np.allclose(np.diff(rates[: warm + 1]), 1e-3 / (warm + 1))
    assert task.learning_rate(255) == pytest.approx(0.5e-3) and task.learning_rate(500) == pytest.approx(0, abs=1e-12)
    assert all(rate > 0 for rate in rates)


def test_the_defaults_are_the_published_values(setting):
    published = {
        "pretrain_epochs": 500, "pretrain_batch": 1024, "pretrain_rate": 1e-3, "warmup_epochs": 10, "weight_decay": 1e-4, "ema_decay": 0.999,
        "queue_size": 65536, "temperature": 0.07, "projector_hidden": 128, "embedding_dim": 64, "predictor": True, "predictor_hidden": 32,
        "local_side": "query", "scoring_encoder": "key", "kmeans_starts": 10, "head_norm": False, "rotation": 180.0, "jitter_strength": 1.0,
        "backbone": "cell_preact_resnet18", "weights": "random",
    }  # fmt: skip
    assert {name: getattr(CcrlConfig(), name) for name in published} == published
    optimizer = Pretrain(replace(TINY, weight_decay=0.02), setting).optimizer
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["weight_decay"] == 0.02


def test_an_epoch_shows_each_training_cell_at_most_once(setting):
    task = Pretrain(replace(TINY, pretrain_batch=5), setting)
    epochs = [torch.cat([batch.chosen for batch in task.batches(epoch)]).tolist() for epoch in (0, 1, 0)]
    n = len(setting.parts["train"])
    assert epochs[0] == epochs[2] != epochs[1] and len(epochs[0]) == len(set(epochs[0])) == n // 5 * 5 == task.steps() * 5
    assert np.array_equal(task.train_cells.indices, setting.parts["train"])


def test_a_run_that_is_interrupted_ends_with_the_weights_of_the_straight_run(setting):
    def fitting():
        return Fitting(Pretrain(TINY, setting), setting)

    straight, rows = fitting(), []
    fit(straight, epochs=4, after_epoch=rows.append)
    first, second, more = fitting(), fitting(), []
    fit(first, epochs=2, after_epoch=more.append)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    fit(second, epochs=4, start=2, after_epoch=more.append)
    for name, tensor in straight.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name
    without = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    assert without == [{name: value for name, value in row.items() if name != "seconds"} for row in more]
    assert {"val_early_ami", "val_silhouette", "val_probe_accuracy", "val_knn_accuracy", "queue_age", "queue_size"} < set(rows[-1])


# ------------------------------------------------------------------------------------------------------ clusters and scores


def test_the_scores_of_a_hand_made_case():
    # cluster 0 holds types 0 0 0 1, cluster 1 holds 1 1, cluster 2 holds 2 2 0
    labels, clusters = [0, 0, 0, 1, 1, 1, 2, 2, 0], [0, 0, 0, 0, 1, 1, 2, 2, 2]
    found = clustering_metrics(labels, clusters)
    assert found["purity"] == pytest.approx(7 / 9) == references.purity(labels, clusters)
    # pairs: together in both 3 + 1 + 1 = 5, in types 6 + 3 + 1 = 10, in clusters 6 + 1 + 3 = 10, of 36
    assert found["ari"] == pytest.approx((5 - 100 / 36) / (10 - 100 / 36)) == references.rand_index(labels, clusters)
    assert contingency(labels, clusters, 4, 3).tolist() == [[3, 1, 0, 0], [0, 2, 0, 0], [1, 0, 2, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_the_scores_are_those_of_scikit_learn_and_of_the_references_whatever_the_clusters_are_called(seed):
    chance = np.random.default_rng(seed)
    labels, clusters = chance.integers(0, 4, 80), chance.integers(0, 5, 80)
    clusters[:40] = labels[:40]
    found = clustering_metrics(labels, clusters)
    assert found["ami"] == adjusted_mutual_info_score(labels, clusters) and found["ari"] == adjusted_rand_score(labels, clusters)
    assert found["purity"] == references.purity(labels.tolist(), clusters.tolist()) and found["ari"] == pytest.approx(
        references.rand_index(labels, clusters)
    )
    renamed = clustering_metrics(labels, np.array([3, 0, 4, 1, 2])[clusters])
    assert renamed == pytest.approx(found)
    assert clustering_metrics(labels, labels) == {"ami": 1.0, "ari": 1.0, "purity": 1.0}


def test_purity_asks_for_rows_that_fit():
    for labels, clusters in (([], []), ([0, 1], [0]), ([-1], [0])):
        with pytest.raises(ValueError, match="labels and clusters must both be"):
            purity(labels, clusters)


def test_k_means_finds_clear_groups_and_a_new_row_goes_to_the_nearest_centre():
    chance = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 30)
    rows = 10 * np.eye(4)[truth] + chance.normal(0, 0.5, (120, 4))
    clusters, centers = kmeans(rows, 4, seed=0)
    assert clustering_metrics(truth, clusters)["ari"] == 1 and centers.shape == (4, 4)
    assert np.array_equal(assign(rows, centers), clusters) and silhouette(rows, clusters) > 0.8
    assert np.array_equal(kmeans(rows, 4, seed=0)[0], clusters)


def test_a_collapsed_encoder_is_scored_and_one_that_is_not_finite_is_refused():
    clusters, _ = kmeans(np.ones((20, 3)), 4, seed=0)
    assert silhouette(np.ones((20, 3)), clusters) == -1 and clustering_metrics(np.arange(20) % 4, clusters)["ami"] <= 1e-9
    assert len(kmeans(np.ones((2, 3)), 4, seed=0)[1]) == 2
    with pytest.raises(Diverged):
        kmeans(np.full((5, 2), np.nan), 2, seed=0)


def test_the_chosen_encoders_embeddings_are_clustered_and_an_export_gives_the_same(setting):
    task, _ = pretrain(setting)
    tensors = {name: tensor.detach().clone() for name, tensor in task.eval().result().items()}
    chosen = setting.parts["test"]
    with torch.no_grad():
        pixels = torch.from_numpy(setting.pack.images[chosen]).permute(0, 3, 1, 2).float() / 255
        rows = {which: getattr(task, which).backbone(standardise(pixels)).numpy() for which in ("key", "query")}
    scores = {}
    for which in ("key", "query"):
        config = replace(TINY, scoring_encoder=which)
        judged = evaluate(config, tensors, setting.pack, chosen, CPU)
        wanted = clustering_metrics(setting.pack.labels[chosen], kmeans(rows[which], 4, 0, 2)[0])
        assert {name: judged.metrics[name] for name in wanted} == pytest.approx(wanted)
        scored = [*wanted, "ami_within", "ami_given_tile"]
        assert set(judged.metrics) == {
            "silhouette", "largest_cluster", "smallest_cluster", "probe_accuracy", "knn_accuracy", *(f"{m}_kmeans_std" for m in wanted),
            *scored, *(f"{m}_train_fit" for m in scored),
        }  # fmt: skip
        shares = np.bincount(judged.predictions["cluster"], minlength=4) / len(chosen)
        assert (judged.metrics["largest_cluster"], judged.metrics["smallest_cluster"]) == pytest.approx((shares.max(), shares.min()))
        tiles = ccrl.tiles_of(setting.pack)[chosen]
        assert judged.predictions["tile"] == tiles.tolist() and len(set(tiles)) > 1
        within = within_tiles(setting.pack.labels[chosen], judged.predictions["cluster"], tiles)
        assert {name: judged.metrics[name] for name in within} == within
        assert judged.confusion is None and judged.predictions["index"] == chosen.tolist()
        voted = np.array(judged.predictions["neighbours"]) == setting.pack.labels[chosen]
        assert judged.metrics["knn_accuracy"] == voted.mean() and set(STUDY.metrics) <= set(judged.metrics)  # each is a column of tables
        file = exported(config, tensors)
        assert evaluate(config, file, setting.pack, chosen, CPU).metrics == judged.metrics
        timm.create_model(TINY.backbone, num_classes=0).load_state_dict({n: t for n, t in file.items() if not n.startswith(ccrl.OWN)})
        assert file[CENTERS].shape == (4, 128) and exported(config, file).keys() == file.keys()
        by_train = assign(rows[which], file[CENTERS].numpy())
        assert judged.metrics["ami_train_fit"] == pytest.approx(clustering_metrics(setting.pack.labels[chosen], by_train)["ami"])
        train = setting.parts["train"]
        with torch.no_grad():
            known = getattr(task, which).eval().backbone(standardise(task.train_cells.colour(torch.arange(len(train))))).double().numpy()
        voted = references.knn_accuracy(
            known, setting.pack.labels[train], rows[which].astype(np.float64), setting.pack.labels[chosen], 20, 0.07
        )
        assert judged.metrics["knn_accuracy"] == pytest.approx(voted)
        other = evaluate(replace(config, kmeans_fit="train"), tensors, setting.pack, chosen, CPU)
        assert other.predictions["cluster"] == by_train.tolist() and other.metrics["ami"] == judged.metrics["ami_train_fit"]
        assert other.metrics["purity_scored_fit"] == judged.metrics["purity"]
        assert other.metrics["smallest_cluster"] == pytest.approx(np.bincount(by_train, minlength=4).min() / len(chosen))
        tensors_of_one = file | {CENTERS: file[CENTERS] + 1e3 * torch.tensor([0.0, 1, 1, 1])[:, None]}  # no cell is near three of them
        one = evaluate(replace(config, kmeans_fit="train"), tensors_of_one, setting.pack, chosen, CPU)
        assert (one.metrics["largest_cluster"], one.metrics["smallest_cluster"]) == (1, 0)
        scores[which] = judged.predictions["cluster"]
    assert scores["key"] != scores["query"]


def test_prediction_gives_each_cell_its_nearest_cluster_and_its_embedding(setting):
    task, _ = pretrain(setting)
    tensors = task.eval().result()
    images = setting.pack.images[setting.parts["train"]]
    columns = predict(TINY, tensors, images, CONSEP_CLASSES, CPU)
    rows = ccrl.embed(task.key.backbone, images, np.arange(len(images)), CPU)
    assert list(columns)[:3] == ["cluster", "e_0", "e_1"] and len(columns) == 129
    assert np.allclose([columns[f"e_{i}"] for i in range(128)], rows.T, atol=1e-5)
    clusters, centers = kmeans(rows, 4, 0, TINY.kmeans_starts)
    assert columns["cluster"] == clusters.tolist() and np.allclose(tensors["centers.key"].numpy(), centers, atol=1e-5)
    assert predict(TINY, tensors, images[:0], CONSEP_CLASSES, CPU)["cluster"] == []


def test_artefacts_hold_the_map_the_nearest_cells_and_the_matrix(setting):
    task, _ = pretrain(setting)
    tensors, chosen = task.eval().result(), setting.parts["test"]
    arrays = ccrl.artefacts(TINY, tensors, setting.pack, chosen, CPU)
    again = ccrl.artefacts(TINY, tensors, setting.pack, chosen, CPU)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays) and all(array.dtype != object for array in arrays.values())
    assert arrays["embedding"].dtype == np.float16 and arrays["embedding"].shape == (len(chosen), 128)
    assert np.array_equal(arrays["label"], setting.pack.labels[arrays["index"]]) and set(arrays["index"]) <= set(chosen)
    assert arrays["nearest_image"].shape == (4, 8, 32, 32, 3) and arrays["nearest_image"].dtype == np.uint8
    assert np.array_equal(arrays["nearest_image"][2, 3], setting.pack.images[arrays["nearest_index"][2, 3]])
    assert arrays["cluster_by_type"].shape == (4, 4) and arrays["cluster_by_type"].sum() == len(chosen)
    judged = evaluate(TINY, tensors, setting.pack, chosen, CPU)
    assert judged.metrics["purity"] == pytest.approx(arrays["cluster_by_type"].max(1).sum() / len(chosen))


def test_without_any_method_all_cells_are_one_cluster(setting):
    [found] = ccrl.baselines(TINY, setting.pack, setting.parts)
    share = np.bincount(setting.pack.labels[setting.parts["test"]]).max() / len(setting.parts["test"])
    assert found["metrics"]["test_purity"] == pytest.approx(share) and abs(found["metrics"]["test_ami"]) < 1e-12


YARDSTICKS = ("colours", "histograms", "pixels", "area", "tile", "untrained", "backbone", "morphology", "texture")
DRAWN = ("untrained", "backbone")  # of random weights


QUICKEST = ("colours", "area", "tile", "untrained", "morphology")


@pytest.mark.parametrize("features", [pytest.param(name, marks=() if name in QUICKEST else pytest.mark.slow) for name in YARDSTICKS])
def test_a_yardstick_is_a_run_that_trains_nothing_and_is_judged_as_the_method_is(setting, features, tmp_path):
    config = replace(TINY, features=features, temperature=0.3, pretrain_epochs=7, feature_side=40)
    assert canonical(config) == canonical(replace(config, temperature=0.1, pretrain_epochs=3, gray=0.0, queue_size=5))  # nothing trains
    assert (canonical(config) == canonical(replace(config, backbone="test_resnet"))) == (features not in DRAWN)
    assert (canonical(config) == canonical(replace(config, feature_side=50))) == (features != "backbone")
    rows = []
    outcome = execute(PROCEDURE, config, seed=1, pack=setting.pack, folder=tmp_path / "run", report=rows.append, evaluate_test=True)
    assert [(row["epoch"], row["loss"]) for row in rows] == [(1, 0.0)] and {"val_early_ami", "val_silhouette"} <= set(rows[0])
    trained = {f"test_{name}{end}" for name in ("ami", "ari", "purity", "ami_within", "ami_given_tile") for end in ("", "_train_fit")}
    assert trained | {"test_probe_accuracy"} <= set(outcome.metrics)
    again = execute(PROCEDURE, config, seed=2, pack=setting.pack, folder=tmp_path / "again", evaluate_test=True)
    assert (again.metrics == outcome.metrics) == (features not in DRAWN)  # a seed moves the weights alone
    assert (tmp_path / "run" / "artefacts.npz").exists()


def test_the_tiles_number_as_a_cluster_tells_nothing_within_tiles(setting):
    config, chosen = canonical(replace(TINY, features="tile")), setting.parts["test"]
    tensors = ccrl.build(config, setting).result()
    judged = evaluate(config, tensors, setting.pack, chosen, CPU)
    tiles = np.array(setting.pack.patients)[chosen]
    assert judged.metrics["ami"] == pytest.approx(adjusted_mutual_info_score(setting.pack.labels[chosen], tiles))
    assert judged.metrics["ami_within"] == judged.metrics["ami_given_tile"] == 0
    commonest = np.bincount(setting.pack.labels[setting.parts["train"]]).argmax()  # a tile of training says nothing of another one
    assert judged.metrics["probe_accuracy"] == pytest.approx((setting.pack.labels[chosen] == commonest).mean())
    assert evaluate(config, exported(config, tensors), setting.pack, chosen, CPU).metrics == judged.metrics


def test_the_nine_colour_numbers_are_standardised_means_deviations_and_middles(setting):
    config, chosen = canonical(replace(TINY, features="colours")), setting.parts["test"]
    rows = []
    for image in setting.pack.images[chosen].astype(float):
        rows.append([getattr(image[..., c], name)() / 255 for name in ("mean", "std") for c in range(3)])
        rows[-1] += [image[12:20, 12:20, c].mean() / 255 for c in range(3)]
    rows = np.array(rows)
    assert ccrl.pictured("colours", setting.pack.images, chosen) == pytest.approx(rows)
    wanted, _ = kmeans((rows - rows.mean(0)) / rows.std(0), 4, 0)
    judged = evaluate(config, ccrl.build(config, setting).result(), setting.pack, chosen, CPU)
    assert adjusted_rand_score(judged.predictions["cluster"], wanted) == 1


def test_a_yardstick_predicts_where_a_crop_shows_it_and_says_where_not(setting):
    images = setting.pack.images[setting.parts["train"]]
    for features in ("colours", "histograms", "pixels", "texture"):
        config = canonical(replace(TINY, features=features))
        tensors = ccrl.build(config, setting).result()
        clusters, _ = ccrl.clustered(config, ccrl.pictured(features, images, np.arange(len(images))), 4)
        assert predict(config, tensors, images, CONSEP_CLASSES, CPU)["cluster"] == clusters.tolist()
    for features in ("area", "tile", "morphology"):
        config = canonical(replace(TINY, features=features))
        with pytest.raises(RequestError, match="a yardstick that crops alone do not show"):
            predict(config, ccrl.build(config, setting).result(), images, CONSEP_CLASSES, CPU)


def test_a_tile_is_the_file_that_cells_are_cut_from_else_their_patient_else_none_is_known(setting):
    pack = replace(setting.pack, files=tuple(f"t{i % 3}.png#{i}" for i in range(70)))
    assert ccrl.tiles_of(pack).tolist() == [i % 3 for i in range(70)]
    assert len(set(ccrl.tiles_of(setting.pack).tolist())) == len(set(setting.pack.patients))
    assert set(ccrl.tiles_of(replace(setting.pack, patients=None)).tolist()) == {0}


@pytest.mark.parametrize("seed", range(4))
def test_the_information_given_the_tile_is_that_of_all_orders_within_tiles(seed):
    chance = np.random.default_rng(seed)
    tiles = [0] * 6 + [1] * 5 + [2] * 3
    labels = [*chance.integers(0, 3, 11).tolist(), 1, 1, 1]  # a tile of one type
    clusters = [label if chance.random() < 0.6 else int(chance.integers(0, 3)) for label in labels]
    found = within_tiles(labels, clusters, tiles)
    assert found["ami_given_tile"] == pytest.approx(references.ami_given(labels, clusters, tiles))
    parts = [(6, slice(0, 6)), (5, slice(6, 11))]
    wanted = sum(n * adjusted_mutual_info_score(labels[part], clusters[part]) for n, part in parts if len(set(labels[part])) > 1)
    assert found["ami_within"] == pytest.approx(wanted / sum(n for n, part in parts if len(set(labels[part])) > 1))


def test_scores_within_one_tile_are_the_plain_ones_and_perfect_clusters_have_1():
    chance = np.random.default_rng(0)
    labels, clusters = chance.integers(0, 4, 90), chance.integers(0, 3, 90)
    ami = adjusted_mutual_info_score(labels, clusters)
    assert within_tiles(labels, clusters, np.zeros(90)) == {"ami_within": pytest.approx(ami), "ami_given_tile": pytest.approx(ami)}
    tiles = np.arange(90) % 4
    assert within_tiles(labels, 5 * tiles + labels, tiles) == {"ami_within": pytest.approx(1), "ami_given_tile": pytest.approx(1)}
    assert within_tiles(tiles, clusters, tiles) == {"ami_within": 0.0, "ami_given_tile": 0.0}  # no tile has two types
    scores = [within_tiles(labels, chance.permutation(labels), tiles)["ami_given_tile"] for _ in range(60)]
    assert abs(np.mean(scores)) < 0.01  # by chance nothing


def test_whitened_rows_have_their_first_components_at_deviation_1_and_new_rows_are_brought_there_too():
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(400, 5)) * [9, 3, 1, 0.1, 0] @ np.linalg.qr(chance.normal(size=(5, 5)))[0] + 7
    found, fitted = cluster(rows, 4, seed=0, whiten=0.999)
    scaled = fitted.scaled(rows)
    assert scaled.shape == (400, 3) and np.allclose(np.cov(scaled, rowvar=False), np.eye(3), atol=1e-8) and np.allclose(scaled.mean(0), 0)
    assert np.array_equal(fitted.assign(rows), found) and np.array_equal(kmeans(scaled, 4, 0)[0], found)
    assert cluster(rows, 4, seed=0, whiten=1.0)[1].scaled(rows).shape == (400, 4)  # what has no variance is no component
    assert cluster(np.ones((9, 3)), 2, seed=0, whiten=0.9)[0].shape == (9,)
    plain, as_it_is = cluster(rows, 4, seed=0)
    assert np.array_equal(plain, kmeans(rows, 4, 0)[0]) and as_it_is.scaled(rows) is rows
    with pytest.raises(Diverged):
        cluster(np.full((5, 2), np.nan), 2, seed=0, whiten=0.9)


def test_the_probe_is_ridge_regression_on_standardised_columns():
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 3, 200)
    rows = np.eye(3)[labels] @ chance.normal(size=(3, 6)) + chance.normal(0, 0.3, (200, 6))
    rows[:, 5] = 2  # says nothing
    weights = fit_probe(rows, labels, 4)
    assert weights.shape == (7, 4) and (probed(weights, rows) == labels).mean() > 0.9 and not weights[:6, 3].any()
    from sklearn.linear_model import Ridge

    standard = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1)
    wanted = Ridge(alpha=0.2).fit(standard, np.eye(4)[labels]).predict(standard)
    assert rows @ weights[:-1] + weights[-1] == pytest.approx(wanted, abs=1e-9)


def test_an_embedding_over_all_positions_is_the_same_for_every_turn_and_mirror_image_of_a_cell(setting):
    config, images = replace(TINY, every_turn=True), np.asarray(setting.pack.images[:9])
    tensors = Pretrain(config, setting).result()

    def embedded(config, cells):
        said = predict(config, tensors, np.ascontiguousarray(cells), setting.pack.classes, CPU)
        return said["cluster"], np.array([said[name] for name in said if name != "cluster"]).T

    cluster, own = embedded(config, images)
    one = replace(config, every_turn=False)
    every = []
    for seen in (images, images[:, ::-1]):
        for turn in range(4):
            lying = np.rot90(seen, turn, (1, 2))
            other_cluster, other = embedded(config, lying)
            assert other_cluster == cluster and other == pytest.approx(own, abs=1e-5)
            every.append(embedded(one, lying)[1])
    assert own == pytest.approx(np.mean(every, 0), abs=1e-5) and own != pytest.approx(every[0], abs=1e-4)
    plain = Pretrain(one, setting).result()  # the same network; what is fitted on the training part sees embeddings as they are judged
    assert all(torch.equal(tensors[name], plain[name]) for name in tensors if name.startswith("key."))
    assert not torch.equal(tensors["centers.key"], plain["centers.key"])


def test_all_positions_matter_to_a_network_alone():
    for features, matters in (("encoder", True), ("untrained", True), ("backbone", True), ("colours", False), ("tile", False)):
        config = replace(TINY, features=features)
        assert (canonical(replace(config, every_turn=True)) != canonical(config)) == matters, features


def test_a_whole_run_on_drawn_cells_is_recorded_and_its_arms_share_one_training(setting, tmp_path):
    rows = []
    config = replace(TINY, pretrain_epochs=2, queue_size=30)
    outcome = execute(PROCEDURE, config, seed=1, pack=setting.pack, folder=tmp_path / "run", report=rows.append, evaluate_test=True)
    assert {"val_ami", "test_ami", "test_ari", "test_purity", "test_ami_kmeans_std", "val_silhouette"} <= set(outcome.metrics)
    assert [row["epoch"] for row in rows] == [1, 2] and rows[-1]["queue_size"] == 30
    assert (tmp_path / "run" / "artefacts.npz").exists()
    hashes = [
        stage_hashes(PROCEDURE, replace(config, **over), 1, "d", "c")["pretrain"]
        for over in ({}, {"scoring_encoder": "query"}, {"predictor": False})
    ]
    assert hashes[0] == hashes[1] != hashes[2]


# ------------------------------------------------------------------------------------------------------ data, faults


def test_a_packed_set_is_read_back_and_the_split_is_by_tile(setting, tmp_path):
    save_pack(setting.pack, tmp_path / "set")
    pack = PROCEDURE.read(tmp_path / "set", TINY)
    assert pack.hash == setting.pack.hash
    parts = ccrl.split_of(TINY, pack, 0)
    owners = [{pack.patients[i] for i in some} for some in parts.values()]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
    drawn_anew = [ccrl.split_of(replace(TINY, split_per_seed=True), pack, seed)["train"].tolist() for seed in (0, 1, 1)]
    assert drawn_anew[0] != drawn_anew[1] == drawn_anew[2]


FAULTS = {
    "features": "sounds", "feature_side": 8, "stain": 0.6, "kmeans_fit": "test", "statistics": "none", "whiten": 1.5,
    "split": (0.5, 0.5, 0.1), "split_seed": -1, "backbone": "resnt50", "weights": "coco", "projector_hidden": 0, "embedding_dim": 1,
    "predictor_hidden": 0, "pretrain_epochs": 0, "pretrain_batch": 1, "pretrain_rate": 0.0, "warmup_epochs": -1, "weight_decay": -0.1,
    "ema_decay": 1.1, "queue_size": 0, "temperature": 0.0, "local_side": "left", "crop_min": 0.0, "crop_max": 1.5, "jitter_strength": -1.0,
    "jitter": 1.5, "gray": -0.5, "blur": 2.0, "rotation": 200.0, "scoring_encoder": "both", "kmeans_starts": 0,
    "method": "vae", "reconstruct_epochs": -1, "cluster_epochs": -1, "target_steps": 0, "cluster_weight": -0.5, "gan_epochs": -1,
    "gan_batch": 1, "gan_rate": 0.0, "gan_width": 0, "gan_copies": 5, "gan_penalty": -1.0, "category_weight": 0.0,
}  # fmt: skip


def test_the_published_method_has_no_fault_and_each_bad_value_has_one_that_names_it():
    assert faults(CcrlConfig()) == []
    for field, value in FAULTS.items():
        [fault] = faults(replace(CcrlConfig(), **{field: value}))
        assert fault.startswith(f"{field} must be") and str(value) in fault
    found = faults(replace(CcrlConfig(), **FAULTS))
    assert [field for field in FAULTS if not any(fault.startswith(f"{field} must") for fault in found)] == []
    switches = {entry.name for entry in fields(CcrlConfig) if isinstance(entry.default, bool)}
    assert FAULTS.keys() | switches == {entry.name for entry in fields(CcrlConfig)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", [entry.name for entry in fields(CcrlConfig) if isinstance(entry.default, float)])
def test_what_is_not_finite_is_a_fault(field, value):
    assert any(fault.startswith(field) for fault in faults(replace(CcrlConfig(), **{field: value})))


def test_what_does_not_fit_the_data_is_a_fault_with_a_way_out(setting):
    n = len(setting.parts["train"])
    [fault] = faults(replace(TINY, pretrain_batch=n + 1), setting.pack, setting.parts)
    assert f"got {n + 1} for {n}; set pretrain_batch=" in fault
    assert faults(replace(TINY, pretrain_batch=n), setting.pack, setting.parts) == []
    [fault] = faults(TINY, replace(setting.pack, images=setting.pack.images[..., 0]), setting.parts)
    assert "must be in colour" in fault


def test_configurations_that_train_the_same_thing_are_equal():
    assert canonical(replace(TINY, predictor=False, predictor_hidden=99)) == canonical(replace(TINY, predictor=False))
    assert canonical(replace(TINY, jitter=0.0, jitter_strength=2.0)) == canonical(replace(TINY, jitter=0.5, jitter_strength=0.0))
    assert canonical(replace(TINY, jitter=1)) == replace(TINY, jitter=1.0) and canonical(CcrlConfig()) == CcrlConfig()
    assert canonical(replace(TINY, predictor_hidden=99)) != canonical(TINY) == canonical(replace(TINY, feature_side=99))


def test_a_set_that_was_packed_before_masks_were_kept_says_what_to_do(setting, monkeypatch):
    old, config = replace(setting.pack, masks=None), canonical(replace(TINY, features="morphology"))
    assert faults(config, setting.pack, setting.parts) == faults(TINY, old, setting.parts) == []
    [fault] = faults(config, old, setting.parts)
    assert "prepare the download again" in fault and "--arms" in fault
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    [fault] = faults(config, setting.pack, setting.parts)
    assert (
        fault.startswith("features=morphology: scikit-image and opencv-python-headless must be installed") and "karyotune[classic]" in fault
    )
    with pytest.raises(RequestError, match="must be installed"):
        libraries.library("cv2")


def test_the_area_of_a_nucleus_counts_by_its_logarithm(setting):
    some = np.arange(5)
    rows = ccrl.measured(replace(TINY, features="area"), setting.pack, some)
    assert rows[:, 0] == pytest.approx(np.log([mask.sum() for mask in setting.pack.masks.each(some)]))


def test_cells_too_small_for_a_shape_stand_in_the_middle_of_the_others(setting):
    some = np.arange(6)
    masks = [*setting.pack.masks.each(some)]
    pack = replace(setting.pack, masks=Masks.of([np.ones((2, 3), bool), *masks[1:]]))
    rows = ccrl.measured(replace(TINY, features="morphology"), pack, some)
    assert np.allclose(rows[0], rows[1:].mean(0)) and np.array_equal(rows[1:], ccrl.morphological(masks[1:]))


def test_a_published_backbone_keeps_its_own_statistics_and_its_rows_are_of_unit_length(setting, monkeypatch):
    made = timm.create_model("cell_preact_tiny", num_classes=0)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    monkeypatch.setattr(ccrl, "create_backbone", lambda *_, **more: copy.deepcopy(made))  # as if weights could be had
    config = canonical(replace(TINY, features="backbone", weights="imagenet", feature_side=48))
    fitting = Fitting(ccrl.build(config, setting), setting)
    fitting.validate(last=True)
    tensors = fitting.result()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in made.state_dict().items())
    rows = ccrl.scorer(config, tensors, CPU).rows(setting.pack, setting.parts["test"], CPU)
    pixels = torch.from_numpy(setting.pack.images[setting.parts["test"]]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        wanted = made.eval()(standardise(F.interpolate(pixels, (48, 48), mode="bilinear"))).numpy()
    assert np.allclose(rows, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
