"""Steps in slices: the same training in less memory, where a network treats each image alone, and nowhere else."""

import copy
import weakref
from dataclasses import replace

import pytest
import timm
import torch
from driving import Bench
from torch import nn

from trainables import ccrl, scl, supcam
from trainables.data.synthetic_cells import cell_set
from trainables.data.synthetic_clusters import cluster_set
from trainables.data.synthetic_karyotypes import karyotype_set
from trainables.parts.checkpoint import load_state
from trainables.parts.execution import MODEL, execute, read_lives, read_outcome
from trainables.parts.loop import Fitting
from trainables.parts.micro import MICRO_BATCHES, each_alone, in_slices
from trainables.parts.procedure import Setting

SCL = scl.SclConfig(
    canvas=160, input_size=32, split=(0.6, 0.2, 0.2), backbone="test_convnext", embedding_dim=16, epochs=2, steps_per_epoch=2, learning_rate=1e-3,
)  # fmt: skip
SUPCAM = supcam.SupcamConfig(
    input_size=32, backbone="test_convnext", pretrain_epochs=1, warmup_epochs=0, pretrain_batch=8, queue_size=21, embedding_dim=8,
    finetune_epochs=1, finetune_batch=8,
)  # fmt: skip
CCRL = ccrl.CcrlConfig(backbone="test_convnext", pretrain_batch=16, queue_size=20, embedding_dim=8, head_norm=False)


def packs():
    return {
        "scl": (scl.split_of(SCL, pack := karyotype_set(6, homologues=1, size=32, canvas=160), 0), pack),
        "supcam": (supcam.split_of(SUPCAM, pack := cluster_set(12, size=32, seed=0), 0), pack),
        "ccrl": (ccrl.split_of(CCRL, pack := cell_set(80, seed=0), 0), pack),
    }


STEPS = {
    "scl": (lambda setting: scl.Train(SCL, setting), "model"),
    "supcam, pre-training": (lambda setting: supcam.Pretrain(SUPCAM, setting), "query"),
    "supcam, fine-tuning": (lambda setting: supcam.Finetune(SUPCAM, setting), "model"),
    "ccrl": (lambda setting: ccrl.Pretrain(CCRL, setting), "query"),
}


@pytest.mark.parametrize("which", STEPS)
def test_steps_in_slices_are_the_steps_of_the_whole_batch(which):
    parts, pack = packs()[which.partition(",")[0]]
    make, trained = STEPS[which]
    found, seen = {}, {}
    for slices in (1, 4):
        setting = Setting(pack, parts, seed=0, micro_batches=slices)
        task = make(setting).double().train()
        assert each_alone(task)
        sizes = seen[slices] = []
        for network in (task.query, task.key) if hasattr(task, "query") else (task.model,):
            network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
        getattr(task, trained).register_forward_pre_hook(lambda module, inputs, sizes=sizes: sizes.append(len(inputs[0])))
        fitting = Fitting(task, setting)
        steps = [fitting.step(batch, 0.01) for batch, _ in zip(fitting.task.batches(0), range(2), strict=False)]
        found[slices] = fitting.tensors() | {"losses": torch.stack(steps)}
    assert max(seen[4]) * 4 == max(seen[1])
    assert found[1].keys() == found[4].keys()
    for name, tensor in found[1].items():
        assert torch.allclose(tensor.double(), found[4][name].double(), rtol=1e-8, atol=1e-10), name


def test_only_one_slice_s_activations_are_held():
    network, images = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(8, 6)
    held = []
    network[1].register_forward_hook(lambda module, inputs, output: held.append(weakref.ref(output)))
    rows = in_slices(network, images, 1)
    assert sum(ref() is not None for ref in held) == 1
    whole = torch.autograd.grad(rows.square().sum(), list(network.parameters()))
    held.clear()
    rows = in_slices(network, images, 4)
    assert len(held) == 4 and all(ref() is None for ref in held)
    for one, other in zip(whole, torch.autograd.grad(rows.square().sum(), list(network.parameters())), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "more", "alone"),
    [
        ("test_vit", {}, True), ("test_convnext", {}, True), ("vit_small_patch8_224", {}, True), ("test_resnet", {}, False),
        ("test_efficientnet", {}, False), ("test_vit", {"drop_path_rate": 0.1}, False), ("test_vit", {"proj_drop_rate": 0.1}, False),
        ("test_vit", {"patch_drop_rate": 0.5}, False), ("swin_tiny_patch4_window7_224", {}, False),
    ],
)  # fmt: skip
def test_a_network_with_batch_statistics_or_dropout_does_not_treat_each_image_alone(name, more, alone):
    assert each_alone(timm.create_model(name, **more)) == alone


# ------------------------------------------------------------------------------------------------------ a run without room


class Small:
    """A device that has room for so many images at a time while a network is trained."""

    def __init__(self, monkeypatch, room, fault):
        self.asked = []
        real = timm.create_model

        def make(name, **more):
            model = real(name, **more)
            model.register_forward_pre_hook(self.look)
            return model

        self.room, self.fault = room, fault
        monkeypatch.setattr(timm, "create_model", make)

    def look(self, model, inputs):
        if model.training and torch.is_grad_enabled():
            self.asked.append(len(inputs[0]))
            if len(inputs[0]) > self.room:
                raise self.fault("no room")


@pytest.mark.parametrize("fault", [torch.cuda.OutOfMemoryError, pytest.param(MemoryError, marks=pytest.mark.slow)])
def test_a_run_that_is_too_large_is_done_in_slices_and_ends_with_the_same_weights(tmp_path, monkeypatch, fault):
    pack = karyotype_set(6, homologues=1, size=32, canvas=160)
    whole = execute(scl.PROCEDURE, SCL, seed=0, pack=pack, folder=tmp_path / "whole")
    small = Small(monkeypatch, 12, fault)
    sliced = execute(scl.PROCEDURE, SCL, seed=0, pack=pack, folder=tmp_path / "sliced")
    assert small.asked[0] == 48 and set(small.asked[1:]) == {12}
    assert (whole.micro_batches, sliced.micro_batches) == (1, MICRO_BATCHES)
    assert read_outcome(tmp_path / "sliced").micro_batches == MICRO_BATCHES
    assert [len(read_lives(tmp_path / name)) for name in ("whole", "sliced")] == [1, 2]
    (one, _), (other, _) = (load_state(tmp_path / name / MODEL) for name in ("whole", "sliced"))
    assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-4) for name in one)
    assert [row["loss"] for row in sliced.history] == pytest.approx([row["loss"] for row in whole.history], rel=1e-4)


def test_a_run_that_is_too_large_in_slices_too_ends_as_out_of_memory(tmp_path, monkeypatch):
    small = Small(monkeypatch, 11, torch.cuda.OutOfMemoryError)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="no room"):
        execute(scl.PROCEDURE, SCL, seed=0, pack=karyotype_set(6, homologues=1, size=32, canvas=160), folder=tmp_path)
    assert small.asked == [48, 12]


def test_a_network_with_batch_statistics_is_not_tried_in_slices(tmp_path, monkeypatch):
    small = Small(monkeypatch, 12, torch.cuda.OutOfMemoryError)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="no room"):
        execute(
            scl.PROCEDURE, replace(SCL, backbone="test_resnet"), seed=0, pack=karyotype_set(6, homologues=1, size=32, canvas=160), folder=tmp_path,
        )  # fmt: skip
    assert small.asked == [48]


def test_what_was_done_in_slices_is_said_and_stands_in_its_record(toy, toy_pack, tmp_path, monkeypatch):
    import driving

    real = driving.execute
    monkeypatch.setattr(driving, "execute", lambda *arguments, **more: replace(copy.deepcopy(real(*arguments, **more)), micro_batches=4))
    bench = Bench(toy, tmp_path / "study", toy_pack, trials=0, repeats=1, tables=["1"], arms=["plain"])
    ledger, director = bench.open()
    bench.finish(director)
    (record,) = ledger.records.values()
    assert record["micro_batches"] == 4
    assert director.notes == ["1/plain, seed 0: too large for the memory; each step was computed in 4 slices, which is the same training"]
    bench.close()
