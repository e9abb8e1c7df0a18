"""Steps that ask the device nothing and stay where they are in memory: each kind of arm of the tables and presets, on a device that is none and on a
CPU that is told to do what a GPU does; and recorded once, then played."""

import gc
import re
import warnings
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretend import DEVICE, pretend_device
from recording import Asked, Watch, record
from test_precision import ARMS, CPU, EVERY, FULL, OWN, SMALL, pack_of, setting_of
from torch.utils._pytree import tree_leaves

from search.registry import load
from trainables.parts import execution, replay
from trainables.parts.checkpoint import load_state, optimizer_tensors, save_state
from trainables.parts.composition import BLENDS, check_images, compose, draw_composition, load_tables
from trainables.parts.errors import Diverged
from trainables.parts.execution import stages_of
from trainables.parts.loop import Fitting
from trainables.parts.numbers import Layout, constant, tensors_of
from trainables.parts.procedure import Setting
from trainables.parts.replay import WARM, Replay
from trainables.parts.views import ViewSet, apply_views, draw_views

pytestmark = pytest.mark.usefixtures("one_thread")


def fitted(name, config, **more):
    """Each stage's Fitting, new."""
    handed = None
    for stage in stages_of(load(name).procedure, config):
        setting = setting_of(name, config, previous=handed, **more)
        fitting = Fitting(stage.build(config, setting), setting)
        fitting.task.train()
        yield fitting
        handed = {key: tensor.detach().to("cpu", copy=True) for key, tensor in fitting.task.result().items()}


def seeded(fitting):
    """Dropout draws the same numbers in each."""
    torch.manual_seed(0)
    return fitting


def rows_of(fitting, epoch=0):
    steps = fitting.task.steps()
    return fitting._rows(fitting.task.batches(epoch), [fitting.task.learning_rate(epoch + number / steps) for number in range(steps)])


# ------------------------------------------------------------------------------------------------------ nothing is asked


@pytest.mark.parametrize(("name", "config"), EVERY)
def test_a_step_of_an_arm_asks_the_device_nothing(name, config):
    with pretend_device():
        for fitting in fitted(name, config, device=DEVICE):
            rows = rows_of(fitting)
            fitting._play(rows[0])  # what is made at the first use and kept is no part of the others
            with Watch(DEVICE):  # asked for each step before an epoch's first
                fitting.task.learning_rate(0.5), list(fitting.task.batches(1))
            with Watch() as watch:
                fitting._play(rows[1])
                fitting._play(rows[0])
            assert watch.calls > 100 and np.isfinite(float(fitting.total))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [(name, backbone) for name, backbones in OWN.items() for backbone in backbones])
def test_a_step_of_a_network_of_the_tables_asks_the_device_nothing(name, backbone):
    with pretend_device():
        for fitting in fitted(name, replace(FULL[name], backbone=backbone), device=DEVICE):
            rows = rows_of(fitting)
            fitting._play(rows[0])
            with Watch():
                fitting._play(rows[1])


@pytest.mark.parametrize(
    ("name", "backbone", "more"),
    [*((name, FULL[name].backbone, {"half": torch.float16}) for name in SMALL), ("scl", "test_vit", {"micro_batches": 2})],
)
def test_a_step_with_a_scaled_loss_or_in_slices_asks_the_device_nothing(name, backbone, more):
    for fitting in fitted(name, replace(FULL[name], backbone=backbone), steady=True, **more):
        rows = rows_of(fitting)
        fitting._play(rows[0])
        with Watch():
            fitting._play(rows[1])


ASKING = {
    "a number": lambda x: x.sum().item(),
    "a branch": lambda x: bool(x.any()),
    "places": lambda x: x.nonzero(),
    "a mask as an index": lambda x: x[x > 1],
    "a mask as the place of a value": lambda x: x.index_put_((x > 1,), torch.zeros((), device=x.device)),
    "a mask that is chosen by": lambda x: torch.masked_select(x, x > 1),
    "different values": lambda x: x.unique(),
    "an array": lambda x: x.cpu(),
    "numbers of the host": lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device),
    "a number of the host": lambda x: x * torch.tensor(2.0),
    "places of the host": lambda x: x[torch.tensor([0, 1])],
    "whether two are equal": lambda x: torch.equal(x, x + 0),
    "whether two are close": lambda x: torch.allclose(x, x),
    "places in a list": lambda x: x[[0, 1]],
    "an end of a line": lambda x: torch.linspace(x.min(), x.max(), 3, device=x.device),
    "a draw by weight": lambda x: torch.multinomial(x + 1, 2),
    "values of a matrix": lambda x: torch.linalg.eigvalsh(x[:, None] @ x[None]),
    "lengths of a table's rows": lambda x: torch.nn.functional.embedding(x.long(), torch.ones(4, 2, device=x.device), max_norm=1.0),
    "how often to repeat": lambda x: torch.repeat_interleave(x, torch.ones_like(x).long()),
}


@pytest.mark.parametrize("call", ASKING.values(), ids=ASKING)
def test_the_watch_refuses_what_a_gpus_host_waits_for(call):
    with pretend_device():
        x = torch.arange(4.0).to(DEVICE)
        with Watch(), pytest.raises(Asked):
            call(x)


# ------------------------------------------------------------------------------------------------------ and gives the same


@pytest.mark.parametrize(("name", "config"), ARMS)
def test_a_steady_arm_trains_as_one_whose_shapes_follow_the_data(name, config):
    for plain in fitted(name, config):
        setting = replace(plain.task.setting, steady=True)  # what the stage before handed on is the same
        steady = Fitting(type(plain.task)(plain.task.config, setting), setting)
        steady.task.train()
        for number, batch in zip(range(2), plain.task.batches(0), strict=False):
            found, wanted = (float(seeded(one).step(batch, 0.01)) for one in (steady, plain))
            # the second starts from weights that the optimisers' kernels round in other places
            assert found == pytest.approx(wanted, rel=1e-5 if number == 0 else 0.02)


@pytest.mark.parametrize("table", ["light", "middle", "heavy", "no"])
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("require_contact", [False, True])
def test_a_composition_that_asks_nothing_is_the_other_one_bit_for_bit(table, blend, require_contact):
    from test_composition import CASES, at_224, batch

    for seed, largest, draws, pixels in (*CASES, (3, 0.8, 40, 0)):
        given = batch(seed=seed, largest=largest)
        numbers = draw_composition(40, draws, torch.Generator().manual_seed(seed))
        more = {"blend": blend, "threshold": at_224(pixels), "require_contact": require_contact, "numbers": numbers}
        wanted, found = (compose(*given, load_tables()[table], steady=steady, **more) for steady in (False, True))
        for name in ("images", "labels", "overlap", "drawn", "shifts"):
            assert torch.equal(getattr(wanted, name), getattr(found, name)), name
    assert bool(found.drawn.any()) == (table != "no")


@pytest.mark.parametrize("side", [24, 64])
@pytest.mark.parametrize("outside", ["zeros", "reflection"])
def test_views_that_ask_nothing_are_the_others(side, outside):
    every = ViewSet(
        crop=(0.2, 1.0), horizontal_flip=0.5, rotation=90.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter=0.5, gray=0.3, blur=0.5,
        sigma=(0.1, 12.0),
    )  # fmt: skip
    images = torch.rand(12, 3, side, side, generator=torch.Generator().manual_seed(0))
    draw = draw_views(12, every, torch.Generator().manual_seed(1))
    wanted, found = (apply_views(images, draw, outside, steady=steady) for steady in (False, True))
    assert torch.allclose(wanted, found, atol=1e-6) and bool((draw.sigma > 0).any()) and bool((draw.sigma == 0).any())


def test_views_drawn_by_hand_do_not_say_what_a_steady_step_must_compute():
    draw = replace(draw_views(2, ViewSet(), torch.Generator()), views=None)
    with pytest.raises(ValueError, match="take them from `draw_views`"):
        apply_views(torch.zeros(2, 1, 8, 8), draw, steady=True)


def test_an_image_that_is_all_background_is_named_before_steady_steps():
    images = torch.ones(7, 4, 4, dtype=torch.uint8)
    check_images(images.split(3), [f"{number}.png" for number in range(7)])
    images[5] = 0
    with pytest.raises(ValueError, match=r"5\.png is all background.*data check"):
        check_images(images.split(3), [f"{number}.png" for number in range(7)])


# ------------------------------------------------------------------------------------------------------ in the same memory


@pytest.mark.parametrize("name", SMALL)
def test_the_memory_of_a_step_stays_where_it_is_over_epochs(name):
    for fitting in fitted(name, FULL[name], steady=True):
        fitting.epoch(0)

        def places(fitting=fitting):
            kept = {**fitting.task.state_dict(), **optimizer_tensors(fitting.task.optimizer), "row": fitting.row, "total": fitting.total}
            kept |= {f"batch {number}": tensor for number, tensor in enumerate(tensors_of(fitting.batch))}
            return {key: tensor.data_ptr() for key, tensor in kept.items()} | {
                "rate": fitting.task.optimizer.param_groups[0]["lr"].data_ptr()
            }

        first = places()
        fitting.validate(last=False)
        fitting.epoch(1)
        assert places() == first


def test_a_layout_gives_back_what_was_packed_and_refuses_another_shape():
    batches = [
        (torch.arange(3) + n, draw_views(3, ViewSet(gray=0.5), torch.Generator().manual_seed(n)), torch.tensor(n / 2)) for n in range(4)
    ]
    layout = Layout.of(batches[0])
    rows = layout.rows(batches, CPU)
    row = torch.zeros(layout.size, dtype=torch.uint8)
    batch = layout.batch(batches[0], row)
    for number in (2, 0, 3):
        row.copy_(rows[number])
        assert all(torch.equal(a, b) for a, b in zip(tensors_of(batch), tensors_of(batches[number]), strict=True))
    with pytest.raises(ValueError, match="equal shapes"):
        layout.rows([batches[0], (torch.arange(2), *batches[0][1:])], CPU)


def test_a_constant_is_sent_once():
    assert constant((1.0, 2.0), CPU) is constant((1.0, 2.0), CPU) and constant(((1, 2), (3, 4)), CPU).tolist() == [[1, 2], [3, 4]]


# ------------------------------------------------------------------------------------------------------ recorded and played


@pytest.fixture
def recorder(monkeypatch):
    """A CPU records as a GPU does: what Python works out during a step stays as it was at the recording."""
    fittings = []

    def state():
        [fitting] = fittings
        kept = [
            *fitting.task.state_dict(keep_vars=True).values(),
            *fitting.task.buffers(),
            fitting.total,
            *tree_leaves(dict(fitting.task.optimizer.state)),
        ]
        kept += [value for value in vars(fitting.task).values() if isinstance(value, torch.Tensor)]
        kept += [getattr(fitting.scaler, name, None) for name in ("_scale", "_growth_tracker")]
        return [tensor for tensor in kept if isinstance(tensor, torch.Tensor)]

    def on_a_cpu(step, device):
        chance = torch.random.get_rng_state()
        play = record(step, state(), device)
        torch.random.set_rng_state(chance)
        return play

    monkeypatch.setattr(replay, "recordable", lambda device: True)
    monkeypatch.setattr(replay, "record", on_a_cpu)

    def of(fitting):
        fittings[:] = [fitting]
        return fitting

    return of


EPOCHS = 3  # of two or three steps


def trained(name, config, wrap=lambda fitting: fitting, **more):
    """(rows of the epochs without their seconds, state, Fitting) of each stage."""
    for fitting in map(wrap, fitted(name, config, steady=True, **more)):
        rows = [{**fitting.epoch(epoch), "seconds": 0} for epoch in range(EPOCHS)] + [fitting.validate(last=True)]
        yield rows, {key: value.clone() for key, value in fitting.tensors().items()}, fitting


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    assert [key for key in found if not torch.equal(found[key], wanted[key])] == []


@pytest.mark.parametrize(("name", "config"), ARMS)
def test_a_recorded_arm_trains_as_one_that_is_called_bit_for_bit(name, config, recorder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "recordable", lambda device: False)
        called = list(trained(name, config))
    for (rows, state, fitting), (wanted_rows, wanted, other) in zip(trained(name, config, recorder), called, strict=True):
        assert fitting.replay.played and not other.replay.played and rows == wanted_rows
        equal(state, wanted)


@pytest.mark.parametrize("name", SMALL)
def test_a_recorded_run_goes_on_after_a_checkpoint_as_if_it_had_not_stopped(name, recorder, tmp_path):
    straight, again = list(trained(name, FULL[name], recorder)), fitted(name, FULL[name], steady=True)
    for (_, state, _), first in zip(straight, again, strict=True):
        recorder(first).epoch(0)
        first.epoch(1)
        save_state(tmp_path / "s", first.tensors(), {})
        first.restore(load_state(tmp_path / "s")[0])  # into one that has been recorded, whose optimiser's state then lies elsewhere
        setting = replace(first.task.setting)
        other = Fitting(type(first.task)(first.task.config, setting), setting)
        other.restore(load_state(tmp_path / "s")[0])
        for fitting in (first, other):
            recorder(fitting).epoch(2)
            fitting.validate(last=True)
            equal(fitting.tensors(), state)


@pytest.mark.parametrize("name", SMALL)
def test_a_played_step_has_its_own_rate(name, recorder):
    for fitting in fitted(name, FULL[name], steady=True):
        batch = next(iter(fitting.task.batches(0)))
        for _ in range(WARM + 1):
            recorder(fitting).step(batch, 0.01)
        assert fitting.replay.played
        trained = {key: value for key, value in fitting.task.named_parameters() if value.requires_grad}
        for rate in (0.0, 0.01):
            before = {key: value.detach().clone() for key, value in trained.items()}
            fitting.step(batch, rate)
            assert any(not torch.equal(before[key], value) for key, value in trained.items()) == (rate > 0)


def test_a_step_that_cannot_be_recorded_is_called_on_with_one_note(recorder, monkeypatch):
    called = list(trained("ccrl", FULL["ccrl"], recorder))

    def refuse(step, device):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(replay, "record", refuse)
    with pytest.warns(UserWarning, match=r"recorded as a CUDA graph \(operation not permitted when stream is capturing\)") as notes:
        found = list(trained("ccrl", FULL["ccrl"]))
    assert len(notes) == 1 and [rows for rows, *_ in found] == [rows for rows, *_ in called]
    equal(found[0][1], called[0][1])


def test_a_recording_that_does_not_fit_into_memory_is_no_reason_to_go_on(recorder, monkeypatch):
    def too_large(step, device):
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(replay, "record", too_large)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(trained("ccrl", FULL["ccrl"]))


def test_a_loss_that_is_not_finite_ends_a_steady_run_at_the_next_look():
    [fitting] = fitted("ccrl", FULL["ccrl"], steady=True)
    fitting.task.queue.keys.fill_(float("nan"))
    fitting.task.queue.labels.zero_()
    with pytest.raises(Diverged, match=f"at epoch 1, step {fitting.task.steps()}"):
        fitting.epoch(0)


# ------------------------------------------------------------------------------------------------------ what CUDA would do


def test_a_step_that_makes_the_host_wait_is_not_recorded_and_says_where(monkeypatch):
    modes, steps = [0], []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(replay, "aside", lambda device: nullcontext())
    monkeypatch.setattr(replay, "record", None)  # is not tried, for what it leaves behind

    def step():
        steps.append(modes[-1])
        if modes[-1] == "warn":
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp:1)", stacklevel=1)
            warnings.warn("of another kind", stacklevel=1)

    played = Replay(step, torch.device("cuda"), alone=True)
    with pytest.warns(UserWarning, match="could not be recorded|another kind") as notes:
        [played() for _ in range(WARM + 2)]
    assert steps == [0, 0, "warn", 0, 0] and not played.played, "asked once, after what is made at the first use"
    assert [str(note.message)[:40] for note in notes] == ["of another kind", "the training step could not be recorded "]
    assert re.search(r"test_steady\.py, line \d+, makes the host wait", str(notes[1].message))


@pytest.mark.parametrize("fault", [RuntimeError, torch.cuda.OutOfMemoryError])
def test_after_a_recording_that_failed_steps_are_called_as_if_there_had_been_none(fault, monkeypatch):
    class Generator:
        """torch's: a recording marks its state, and one that fails leaves the mark."""

        def __init__(self):
            self.state = "usual"

        def clone_state(self):
            return self.state

        def graphsafe_set_state(self, state):
            self.state = state

    generator, current = Generator(), ["outside"]

    @contextmanager
    def graph(_):
        generator.state, current[0] = "recording", "the recording's"
        yield
        generator.state, current[0] = "usual", "outside"  # not reached where the step raises, in versions of before 2026

    def step():
        if current[0] != "outside":
            raise fault("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", [generator])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.__setitem__(0, stream))
    with pytest.raises(fault):
        replay.record(step, torch.device("cuda"))
    assert (generator.state, current) == ("usual", ["outside"])


def test_a_stage_that_is_done_holds_nothing_when_the_next_one_begins_and_when_the_run_is_judged(monkeypatch, tmp_path):
    seen, name = [], "supcam"
    procedure = load(name).procedure
    there = lambda: [task() for task in seen if task() is not None]  # noqa: E731

    class Followed(Fitting):
        def __init__(self, task, setting):
            assert not there()
            super().__init__(task, setting)
            seen.append(weakref.ref(task))

    def judged(*words):
        assert not there()
        return procedure.evaluate(*words)

    monkeypatch.setattr(replay, "recordable", lambda device: True)
    monkeypatch.setattr(replay, "record", lambda step, device: step)
    monkeypatch.setattr(Setting, "is_steady", True)
    monkeypatch.setattr(execution, "Fitting", Followed)
    gc.collect()
    gc.disable()
    try:
        config = replace(FULL[name], pretrain_epochs=2, finetune_epochs=2)
        execution.execute(replace(procedure, evaluate=judged), config, seed=0, pack=pack_of(name), folder=tmp_path)
    finally:
        gc.enable()
    assert len(seen) == 2
