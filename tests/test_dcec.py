"""DCEC as an arm of ccrl: its network, its equations against plain float64 loops, its two stages, its end; a toy set whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import references
import torch
from torch import nn

from trainables import ccrl
from trainables.baselines.dcec import AutoEncoder, Cluster, Reconstruct, divergence, log_assignment, sharpened
from trainables.ccrl import CENTERS, PROCEDURE, CcrlConfig, canonical, faults
from trainables.data.pack import make_pack
from trainables.data.synthetic_cells import cell_set
from trainables.parts.checkpoint import load_state
from trainables.parts.errors import Interrupted
from trainables.parts.execution import MODEL, execute, stage_hashes, stages_of
from trainables.parts.loop import Fitting, fit
from trainables.parts.procedure import Setting
from trainables.parts.workers import Workers

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TINY = canonical(
    CcrlConfig(
        method="dcec",
        embedding_dim=5,
        pretrain_batch=8,
        reconstruct_epochs=3,
        cluster_epochs=3,
        target_steps=1,
        kmeans_fit="train",
        kmeans_starts=2,
    )
)


@pytest.fixture(scope="module")
def setting():
    pack = cell_set(70, seed=0)
    return Setting(pack, ccrl.split_of(TINY, pack, 0), seed=3)


def clustering(setting, **overrides):
    """The second stage at its start, after one epoch of the first."""
    first = Fitting(Reconstruct(TINY, setting), setting)
    fit(first, epochs=1, after_epoch=lambda row: None)
    return Cluster(replace(TINY, **overrides), replace(setting, previous=first.result()))


def numbers(n=7, k=3, dim=4, seed=0):
    chance = np.random.default_rng(seed)
    return chance.normal(size=(n, dim)), chance.normal(size=(k, dim))


# ------------------------------------------------------------------------------------------------------ equations


@pytest.mark.parametrize("seed", range(3))
def test_assignment_target_and_divergence_are_those_of_plain_loops_and_so_are_the_gradients(seed):
    codes, centers = (torch.tensor(values, requires_grad=True) for values in numbers(seed=seed))
    log_q = log_assignment(codes, centers)
    q = references.student(codes.tolist(), centers.tolist())
    assert log_q.exp().detach().numpy() == pytest.approx(np.array(q), rel=1e-12) and log_q.exp().sum(1).tolist() == pytest.approx([1] * 7)
    p = references.target_of(q)
    assert sharpened(log_q.exp()).detach().numpy() == pytest.approx(np.array(p), rel=1e-12)
    loss = divergence(sharpened(log_q.exp()).detach(), log_q)
    assert float(loss.detach()) == pytest.approx(references.kullback_leibler(p, q), rel=1e-12)
    loss.backward()
    of_codes, of_centers = references.gradients_of_divergence(codes.tolist(), centers.tolist(), p)
    assert codes.grad.numpy() == pytest.approx(of_codes, rel=1e-9, abs=1e-15)
    assert centers.grad.numpy() == pytest.approx(of_centers, rel=1e-9, abs=1e-15)


def test_equal_distributions_have_no_divergence_and_a_sure_target_has_the_negative_logarithm():
    codes, centers = (torch.tensor(values) for values in numbers())
    log_q = log_assignment(codes, centers)
    assert float(divergence(log_q.exp(), log_q)) == pytest.approx(0, abs=1e-15)
    sure = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1, 2, 0]]  # 0 log 0 is 0
    assert float(divergence(sure, log_q)) == pytest.approx(float(-(sure * log_q).sum(1).mean()))


def test_a_cell_between_two_centres_is_half_of_each_and_far_cells_give_finite_numbers():
    centers = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    assert log_assignment(torch.tensor([[0.0, 3.0]]), centers).exp().tolist() == [[0.5, 0.5]]
    assert log_assignment(torch.tensor([[1.0, 0.0]]), centers).exp()[0].tolist() == pytest.approx([1 / 6, 5 / 6])  # 1 / 5 against 1
    assert bool(log_assignment(torch.full((1, 2), 1e9), centers).isfinite().all())


# ------------------------------------------------------------------------------------------------------ network and steps


def test_the_network_has_the_described_layers_and_its_decoder_mirrors_the_encoder():
    net = AutoEncoder(10, seed=0)
    encoder = 2432 + 51_264 + 73_856 + 20_490
    assert sum(weight.numel() for weight in net.parameters()) == encoder + 22_528 + 73_792 + 51_232 + 2403
    sides = []
    hooks = [layer.register_forward_hook(lambda _, __, out: sides.append(tuple(out.shape[1:]))) for layer in net.modules()
             if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]  # fmt: skip
    codes = net(torch.rand(2, 3, 32, 32))
    assert codes.shape == (2, 10) and net.decoder(codes).shape == (2, 3, 32, 32) and len(hooks) == 6
    assert sides == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (64, 8, 8), (32, 16, 16), (3, 32, 32)]
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), AutoEncoder(10, seed=0).parameters(), strict=True))


def test_the_loss_of_a_step_is_the_squared_error_and_the_weighted_divergence_from_the_target(setting):
    task = clustering(setting, cluster_weight=0.7)
    with torch.no_grad():
        task.centers += 0.3
    batch = next(iter(task.batches(0)))
    cells = setting.pack.images[setting.parts["train"][batch.numpy()]].astype(float) / 255
    with torch.no_grad():
        codes = task.network(torch.from_numpy(cells).permute(0, 3, 1, 2).float())
        drawn = task.network.decoder(codes).permute(0, 2, 3, 1).double().numpy()
    kl = references.kullback_leibler(task.target[batch].tolist(), references.student(codes.tolist(), task.centers.tolist()))
    assert float(task.loss(batch).detach()) == pytest.approx(((drawn - cells) ** 2).mean() + 0.7 * kl, rel=1e-5) and kl > 0.01
    plain = Reconstruct(TINY, setting)
    plain.network.load_state_dict(task.network.state_dict())
    assert float(plain.loss(batch).detach()) == pytest.approx(((drawn - cells) ** 2).mean(), rel=1e-5)


def test_the_loss_of_two_workers_is_that_of_one_on_the_whole_batch(setting):
    task = clustering(setting)
    batch = next(iter(task.batches(0)))
    whole, parts = float(task.loss(batch).detach()), []
    for rank in (0, 1):
        task.workers = Workers(rank, 2)
        parts.append(float(task.loss(batch).detach()))
    assert np.mean(parts) == pytest.approx(whole, rel=1e-6) and parts[0] != parts[1]


def test_the_target_is_that_of_all_training_cells_and_is_renewed_when_its_steps_are_full(setting):
    steps = Reconstruct(TINY, setting).steps()
    task = clustering(setting, target_steps=steps + 1)
    first = task.target.clone()
    with torch.no_grad():
        codes = task.network(task.train_cells.colour(torch.arange(len(task.train_cells))))
    assert first.numpy() == pytest.approx(
        np.array(references.target_of(references.student(codes.tolist(), task.centers.tolist()))), rel=1e-4
    )
    fitting = Fitting(task, setting)
    fitting.epoch(0)
    assert torch.equal(task.target, first) and int(task.since) == steps
    fitting.epoch(1)  # the step that fills them is within this epoch
    assert not torch.equal(task.target, first) and int(task.since) == 0
    with torch.no_grad():
        codes = task.network(task.train_cells.colour(torch.arange(len(task.train_cells))))
    q = references.student(codes.tolist(), task.centers.tolist())
    assert task.target.numpy() == pytest.approx(np.array(references.target_of(q)), rel=1e-4)
    assert task.clusters.tolist() == np.argmax(q, 1).tolist()
    assert torch.equal(task.result()[CENTERS], task.centers.detach())  # its own, not those of K-means on the codes as they are now


def test_a_training_whose_clusters_stay_is_at_its_end_and_moves_no_more(setting):
    task = clustering(setting)
    with torch.no_grad():
        task.clusters.fill_(9)  # all of them have changed when they are looked at
    fitting = Fitting(task, setting)
    fitting.epoch(0)
    assert float(task.changed) == 1 and not bool(task.settled) and task.steps() > 1 and task.learning_rate(1.0) == TINY.pretrain_rate
    task.optimizer.param_groups[0]["lr"] = 0.0
    task._renew()  # under the same weights
    assert float(task.changed) == 0 and bool(task.settled) and task.steps() == 1
    before = {name: tensor.clone() for name, tensor in task.named_parameters()}
    row = fitting.epoch(1)
    assert (
        row["learning_rate"] == 0 and row["loss"] > 0 and all(torch.equal(tensor, before[name]) for name, tensor in task.named_parameters())
    )


def test_types_are_not_looked_at_in_training(setting):
    other = replace(setting.pack, labels=np.random.default_rng(0).permutation(setting.pack.labels))
    for build in (Reconstruct, Cluster):
        states = []
        for pack in (setting.pack, other):
            own = replace(setting, pack=pack, previous=clustering(setting).result())
            fitting = Fitting(build(TINY, own), own)
            fit(fitting, epochs=2, after_epoch=lambda row: None)
            states.append(fitting.tensors())
        assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# ------------------------------------------------------------------------------------------------------ runs


@pytest.mark.parametrize(
    "place",
    [pytest.param(("reconstruct", 3), id="between the stages", marks=pytest.mark.slow), pytest.param(("cluster", 2), id="in the second")],
)
def test_a_run_that_is_stopped_ends_with_the_weights_and_rows_of_the_straight_run(setting, straight, place, tmp_path):
    config, wanted, rows = straight
    at, again = [], []

    def stop():
        return at[-1:] == [place]

    def report(row):
        at.append((row["stage"], row["epoch"]))

    # asked before the row is reported: the one after the named epoch is the last of this life
    with pytest.raises(Interrupted):
        execute(PROCEDURE, config, seed=1, pack=setting.pack, folder=tmp_path, report=report, stopping=stop)
    outcome = execute(PROCEDURE, config, seed=1, pack=setting.pack, folder=tmp_path, report=again.append)
    found, _ = load_state(tmp_path / MODEL)
    assert outcome.interruptions == 1 and found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [{**row, "seconds": 0} for row in again] == rows


@pytest.fixture(scope="module")
def straight(setting, tmp_path_factory):
    folder, rows, config = tmp_path_factory.mktemp("straight"), [], replace(TINY, reconstruct_epochs=4, cluster_epochs=4, target_steps=6)
    execute(PROCEDURE, config, seed=1, pack=setting.pack, folder=folder, report=rows.append)
    return config, load_state(folder / MODEL)[0], [{**row, "seconds": 0} for row in rows]


@pytest.mark.slow
def test_a_toy_set_of_three_looks_is_told_apart_and_an_export_gives_the_same(tmp_path):
    chance = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = chance.integers(200, 220, (90, 32, 32, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        side, colour = ((8, (40, 40, 40)), (16, (60, 20, 120)), (24, (150, 60, 40)))[label]
        y, x = 16 - side // 2 + chance.integers(-2, 3, 2)
        image[y : y + side, x : x + side] = np.array(colour) + chance.integers(0, 20, 3)
    pack = make_pack(
        images, labels, ("a", "b", "c"), [f"t{i // 6}.png#{i}" for i in range(90)], [f"t{i // 6}" for i in range(90)], np.ones((90, 2))
    )
    config, rows = replace(TINY, pretrain_rate=3e-4, reconstruct_epochs=30, cluster_epochs=5, kmeans_starts=5), []
    assert [stage.name for stage in stages_of(PROCEDURE, config)] == ["reconstruct", "cluster"]
    outcome = execute(PROCEDURE, config, seed=0, pack=pack, folder=tmp_path / "run", report=rows.append, evaluate_test=True)
    assert [(row["stage"], row["epoch"]) for row in rows] == [("reconstruct", e) for e in range(1, 31)] + [
        ("cluster", e) for e in range(1, 6)
    ]
    assert rows[29]["loss"] < rows[0]["loss"] / 3  # the crops are drawn again better and better
    assert (
        rows[-1]["largest_cluster"] < 0.5 and rows[-1]["smallest_cluster"] > 0.2 and rows[-1]["changed"] == 0 == rows[-1]["learning_rate"]
    )
    assert outcome.metrics["test_purity"] == outcome.metrics["test_ami"] == pytest.approx(1) and "test_ami_scored_fit" in outcome.metrics
    tensors, chosen = load_state(tmp_path / "run" / MODEL)[0], ccrl.split_of(config, pack, 0)["test"]
    predicted = ccrl.predict(config, ccrl.exported(config, tensors), pack.images[chosen], pack.classes, CPU)
    assert predicted["cluster"] == outcome.predictions["test"]["cluster"]
    net = AutoEncoder(config.embedding_dim, seed=0)
    net.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("ccrl.")})
    with torch.no_grad():
        codes = net(torch.from_numpy(pack.images[chosen]).permute(0, 3, 1, 2).float() / 255)
    assert log_assignment(codes, tensors[CENTERS]).argmax(1).tolist() == predicted["cluster"]
    assert np.stack([predicted[f"e_{i}"] for i in range(5)], 1) == pytest.approx(codes.numpy(), abs=1e-5)


def test_codes_that_are_all_alike_are_a_collapse(setting):
    task = clustering(replace(setting, parts=setting.parts | {"val": setting.parts["train"]}))  # fewer than 16 say nothing
    assert task.collapse() == ""
    with torch.no_grad():
        task.centers[1:] += 1e3
    assert task.collapse() == "each of 36 validation cells is in one cluster"
    with torch.no_grad():
        task.centers[1:] -= 1e3
        task.network.encoder[-1].weight.mul_(1e-4)
        task.network.encoder[-1].bias.fill_(1.0)
    assert "the codes of 36 validation cells are alike" in task.collapse()


def test_what_belongs_to_the_other_method_changes_nothing_and_what_does_not_fit_is_a_fault():
    other = {
        "temperature": 0.3,
        "pretrain_epochs": 9,
        "backbone": "resnet18",
        "queue_size": 7,
        "gray": 0.0,
        "weight_decay": 0.1,
        "whiten": 0.5,
    }
    assert canonical(replace(TINY, **other)) == TINY and TINY.pretrain_epochs == 0
    plain = canonical(CcrlConfig())
    assert canonical(replace(plain, reconstruct_epochs=5, cluster_epochs=6, target_steps=7, cluster_weight=0.5)) == plain
    assert canonical(replace(TINY, features="colours")) == canonical(
        replace(plain, features="colours", kmeans_starts=2, kmeans_fit="train")
    )
    alone = canonical(replace(TINY, cluster_epochs=0))
    assert canonical(replace(alone, cluster_weight=3.0, target_steps=9)) == alone
    assert [stage.name for stage in stages_of(PROCEDURE, alone)] == ["reconstruct"]
    first, second = (stage_hashes(PROCEDURE, replace(TINY, cluster_weight=weight), 1, "d", "c") for weight in (0.1, 0.2))
    assert first["reconstruct"] == second["reconstruct"] and first["cluster"] != second["cluster"]
    assert faults(TINY) == []
    [fault] = faults(replace(TINY, reconstruct_epochs=0))
    assert fault.startswith("reconstruct_epochs must be above 0 where method is dcec")


def test_stages_of_another_method_are_no_stages_though_a_preset_names_their_epochs():
    config = CcrlConfig(reconstruct_epochs=10, cluster_epochs=10)
    assert [stage.name for stage in stages_of(PROCEDURE, config)] == ["pretrain"]
    assert [stage.name for stage in stages_of(PROCEDURE, replace(config, method="dcec"))] == ["reconstruct", "cluster"]
