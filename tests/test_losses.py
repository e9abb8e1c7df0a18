"""The losses against the references, closed forms, invariances, gradients and pytorch-metric-learning."""

import math

import pytest
import references
import torch

from trainables.parts.losses import add_margin, all_margin, class_margin, info_nce, self_margin, sup_con

TAU = 0.07


def table(rows=6, columns=20, seed=0, dtype=torch.float64):
    """Cosines over the whole range, labels, and masks with a third kind of column, neither positive nor negative."""
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 2 - 1
    kind = torch.randint(0, 3, (rows, columns), generator=generator)
    kind[:, 0], kind[:, 1] = 1, 0
    own = torch.rand(rows, generator=generator, dtype=torch.float64) * 2 - 1
    return own.to(dtype), cosines.to(dtype), kind == 1, kind == 0


def every_loss(own, cosines, positive, negative, margin=0.2, beyond_pi="plain", temperature=TAU):
    labels = torch.arange(len(cosines)) % cosines.shape[1]
    return {
        "info_nce": info_nce(own, cosines, temperature),
        "sup_con": sup_con(cosines, positive, negative, temperature),
        "self_margin": self_margin(own, cosines, negative, margin, temperature, beyond_pi),
        "all_margin": all_margin(cosines, positive, negative, margin, temperature, beyond_pi),
        "class_margin": class_margin(cosines, labels, margin, temperature, beyond_pi),
    }


def every_reference(own, cosines, positive, negative, margin=0.2, beyond_pi="plain", temperature=TAU):
    labels = [i % cosines.shape[1] for i in range(len(cosines))]
    own, cosines, positive, negative = own.tolist(), cosines.tolist(), positive.tolist(), negative.tolist()
    return {
        "info_nce": references.info_nce(own, cosines, temperature),
        "sup_con": references.sup_con(cosines, positive, negative, temperature),
        "self_margin": references.self_margin(own, cosines, negative, margin, temperature, beyond_pi),
        "all_margin": references.all_margin(cosines, positive, negative, margin, temperature, beyond_pi),
        "class_margin": references.class_margin(cosines, labels, margin, temperature, beyond_pi),
    }


NAMES = ("info_nce", "sup_con", "self_margin", "all_margin", "class_margin")


@pytest.mark.parametrize("beyond_pi", ["plain", "monotone"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 2.0])
@pytest.mark.parametrize("temperature", [0.05, 0.07, 1.0])
def test_every_loss_equals_the_plain_loops_written_from_the_paper(margin, temperature, beyond_pi):
    for seed in range(3):
        given = table(seed=seed)
        losses, expected = (of(*given, margin, beyond_pi, temperature) for of in (every_loss, every_reference))
        for name in NAMES:
            assert losses[name].item() == pytest.approx(expected[name], rel=1e-11), name


def test_float32_losses_agree_with_the_float64_references():
    given = table(dtype=torch.float32)
    expected = every_reference(*given)
    for name, loss in every_loss(*given).items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name], rel=2e-6), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_cosines_are_computed_in_float32(dtype):
    given = table(dtype=dtype)
    expected = every_reference(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = every_loss(*given)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name], rel=5e-6), name


def test_a_gradient_through_half_precision_is_finite():
    own, cosines, positive, negative = table(dtype=torch.bfloat16)
    own, cosines = own.requires_grad_(), cosines.requires_grad_()
    sum(every_loss(own, cosines, positive, negative).values()).backward()
    assert own.grad.isfinite().all() and cosines.grad.isfinite().all()


@pytest.mark.parametrize("n", [1, 7, 1024])
def test_equal_cosines_give_the_logarithm_of_the_number_of_choices(n):
    """Closed form: all cosines equal -> -log(1 / (1 + n)), whatever the temperature."""
    own, others = torch.full((4,), 0.3, dtype=torch.float64), torch.full((4, n), 0.3, dtype=torch.float64)
    nothing, everything = torch.zeros(4, n, dtype=torch.bool), torch.ones(4, n, dtype=torch.bool)
    assert info_nce(own, others, TAU).item() == pytest.approx(math.log(1 + n), rel=1e-12)
    assert self_margin(own, others, everything, 0.0, TAU).item() == pytest.approx(math.log(1 + n), rel=1e-12)
    both = torch.full((4, 3 + n), 0.3, dtype=torch.float64)
    positive = torch.cat([torch.ones(4, 3, dtype=torch.bool), nothing], dim=1)
    assert sup_con(both, positive, ~positive, TAU).item() == pytest.approx(math.log(1 + n), rel=1e-12)
    assert class_margin(both, torch.zeros(4, dtype=torch.int64), 0.0, TAU).item() == pytest.approx(math.log(3 + n), rel=1e-12)


def test_margin_has_its_closed_form_where_the_query_is_its_key():
    """theta = 0 and one orthogonal negative: log(1 + e^(-cos(m) / tau))."""
    loss = self_margin(torch.ones(1).double(), torch.zeros(1, 1).double(), torch.ones(1, 1, dtype=torch.bool), 0.2, TAU)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-math.cos(0.2) / TAU)), rel=1e-12)


def test_a_margin_of_0_is_the_plain_form():
    own, cosines, positive, negative = table()
    everything = torch.ones_like(negative)
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    for beyond_pi in ("plain", "monotone"):
        assert torch.equal(add_margin(cosines, 0.0, beyond_pi), cosines)
        assert self_margin(own, cosines, everything, 0.0, TAU, beyond_pi) == info_nce(own, cosines, TAU)
        assert all_margin(cosines, positive, negative, 0.0, TAU, beyond_pi) == sup_con(cosines, positive, negative, TAU)
        plain = torch.nn.functional.cross_entropy(cosines / TAU, labels)
        torch.testing.assert_close(class_margin(cosines, labels, 0.0, TAU, beyond_pi), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 3.0])
def test_add_margin_is_the_cosine_of_the_moved_angle(margin, dtype):
    cosines = torch.linspace(-1, 1, 2001, dtype=dtype)
    for beyond_pi in ("plain", "monotone"):
        expected = [references.with_margin(c, margin, beyond_pi) for c in cosines.tolist()]
        moved = add_margin(cosines, margin, beyond_pi)
        at_the_seam = (cosines.double() + math.cos(margin)).abs() < 1e-6 if beyond_pi == "monotone" else torch.zeros(2001, dtype=torch.bool)
        difference = (moved.double() - torch.tensor(expected, dtype=torch.float64)).abs()[~at_the_seam]
        assert difference.max() < (5e-7 if dtype == torch.float32 else 1e-14)


def test_the_monotone_form_never_rises_with_the_angle_and_the_plain_one_does():
    angles = torch.linspace(0, math.pi, 1000, dtype=torch.float64)
    for margin in (0.1, 0.5, 1.5):
        assert (add_margin(angles.cos(), margin, "monotone").diff() < 1e-9).all()
        assert (add_margin(angles.cos(), margin, "plain").diff() > 1e-6).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("beyond_pi", ["plain", "monotone"])
def test_the_gradient_stays_finite_where_arccos_is_vertical(dtype, beyond_pi):
    """At cosine +-1, a rounding step inside, and a rounding step outside, where arccos itself is nan."""
    step = torch.finfo(dtype).eps
    ends = torch.tensor([1, 1 - step, 1 + step, -1, -1 + step, -1 - step], dtype=dtype, requires_grad=True)
    moved = add_margin(ends, 0.2, beyond_pi)
    moved.sum().backward()
    assert moved.isfinite().all() and ends.grad.isfinite().all()
    assert moved[0].item() == pytest.approx(math.cos(0.2), abs=1e-6)
    assert ends.grad[0].item() == pytest.approx(math.cos(0.2), rel=5e-3)

    own = ends.detach().clone().requires_grad_()
    cosines = torch.zeros(6, 4, dtype=dtype)
    cosines[:, 0] = ends.detach()
    cosines.requires_grad_()
    positive = torch.zeros(6, 4, dtype=torch.bool)
    positive[:, 0] = True
    sum(every_loss(own, cosines, positive, ~positive, 0.2, beyond_pi)[name] for name in NAMES).backward()
    assert own.grad.isfinite().all() and cosines.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beyond_pi", ["plain", "monotone"])
def test_the_gradient_is_that_of_the_value(name, beyond_pi):
    own, cosines, positive, negative = table(rows=3, columns=6)

    def loss(own, cosines):
        return every_loss(own, cosines, positive, negative, 0.3, beyond_pi, 0.5)[name]

    assert torch.autograd.gradcheck(loss, (own.requires_grad_(), cosines.requires_grad_()))


def test_cold_temperatures_do_not_overflow():
    for sign in (1.0, -1.0):
        own, cosines = torch.full((2,), -sign), torch.full((2, 5), sign)
        loss = info_nce(own, cosines, 0.001)
        assert loss.item() == pytest.approx(2000 + math.log(5) if sign > 0 else 0.0, rel=1e-6)


def test_a_small_loss_keeps_its_digits_in_float32():
    """A confident query: log(1 + e^-28.6) is far below the resolution of 1, but not 0."""
    loss = info_nce(torch.ones(1), -torch.ones(1, 1), TAU)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2 / TAU)), rel=1e-4)


def test_the_order_of_the_queue_does_not_matter():
    own, cosines, positive, negative = table()
    order = torch.randperm(cosines.shape[1], generator=torch.Generator().manual_seed(1))
    moved = cosines[:, order], positive[:, order], negative[:, order]
    for name in ("info_nce", "sup_con", "self_margin", "all_margin"):
        torch.testing.assert_close(every_loss(own, *moved)[name], every_loss(own, cosines, positive, negative)[name], rtol=1e-12, atol=0)


def test_the_order_of_the_batch_does_not_matter():
    own, cosines, positive, negative = table()
    rows = torch.tensor([3, 1, 5, 0, 2, 4])
    for name in ("info_nce", "sup_con", "self_margin", "all_margin"):
        moved = every_loss(own[rows], cosines[rows], positive[rows], negative[rows])[name]
        torch.testing.assert_close(moved, every_loss(own, cosines, positive, negative)[name], rtol=1e-12, atol=0)


def test_an_empty_slot_is_neither_positive_nor_negative():
    own, cosines, positive, negative = table()
    cosines = cosines.clone().requires_grad_()
    neither = ~positive & ~negative
    assert neither.any()
    losses = every_loss(own, cosines, positive, negative)
    changed = every_loss(own, torch.where(neither, 0.99, cosines), positive, negative)
    for name in ("sup_con", "self_margin", "all_margin"):
        assert losses[name] == changed[name]
        (gradient,) = torch.autograd.grad(losses[name], cosines, retain_graph=True)
        assert (gradient[neither] == 0).all() and (gradient[negative] > 0).all()

    present = torch.arange(20) < 12
    (gradient,) = torch.autograd.grad(info_nce(own, cosines, TAU, present), cosines)
    assert (gradient[:, ~present] == 0).all() and (gradient[:, present] > 0).all()
    assert info_nce(own, cosines, TAU, present).item() == pytest.approx(info_nce(own, cosines[:, :12], TAU).item(), rel=1e-12)
    expected = references.info_nce(own.tolist(), cosines.tolist(), TAU, present.tolist())
    assert info_nce(own, cosines, TAU, present).item() == pytest.approx(expected, rel=1e-12)


def test_positives_do_not_stand_in_each_others_denominator():
    """Two positives and one negative: moving one positive leaves the gradient of the other as it is."""
    cosines = torch.tensor([[0.9, 0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[True, True, False]])
    (gradient,) = torch.autograd.grad(sup_con(cosines, positive, ~positive, TAU), cosines)
    other = torch.tensor([[0.9, 0.8, 0.4]], dtype=torch.float64, requires_grad=True)
    (moved,) = torch.autograd.grad(sup_con(other, positive, ~positive, TAU), other)
    assert gradient[0, 0] == moved[0, 0] and gradient[0, 1] != moved[0, 1]
    alone = sum(math.log(1 + math.exp((0.4 - p) / TAU)) for p in (0.9, 0.1)) / 2
    assert sup_con(cosines, positive, ~positive, TAU).item() == pytest.approx(alone, rel=1e-12)


def test_without_negatives_the_loss_and_its_gradient_are_0():
    own, cosines, positive, _ = table()
    own.requires_grad_(), cosines.requires_grad_()
    none = torch.zeros_like(positive)
    losses = [
        info_nce(own, cosines, TAU, torch.zeros(20, dtype=torch.bool)),
        info_nce(own, cosines[:, :0], TAU),
        sup_con(cosines, positive, none, TAU),
        self_margin(own, cosines, none, 0.2, TAU),
        all_margin(cosines, positive, none, 0.2, TAU),
        class_margin(cosines[:, :1], torch.zeros(6, dtype=torch.int64), 0.2, TAU),
    ]
    assert [loss.item() for loss in losses] == [0.0] * 6
    sum(losses).backward()
    assert (own.grad == 0).all() and (cosines.grad == 0).all()


def test_one_query_without_negatives_leaves_the_others_alone():
    own, cosines, _, negative = table()
    negative = negative.clone()
    negative[2] = False
    expected = references.self_margin(own.tolist(), cosines.tolist(), negative.tolist(), 0.2, TAU)
    assert self_margin(own, cosines, negative, 0.2, TAU).item() == pytest.approx(expected, rel=1e-12)


def test_a_class_without_a_centre_is_no_negative_and_its_queries_are_not_counted():
    _, cosines, _, _ = table(columns=4)
    cosines.requires_grad_()
    labels, present = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([True, False, True, True])
    loss = class_margin(cosines, labels, 0.2, TAU, present=present)
    expected = references.class_margin(cosines.tolist(), labels.tolist(), 0.2, TAU, present=present.tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, cosines)
    assert (gradient[:, 1] == 0).all() and (gradient[1] == 0).all() and (gradient[0, [0, 2, 3]] != 0).all()

    nobody = class_margin(cosines, labels, 0.2, TAU, present=torch.zeros(4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(nobody, cosines)
    assert nobody == 0 and (gradient == 0).all()
    everybody = class_margin(cosines, labels, 0.2, TAU, present=torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(everybody, class_margin(cosines, labels, 0.2, TAU), rtol=1e-12, atol=0)


@pytest.mark.parametrize("temperature", [0.0, -0.07, math.nan, math.inf])
def test_a_temperature_that_is_not_above_0_is_refused(temperature):
    own, cosines, positive, negative = table()
    calls = [
        lambda: info_nce(own, cosines, temperature),
        lambda: sup_con(cosines, positive, negative, temperature),
        lambda: self_margin(own, cosines, negative, 0.2, temperature),
        lambda: all_margin(cosines, positive, negative, 0.2, temperature),
        lambda: class_margin(cosines, torch.zeros(6, dtype=torch.int64), 0.2, temperature),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
            call()


def test_a_query_without_a_positive_is_refused_by_its_row():
    _, cosines, positive, negative = table()
    positive = positive.clone()
    positive[[1, 4]] = False
    for call in (lambda: sup_con(cosines, positive, negative, TAU), lambda: all_margin(cosines, positive, negative, 0.2, TAU)):
        with pytest.raises(ValueError, match=r"needs a positive.*row 1, 4"):
            call()


@pytest.mark.parametrize("margin", [-0.1, math.pi, math.nan])
def test_a_margin_out_of_range_is_refused(margin):
    with pytest.raises(ValueError, match="margin must be from 0 to below pi"):
        add_margin(torch.zeros(3), margin)


def test_an_unknown_continuation_and_shapes_that_do_not_fit_are_refused():
    own, cosines, positive, negative = table()
    with pytest.raises(ValueError, match="plain, monotone, got 'linear'"):
        add_margin(own, 0.2, "linear")
    for call in (
        lambda: info_nce(own[:3], cosines, TAU),
        lambda: info_nce(own[:0], cosines[:0], TAU),
        lambda: sup_con(cosines, positive[:, :5], negative, TAU),
        lambda: self_margin(own, cosines, negative[:5], 0.2, TAU),
        lambda: class_margin(cosines, torch.zeros(5, dtype=torch.int64), 0.2, TAU),
    ):
        with pytest.raises(ValueError, match=r"shape|rows"):
            call()


def unit(rows, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def test_sup_con_is_the_ntxent_loss_of_pytorch_metric_learning():
    """Its NTXentLoss puts one positive and all negatives of the anchor in each denominator: Eq. 4. It averages over all positive pairs at
    once, Eq. 4 over a query's positives first: equal where every query has as many positives. Its SupConLoss is another form (all
    positives in the denominator) and coincides where a query has one positive only."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    queries, keys = unit(8, 16, 0), unit(24, 16, 1)
    labels, key_labels = torch.arange(8) % 4, torch.arange(24) % 4
    positive = labels[:, None] == key_labels
    ours = sup_con(queries @ keys.T, positive, ~positive, TAU)
    theirs = losses.NTXentLoss(temperature=TAU)(queries, labels, ref_emb=keys, ref_labels=key_labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    other = losses.SupConLoss(temperature=TAU)(queries, labels, ref_emb=keys, ref_labels=key_labels)
    assert abs(ours - other) > 0.01

    single_labels = torch.cat([torch.arange(4), torch.full((20,), 9)])
    positive = labels[:, None] == single_labels
    ours = sup_con(queries @ keys.T, positive, ~positive, TAU)
    for form in (losses.SupConLoss, losses.NTXentLoss):
        torch.testing.assert_close(ours, form(temperature=TAU)(queries, labels, ref_emb=keys, ref_labels=single_labels), rtol=1e-9, atol=0)


def test_info_nce_is_the_ntxent_loss_of_pytorch_metric_learning_with_one_positive():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    queries, keys, queue = unit(5, 16, 0), unit(5, 16, 1), unit(40, 16, 2)
    theirs = [
        losses.NTXentLoss(temperature=TAU)(
            queries[i : i + 1], torch.tensor([0]), ref_emb=torch.cat([keys[i : i + 1], queue]), ref_labels=torch.tensor([0] + [1] * 40)
        )
        for i in range(5)
    ]
    ours = info_nce((queries * keys).sum(1), queries @ queue.T, TAU)
    torch.testing.assert_close(ours, torch.stack(theirs).mean(), rtol=1e-9, atol=0)


def test_class_margin_is_the_arcface_loss_of_pytorch_metric_learning():
    """Its margin is in degrees, its scale 1 / temperature, and beyond pi it has the monotone form only."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    torch.manual_seed(0)
    theirs = losses.ArcFaceLoss(4, 16, margin=math.degrees(0.3), scale=1 / TAU).double()
    weights = torch.nn.functional.normalize(theirs.W.detach(), dim=0)
    queries = torch.cat([unit(12, 16, 3), -weights.T])  # the last four lie opposite to their class: beyond pi
    labels = torch.arange(16) % 4
    ours = class_margin(queries @ weights, labels, 0.3, TAU, "monotone")
    torch.testing.assert_close(ours, theirs(queries, labels), rtol=1e-6, atol=0)  # it keeps its arccos 1e-7 away from +-1
    assert abs(ours - class_margin(queries @ weights, labels, 0.3, TAU, "plain")) > 1e-3
