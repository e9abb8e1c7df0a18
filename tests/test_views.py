"""Views against plain float64 references, torchvision and hand-made images."""

import math
from dataclasses import replace

import numpy as np
import pytest
import references
import torch
from scipy import stats
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as TV

from trainables.parts.views import Draw, ViewSet, apply_views, draw_views

SUPCAM = ViewSet(crop=(0.2, 1.0), horizontal_flip=0.5)
MOCO = ViewSet(crop=(0.2, 1.0), horizontal_flip=0.5, brightness=0.4, contrast=0.4, jitter=0.8, blur=0.5)
EVERY = replace(MOCO, rotation=180.0, vertical_flip=0.5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=5, side=24, channels=1, seed=0, dtype=torch.float32):
    """Noise on a background of 0, the outer quarter left empty."""
    images = torch.zeros(n, channels, side, side, dtype=dtype)
    q = side // 8
    images[..., q:-q, q:-q] = torch.rand(n, channels, side - 2 * q, side - 2 * q, generator=seeded(seed), dtype=dtype)
    return images


def still(n=1, affine=((1, 0, 0), (0, 1, 0)), colour=(1, 1), sigma=0.0):
    """A draw by hand, the identity unless told."""
    return Draw(torch.tensor([affine] * n, dtype=torch.float32), torch.tensor([colour] * n, dtype=torch.float32), torch.full((n,), sigma))


def crops(draw):
    """Width, height, centre x, centre y of the crops in fractions of the side."""
    affine = draw.affine.double()
    return affine[:, 0, 0].abs(), affine[:, 1, 1].abs(), (affine[:, 0, 2] + 1) / 2, (affine[:, 1, 2] + 1) / 2


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_a_view_set_without_parts_returns_the_image(dtype, within):
    images = pictures(channels=3, side=224, dtype=dtype)
    view = apply_views(images, draw_views(5, ViewSet(), seeded()))
    assert (view - images).abs().max() < within  # float32: the sampler's coordinates are rounded


def test_crops_lie_inside_of_the_image_and_in_the_range_of_area_and_ratio():
    width, height, x, y = crops(draw_views(3000, SUPCAM, seeded()))
    area, ratio = width * height, width / height
    assert 0.2 - 1e-6 <= area.min() < 0.21 and 0.97 < area.max() <= 1 + 1e-6
    assert 0.75 - 1e-6 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-6
    for centre, side in ((x, width), (y, height)):
        assert (centre - side / 2).min() >= -1e-6 and (centre + side / 2).max() <= 1 + 1e-6


def test_crops_are_distributed_as_those_of_torchvision():
    width, height, x, y = (values.numpy() for values in crops(draw_views(3000, SUPCAM, seeded(1))))
    blank = torch.zeros(1, 2000, 2000)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        theirs = np.array([RandomResizedCrop.get_params(blank, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]) / 2000
    top, left, tall, wide = theirs.T
    for own, other in (
        (width * height, tall * wide), (width / height, wide / tall), (x - width / 2, left), (y - height / 2, top),
    ):  # fmt: skip
        assert stats.ks_2samp(own, other).pvalue > 0.01


def test_where_no_crop_fits_the_whole_image_is_the_view():
    draw = draw_views(50, ViewSet(crop=(1.0, 1.0), ratio=(1.5, 2.0)), seeded())
    assert torch.equal(draw.affine, still(50).affine)


def test_a_crop_of_a_quarter_is_that_quarter_enlarged():
    image = torch.rand(1, 1, 16, 16, generator=seeded(), dtype=torch.float64)
    draw = still(affine=((0.5, 0, 0.5), (0, 0.5, -0.5)))  # right half, upper half
    view = apply_views(image, draw)
    enlarged = F.interpolate(image[..., :8, 8:], scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(view[..., 1:-1, 1:-1], enlarged[..., 1:-1, 1:-1])  # the rim sees the neighbours outside of the crop


@pytest.mark.parametrize(("views", "axis"), [(ViewSet(horizontal_flip=1.0), -1), (ViewSet(vertical_flip=1.0), -2)])
def test_a_flip_mirrors_left_and_right_or_top_and_bottom(views, axis):
    images = pictures()
    assert torch.allclose(apply_views(images, draw_views(5, views, seeded())), images.flip(axis), atol=1e-6)


def test_flips_come_as_often_as_asked_for_and_apart_from_one_another():
    draw = draw_views(4000, ViewSet(horizontal_flip=0.5, vertical_flip=0.2), seeded())
    left, top = draw.affine[:, 0, 0] < 0, draw.affine[:, 1, 1] < 0
    assert stats.binomtest(int(left.sum()), 4000, 0.5).pvalue > 0.01
    assert stats.binomtest(int(top.sum()), 4000, 0.2).pvalue > 0.01
    assert stats.binomtest(int((left & top).sum()), 4000, 0.1).pvalue > 0.01


def test_a_quarter_turn_moves_each_pixel_about_the_centre():
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 1], image[0, 0, 3, 3] = 1.0, 0.5
    turned = apply_views(image, still(affine=((0, -1, 0), (1, 0, 0))))
    by_hand = torch.zeros(4, 4)
    by_hand[2, 0], by_hand[0, 3] = 1.0, 0.5  # counter-clockwise: the upper edge becomes the left one
    assert torch.allclose(turned[0, 0], by_hand, atol=1e-6)


def test_rotation_is_that_of_torchvision_by_the_drawn_angle():
    images, draw = pictures(6), draw_views(6, ViewSet(rotation=180.0), seeded())
    angles = torch.rad2deg(torch.atan2(draw.affine[:, 1, 0], draw.affine[:, 0, 0]))
    for image, angle, view in zip(images, angles, apply_views(images, draw), strict=True):
        turned = TV.rotate(image[None], float(angle), interpolation=TV.InterpolationMode.BILINEAR)[0]
        assert torch.allclose(view, turned, atol=1e-4)


@pytest.mark.parametrize("rotation", [30.0, 180.0])
def test_angles_are_uniform_on_both_sides_up_to_the_range(rotation):
    draw = draw_views(3000, ViewSet(rotation=rotation), seeded())
    angles = torch.rad2deg(torch.atan2(draw.affine[:, 1, 0].double(), draw.affine[:, 0, 0].double()))
    assert angles.abs().max() <= rotation + 1e-4
    assert stats.kstest(angles.numpy(), stats.uniform(-rotation, 2 * rotation).cdf).pvalue > 0.01
    assert torch.allclose(torch.linalg.det(draw.affine[:, :, :2]), torch.ones(3000), atol=1e-5)  # a turn changes no area


def test_crop_flip_and_rotation_together_are_one_affine_sampling():
    images, draw = pictures(4, side=14, dtype=torch.float64), draw_views(4, replace(EVERY, jitter=0.0, blur=0.0), seeded(3))
    views = apply_views(images, draw)
    for image, affine, view in zip(images, draw.affine, views, strict=True):
        assert np.allclose(view[0].numpy(), references.sample(image[0].numpy(), affine.tolist()), atol=1e-6)


def test_what_lies_outside_of_the_image_is_exactly_background():
    view = apply_views(torch.ones(1, 1, 20, 20), still(affine=((math.sqrt(0.5), -math.sqrt(0.5), 0), (math.sqrt(0.5), math.sqrt(0.5), 0))))
    corners = view[0, 0][[0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.equal(corners, torch.zeros(4)) and view[0, 0, 10, 10] == 1


@pytest.mark.parametrize("views", [SUPCAM, MOCO, EVERY])
def test_an_empty_image_stays_empty_and_every_view_stays_in_range(views):
    images = torch.cat([torch.zeros(20, 1, 16, 16), torch.rand(20, 1, 16, 16, generator=seeded())])
    out = apply_views(images, draw_views(40, views, seeded(1)))
    assert torch.equal(out[:20], torch.zeros(20, 1, 16, 16))
    assert out.min() >= 0 and out.max() <= 1 + 1e-6


def test_views_without_jitter_and_blur_keep_the_background_at_exactly_0():
    images, draw = pictures(10), draw_views(10, SUPCAM, seeded())
    views = apply_views(images, draw)
    sees_object = apply_views((images > 0).float(), draw) > 0
    assert torch.equal(views > 0, sees_object) and not sees_object.all()


def test_jitter_changes_brightness_then_contrast_as_torchvision_does():
    images = pictures(4)
    draw = replace(still(4), colour=torch.tensor([[1.3, 0.7], [0.65, 1.4], [1.0, 0.6], [1.4, 1.0]]))
    for image, colour, view in zip(images, draw.colour, apply_views(images, draw), strict=True):
        theirs = TV.adjust_contrast(TV.adjust_brightness(image, float(colour[0])), float(colour[1]))
        assert torch.allclose(view, theirs, atol=1e-6)
        assert np.allclose(view[0].numpy(), references.jitter(image[0].numpy(), *colour), atol=1e-6)


def test_contrast_of_a_colour_image_is_about_the_mean_of_its_luma():
    images = pictures(2, channels=3)
    views = apply_views(images, still(2, colour=(1.0, 0.5)))
    theirs = TV.adjust_contrast(images, 0.5)
    assert torch.allclose(views, theirs, atol=2e-4)  # torchvision rounds the weight of red to 0.2989


def test_jitter_comes_as_often_as_asked_for_with_factors_in_their_ranges():
    draw = draw_views(4000, ViewSet(brightness=0.4, contrast=0.2, jitter=0.8), seeded())
    changed = (draw.colour != 1).any(1)
    assert stats.binomtest(int(changed.sum()), 4000, 0.8).pvalue > 0.01
    for column, half in ((0, 0.4), (1, 0.2)):
        factors = draw.colour[changed, column].double().numpy()
        assert stats.kstest(factors, stats.uniform(1 - half, 2 * half).cdf).pvalue > 0.01
    assert torch.equal(draw.colour[~changed], torch.ones(int((~changed).sum()), 2))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
def test_blur_is_a_gaussian_cut_off_at_three_sigma(sigma):
    image = pictures(1, side=224, dtype=torch.float64)
    view = apply_views(image, still(sigma=sigma))
    kernel = 2 * math.ceil(3 * sigma) + 1
    assert torch.allclose(view, TV.gaussian_blur(image, [kernel, kernel], [sigma, sigma]), atol=1e-7)


def test_blur_scales_with_the_side_and_mirrors_at_the_border():
    image = torch.rand(1, 1, 28, 28, generator=seeded(), dtype=torch.float64)
    view = apply_views(image, still(sigma=6.0))
    assert np.allclose(view[0, 0].numpy(), references.blur(image[0, 0].numpy(), 6.0 * 28 / 224), atol=1e-7)


def test_blur_comes_as_often_as_asked_for_with_sigma_in_its_range():
    draw = draw_views(4000, ViewSet(blur=0.5, sigma=(0.1, 2.0)), seeded())
    blurred = draw.sigma[draw.sigma > 0].double().numpy()
    assert stats.binomtest(len(blurred), 4000, 0.5).pvalue > 0.01
    assert stats.kstest(blurred, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01


@pytest.mark.parametrize("side", [24, 224])
@pytest.mark.parametrize("views", [SUPCAM, EVERY])
def test_a_part_of_the_batch_gets_the_views_that_it_has_in_the_whole_batch(views, side):
    images, draw = pictures(9, side=side), draw_views(9, views, seeded(5))
    whole = apply_views(images, draw)
    for part in (slice(0, 3), slice(3, 9), slice(4, 5)):
        assert torch.allclose(apply_views(images[part], draw[part]), whole[part], atol=1e-6)


def test_draws_depend_on_the_generator_alone_and_lie_on_the_cpu():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = draw_views(7, EVERY, seeded(4))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = draw_views(7, EVERY, seeded(4)), draw_views(7, EVERY, seeded(5))
    for name in ("affine", "colour", "sigma"):
        assert torch.equal(getattr(first, name), getattr(again, name)) and getattr(first, name).device.type == "cpu"
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_how_many_numbers_a_draw_takes_does_not_depend_on_their_values():
    ends = set()
    for views in (EVERY, replace(EVERY, crop=(0.9, 1.0), horizontal_flip=0.9, rotation=5.0, brightness=0.1, jitter=0.1, blur=0.9)):
        chance = seeded(6)
        draw_views(11, views, chance)
        ends.add(float(torch.rand((), generator=chance)))
    assert len(ends) == 1


def test_applying_views_changes_neither_the_images_nor_the_draw():
    images, draw = pictures(6), draw_views(6, EVERY, seeded())
    kept = images.clone(), draw.affine.clone()
    apply_views(images, draw)
    assert torch.equal(images, kept[0]) and torch.equal(draw.affine, kept[1])


def test_a_zoom_scales_what_is_shown_by_up_to_its_factor_either_way_about_the_middle():
    draw = draw_views(4000, ViewSet(zoom=2.0), seeded())
    shown = -torch.linalg.det(draw.affine[:, :, :2].double()).log() / 2  # of the factor by which a view is larger
    assert -math.log(2) <= shown.min() < -0.68 and 0.68 < shown.max() <= math.log(2) + 1e-6 and shown.mean().abs() < 0.02
    assert stats.kstest(shown.numpy(), "uniform", args=(-math.log(2), 2 * math.log(2))).pvalue > 0.01
    disc = (torch.linspace(-1, 1, 128)[:, None].square() + torch.linspace(-1, 1, 128).square() < 0.16).float()[None, None]
    areas = apply_views(disc.repeat(50, 1, 1, 1), draw[:50]).sum((1, 2, 3)) / disc.sum()
    torch.testing.assert_close(areas.log().double() / 2, shown[:50], atol=0.02, rtol=0)
    assert torch.equal(draw_views(9, ViewSet(zoom=1.0), seeded()).affine, draw_views(9, ViewSet(), seeded()).affine)
