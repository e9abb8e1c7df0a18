"""GAN clustering as an arm of ccrl: its networks, its equations against plain float64 loops and finite differences, whose weights each
update moves, its clusters; a toy set whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import references
import torch
from torch import nn

from trainables import ccrl
from trainables.baselines.gan import Gan, Generator, Trunk, as_clusters, category_loss, critic_loss, gradient_penalty
from trainables.ccrl import PROCEDURE, CcrlConfig, canonical, faults
from trainables.data.synthetic_cells import cell_set
from trainables.parts.checkpoint import load_state
from trainables.parts.errors import Interrupted
from trainables.parts.execution import MODEL, execute, stages_of
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting
from trainables.parts.workers import Workers

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TINY = canonical(
    CcrlConfig(method="gan", gan_epochs=2, gan_batch=4, gan_width=6, gan_copies=1, kmeans_fit="train", kmeans_starts=2)
)  # two steps an epoch


@pytest.fixture(scope="module")
def setting():
    pack = cell_set(70, seed=0)
    return Setting(pack, ccrl.split_of(TINY, pack, 0), seed=3)


# ------------------------------------------------------------------------------------------------------ equations


def numbers(seed):
    chance = np.random.default_rng(seed)
    first, last = chance.normal(size=(7, 5)), chance.normal(size=7)
    return chance.normal(size=(4, 5)), chance.normal(size=(4, 5)), chance.random(4), first, last


@pytest.mark.parametrize("seed", range(3))
def test_the_critics_losses_and_the_categories_are_those_of_plain_loops(seed):
    real, drawn, share, first, last = (torch.from_numpy(value) for value in numbers(seed))

    def critic(rows):
        return ((rows @ first.T).relu() @ last)[:, None]

    apart, penalty = references.critic_losses(real.tolist(), drawn.tolist(), share.tolist(), first.tolist(), last.tolist())
    assert float(critic_loss(critic(real), critic(drawn))) == pytest.approx(apart, rel=1e-12)
    between = share[:, None] * real + (1 - share[:, None]) * drawn
    assert float(gradient_penalty(critic, between).detach()) == pytest.approx(penalty, rel=1e-12)
    scores, category = real[:, :3], torch.tensor([0, 2, 1, 1])
    assert float(category_loss(scores, category)) == pytest.approx(references.negative_log_likelihood(scores.tolist(), category.tolist()))


def test_the_gradient_of_the_penalty_is_that_of_finite_differences():
    """Of a whole trunk and head: a gradient's gradient. Smooth in the place of its ReLUs, at whose corners no difference is a gradient."""
    torch.manual_seed(0)
    trunk, head = Trunk(2).double(), nn.Linear(2, 1).double()
    trunk.blocks = nn.Sequential(*trunk.blocks[:2])
    for block in trunk.blocks:
        block.own = nn.Sequential(*(nn.Softplus(4.0) if isinstance(layer, nn.ReLU) else layer for layer in block.own))
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64) * 2 - 1
    weights = [*trunk.parameters(), *head.parameters()]

    def penalty():
        return gradient_penalty(lambda some: head(trunk(some)), images)

    found = torch.autograd.grad(penalty(), weights, allow_unused=True)
    assert found[-1] is None  # a constant added to all scores is in no gradient
    for weight, gradient in zip(weights, found, strict=True):
        gradient = torch.zeros_like(weight) if gradient is None else gradient
        for place in {0, weight.numel() // 2, weight.numel() - 1}:
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    weight.view(-1)[place] += step
                values.append(float(penalty().detach()))
                with torch.no_grad():
                    weight.view(-1)[place] -= step
            assert float(gradient.reshape(-1)[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_clusters_are_the_largest_of_the_scores_also_of_negative_ones_and_rows_that_are_scaled_are_the_scores():
    chance = np.random.default_rng(0)
    weight, bias, rows = chance.normal(size=(4, 9)), chance.normal(size=4), chance.normal(size=(200, 9))
    scores = rows @ weight.T + bias
    found = as_clusters(weight, bias)
    assert found.scaled(rows) == pytest.approx(scores) and found.assign(rows).tolist() == scores.argmax(1).tolist()
    assert len(set(found.assign(rows))) == 4


# ------------------------------------------------------------------------------------------------------ networks and updates


def test_the_networks_have_the_described_layers():
    width, block = 128, 2 * (9 * 128**2 + 128)
    up, down = (
        block + 4 * width + width**2 + width,
        block + width**2 + width,
    )  # a shortcut of 1 x 1; the generator's have two normalisations
    makes = (32 + 4 + 1) * width * 16 + 3 * up + 2 * width + (27 * width + 3)
    first = (27 * width + width) + (9 * width**2 + width) + (3 * width + width)
    sizes = [sum(value.numel() for value in net.parameters()) for net in (Generator(4, width), Trunk(width))]
    assert sizes == [makes, first + down + 2 * block]
    generator, trunk, sides = Generator(4, 6), Trunk(6), []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: sides.append(tuple(out.shape[1:]))) for layer in (*generator.layers, *trunk.blocks)
    ]
    images = generator(torch.randn(2, 36))
    assert trunk(images).shape == (2, 6) and float(images.detach().abs().max()) < 1 and len(hooks) == 14
    assert sides == [(96,), (6, 4, 4), (6, 8, 8), (6, 16, 16), *[(6, 32, 32)] * 3, *[(3, 32, 32)] * 2, (6, 16, 16), *[(6, 8, 8)] * 4]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in trunk.modules())


def test_each_update_moves_the_weights_of_its_networks_and_the_moments_of_no_other(setting):
    task = Gan(TINY, setting).train()
    fitting, [batch, *_] = Fitting(task, setting), task.batches(0)
    assert [turn.whose for turn in batch] == ["critic"] * 5 + ["generator", "categories"]
    wanted = {"critic": {"trunk", "critic"}, "generator": {"generator"}, "categories": {"generator", "trunk", "category"}}
    for turn in batch:
        task.turns = lambda _, turn=turn: (turn,)
        before = {name: value.detach().clone() for name, value in task.named_parameters()}
        count = {name: float(task.optimizer.state.get(value, {}).get("step", 0)) for name, value in task.named_parameters()}
        fitting.step(batch, 1e-3)
        moved = {name.partition(".")[0] for name, value in task.named_parameters() if not torch.equal(before[name], value)}
        counted = {
            name.partition(".")[0]
            for name, value in task.named_parameters()
            if task.optimizer.state.get(value, {}).get("step", 0) > count[name]
        }
        assert moved == counted == wanted[turn.whose]
        assert all(value.requires_grad for value in task.parameters())


def test_the_critic_sees_each_copy_of_each_cell_once_and_a_copy_is_the_cell_turned_over(setting):
    config = replace(TINY, gan_copies=4, gan_batch=2)
    task, n = Gan(config, setting), len(setting.parts["train"])
    batches = list(task.batches(0))
    assert len(batches) == task.steps() == 4 * n // 10
    seen = [(int(a), int(b)) for batch in batches for turn in batch[:5] for a, b in zip(turn.chosen, turn.copy, strict=True)]
    assert len(set(seen)) == len(seen) == 10 * task.steps() and {copy for _, copy in seen} == {0, 1, 2, 3}
    turn = replace(batches[0][0], chosen=torch.zeros(4, dtype=torch.int64), copy=torch.arange(4))
    cell = torch.from_numpy(setting.pack.images[setting.parts["train"][0]]).permute(2, 0, 1) / 127.5 - 1
    for found, dims in zip(task._real(turn, slice(0, 4)), ((), (2,), (1,), (1, 2)), strict=True):
        assert torch.allclose(found, cell.flip(dims), atol=1e-6)


def test_the_losses_of_two_workers_are_those_of_one_on_the_whole_batch(setting):
    """In evaluation: there batch normalisation, which goes over the workers in training, has statistics of its own."""
    task = Gan(TINY, setting).eval()
    for turn in next(iter(task.batches(0)))[4:]:
        task.workers = Workers()
        whole, parts = float(task.loss(turn).detach()), []
        for rank in (0, 1):
            task.workers = Workers(rank, 2)
            parts.append(float(task.loss(turn).detach()))
        assert np.mean(parts) == pytest.approx(whole, rel=1e-5, abs=1e-6) and parts[0] != parts[1]


def test_types_are_not_looked_at_in_training(setting):
    states = []
    for labels in (setting.pack.labels, np.random.default_rng(0).permutation(setting.pack.labels)):
        own = replace(setting, pack=replace(setting.pack, labels=labels))
        fitting = Fitting(Gan(TINY, own), own)
        fitting.epoch(0)
        states.append(fitting.tensors())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# ------------------------------------------------------------------------------------------------------ runs


def test_a_run_that_is_stopped_ends_with_the_straight_runs_weights_and_an_export_names_the_largest_score(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(Gan, "collapse", lambda self: "")  # after four steps it may well have
    rows, at, again = [], [], []
    execute(PROCEDURE, TINY, seed=1, pack=setting.pack, folder=tmp_path / "straight", report=rows.append, evaluate_test=True)
    wanted = load_state(tmp_path / "straight" / MODEL)[0]
    with pytest.raises(Interrupted):
        execute(
            PROCEDURE, TINY, seed=1, pack=setting.pack, folder=tmp_path / "run", report=at.append, stopping=lambda: True
        )  # after the first epoch
    outcome = execute(PROCEDURE, TINY, seed=1, pack=setting.pack, folder=tmp_path / "run", report=again.append, evaluate_test=True)
    found = load_state(tmp_path / "run" / MODEL)[0]
    assert len(at) == outcome.interruptions == 1 and found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in rows]
    assert {"critic_distance", "critic_penalty", "category_loss", "largest_cluster"} <= rows[-1].keys()
    chosen = ccrl.split_of(TINY, setting.pack, 0)["test"]
    predicted = ccrl.predict(TINY, ccrl.exported(TINY, found), setting.pack.images[chosen], setting.pack.classes, CPU)
    assert predicted["cluster"] == outcome.predictions["test"]["cluster"]
    trunk = Trunk(TINY.gan_width)
    trunk.load_state_dict({name: tensor for name, tensor in found.items() if not name.startswith("ccrl.")})
    with torch.no_grad():
        features = trunk(torch.from_numpy(setting.pack.images[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert np.stack([predicted[f"e_{i}"] for i in range(6)], 1) == pytest.approx(features.numpy(), abs=1e-5)


def test_cells_in_one_cluster_and_crops_that_are_alike_are_a_collapse(setting):
    task = Gan(TINY, replace(setting, parts=setting.parts | {"val": setting.parts["train"]})).eval()
    with torch.no_grad():
        task.category.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    assert task.collapse() == "each of 36 validation cells is in one cluster"
    with torch.no_grad():
        task.generator.layers[-2].weight.zero_()
        task.category.bias.zero_()
        task.category.weight.copy_(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 9)
    assert task.collapse().endswith("64 crops that the generator has drawn are alike")


def test_what_belongs_to_the_other_methods_changes_nothing_and_what_does_not_fit_is_a_fault(setting):
    other = {"temperature": 0.3, "pretrain_epochs": 9, "pretrain_batch": 4096, "embedding_dim": 7, "cluster_epochs": 5, "whiten": 0.5}
    assert canonical(replace(TINY, **other)) == TINY and [stage.name for stage in stages_of(PROCEDURE, TINY)] == ["adversarial"]
    plain = canonical(CcrlConfig())
    assert canonical(replace(plain, gan_epochs=5, gan_batch=6, gan_rate=1e-3, category_weight=2.0)) == plain
    assert faults(TINY, setting.pack, setting.parts) == []
    [fault] = faults(replace(TINY, gan_epochs=0))
    assert fault.startswith("gan_epochs must be above 0 where method is gan")
    [fault] = faults(replace(TINY, gan_batch=9), setting.pack, setting.parts)
    assert fault == "gan_batch must leave a step of 5 batches, got 9, which makes 45 crops of 36; set gan_batch=7"
