"""SupCAM: the loss of a whole step against plain float64 loops from the specification, the queue, the schedules, the faults."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import references
import torch
from torch.nn import functional as F

from trainables import supcam
from trainables.data.normal import width_of
from trainables.data.pack import make_pack
from trainables.data.synthetic_clusters import cluster_set
from trainables.parts.composition import compose, load_tables
from trainables.parts.encoders import standardise
from trainables.parts.errors import RequestError
from trainables.parts.loop import Fitting
from trainables.parts.probe import fit_probe, probed
from trainables.parts.procedure import Setting
from trainables.parts.views import apply_views
from trainables.parts.workers import Workers
from trainables.supcam import (
    CLASSES,
    FINETUNE_FIELDS,
    PRETRAIN_FIELDS,
    PROCEDURE,
    Finetune,
    Pretrain,
    SupcamConfig,
    canonical,
    faults,
    view_set,
)

TINY = SupcamConfig(
    input_size=32, backbone="test_resnet", pretrain_epochs=4, warmup_epochs=1, pretrain_batch=8, queue_size=21, embedding_dim=6,
    finetune_epochs=3, finetune_batch=8,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setting():
    pack = cluster_set(10, size=32, seed=0)
    return Setting(pack, supcam.split_of(TINY, pack, 0), seed=3)


def pretrain(setting, filled=13, **overrides):
    """A task in the midst of its training: random weights of the key encoder, a queue with empty slots, and one batch."""
    task = Pretrain(replace(TINY, **overrides), setting).train()
    chance = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in task.key.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=chance)
        if filled:
            dim = task.queue.keys.shape[1]
            task.queue.enqueue(
                F.normalize(torch.randn(filled, dim, generator=chance), dim=1), torch.randint(4, (filled,), generator=chance)
            )
    return task, next(iter(task.batches(0)))


def value_of(task, batch):
    return float(task(batch).detach())


def gray(setting, chosen):
    return torch.from_numpy(setting.pack.images[setting.parts["train"][chosen.numpy()]]).float()


def labels_of(setting, chosen):
    return setting.pack.labels[setting.parts["train"][chosen.numpy()]]


def encoded(encoder, images, draw):
    with torch.no_grad():
        return encoder(standardise(apply_views(images[:, None] / 255, draw)))


def composed(task, setting, batch):
    """I_g and y_g as the specification has it, or None."""
    config = task.config
    primary, candidate = gray(setting, batch.primary), gray(setting, batch.candidate)
    y_p, y_c = (torch.from_numpy(labels_of(setting, chosen)) for chosen in (batch.primary, batch.candidate))
    if config.composition == "off":
        return None
    if config.composition == "no":
        return candidate, y_c
    table = load_tables()[config.composition]
    made = compose(
        primary, candidate, y_p, y_c, table, config.blend, config.overlap_threshold,
        require_contact=config.require_contact, numbers=batch.composition,
    )  # fmt: skip
    return made.images, made.labels


def by_the_specification(config, q, k, y, g, queue, weight=None, centers=None):
    """The loss of one step in float64. q, k: (N, D) queries and their own keys; y: labels; g: (k_g, y_g) or None; queue: (key, label) of
    the filled slots; weight: (C, D) class weights; centers: {class: centre}."""
    tau, m, form = config.temperature, config.margin, config.beyond_pi
    losses = []
    for i in range(len(q)):
        own = references.cosine(q[i], k[i])
        in_queue = [(references.cosine(q[i], key), label) for key, label in queue]
        if config.contrast == "info_nce":
            losses.append(references.one_against(own, [cosine for cosine, _ in in_queue], tau))
            continue
        others = in_queue + ([(references.cosine(q[i], g[0][i]), g[1][i])] if g else [])
        negatives = [cosine for cosine, label in others if label != y[i]]
        positives = [own] + [cosine for cosine, label in others if label == y[i]]
        if config.margin_form == "all_margin":
            positives = [references.with_margin(cosine, m, form) for cosine in positives]
        loss = sum(references.one_against(cosine, negatives, tau) for cosine in positives) / len(positives)
        if config.margin_form == "self_margin":
            loss += references.one_against(references.with_margin(own, m, form), negatives, tau)
        if config.margin_form == "parametric_margin":
            cosines = [references.cosine(q[i], row) for row in weight]
            rest = [cosine for label, cosine in enumerate(cosines) if label != y[i]]
            loss += references.one_against(references.with_margin(cosines[y[i]], m, form), rest, tau)
        if config.margin_form == "cluster_margin" and y[i] in centers:
            rest = [references.cosine(q[i], centre) for label, centre in centers.items() if label != y[i]]
            loss += references.one_against(references.with_margin(references.cosine(q[i], centers[y[i]]), m, form), rest, tau)
        losses.append(loss)
    return sum(losses) / len(losses)


def filled_slots(task):
    keys, labels = task.queue.keys.double().numpy(), task.queue.labels.numpy()
    return [(key, int(label)) for key, label in zip(keys, labels, strict=True) if label >= 0]


def unit(vector):
    return vector / math.sqrt(sum(float(x) ** 2 for x in vector))


def means_of(queue):
    """Per class the mean of the queue's keys, renormalised."""
    found = {}
    for label in sorted({label for _, label in queue}):
        found[label] = unit(np.mean([key for key, other in queue if other == label], axis=0))
    return found


ARMS = {
    "MoCo": {"contrast": "info_nce", "margin_form": "none", "composition": "off", "views": "moco_v2"},
    "MoCo with composition": {"contrast": "info_nce", "margin_form": "none"},
    "MoCo + SupCon": {"margin_form": "none", "composition": "off", "views": "moco_v2"},
    "+ CatVar": {"margin_form": "none"},
    "full": {},
    "full, plain beyond pi": {"margin": 1.9},
    "full, monotone beyond pi": {"margin": 1.9, "beyond_pi": "monotone"},
    "margin without composition": {"composition": "off"},
    "no table": {"composition": "no"},
    "light": {"composition": "light", "require_contact": True},
    "heavy, lambda": {"composition": "heavy", "blend": "lambda"},
    "maximum": {"blend": "maximum", "overlap_threshold": 20.0},
    "all positives": {"margin_form": "all_margin", "temperature": 0.2},
    "all positives without composition": {"margin_form": "all_margin", "composition": "off", "beyond_pi": "monotone"},
    "parametric": {"margin_form": "parametric_margin", "margin": 0.3},
    "cluster": {"margin_form": "cluster_margin"},
    "cluster without composition": {"margin_form": "cluster_margin", "composition": "off", "margin": 0.4},
}


@pytest.mark.parametrize("filled", [0, 13, 21], ids=["empty queue", "part of the queue", "full queue"])
@pytest.mark.parametrize("arm", ARMS)
def test_the_loss_of_a_step_is_that_of_the_specification(setting, arm, filled):
    task, batch = pretrain(setting, filled, **ARMS[arm])
    y, queue = labels_of(setting, batch.primary).tolist(), filled_slots(task)
    images = gray(setting, batch.primary)
    q, k = encoded(task.query, images, batch.views[0]).double(), encoded(task.key, images, batch.views[1]).double()
    made = composed(task, setting, batch)
    g = made and (encoded(task.key, made[0], batch.views[2]).double().numpy(), made[1].tolist())
    more = {}
    if task.config.margin_form == "parametric_margin":
        more = {"weight": task.class_weight.detach().double().numpy()}
    if task.config.margin_form == "cluster_margin":
        more = {"centers": means_of(queue)}
    wanted = by_the_specification(task.config, q.numpy(), k.numpy(), y, g, queue, **more)
    assert value_of(task, batch) == pytest.approx(wanted, rel=2e-5, abs=2e-6)


def test_class_centres_are_a_moving_average_of_the_queues_means_taken_before_the_keys_enter(setting):
    task, batch = pretrain(setting, margin_form="cluster_margin", center_decay=0.7)
    first = means_of(filled_slots(task))
    task(batch)
    task.after_step()
    second = means_of(filled_slots(task))
    task(batch)
    for label, mean in second.items():
        wanted = unit(0.7 * first[label] + 0.3 * mean) if label in first else mean
        assert np.allclose(task.centers[label].numpy(), wanted, atol=1e-6)


def test_a_query_of_a_class_without_a_centre_has_no_margin_term(setting):
    task, batch = pretrain(setting, filled=0, margin_form="cluster_margin", composition="off")
    key = F.normalize(torch.ones(2, 6), dim=1) * torch.tensor([[1.0], [-1.0]])
    task.queue.enqueue(key, torch.tensor([0, 1]))
    y, queue, images = labels_of(setting, batch.primary).tolist(), filled_slots(task), gray(setting, batch.primary)
    assert set(y) - {0, 1}
    q, k = encoded(task.query, images, batch.views[0]).double(), encoded(task.key, images, batch.views[1]).double()
    wanted = by_the_specification(task.config, q.numpy(), k.numpy(), y, None, queue, centers=means_of(queue))
    assert value_of(task, batch) == pytest.approx(wanted, rel=2e-5)


@pytest.mark.parametrize("arm", ["MoCo", "full", "all positives", "parametric", "cluster"])
def test_the_gradient_reaches_the_query_encoder_alone_and_is_finite(setting, arm):
    task, batch = pretrain(setting, **ARMS[arm])
    task(batch).backward()
    for name, parameter in task.named_parameters():
        if name.startswith("key."):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
    assert task.query.head.weight.grad.abs().sum() > 0
    assert {id(p) for group in task.optimizer.param_groups for p in group["params"]} == {
        id(p) for p in task.parameters() if p.requires_grad
    }


def test_identical_query_and_key_give_a_finite_gradient(setting):
    task, batch = pretrain(setting)
    task.key.load_state_dict(task.query.state_dict())
    task(replace(batch, views=(batch.views[0], batch.views[0], batch.views[2]))).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in task.query.parameters())


# ------------------------------------------------------------------------------------------------------ after the loss


@pytest.mark.parametrize("composition", ["middle", "off"])
def test_own_keys_then_composed_ones_enter_the_queue_after_the_loss_with_their_labels(setting, composition):
    task, batch = pretrain(setting, composition=composition)
    before, weights = [*filled_slots(task)], [p.clone() for p in task.key.parameters()]
    images = gray(setting, batch.primary)
    k = encoded(task.key, images, batch.views[1])
    entering = [*zip(k.tolist(), labels_of(setting, batch.primary).tolist(), strict=True)]
    if made := composed(task, setting, batch):
        entering += [*zip(encoded(task.key, made[0], batch.views[2]).tolist(), made[1].tolist(), strict=True)]
    task(batch)
    assert [label for _, label in filled_slots(task)] == [label for _, label in before]  # the loss alone moves nothing
    assert all(torch.equal(a, b) for a, b in zip(task.key.parameters(), weights, strict=True))
    reference = references.Queue(21)
    for key, label in before + entering:
        reference.enqueue([key], [label])
    task.after_step()
    start = int(task.queue.pointer) if len(before + entering) >= 21 else 0
    order = [(start + i) % 21 for i in range(min(21, len(before + entering)))]
    assert [int(task.queue.labels[i]) for i in order] == [label for _, label in reference.entries]
    assert np.allclose(task.queue.keys[order].numpy(), [key for key, _ in reference.entries], atol=1e-5)


def test_the_key_encoder_follows_after_the_step_by_the_configured_decay(setting):
    task, batch = pretrain(setting, ema_decay=0.75)
    keys, queries = ([p.detach().clone().numpy() for p in encoder.parameters()] for encoder in (task.key, task.query))
    task(batch)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(keys, task.key.parameters(), strict=True))
    task.after_step()
    for moved, wanted in zip(task.key.parameters(), references.moving_average(keys, queries, 0.75), strict=True):
        assert np.allclose(moved.numpy(), wanted, rtol=1e-5, atol=1e-7)


def test_an_image_is_no_negative_of_itself_where_its_own_older_keys_are_masked(setting):
    losses = {}
    for masked in (False, True):
        task, batch = pretrain(setting, **ARMS["MoCo"], mask_own=masked)
        task.eval()
        task(batch)
        task.after_step()
        losses[masked] = float(task(batch).detach())  # the same images again: their keys are in the queue now
        own = task.queue.owners[:, None] == batch.primary if masked else None
    assert own.any(0).all() and losses[True] < losses[False]
    q = task.query(task._view(gray(setting, batch.primary), batch.views[0])).detach()
    every = [losses_of_one(q[i], task.new_keys[0][0][i], task.queue.keys[task.queue.present & ~own[:, i]]) for i in range(len(q))]
    assert losses[True] == pytest.approx(np.mean(every), rel=1e-4)


def losses_of_one(query, key, negatives):
    """Eq. 3 of one query."""
    scores = torch.cat([(query * key).sum()[None], negatives @ query]).double() / TINY.temperature
    return float(-scores.log_softmax(0)[0])


# ------------------------------------------------------------------------------------------------------ whose statistics the keys have


@pytest.mark.parametrize("how", ["split", "shuffled"])
def test_the_keys_of_a_step_are_normalised_in_random_parts_and_stay_in_their_places(setting, how):
    task, batch = pretrain(setting, key_batch=how, key_parts=2, pretrain_batch=8)
    task.train()
    views = [task._view(gray(setting, batch.primary), draw) for draw in batch.views[:2]]
    task(batch)
    found, parts = task.new_keys[0][0], {}
    for pair, (first, second) in enumerate(batch.order.tolist()):
        parts.setdefault(0, []).append(2 * pair + first)
        parts.setdefault(1, []).append(2 * pair + second)
    assert sorted(parts[0] + parts[1]) == list(range(8)) and parts[0] != [0, 2, 4, 6]
    with torch.no_grad():
        for part in parts.values():
            assert torch.allclose(found[part], task.key(views[1][part]), atol=1e-5)
        assert not torch.allclose(found, task.key(views[1]), atol=1e-3)
        whole, by_place = task.query(views[0]), torch.empty(8, TINY.embedding_dim)
        for place in (0, 1):
            by_place[place::2] = task.query(views[0][place::2])
    assert torch.allclose(task._queries(views[0]), by_place if how == "shuffled" else whole, atol=1e-5)


def test_keys_in_evaluation_mode_have_averages_that_follow_those_of_the_queries(setting):
    task, batch = pretrain(setting, key_batch="running", ema_decay=0.75)
    task.train()
    wanted = [torch.zeros_like(tensor) for tensor in supcam._statistics(task.query)]
    for step in range(6):
        task(batch)
        task.after_step()
        part = max(1 / (step + 1), 0.25)
        wanted = [(1 - part) * old + part * new for old, new in zip(wanted, supcam._statistics(task.query), strict=True)]
    before = [tensor.clone() for tensor in supcam._statistics(task.query)]
    task(batch)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(supcam._statistics(task.key), wanted, strict=True))
    one = task._view(gray(setting, batch.primary[:1]), batch.views[1][:1])
    with torch.no_grad():
        assert torch.allclose(task.new_keys[0][0][:1], task.key(one), atol=1e-5)  # of one image, whatever the others are
    assert not any(torch.equal(a, b) for a, b in zip(supcam._statistics(task.query), before, strict=True))


@pytest.mark.parametrize(
    ("how", "backbone", "passes"),
    [("running", "test_resnet", 1), ("whole", "test_vit", 1), ("whole", "test_resnet", 2), ("split", "test_vit", 4)],
)
def test_both_views_keys_are_asked_for_at_once_where_no_key_depends_on_the_others(setting, how, backbone, passes):
    task, batch = pretrain(setting, key_batch=how, backbone=backbone, key_parts=2, composition="middle")
    seen = []
    with torch.no_grad(), task.key.register_forward_hook(lambda _, inputs, keys: seen.append((inputs[0], keys))):
        task(batch)
        assert len(seen) == passes
        if passes == 1:
            alone = [task.key(image[None])[0] for image in seen[0][0]]
            assert torch.allclose(torch.cat([keys for keys, *_ in task.new_keys]), torch.stack(alone), atol=1e-5)


@pytest.mark.parametrize("how", ["whole", "running"])
def test_how_often_a_training_is_validated_does_not_change_it(setting, how):
    states = []
    for often in (False, True):
        fitting = Fitting(Pretrain(replace(TINY, key_batch=how), setting), setting)
        for epoch in range(2):
            fitting.epoch(epoch)
            if often:
                fitting.validate(last=False)
        states.append([parameter.detach().clone() for parameter in fitting.task.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize(("parts", "batch"), [(5, 32), (32, 32), (12, 6)])
def test_a_batch_that_its_parts_do_not_divide_is_a_fault_and_none_where_keys_are_whole(parts, batch):
    config = replace(SupcamConfig(), key_batch="split", key_parts=parts, pretrain_batch=batch)
    [fault] = faults(config)
    assert fault.startswith("pretrain_batch must be a multiple of key_parts") and f"{batch} for {parts}" in fault
    assert faults(replace(config, key_batch="whole")) == []


def test_workers_whose_share_the_parts_do_not_divide_are_refused(setting):
    with pytest.raises(RequestError, match=r"each of 2 workers has 4 images of a step, which key_parts 8 does not divide"):
        Pretrain(replace(TINY, key_batch="split", key_parts=8, pretrain_batch=8), replace(setting, workers=Workers(0, 2)))


def test_labels_do_not_count_for_info_nce(setting):
    task, batch = pretrain(setting, **ARMS["MoCo"])
    other = replace(setting, pack=replace(setting.pack, labels=(setting.pack.labels + 1) % 4))
    assert value_of(task, batch) == value_of(pretrain(other, **ARMS["MoCo"])[0], batch)


# ------------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("stage", [Pretrain, Finetune])
def test_an_epoch_shows_each_training_image_at_most_once_and_no_other(setting, stage):
    task = stage(replace(TINY, pretrain_batch=5, finetune_batch=5), setting)
    epochs = []
    for epoch in (0, 1):
        chosen = [batch.primary if stage is Pretrain else batch[0] for batch in task.batches(epoch)]
        assert len(chosen) == task.steps() == len(setting.parts["train"]) // 5 and all(len(one) == 5 for one in chosen)
        seen = torch.cat(chosen).tolist()
        assert len(set(seen)) == len(seen) and set(seen) <= set(range(len(setting.parts["train"])))
        epochs.append(seen)
    assert epochs[0] != epochs[1]
    again = stage(replace(TINY, pretrain_batch=5, finetune_batch=5), setting)
    repeated = [batch.primary if stage is Pretrain else batch[0] for batch in again.batches(0)]
    assert torch.cat(repeated).tolist() == epochs[0]


def test_candidates_are_any_training_images_and_the_three_views_are_drawn_apart(setting):
    task = Pretrain(TINY, setting)
    batches = [batch for epoch in range(30) for batch in task.batches(epoch)]
    candidates = torch.cat([batch.candidate for batch in batches])
    assert set(candidates.tolist()) == set(range(len(setting.parts["train"])))
    first, second, third = batches[0].views
    assert not torch.equal(first.affine, second.affine) and not torch.equal(second.affine, third.affine)


def test_images_of_the_training_part_alone_are_read(setting):
    for part, stage in (("train", Pretrain), ("train", Finetune)):
        task = stage(TINY, setting)
        assert np.array_equal(task.train_images.indices, setting.parts[part])
        assert np.array_equal(task.val_images.indices, setting.parts["val"])
        assert torch.equal(task.train_images.gray(torch.arange(3)), gray(setting, torch.arange(3)))


def test_the_view_sets_are_those_of_the_paper():
    crop_and_flip, moco = view_set(SupcamConfig()), view_set(SupcamConfig(views="moco_v2"))
    assert crop_and_flip == replace(moco, brightness=0.0, contrast=0.0, jitter=0.0, blur=0.0)
    assert crop_and_flip.crop == (0.2, 1.0) and crop_and_flip.horizontal_flip == 0.5 and crop_and_flip.rotation == 0
    # MoCo v2, main_moco.py: ColorJitter(0.4, 0.4, 0.4, 0.1) with p = 0.8; GaussianBlur([0.1, 2.0]) with p = 0.5
    assert (moco.brightness, moco.contrast, moco.jitter, moco.blur, moco.sigma) == (0.4, 0.4, 0.8, 0.5, (0.1, 2.0))


# ------------------------------------------------------------------------------------------------------ schedules


def test_the_pre_training_rate_warms_up_over_twenty_epochs_and_then_falls_as_a_cosine(setting):
    task = Pretrain(replace(SupcamConfig(), backbone="test_resnet", input_size=32, pretrain_batch=8), setting)
    steps = task.steps()
    rates = [task.learning_rate(number / steps) for number in range(200 * steps)]
    warm = 20 * steps
    assert 0 < rates[0] == pytest.approx(0.03 / (warm + 1)) and rates[warm] == pytest.approx(0.03)
    assert np.allclose(np.diff(rates[: warm + 1]), 0.03 / (warm + 1))  # linear, up to the peak
    for epoch in (20, 65, 110, 155):
        assert task.learning_rate(epoch) == pytest.approx(0.03 * 0.5 * (1 + math.cos(math.pi * (epoch - 20) / 180)))
    assert task.learning_rate(110) == pytest.approx(0.015)
    assert rates[-1] < 1e-6 and task.learning_rate(200) == pytest.approx(0, abs=1e-12)
    assert all(later < earlier for earlier, later in zip(rates[warm:], rates[warm + 1 :], strict=False))


@pytest.mark.parametrize(("epochs", "warmup"), [(4, 0), (4, 4), (4, 20), (1, 1)])
def test_the_rate_is_positive_and_at_most_the_peak_for_any_length(setting, epochs, warmup):
    task = Pretrain(replace(TINY, pretrain_epochs=epochs, warmup_epochs=warmup), setting)
    rates = [task.learning_rate(number / task.steps()) for number in range(epochs * task.steps())]
    assert all(0 < rate <= 0.03 for rate in rates) and (warmup or rates[0] == 0.03)


def test_the_fine_tuning_rate_drops_after_epochs_8_and_12(setting):
    task = Finetune(replace(SupcamConfig(), backbone="test_resnet", input_size=32, finetune_batch=8), setting)
    steps = task.steps()
    by_epoch = [[task.learning_rate(epoch + number / steps) for number in range(steps)] for epoch in range(15)]
    assert np.allclose(by_epoch, np.repeat([0.01] * 8 + [0.001] * 4 + [0.0001] * 3, steps).reshape(15, steps))


def test_both_optimisers_are_sgd_with_the_configured_momentum_and_decay(setting):
    for stage in (Pretrain, Finetune):
        [group] = stage(replace(TINY, sgd_momentum=0.8, weight_decay=0.02), setting).optimizer.param_groups
        assert (group["momentum"], group["weight_decay"], group["nesterov"], group["dampening"]) == (0.8, 0.02, False, 0)


def test_the_defaults_are_the_published_values():
    published = {
        "pretrain_epochs": 200, "pretrain_batch": 32, "pretrain_rate": 0.03, "warmup_epochs": 20, "embedding_dim": 128, "ema_decay": 0.999,
        "queue_size": 1024, "temperature": 0.07, "margin": 0.2, "margin_form": "self_margin", "composition": "middle", "blend": "equal",
        "overlap_threshold": 200, "composition_draws": 10, "finetune_epochs": 15, "finetune_batch": 16, "finetune_rate": 0.01,
        "rate_drops": (8, 12), "rate_drop": 0.1, "label_smoothing": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "backbone": "resnet50",
        "split": (0.6, 0.1, 0.3), "input_size": 224,
    }  # fmt: skip
    assert {name: getattr(SupcamConfig(), name) for name in published} == published


# ------------------------------------------------------------------------------------------------------ fine-tuning


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_fine_tuning_loss_is_the_cross_entropy_with_smoothed_labels(setting, smoothing):
    task = Finetune(replace(TINY, label_smoothing=smoothing), setting).train()
    batch = next(iter(task.batches(0)))
    with torch.no_grad():
        logits = task.model(standardise(apply_views(gray(setting, batch[0])[:, None] / 255, batch[1]))).double().numpy()
    losses = []
    for row, label in zip(logits, labels_of(setting, batch[0]), strict=True):
        log_total = math.log(sum(math.exp(value) for value in row))
        target = [smoothing / 4 + (1 - smoothing) * (index == label) for index in range(4)]
        losses.append(sum(share * (log_total - value) for share, value in zip(target, row, strict=True)))
    assert value_of(task, batch) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_fine_tuning_views_are_rotations_only(setting):
    task = Finetune(replace(TINY, rotation=25.0), setting)
    draw = next(iter(task.batches(0)))[1]
    turns = draw.affine[:, :, :2].double()
    assert torch.allclose(turns @ turns.transpose(1, 2), torch.eye(2, dtype=torch.float64).expand(8, 2, 2), atol=1e-6)
    assert torch.allclose(torch.linalg.det(turns), torch.ones(8, dtype=torch.float64), atol=1e-6) and (draw.affine[:, :, 2] == 0).all()
    assert torch.rad2deg(torch.acos(turns[:, 0, 0].clamp(-1, 1))).max() <= 25.01 and (draw.sigma == 0).all() and (draw.colour == 1).all()


@pytest.mark.parametrize("which", ["query", "key"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "densenet121"])
def test_fine_tuning_starts_from_the_chosen_encoders_backbone_and_a_new_head(setting, which, backbone):
    config = replace(TINY, backbone=backbone, finetune_encoder=which)
    first = Pretrain(config, setting)
    with torch.no_grad():
        for parameter in first.key.parameters():
            parameter += 1
    handed_on = {name: tensor.clone() for name, tensor in first.result().items()}
    task = Finetune(config, replace(setting, previous=handed_on))
    taken = task.model.state_dict()
    names = [name.removeprefix(which + ".") for name in handed_on if name.startswith(which + ".")]
    assert all(torch.equal(taken[name], handed_on[f"{which}.{name}"]) for name in names)
    assert {name.rpartition(".")[2] for name in taken.keys() - set(names)} == {"weight", "bias"} and len(taken.keys() - set(names)) == 2
    assert task.model.get_classifier().weight.shape[0] == 4 and all(parameter.requires_grad for parameter in task.parameters())


def test_another_backbones_weights_are_refused(setting):
    handed_on = Pretrain(replace(TINY, backbone="test_efficientnet"), setting).result()
    with pytest.raises(RuntimeError, match=r"does not fit|size mismatch"):
        Finetune(TINY, replace(setting, previous=handed_on))


def test_validation_scores_are_those_of_the_references(setting):
    task = Pretrain(TINY, setting).eval()
    train, val = setting.parts["train"], setting.parts["val"]
    with torch.no_grad():
        z = task.query(standardise(torch.from_numpy(setting.pack.images).float()[:, None] / 255)).double().numpy()
        features = task.query.backbone(standardise(torch.from_numpy(setting.pack.images).float()[:, None] / 255)).numpy()
    y = setting.pack.labels
    assert task.validate() == {
        "val_knn_accuracy": references.knn_accuracy(z[train], y[train], z[val], y[val], 20, 0.07),
        "val_probe_accuracy": (probed(fit_probe(features[train], y[train], 4), features[val]) == y[val]).mean(),
    }
    final = Finetune(TINY, setting).eval()
    with torch.no_grad():
        guesses = final.model(standardise(torch.from_numpy(setting.pack.images[val]).float()[:, None] / 255)).argmax(1).numpy()
    assert final.validate() == {"val_accuracy": references.metrics(y[val], guesses, 4)["accuracy"]}


def test_evaluation_gives_the_papers_metrics_and_one_probability_row_an_image(setting):
    task = Finetune(TINY, setting)
    chosen = setting.parts["test"]
    judged = supcam.evaluate(TINY, task.result(), setting.pack, chosen, CPU)
    rows = np.array(judged.predictions["probability"])
    wanted = references.metrics(setting.pack.labels[chosen], rows.argmax(1), 4)
    assert judged.metrics == pytest.approx(wanted) and np.array(judged.confusion).sum() == len(chosen)
    assert judged.predictions["index"] == chosen.tolist() and rows.shape == (len(chosen), 4) and np.allclose(rows.sum(1), 1, atol=1e-4)
    said = supcam.predict(TINY, task.result(), setting.pack.images[chosen], CLASSES, CPU)
    assert said["prediction"] == [CLASSES[index] for index in rows.argmax(1)] and np.allclose(said["p_touching"], rows[:, 2], atol=1e-5)


# ------------------------------------------------------------------------------------------------------ faults

FAULTS = {
    "normal_width": -1.0, "normal_gray": 256.0, "zoom": 0.5,
    "weights": "coco", "contrast": "simclr", "margin_form": "cosface", "beyond_pi": "up", "views": "none", "blend": "multiply",
    "finetune_encoder": "both", "composition": "strong", "backbone": "resnt50", "canvas": 8, "input_size": 4096, "split": (0.5, 0.5, 0.1),
    "split_seed": -1, "sgd_momentum": 1.0, "weight_decay": -0.1, "pretrain_epochs": -1, "pretrain_batch": 1, "pretrain_rate": 0.0, "warmup_epochs": -1,
    "embedding_dim": 1, "ema_decay": 1.1, "queue_size": 0, "key_batch": "half", "key_parts": 1, "classifier": "forest", "temperature": 0.0, "margin": math.pi, "center_decay": -0.1, "crop_min": 0.0,
    "crop_max": 1.5, "overlap_threshold": -1.0, "composition_draws": 0, "finetune_epochs": 0, "finetune_batch": 1, "finetune_rate": -1.0,
    "method": "other", "frozen_epochs": -1, "frozen_rate": 0.0, "head_rate": 0.0, "body_rate": -1e-6, "rate_drops": (-1,), "rate_drop": 2.0, "label_smoothing": 1.0, "rotation": 200.0,
}  # fmt: skip


def test_the_published_method_has_no_fault():
    assert faults(SupcamConfig()) == []


@pytest.mark.parametrize("field", FAULTS)
def test_each_bad_value_is_a_fault_that_names_field_and_value(field):
    [fault] = faults(replace(SupcamConfig(), **{field: FAULTS[field]}))
    assert fault.startswith(f"{field} must be") and str(FAULTS[field]) in fault


def test_every_fault_is_listed_at_once():
    found = faults(replace(SupcamConfig(), **FAULTS))
    assert [field for field in FAULTS if not any(fault.startswith(f"{field} must") for fault in found)] == []
    assert len(found) == len(set(found))


def test_every_field_but_switches_has_a_bad_value_in_the_table_above():
    switches = {entry.name for entry in fields(SupcamConfig) if isinstance(entry.default, bool)}
    assert FAULTS.keys() | switches == {entry.name for entry in fields(SupcamConfig)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", [entry.name for entry in fields(SupcamConfig) if isinstance(entry.default, float)])
def test_what_is_not_finite_is_a_fault(field, value):
    assert any(fault.startswith(field) for fault in faults(replace(SupcamConfig(), **{field: value})))


@pytest.mark.parametrize("overrides", [{"split": (math.nan, 0.5, 0.5)}, {"split": (0.5, 0.5)}, {"split": (0.9, 0.1, 0.0)}, {"rate_drops": (2.5,)}, {"pretrain_epochs": 2.5}, {"queue_size": 100.5}, {"crop_min": 0.9, "crop_max": 0.5}])  # fmt: skip
def test_values_that_are_wrong_together_or_of_the_wrong_kind_are_faults(overrides):
    assert len(faults(replace(SupcamConfig(), **overrides))) == 1


def test_a_margin_needs_supervised_contrast():
    [fault] = faults(replace(SupcamConfig(), contrast="info_nce"))
    assert "margin_form self_margin is added to sup_con" in fault and "margin_form=none" in fault
    assert faults(replace(SupcamConfig(), contrast="info_nce", margin_form="none")) == []


def test_a_batch_larger_than_the_training_part_is_a_fault_with_a_way_out(setting):
    n = len(setting.parts["train"])
    found = faults(replace(TINY, pretrain_batch=n + 1, finetune_batch=n + 2), setting.pack, setting.parts)
    assert [fault.split(" must")[0] for fault in found] == ["finetune_batch", "pretrain_batch"]
    assert all(f"for {n}; set " in fault for fault in found)
    assert faults(replace(TINY, pretrain_batch=n, finetune_batch=n), setting.pack, setting.parts) == []
    assert faults(replace(TINY, pretrain_batch=n + 1, pretrain_epochs=0), setting.pack, setting.parts) == []


def test_composition_needs_the_four_types_in_their_order(setting):
    images, labels = setting.pack.images, setting.pack.labels
    files, areas = setting.pack.files, setting.pack.areas
    for classes in (CLASSES[::-1], ("a", "b", "c", "d")):
        pack = make_pack(images, labels, classes, files, None, areas)
        [fault] = faults(TINY, pack, setting.parts)
        assert "composition middle is a table of the classes instance, overlapping" in fault and classes[0] in fault
        for allowed in ({"composition": "off"}, {"composition": "no"}, {"pretrain_epochs": 0}):
            assert faults(replace(TINY, **allowed), pack, setting.parts) == []


# ------------------------------------------------------------------------------------------------------ splits, export


def test_the_split_is_fixed_unless_it_is_asked_for_each_seed(setting):
    def parts(seed, **overrides):
        return supcam.split_of(replace(TINY, **overrides), setting.pack, seed)["train"].tolist()

    assert parts(0) == parts(1) != parts(0, split_seed=5)
    assert parts(0, split_per_seed=True) != parts(1, split_per_seed=True) == parts(1, split_per_seed=True)
    assert parts(1, split_per_seed=True) != parts(1, split_per_seed=True, split_seed=5)


def test_timm_builds_the_exported_model_from_its_settings(setting):
    import timm

    task = Finetune(TINY, setting).eval()
    settings = supcam.timm_settings(TINY, setting.pack.classes)
    model = timm.create_model(settings["architecture"], num_classes=settings["num_classes"], **settings["model_args"]).eval()
    model.load_state_dict(task.result())
    pixels = torch.from_numpy(setting.pack.images[:4]).float()[:, None] / 255
    given = settings["pretrained_cfg"]
    normal = (pixels - torch.tensor(given["mean"])[:, None, None]) / torch.tensor(given["std"])[:, None, None]
    assert torch.allclose(model(normal), task.model(standardise(pixels)), atol=1e-5)
    assert given["label_names"] == list(CLASSES) and PROCEDURE.canonical is canonical


def test_another_laboratory_s_clusters_come_with_the_built_in_set_and_look_alike_once_they_are_brought_to_one_look():
    config = SupcamConfig(input_size=64, normal_width=15.0, normal_gray=190.0)
    widths = {}
    for name, asked in (("as they are", replace(config, normal_width=0.0, normal_gray=0.0)), ("one look", config)):
        own, [other] = supcam.synthesize(asked, images=48, seed=0), supcam.synthesize_external(asked, images=48, seed=0).values()
        assert other.classes == own.classes and other.hash != own.hash and any("another laboratory" in note for note in other.notes)
        widths[name] = [np.median([width_of(image) for image in pack.images]) for pack in (own, other)]
    assert widths["as they are"][1] < 0.85 * widths["as they are"][0]
    assert widths["one look"][1] == pytest.approx(widths["one look"][0], rel=0.08)


def test_a_zoom_of_the_fine_tuning_s_views_is_a_setting_of_that_stage_alone():
    assert "zoom" in FINETUNE_FIELDS and "zoom" not in PRETRAIN_FIELDS
    assert {"normal_width", "normal_gray"} <= set(FINETUNE_FIELDS) & set(PRETRAIN_FIELDS)
    assert any("zoom" in fault for fault in faults(SupcamConfig(zoom=0.5))) and not faults(SupcamConfig(zoom=1.5))


def test_a_judgement_of_four_quarter_turns_is_the_same_for_every_turn_of_an_image(setting):
    config = replace(TINY, every_turn=True, pretrain_epochs=0)
    tensors, pack = Finetune(config, setting).result(), setting.pack
    images = np.asarray(pack.images[:6])
    own = supcam.predict(config, tensors, images, pack.classes, CPU)
    columns = [name for name in own if name != "prediction"]
    for turn in (1, 2, 3):
        other = supcam.predict(config, tensors, np.rot90(images, turn, (1, 2)).copy(), pack.classes, CPU)
        for name in columns:
            assert other[name] == pytest.approx(own[name], abs=1e-4)
    one = supcam.predict(replace(config, every_turn=False), tensors, images, pack.classes, CPU)
    assert any(one[name] != pytest.approx(own[name], abs=1e-4) for name in columns)
    judged = supcam.evaluate(config, tensors, pack, np.arange(6), CPU)
    assert [max(row) for row in judged.predictions["probability"]] == pytest.approx(
        [max(own[name][i] for name in columns) for i in range(6)], abs=1e-4
    )
