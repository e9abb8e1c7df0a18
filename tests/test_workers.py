"""Two workers of one run on a CPU (gloo) against one worker on the same global batch."""

import time
import traceback
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from trainables import ccrl, supcam
from trainables.baselines import gan
from trainables.data.synthetic_cells import cell_set
from trainables.data.synthetic_clusters import cluster_set
from trainables.parts import execution
from trainables.parts.batch_norm import AT_THE_END, renew_statistics
from trainables.parts.checkpoint import load_state, save_state
from trainables.parts.errors import Diverged
from trainables.parts.execution import MODEL, execute, read_outcome
from trainables.parts.loop import Fitting
from trainables.parts.procedure import Setting
from trainables.parts.workers import Workers, _synchronise
from trainables.supcam import PROCEDURE, Finetune, Pretrain, SupcamConfig

TINY = SupcamConfig(
    input_size=32, backbone="test_resnet", pretrain_epochs=2, warmup_epochs=0, pretrain_batch=8, pretrain_rate=0.01, queue_size=21,
    embedding_dim=8, ema_decay=0.9, finetune_epochs=2, finetune_batch=8,
)  # fmt: skip
CASES = {
    "full method": (Pretrain, TINY),
    "MoCo v2 views": (Pretrain, replace(TINY, views="moco_v2", composition="off", contrast="info_nce", margin_form="none")),
    "class weights": (Pretrain, replace(TINY, margin_form="parametric_margin", composition="heavy", blend="lambda")),
    "class centres": (Pretrain, replace(TINY, margin_form="cluster_margin")),
    "split keys": (Pretrain, replace(TINY, key_batch="split", key_parts=2)),
    "shuffled batches": (Pretrain, replace(TINY, key_batch="shuffled", key_parts=2)),
    "keys by running averages": (Pretrain, replace(TINY, key_batch="running")),
    "own old keys masked": (Pretrain, replace(TINY, composition="off", contrast="info_nce", margin_form="none", mask_own=True)),
    "fused normalisation": (Pretrain, replace(TINY, backbone="test_efficientnet")),
    "fine-tuning": (Finetune, TINY),
    "fine-tuning, fused": (Finetune, replace(TINY, backbone="test_efficientnet")),
}
STEPS = 3
RENEWED = ("full method", "fused normalisation", "fine-tuning, fused")


SMALL = replace(TINY, pretrain_rate=1e-4, finetune_rate=1e-4)  # so that rounding does not grow over a whole run


def setting(workers=None):
    pack = cluster_set(12, size=32, seed=0)
    return Setting(pack, supcam.split_of(TINY, pack, 0), seed=0, workers=workers or Workers())


def in_float64(case, given):
    stage, config = case
    task = stage(config, given).double()
    for backbone in [task.query, task.key] if stage is Pretrain else [task.model]:
        backbone.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    return task


def several_steps(case, workers):
    """Losses of STEPS steps, the mean over workers, and the state after them. In float64: in float32 a tiny network that has just been
    initialised makes differences of 1e-4 in the first loss out of the order in which two workers add, and of 1e-2 within three steps."""
    given = setting(workers)
    task = in_float64(CASES[case], given).train()
    fitting = Fitting(task, given)
    found = [
        workers.mean(fitting.step(batch, fitting.task.learning_rate(number / STEPS)))
        for number, batch in zip(range(STEPS), fitting.task.batches(0), strict=False)
    ]
    return fitting.tensors() | {"losses": torch.stack(found)}


# ------------------------------------------------------------------------------------------------------ what runs in each worker


def steps_of_every_case(workers, folder):
    for case in CASES:
        save_state(folder / f"{case}-{workers.rank}", several_steps(case, workers), {})


def several_turns(workers):
    """As `several_steps`, of a method whose step has losses that leave some weights without a gradient."""
    config = ccrl.canonical(ccrl.CcrlConfig(method="gan", gan_epochs=1, gan_batch=4, gan_width=6, gan_copies=2))
    pack = cell_set(70, seed=0)
    given = Setting(pack, ccrl.split_of(config, pack, 0), seed=0, workers=workers)
    task = gan.Gan(config, given).double().train()
    for network in (task.generator, task.trunk, task.critic, task.category):
        network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    fitting = Fitting(task, given)
    found = [workers.mean(fitting.step(batch, 1e-3)) for _, batch in zip(range(STEPS), task.batches(0), strict=False)]
    task.told.zero_()  # of each worker's own part, until it is read
    return fitting.tensors() | {"losses": torch.stack(found)}


def turns(workers, folder):
    save_state(folder / f"turns-{workers.rank}", several_turns(workers), {})


def normalise(workers, folder):
    given = normalisation_inputs()
    for name, layer in given["layers"].items():
        module = _synchronise(nn.Sequential(layer)).train()
        part = workers.slice(len(given["x"]))
        x = given["x"][part].clone().requires_grad_()
        (module(x) * given["weight"][part]).sum().backward()  # summed, not averaged: gradients of parameters add up over workers
        tensors = {"x": x.grad, "out": module(x.detach())} | {key: p.grad for key, p in module.named_parameters() if p.requires_grad}
        tensors |= {f"after {key}": buffer for key, buffer in module.named_buffers()}
        save_state(folder / f"norm {name}-{workers.rank}", tensors, {})


def gathers(workers, folder):
    rows = torch.arange(6.0).view(3, 2) + 10 * workers.rank
    both = {"float": workers.gather(rows), "labels": workers.gather(rows[:, 0].long()), "mean": workers.mean(rows.sum())}
    both["strided"] = workers.gather(rows.T)
    save_state(folder / f"gather-{workers.rank}", both, {})


class Slow:
    """Makes the first worker late where it writes."""

    def __enter__(self):
        self.write = execution.save_state
        execution.save_state = lambda *arguments: (time.sleep(0.3), self.write(*arguments))

    def __exit__(self, *fault):
        execution.save_state = self.write


class OneSidedStore(dict):
    """A store in which another run has put the stage between the two workers' looks: the second one finds it."""

    def __init__(self, found):
        self.found = found

    def get(self, key):
        return self.found

    def put(self, key, tensors, values):
        self[key] = tensors


def renewed(case, workers):
    """The state of a stage whose statistics of batch normalisation were taken anew, in float64 as in `several_steps`."""
    given = setting(workers)
    task = in_float64(CASES[case], given)
    renew_statistics(task, len(given.parts["train"]), AT_THE_END)
    return task.state_dict()


def renews(workers, folder):
    for case in RENEWED:
        save_state(folder / f"renewed {case}-{workers.rank}", renewed(case, workers), {})


def whole_run(workers, folder):
    pack = cluster_set(12, size=32, seed=0)
    run = folder / "run"
    with Slow():
        execute(PROCEDURE, SMALL, seed=0, pack=pack, folder=run, workers=workers, evaluate_test=True)
    rows = []

    def stop(row):
        rows.append(row)
        if len(rows) == 3:
            raise KeyboardInterrupt

    try:
        execute(PROCEDURE, SMALL, seed=0, pack=pack, folder=folder / "again", workers=workers, report=stop, checkpoint_seconds=0)
    except KeyboardInterrupt:
        distributed.barrier()
    execute(PROCEDURE, SMALL, seed=0, pack=pack, folder=folder / "again", workers=workers)
    found = None if workers.rank == 0 else ({}, {"epochs": 2, "history": []})
    execute(PROCEDURE, SMALL, seed=0, pack=pack, folder=folder / "one-sided", workers=workers, store=OneSidedStore(found))


class Spoilt(Pretrain):
    """Not finite on the second worker alone."""

    def loss(self, batch):
        loss = super().loss(batch)
        return loss * float("nan") if self.workers.rank == 1 and self.count_steps() == 2 else loss

    def count_steps(self):
        self.done = getattr(self, "done", 0) + 1
        return self.done


def diverges(workers, folder):
    given = setting(workers)
    fitting = Fitting(Spoilt(TINY, given), given)
    try:
        fitting.epoch(0)
    except Diverged as fault:
        (folder / f"diverged-{workers.rank}").write_text(str(fault))


def everything(rank, folder):
    """One process for all of it: starting one takes longer than what it does."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(minutes=1))
    workers = Workers(rank, 2)
    for part in (gathers, normalise, steps_of_every_case, turns, renews, whole_run, diverges):
        try:
            part(workers, folder)
        except Exception:
            (folder / f"fault-{rank}").write_text(traceback.format_exc())
            raise
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with what two workers have left."""
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(everything, (folder,), nprocs=2)
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


def left(folder: Path, name: str):
    return [load_state(folder / f"{name}-{rank}")[0] for rank in (0, 1)]


# ------------------------------------------------------------------------------------------------------ the tests


@pytest.mark.slow
def test_gathered_rows_stand_in_the_order_of_the_workers_on_both(two):
    rows = torch.arange(6.0).view(3, 2)
    for found in left(two, "gather"):
        assert torch.equal(found["float"], torch.cat([rows, rows + 10]))
        assert found["labels"].tolist() == [0, 2, 4, 10, 12, 14] and found["labels"].dtype == torch.int64
        assert float(found["mean"]) == 45.0 and torch.equal(found["strided"], torch.cat([rows.T, rows.T + 10]))


def test_slices_are_disjoint_and_cover_the_global_batch():
    assert [Workers(rank, 4).slice(12) for rank in range(4)] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]


def normalisation_inputs():
    from timm.layers import BatchNormAct2d

    chance = torch.Generator().manual_seed(0)
    layers = {
        "plain": nn.BatchNorm2d(3, eps=1e-3, momentum=0.3),
        "fused": BatchNormAct2d(3, act_layer=nn.SiLU),
        "fused without activation": BatchNormAct2d(3, apply_act=False),
        "frozen": nn.BatchNorm2d(3).requires_grad_(False),
    }
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.copy_(torch.rand(3, generator=chance) + 0.5)
            layer.bias.copy_(torch.randn(3, generator=chance))
            layer.running_mean.copy_(torch.randn(3, generator=chance))
    x = 5 + 2 * torch.randn(6, 3, 4, 5, generator=chance)
    return {"layers": layers, "x": x, "weight": torch.randn(6, 3, 4, 5, generator=chance)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "fused", "fused without activation", "frozen"])
def test_global_normalisation_is_batch_norm_over_all_workers_with_its_gradients(two, name):
    given = normalisation_inputs()
    module = nn.Sequential(given["layers"][name]).train()
    x = given["x"].clone().requires_grad_()
    (module(x) * given["weight"]).sum().backward()
    out = module(x.detach())
    found = left(two, f"norm {name}")
    assert torch.allclose(torch.cat([one["x"] for one in found]), x.grad, atol=1e-5)
    assert torch.allclose(torch.cat([one["out"] for one in found]), out, atol=1e-5)
    for key, parameter in module.named_parameters():
        assert parameter.requires_grad == (key in found[0])
        if parameter.requires_grad:
            assert torch.allclose(found[0][key] + found[1][key], parameter.grad, rtol=1e-5, atol=1e-4), key
    for key, buffer in module.named_buffers():
        for one in found:
            assert torch.allclose(one[f"after {key}"].double(), buffer.double(), atol=1e-5), key


def test_normalisation_of_another_kind_is_refused_rather_than_left_apart():
    with pytest.raises(TypeError, match="BatchNorm1d"):
        _synchronise(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


@pytest.mark.parametrize("affine", [True, False])
def test_a_synchronised_model_evaluates_as_before_and_keeps_its_names(affine):
    layer = nn.BatchNorm2d(3, affine=affine)
    layer.running_mean.fill_(0.3)
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), layer, nn.ReLU()).eval()
    x = torch.rand(2, 1, 8, 8)
    wanted, names = plain(x), list(plain.state_dict())
    other = _synchronise(plain).eval()
    assert torch.equal(other(x), wanted) and list(other.state_dict()) == names


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_workers_take_the_steps_of_one_on_the_same_global_batch(two, case):
    one = several_steps(case, Workers())
    first, second = left(two, case)
    # Fine-tuning takes its loss in float32; colours of views are rounded in float32, and otherwise for half a batch than for a whole one.
    tinted = case == "MoCo v2 views"
    within = 1e-9 if CASES[case][0] is Pretrain and not tinted else 1e-6
    assert torch.allclose(first["losses"].double(), one["losses"].double(), rtol=0, atol=within)
    assert torch.equal(first["losses"], second["losses"]) and len(set(one["losses"].tolist())) == STEPS
    assert first.keys() == one.keys()
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name]), name  # both workers hold the same weights, statistics and queue
        if tensor.is_floating_point():
            assert torch.allclose(first[name], tensor, rtol=1e-6, atol=1e-5 if tinted else 1e-7), name
        else:
            assert torch.equal(first[name], tensor), name
    if CASES[case][0] is Pretrain:
        assert (one["task.queue.labels"] >= 0).all() and (one["task.queue.keys"].norm(dim=1) > 0.99).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", RENEWED)
def test_two_workers_take_the_statistics_of_one(two, case):
    one = renewed(case, Workers())
    first, second = left(two, f"renewed {case}")
    assert first.keys() == one.keys()
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name]) and torch.allclose(first[name], tensor, rtol=1e-9), name


@pytest.mark.slow
def test_a_whole_run_of_two_workers_is_that_of_one(two, tmp_path):
    pack = cluster_set(12, size=32, seed=0)
    one = execute(PROCEDURE, SMALL, seed=0, pack=pack, folder=tmp_path, evaluate_test=True)
    outcome = read_outcome(two / "run")
    assert [row["loss"] for row in outcome.history] == pytest.approx([row["loss"] for row in one.history], abs=1e-2)
    assert set(outcome.metrics) == set(one.metrics) and set(outcome.confusion) == {"val", "test"}
    weights = load_state(tmp_path / MODEL)[0]
    assert all(
        torch.allclose(tensor.float(), weights[name].float(), atol=1e-2) for name, tensor in load_state(two / "run" / MODEL)[0].items()
    )


@pytest.mark.slow
def test_a_run_of_two_workers_goes_on_to_the_same_weights(two):
    straight, again = (load_state(two / name / MODEL)[0] for name in ("run", "again"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in straight.items())
    assert read_outcome(two / "again").interruptions == 1


@pytest.mark.slow
def test_workers_agree_on_whether_a_shared_stage_is_there(two):
    straight, other = (load_state(two / name / MODEL)[0] for name in ("run", "one-sided"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in straight.items())


@pytest.mark.slow
def test_two_workers_take_the_turns_of_one_where_a_loss_leaves_weights_without_a_gradient(two):
    wanted = several_turns(Workers())
    for found in left(two, "turns"):
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.allclose(found[name].double(), tensor.double(), rtol=1e-6, atol=1e-7), name


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_worker_ends_both_at_that_step(two):
    said = {(two / f"diverged-{rank}").read_text() for rank in (0, 1)}
    assert said == {"the loss was not finite at epoch 1, step 2"}


def test_the_key_of_a_query_is_its_own_on_every_worker():
    """The slice of a draw is that of the images: the first query of the second worker is compared with its own key."""
    given = setting()
    task = Pretrain(TINY, given)
    batch = next(iter(task.batches(0)))
    task.eval()
    task(batch)
    whole = task.new_keys[0][0]
    halves = []
    for rank in (0, 1):
        task.workers = Workers(rank, 2)
        task(batch)
        halves.append(task.new_keys[0][0])
    assert torch.allclose(torch.cat(halves), whole, atol=1e-5)
    assert F.cosine_similarity(whole[0], whole[4], dim=0) < 0.9999
