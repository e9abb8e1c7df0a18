"""Statistics of batch normalisation before a score: against float64, in every procedure, and that training does not notice."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables import ccrl, scl, supcam
from trainables.data.synthetic_cells import cell_set
from trainables.data.synthetic_clusters import cluster_set
from trainables.data.synthetic_karyotypes import karyotype_set
from trainables.parts.batch_norm import AT_THE_END, BATCH, ON_THE_WAY, chosen_images, pooled, renew_statistics
from trainables.parts.checkpoint import load_state
from trainables.parts.execution import MODEL, execute, stages_of
from trainables.parts.loop import Fitting, fit
from trainables.parts.procedure import Setting, Task
from trainables.parts.randomness import generator

SUPCAM = supcam.SupcamConfig(
    input_size=32, backbone="test_resnet", pretrain_epochs=2, warmup_epochs=0, pretrain_batch=8, pretrain_rate=0.1, queue_size=20,
    embedding_dim=8, ema_decay=0.9, finetune_epochs=2, finetune_batch=8,
)  # fmt: skip
SCL = scl.SclConfig(
    canvas=160, input_size=32, split=(0.6, 0.2, 0.2), backbone="test_efficientnet", embedding_dim=16, epochs=2, steps_per_epoch=4,
    learning_rate=1e-3,
)  # fmt: skip
CCRL = ccrl.CcrlConfig(
    backbone="cell_preact_tiny", pretrain_epochs=2, warmup_epochs=0, pretrain_batch=8, queue_size=21, embedding_dim=6, projector_hidden=10,
    predictor_hidden=5, kmeans_starts=2, head_norm=True, ema_decay=0.9,
)  # fmt: skip
STAGES = {
    "supcam pretrain": (supcam, SUPCAM, 0),
    "supcam class centres": (supcam, replace(SUPCAM, margin_form="cluster_margin"), 0),
    "supcam finetune": (supcam, SUPCAM, 2),
    "scl": (scl, SCL, 0),
    "scl without contrast": (scl, replace(SCL, lambda1=0.0), 0),
    "ccrl": (ccrl, CCRL, 0),
    "ccrl without predictor": (ccrl, replace(CCRL, predictor=False), 0),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def pack_of(procedure):
    if procedure == "supcam":
        return cluster_set(12, size=32, seed=0)
    return karyotype_set(12, homologues=1, size=32, canvas=160) if procedure == "scl" else cell_set(70, seed=0)


def setting_of(module, config):
    pack = pack_of(module.PROCEDURE.name)
    return Setting(pack, module.PROCEDURE.parts(config, pack, 0), seed=0)


def fitting_of(name):
    module, config, stage = STAGES[name]
    given = setting_of(module, config)
    return Fitting(module.PROCEDURE.stages[stage].build(config, given), given)


def norms(task):
    return {name: module for name, module in task.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}


class Small(Task):
    """Two classes of points, told apart by two layers with a normalisation and dropout behind each. `drift`: added after each step to what
    the first normalisation takes away again."""

    def __init__(self, images=301, drift=0.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second, self.last = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        self.norms = nn.ModuleList([nn.BatchNorm1d(5), nn.BatchNorm1d(4)])
        self.dropout = nn.Dropout(0.5)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        self.x = torch.randn(images, 3, generator=generator("points")) * torch.tensor([1.0, 5.0, 0.2]) + 2
        self.y = (self.x[:, 0] + self.x[:, 1] / 5 > 2.4).long()
        self.drift, self.asked = drift, []

    def network(self, x):
        x = self.dropout(F.relu(self.norms[0](self.first(x))))
        return self.last(self.dropout(F.relu(self.norms[1](self.second(x)))))

    def steps(self):
        return 20

    def batches(self, epoch):
        chance = generator("small", epoch)
        for _ in range(self.steps()):
            yield torch.randint(len(self.x), (64,), generator=chance)

    def loss(self, batch):
        return F.cross_entropy(self.network(self.x[batch]), self.y[batch])

    @torch.no_grad()
    def after_step(self):
        self.first.bias += self.drift

    def learning_rate(self, epoch):
        return 0.01

    def look(self, chosen):
        self.asked.append(chosen)
        self.network(self.x[chosen])

    @torch.no_grad()
    def validate(self):
        return {"val_accuracy": float((self.network(self.x).argmax(1) == self.y).double().mean())}


def by_hand(task):
    """Mean and variance of each normalisation's input over all images, in float64: each batch is normalised by its own on the way."""
    inputs = [[], []]
    for chosen in chosen_images(len(task.x), ON_THE_WAY):
        x = task.x[chosen].double().numpy()
        for layer, norm, kept in zip((task.first, task.second), task.norms, inputs, strict=True):
            x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
            kept.append(x)
            x = (x - x.mean(0)) / np.sqrt(((x - x.mean(0)) ** 2).mean(0) + norm.eps)
            x = np.maximum(0, x * norm.weight.detach().double().numpy() + norm.bias.detach().double().numpy())
    return [(np.concatenate(rows).mean(0), np.concatenate(rows).var(0, ddof=1)) for rows in inputs]


@pytest.mark.parametrize("images", [40, 128, 129, 301])
def test_the_statistics_are_those_of_all_images_in_float64(images):
    task = Small(images)
    fitting = Fitting(task, Setting(pack_of("ccrl"), {"train": np.arange(images)}, 0))
    fitting.epoch(0)
    fitting.validate(last=False)
    for norm, (mean, variance) in zip(task.norms, by_hand(task), strict=True):
        assert np.allclose(norm.running_mean, mean, rtol=1e-5, atol=1e-5) and np.allclose(norm.running_var, variance, rtol=1e-5)
        assert not any(module.training for module in task.modules())


def test_moments_of_unequal_batches_pool_to_those_of_all_numbers():
    rows = torch.randn(50, 3, generator=generator("rows"), dtype=torch.float64) + torch.arange(50)[:, None]
    parts = rows.split([2, 30, 18])
    mean, variance = pooled([(len(part), part.mean(0), part.var(0)) for part in parts])
    assert torch.allclose(mean, rows.mean(0)) and torch.allclose(variance, rows.var(0))


@pytest.mark.parametrize("images", [2, 128, 129, 500, 999, 5000])
def test_the_images_are_the_same_each_time_and_no_batch_is_much_smaller_than_another(images):
    batches = chosen_images(images, 500)
    chosen = torch.cat(batches)
    assert len(chosen) == len(chosen.unique()) == min(images, 500) and int(chosen.min()) >= 0 and int(chosen.max()) < images
    assert torch.equal(chosen, torch.cat(chosen_images(images, 500)))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= BATCH and max(sizes) - min(sizes) <= 1
    assert images == 2 or not torch.equal(chosen, chosen.sort().values)  # a part may stand in the order of its classes


def test_a_score_does_not_change_with_what_batch_normalisation_takes_away():
    """The lottery: running averages of an input that moves by 2 a step lie 18 behind, and every image is taken for one class."""
    scores = {}
    for drift in (0.0, 2.0):
        task, rows = Small(drift=drift), []
        fit(Fitting(task, Setting(pack_of("ccrl"), {"train": np.arange(301)}, 0)), epochs=5, after_epoch=rows.append)
        scores[drift] = [row["val_accuracy"] for row in rows]
    assert scores[0.0][-1] > 0.9 and scores[2.0] == pytest.approx(scores[0.0], abs=0.02)


def test_a_task_without_batch_normalisation_is_asked_for_nothing():
    task = Small()
    task.norms = nn.ModuleList([nn.LayerNorm(5), nn.LayerNorm(4)])
    renew_statistics(task, 301, ON_THE_WAY)
    assert task.asked == [] and not task.training


def test_a_procedure_that_forgets_its_networks_is_told():
    class Without(Small):
        look = Task.look

    class Half(Small):
        def look(self, chosen):
            self.norms[0](self.first(self.x[chosen]))

    with pytest.raises(NotImplementedError, match="Without has batch normalisation and no `look`"):
        renew_statistics(Without(), 301, ON_THE_WAY)
    with pytest.raises(RuntimeError, match=r"Half.look must pass .* it left out norms.1"):
        renew_statistics(Half(), 301, ON_THE_WAY)


@pytest.mark.parametrize("name", STAGES)
def test_what_is_trained_does_not_depend_on_when_statistics_are_taken(name):
    looked, plain = fitting_of(name), fitting_of(name)
    for epoch in range(2):
        looked.epoch(epoch)
        looked.validate(last=False)
        plain.epoch(epoch)
    statistics = {f"{norm}.{kind}" for norm, module in norms(looked.task).items() for kind, _ in module.named_buffers()}
    for key, tensor in looked.task.state_dict().items():
        if key not in statistics:
            assert torch.equal(tensor, plain.task.state_dict()[key]), key
    changed = [key for key in statistics if not torch.equal(looked.task.state_dict()[key], plain.task.state_dict()[key])]
    assert len(changed) == len(statistics)


def test_images_are_shown_without_views_and_from_the_training_part_alone(monkeypatch):
    for name in STAGES:
        fitting, shown = fitting_of(name), []
        network = fitting.task.key if hasattr(fitting.task, "key") else fitting.task.model
        network.register_forward_pre_hook(lambda module, inputs, shown=shown: shown.append(inputs[0]))
        renew_statistics(fitting.task, len(fitting.parts["train"]), AT_THE_END)
        pixels = torch.from_numpy(fitting.task.setting.pack.images[fitting.parts["train"]]).float() / 255
        colour = pixels.ndim == 4
        wanted = ccrl.standardise(pixels.permute(0, 3, 1, 2)) if colour else supcam.standardise(pixels[:, None])
        assert torch.equal(torch.cat(shown), wanted[torch.cat(chosen_images(len(wanted), AT_THE_END))])


# ------------------------------------------------------------------------------------------------------ what is handed on

RUNS = {"supcam": (supcam, SUPCAM), "scl": (scl, SCL), "ccrl": (ccrl, CCRL)}


@pytest.mark.parametrize("name", RUNS)
def test_what_a_run_leaves_has_the_statistics_of_its_weights_and_the_score_that_was_told(name, tmp_path):
    module, config = RUNS[name]
    kept, given = {}, setting_of(module, config)

    class Store:
        def get(self, key):
            return kept.get(key)

        def put(self, key, tensors, values):
            kept[key] = (tensors, values)

    outcome = execute(module.PROCEDURE, config, seed=0, pack=given.pack, folder=tmp_path, store=Store())
    left = {"last": load_state(tmp_path / MODEL)[0]} | {key: tensors for key, (tensors, _) in kept.items()}
    for tensors in left.values():
        stage = next(s for s in stages_of(module.PROCEDURE, config)[::-1] if set(s.build(config, given).result()) == set(tensors))
        task = stage.build(config, given)
        own = task.state_dict()
        for part in ("query", "key"):
            own |= {f"{part}.backbone.{key[len(part) + 1 :]}": tensor for key, tensor in tensors.items() if key.startswith(f"{part}.")}
        own |= {
            f"model.{key}": tensor for key, tensor in tensors.items() if f"model.{key}" in own and tensor.shape == own[f"model.{key}"].shape
        }
        task.load_state_dict(own)
        renew_statistics(task, len(given.parts["train"]), AT_THE_END)
        compared = 0
        for key, tensor in task.result().items():
            if "running" in key:
                assert torch.equal(tensor, tensors[key]), key
                compared += 1
        assert compared
    if name != "ccrl":  # its score on the way is of fewer starts
        assert outcome.history[-1]["val_accuracy"] == outcome.metrics["val_accuracy"]
