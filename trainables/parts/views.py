"""Random views of images, batched on the device that holds them.
Comes in: images (N, C, H, W) in [0, 1] with background 0, and random numbers drawn on the CPU. Goes out: views of the same shape.
Drawing is apart from applying, so that a data-parallel worker takes its slice of the global batch's numbers and that
the numbers do not depend on the device. Crop, flips and rotation are one affine map, sampled once: no repeated interpolation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.data.ground import TOLERANCE
from trainables.parts.numbers import constant

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL; torchvision's first is 0.2989
# Optical density of full haematoxylin, eosin and DAB in red, green, blue (Ruifrok and Johnston 2001)
HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
FROM_HED = tuple(map(tuple, torch.linalg.inv(torch.tensor(HED, dtype=torch.float64)).tolist()))
UNTINTED = torch.tensor([1.0, 0.0, 0.0])  # saturation, hue, gray
JITTERED = frozenset({"brightness", "contrast", "saturation", "hue"})


@dataclass(frozen=True)
class ViewSet:
    """Which views are drawn; a probability or a range of 0 switches a part off."""

    crop: tuple[float, float] | None = None  # area of the crop as a fraction of the image, uniform in this range; None: the whole image
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the crop, log-uniform (torchvision's RandomResizedCrop)
    zoom: float = 1.0  # what is shown is scaled by a factor log-uniform in [1 / zoom, zoom]; 1: not
    horizontal_flip: float = 0.0  # probability
    vertical_flip: float = 0.0  # probability
    rotation: float = 0.0  # degrees; the angle is uniform in [-rotation, rotation]
    brightness: float = 0.0  # factor uniform in [1 - b, 1 + b]
    contrast: float = 0.0  # factor uniform in [1 - c, 1 + c], about the image's mean
    saturation: float = 0.0  # factor uniform in [1 - s, 1 + s], about the pixel's gray value; colour images only, as the next two
    hue: float = 0.0  # shift uniform in [-h, h], 1 = once around the colour circle
    jitter: float = 0.0  # probability that brightness, contrast, saturation and hue change, in this order
    gray: float = 0.0  # probability that the colours go
    stain: float = (
        0.0  # each stain's density times 1 +- up to this, plus up to +- this (Tellez et al. 2018, HED jitter); colour images only
    )
    blur: float = 0.0  # probability of a Gaussian blur
    sigma: tuple[float, float] = (0.1, 2.0)  # of the blur, in pixels of a 224-pixel image; scaled with the image's side

    @property
    def changes(self) -> frozenset[str]:
        """What a view of this set can have beside its affine map."""
        jittered = {name for name in JITTERED if getattr(self, name) and self.jitter}
        return frozenset(jittered | {name for name in ("gray", "stain", "blur") if getattr(self, name)})


@dataclass(frozen=True)
class Draw:
    """The random numbers of N views; `draw[a:b]` is the part of one worker."""

    affine: Tensor  # (N, 2, 3) output to input coordinates, both in [-1, 1], as torch's affine_grid has it
    colour: Tensor  # (N, 2) factors of brightness and contrast, 1 = unchanged
    sigma: Tensor  # (N,) of the blur in pixels at side 224, 0 = none
    tint: Tensor | None = None  # (N, 3) factor of saturation, shift of hue, 1 where the colours go; None: all unchanged
    views: ViewSet | None = None  # of which they were drawn; None: by hand
    stain: Tensor | None = None  # (N, 2, 3) factor and offset of the density of haematoxylin, eosin and DAB; None: all unchanged

    def __getitem__(self, part: slice) -> "Draw":
        return replace(
            self, affine=self.affine[part], colour=self.colour[part], sigma=self.sigma[part],
            tint=None if self.tint is None else self.tint[part],
            stain=None if self.stain is None else self.stain[part],
        )  # fmt: skip

    @staticmethod
    def joined(draws: Sequence["Draw"]) -> "Draw":
        """Of several views one after the other, drawn from sets that change the same (they may crop and turn unlike): one computation."""
        first = draws[0]
        return replace(
            first, affine=torch.cat([draw.affine for draw in draws]), colour=torch.cat([draw.colour for draw in draws]),
            sigma=torch.cat([draw.sigma for draw in draws]),
            tint=None if first.tint is None else torch.cat([draw.tint for draw in draws if draw.tint is not None]),
            stain=None if first.stain is None else torch.cat([draw.stain for draw in draws if draw.stain is not None]),
        )  # fmt: skip

    @property
    def changes(self) -> frozenset[str]:
        """What these views have beside their affine map. Asks for the numbers, which lie on the CPU."""
        found = {name for name, factor in zip(("brightness", "contrast"), self.colour.unbind(1), strict=True) if bool((factor != 1).any())}
        if self.tint is not None:
            found |= {name for name, some in zip(("saturation", "hue", "gray"), (self.tint != UNTINTED).any(0), strict=True) if bool(some)}
        found |= {"stain"} if self.stain is not None else set()
        return frozenset(found | ({"blur"} if bool((self.sigma > 0).any()) else set()))

    @property
    def jittered(self) -> Tensor:
        """Positions of the views whose brightness, contrast, saturation or hue changes. Asks for the numbers, as `changes` does."""
        found = (self.colour != 1).any(1)
        return (found if self.tint is None else found | (self.tint != UNTINTED)[:, :2].any(1)).nonzero()[:, 0]


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)


def _draw_crop(n: int, views: ViewSet, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Size (N, 2) and centre (N, 2) of crops as (x, y), in fractions of the side. Ten tries, then the whole image."""
    if views.crop is None:
        return torch.ones(n, 2, dtype=torch.float64), torch.full((n, 2), 0.5, dtype=torch.float64)
    tries = 10
    area = _uniform(n * tries, *views.crop, generator).view(n, tries)
    log_ratio = _uniform(n * tries, math.log(views.ratio[0]), math.log(views.ratio[1]), generator).view(n, tries)
    size = torch.stack([(area * log_ratio.exp()).sqrt(), (area / log_ratio.exp()).sqrt()], dim=2)
    fits = (size <= 1).all(dim=2)
    first = fits.int().argmax(dim=1)
    chosen = size[torch.arange(n), first]
    chosen[~fits.any(dim=1)] = 1.0
    place = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return chosen, chosen / 2 + place * (1 - chosen)


def draw_views(n: int, views: ViewSet, generator: torch.Generator) -> Draw:
    """Random numbers of n views. The numbers taken from the generator depend on n and on `views` alone."""
    size, centre = _draw_crop(n, views, generator)
    flips = torch.ones(n, 2, dtype=torch.float64)
    for axis, probability in enumerate((views.horizontal_flip, views.vertical_flip)):
        if probability:
            flips[_uniform(n, 0, 1, generator) < probability, axis] = -1
    angle = (
        torch.deg2rad(_uniform(n, -views.rotation, views.rotation, generator)) if views.rotation else torch.zeros(n, dtype=torch.float64)
    )
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    matrix = (size * flips)[:, :, None] * turn
    if views.zoom != 1:
        reach = math.log(views.zoom)
        matrix = matrix * _uniform(n, -reach, reach, generator).exp()[:, None, None]
    affine = torch.cat([matrix, (2 * centre - 1)[:, :, None]], dim=2)
    colour = torch.ones(n, 2, dtype=torch.float64)
    tint = UNTINTED.double().repeat(n, 1) if views.saturation or views.hue or views.gray else None
    if views.jitter:
        factors = torch.stack([_uniform(n, 1 - s, 1 + s, generator) for s in (views.brightness, views.contrast)], 1)
        changed = _uniform(n, 0, 1, generator) < views.jitter
        colour[changed] = factors[changed]
        if tint is not None:
            drawn = torch.stack(
                [_uniform(n, 1 - views.saturation, 1 + views.saturation, generator), _uniform(n, -views.hue, views.hue, generator)], 1
            )
            tint[changed, :2] = drawn[changed]
    if tint is not None and views.gray:
        tint[_uniform(n, 0, 1, generator) < views.gray, 2] = 1
    sigma = torch.zeros(n, dtype=torch.float64)
    if views.blur:
        drawn = _uniform(n, *views.sigma, generator)
        blurred = _uniform(n, 0, 1, generator) < views.blur
        sigma[blurred] = drawn[blurred]
    stain = None
    if views.stain:  # drawn last: other views draw what they drew before there was this one
        drawn = _uniform(6 * n, -views.stain, views.stain, generator).view(n, 2, 3)
        stain = (drawn + torch.tensor([[1.0], [0.0]])).float()
    return Draw(affine.float(), colour.float(), sigma.float(), None if tint is None else tint.float(), views, stain)


def _blur(images: Tensor, sigma: Tensor, largest: float | None = None) -> Tensor:
    """Gaussian blur with one sigma (in pixels) an image, separable, borders reflected. images (N, C, H, W), sigma (N,). largest: none of
    them is above it; None: they lie on the CPU and are asked. Each kernel ends at its own ceil(3 sigma), so that an image's view does not
    depend on the others of its batch."""
    n, channels, height, width = images.shape
    end = min(height, width) - 1
    reach = (3 * sigma).ceil().clamp(1, end)
    radius = int(reach.max()) if largest is None else max(1, min(math.ceil(3 * largest), end))
    offsets = torch.arange(-radius, radius + 1, dtype=sigma.dtype, device=sigma.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2) * (offsets.abs() <= reach[:, None])
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(images.device, images.dtype)
    flat = images.reshape(1, n * channels, height, width)
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=n * channels)
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None], groups=n * channels)
    return flat.view(n, channels, height, width)


def _luma(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W) gray values."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Each pixel's hue shifted by `turn` (N, 1, 1) of the colour circle, its value and saturation kept. images (N, 3, H, W)."""
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    red, green, blue = images.unbind(1)
    span = chroma + (chroma == 0)
    place = torch.where(high == red, (green - blue) / span, torch.where(high == green, (blue - red) / span + 2, (red - green) / span + 4))
    place = place + 6 * turn  # on the circle, in sixths: red 0, green 2, blue 4
    parts = [(place + start) % 6 for start in (5, 3, 1)]
    return torch.stack([high - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in parts], 1)


def _restain(images: Tensor, stain: Tensor) -> Tensor:
    """The densities of three stains, each times its factor plus its offset. images (N, 3, H, W) in [0, 1]; stain (N, 2, 3).
    Colour is exp(-density), density a mixture of the stains' (Beer and Lambert); black counts as 1 / 255."""
    mix, back = (constant(rows, images.device, images.dtype) for rows in (HED, FROM_HED))
    densities = torch.einsum("nchw,cs->nshw", -images.clamp_min(1 / 255).log(), back)
    densities = densities * stain[:, 0, :, None, None] + stain[:, 1, :, None, None]
    return (-torch.einsum("nshw,sc->nchw", densities, mix)).exp().clamp(0, 1)


def _grid(affine: Tensor, height: int, width: int) -> Tensor:
    """affine (N, 2, 3) -> (N, H, W, 2), where each pixel of a view lies in its image: torch's affine_grid, whose product of N x H W x 3 and
    3 x 2 takes as long on a CPU as the sampling itself."""
    x, y = (torch.linspace(-1, 1, side, device=affine.device, dtype=affine.dtype) * (side - 1) / side for side in (width, height))
    across, down, offset = affine[:, None, None].unbind(-1)
    return x[:, None] * across + y[:, None, None] * down + offset


def _unless(same: Tensor, old: Tensor, new: Tensor, steady: bool) -> Tensor:
    """Images `new` (N, C, H, W), those of `old` where same (N, 1, 1, 1). On a CPU a look for the few rows is a quarter of a `where`."""
    if steady:
        return torch.where(same, old, new)
    rows = same.flatten().nonzero()[:, 0]
    new[rows] = old[rows]
    return new


def _jittered(views: Tensor, colour: Tensor, tint: Tensor | None, changes: frozenset[str], keep_background: bool, steady: bool) -> Tensor:
    """Brightness, contrast, saturation and hue of views (N, C, H, W), by colour (N, 2) and tint (N, 3)."""
    brightness, contrast = colour[:, :, None, None, None].unbind(1)
    if "brightness" in changes:
        views = (views * brightness).clamp_(0, 1)
    if "contrast" in changes:
        luma, same = _luma(views), contrast == 1
        if keep_background:
            shown = luma > (TOLERANCE + 0.5) / 255
            mean = (luma * shown).sum(dim=(1, 2, 3), keepdim=True) / shown.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
            views = torch.where(same | ~shown, views, (views - mean).mul_(contrast).add_(mean).clamp_(0, 1))
        else:
            mean = luma.mean(dim=(1, 2, 3), keepdim=True)
            views = _unless(same, views, (views - mean).mul_(contrast).add_(mean).clamp_(0, 1), steady)
    if tint is not None:
        saturation, hue, _ = tint[:, :, None, None, None].unbind(1)
        if "saturation" in changes:
            luma = _luma(views)
            views = _unless(saturation == 1, views, (views - luma).mul_(saturation).add_(luma).clamp_(0, 1), steady)
        if "hue" in changes:
            views = _unless(hue == 0, views, _turn_hue(views, hue[:, 0]), steady)
    return views


def apply_views(images: Tensor, draw: Draw, outside: str = "zeros", keep_background: bool = False, steady: bool | None = None) -> Tensor:
    """images (N, C, H, W) in [0, 1]; draw of N views. Views (N, C, H, W) in [0, 1]. outside of the image: `zeros`, the background, or
    `reflection`, for images that are cut out of a larger one. A draw with colours needs C = 3. keep_background: contrast changes what
    is above the readers' tolerance about its own mean and leaves the background at 0; otherwise contrast is torchvision's, about the mean
    of the whole image, and a weaker one lifts the background, which no image that is read shows.
    steady: everything that the draw's set of views can change is computed for every image, whatever was drawn, so that the device is asked
    nothing; None: wherever the images are not on a CPU. Otherwise what no image changes is left out, and only those that blur are
    blurred."""
    device = images.device
    if steady is None:
        steady = device.type != "cpu"
    if steady and draw.views is None:
        raise ValueError("views that ask the device nothing need the set that they were drawn from: take them from `draw_views`")
    changes = draw.views.changes if steady and draw.views is not None else draw.changes
    grid = _grid(draw.affine.to(device, images.dtype), *images.shape[2:])
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)
    if "stain" in changes and draw.stain is not None:  # what is on the slide, before what the camera makes of it
        views = _restain(views, draw.stain.to(device, images.dtype))
    colour, tint = draw.colour.to(device, images.dtype), None if draw.tint is None else draw.tint.to(device, images.dtype)
    if changes & JITTERED:
        rows = None if steady else draw.jittered.to(device)
        if rows is None or len(rows) == len(views):
            views = _jittered(views, colour, tint, changes, keep_background, steady)
        else:
            views[rows] = _jittered(views[rows], colour[rows], None if tint is None else tint[rows], changes, keep_background, steady)
    if "gray" in changes and tint is not None:
        gray = tint[:, 2] == 1
        if steady:
            views = torch.where(gray[:, None, None, None], _luma(views), views)
        else:
            views[gray] = _luma(views[gray])
    if "blur" in changes:
        scale = images.shape[-1] / 224
        if steady and draw.views is not None:
            sigma = draw.sigma.to(device).double() * scale
            return torch.where(sigma[:, None, None, None] > 0, _blur(views, sigma, draw.views.sigma[1] * scale), views)
        rows = (draw.sigma > 0).nonzero()[:, 0]
        views = views.clone()
        views[rows.to(device)] = _blur(views[rows.to(device)], draw.sigma[rows].double() * scale)
    return views
