"""Lin et al.'s method as an arm of supcam: its head, its phases, its rates; what the first phase leaves alone; a toy set whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables import supcam
from trainables.baselines.lin2021 import All, Body, Head, HeadAlone, Network, one_cycle
from trainables.data.pack import make_pack
from trainables.parts.encoders import create_backbone
from trainables.parts.errors import RequestError
from trainables.parts.execution import execute, stage_hashes, stages_of
from trainables.parts.loop import Fitting, fit
from trainables.parts.procedure import Setting
from trainables.supcam import CLASSES, PROCEDURE, SupcamConfig, canonical, faults

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TINY = SupcamConfig(
    method="lin2021", pretrain_epochs=0, frozen_epochs=2, finetune_epochs=2, backbone="test_resnet", input_size=32, finetune_batch=8,
    weight_decay=0.01, rotation=10.0, zoom=1.1, frozen_rate=4e-3, head_rate=4e-3, body_rate=1e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    """Four types that are the height of a bright square: a network that learns at all tells them, and a mirror changes nothing."""
    chance = np.random.default_rng(0)
    labels = np.arange(96) % 4
    images = chance.integers(1, 40, (96, 32, 32), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[1 + 8 * label : 7 + 8 * label, 8:24] = 230
        image[:] = np.where(chance.random((32, 32)) < 0.05, 0, image)
    pack = make_pack(images, labels, CLASSES, [f"{i}.png" for i in range(96)], [f"p{i // 4}" for i in range(96)], np.ones((96, 2)))
    return Setting(pack, supcam.split_of(TINY, pack, 0), seed=3)


def copy_of(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


def test_the_head_has_the_published_shape_and_number_of_weights():
    head = Head(2048, 4)
    assert sum(weight.numel() for weight in head.parameters()) == 8192 + 2_097_664 + 1024 + 2052 == 2_108_932
    assert [type(layer) for layer in head if isinstance(layer, nn.Linear | nn.BatchNorm2d | nn.Dropout | nn.ReLU)] == [
        nn.BatchNorm2d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm2d, nn.Dropout, nn.Linear,
    ]  # fmt: skip
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.25, 0.5]


def test_the_head_is_mean_and_maximum_then_two_layers_in_float64():
    head = Head(6, 3).double().eval()
    with torch.no_grad():
        for layer in head:
            if isinstance(layer, nn.BatchNorm2d):
                (
                    layer.running_mean.uniform_(-1, 1),
                    layer.running_var.uniform_(0.5, 2),
                    layer.weight.uniform_(0.5, 2),
                    layer.bias.uniform_(-1, 1),
                )
    maps = torch.randn(5, 6, 3, 4, dtype=torch.float64)
    found = head(maps).detach().numpy()
    first, second = (layer for layer in head if isinstance(layer, nn.BatchNorm2d))
    narrow, wide = (layer for layer in head if isinstance(layer, nn.Linear))

    def normal(x, layer):
        mean, var, scale, bias = (t.detach().numpy() for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
        return (x - mean) / np.sqrt(var + layer.eps) * scale + bias

    def linear(x, layer):
        return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    x = maps.numpy()
    rows = np.concatenate([x.mean((2, 3)), x.max((2, 3))], 1)
    wanted = linear(normal(np.maximum(linear(normal(rows, first), narrow), 0), second), wide)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_the_rates_of_one_cycle_are_torchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-5, total_steps=51, pct_start=0.3)
    for step in range(50):
        assert one_cycle(4e-5, step / 50) == pytest.approx(schedule.get_last_lr()[0], rel=0.1, abs=2e-7)
        optimizer.step()
        schedule.step()
    assert one_cycle(1.0, 0.0) == pytest.approx(1 / 25) and one_cycle(1.0, 0.3) == 1 and one_cycle(1.0, 1.0) == pytest.approx(4e-6)


def test_the_first_phase_trains_the_head_and_leaves_the_body_as_it_is_to_the_bit(setting):
    fitting = Fitting(HeadAlone(TINY, setting), setting)
    before = copy_of(fitting.task.result())
    fit(fitting, epochs=2, after_epoch=lambda row: None)
    after = fitting.result()
    assert before.keys() == after.keys()
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head"}  # weights and statistics of the body are the same bits
    assert all(not torch.equal(before[f"head.{name}"], after[f"head.{name}"]) for name, _ in fitting.task.head.named_parameters())


def test_the_second_phase_starts_from_the_first_and_moves_all_the_first_layers_least(setting):
    handed = copy_of(HeadAlone(TINY, setting).result())
    handed["head.9.bias"] += 1
    task = All(TINY, replace(setting, previous=handed))
    assert all(torch.equal(tensor, handed[name]) for name, tensor in task.result().items())
    fitting = Fitting(task, setting)
    fitting.step(next(iter(task.batches(0))), task.learning_rate(0.6))
    rates = [group["lr"] for group in task.optimizer.param_groups]
    assert rates == pytest.approx([1e-3, 2e-3, 4e-3]) and [len(group["params"]) > 0 for group in task.optimizer.param_groups] == [True] * 3
    assert sum(len(group["params"]) for group in task.optimizer.param_groups) == len(list(task.network.parameters()))
    moved = {name: float((tensor.detach() - handed[name]).abs().max()) for name, tensor in task.network.named_parameters()}
    early = [name for name in moved if name.startswith(("body.net.conv1", "body.net.layer1", "body.net.layer2"))]
    late = [name for name in moved if name.startswith("body.net.layer4")]
    assert early and late and max(moved[name] for name in early) <= 1.1e-3 < max(moved[name] for name in late) <= 2.2e-3
    assert max(moved[name] for name in moved if name.startswith("head")) == pytest.approx(4e-3, rel=0.1)  # Adam's first step is the rate


def test_shares_of_the_rate_are_the_same_in_steady_steps(setting):
    for steady in (False, True):
        own = replace(setting, steady=steady)
        fitting = Fitting(All(TINY, own), own)
        for _, batch in zip(range(2), fitting.task.batches(0), strict=False):
            fitting.step(batch, 8e-3)
        assert [float(group["lr"]) for group in fitting.task.optimizer.param_groups] == pytest.approx([2e-3, 4e-3, 8e-3])


def test_a_resnet_is_cut_after_its_second_group_of_blocks():
    body = Body(create_backbone("test_resnet", channels=1, classes=0, weights="random", seed=0))
    early, late = body.parts()
    names = {id(weight): name for name, weight in body.net.named_parameters()}
    assert {names[id(weight)].split(".")[0] for weight in early} == {"conv1", "bn1", "layer1", "layer2"}
    assert {names[id(weight)].split(".")[0] for weight in late} == {"layer3", "layer4"}


@pytest.mark.slow
def test_a_run_of_both_phases_is_judged_predicts_and_tells_a_toy_set_apart(setting, tmp_path):
    config = replace(TINY, finetune_epochs=8, rotation=0.0)
    assert [stage.name for stage in stages_of(PROCEDURE, config)] == ["frozen", "finetune"]
    rows = []
    outcome = execute(PROCEDURE, config, seed=0, pack=setting.pack, folder=tmp_path / "run", report=rows.append, evaluate_test=True)
    assert [(row["stage"], row["epoch"]) for row in rows] == [("frozen", e) for e in (1, 2)] + [("finetune", e) for e in range(1, 9)]
    assert outcome.metrics["test_accuracy"] > 0.9
    network = All(config, setting)
    chosen = setting.parts["test"]
    said = supcam.predict(config, network.result(), setting.pack.images[chosen], CLASSES, CPU)
    judged = supcam.evaluate(config, network.result(), setting.pack, chosen, CPU)
    assert [CLASSES[int(np.argmax(row))] for row in judged.predictions["probability"]] == said["prediction"]
    assert supcam.timm_settings(config, CLASSES) is None and supcam.timm_settings(replace(config, method="supcam"), CLASSES) is not None


def test_what_belongs_to_the_other_method_changes_nothing_and_what_does_not_fit_is_a_fault():
    assert canonical(replace(TINY, rate_drop=0.5, finetune_rate=1.0, sgd_momentum=0.1, queue_size=5)) == canonical(TINY)
    plain = SupcamConfig()
    assert canonical(replace(plain, frozen_rate=1.0, head_rate=1.0, body_rate=1.0)) == canonical(plain)
    assert canonical(replace(TINY, body_rate=1.0)) != canonical(TINY) != canonical(replace(TINY, head_rate=1.0))
    first, second = (stage_hashes(PROCEDURE, config, 1, "d", "c") for config in (TINY, replace(TINY, head_rate=1.0)))
    assert first["frozen"] == second["frozen"] and first["finetune"] != second["finetune"]
    assert faults(TINY) == []
    assert canonical(replace(TINY, pretrain_epochs=9, temperature=0.5)) == canonical(TINY)  # it has no pre-training
    assert canonical(replace(plain, frozen_epochs=3)) == canonical(plain)
    with pytest.raises(RequestError, match="maps of features"):
        Network("test_vit", 4, "random", 0)(torch.zeros(1, 1, 160, 160))


def test_smoothed_cross_entropy_of_a_step_is_that_of_plain_numbers(setting):
    task = All(TINY, setting).eval()  # no dropout, running statistics
    batch = next(iter(task.batches(0)))
    loss = float(task.loss(batch).detach())
    from trainables.parts.views import apply_views

    gray = torch.from_numpy(setting.pack.images[setting.parts["train"][batch[0].numpy()]]).float()[:, None] / 255
    with torch.no_grad():
        logits = task.network(supcam.standardise(apply_views(gray, batch[1]))).double()
    labels = setting.pack.labels[setting.parts["train"][batch[0].numpy()]]
    log = F.log_softmax(logits, 1).numpy()
    wanted = np.mean([-(0.9 + 0.1 / 4) * row[label] - 0.1 / 4 * (row.sum() - row[label]) for row, label in zip(log, labels, strict=True)])
    assert loss == pytest.approx(wanted, rel=1e-5)
