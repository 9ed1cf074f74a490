"""A random map of the plane for each picture of a whole batch, in one go.

The transforms of torchvision draw once for all pictures that they are given at once, so whole
batches turn, shift and bend together. Here every picture has a draw of its own at the same price:
all maps are computed together, and one bilinear look-up moves all pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PerImageAffine(nn.Module):
    """Turn, scale, shear and shift each picture about its centre; what comes in is black.

    All draws are uniform. They come from torch's global random state: a run's seed decides them.

    Args:
        degrees: Largest angle of rotation either way, 0 to 180.
        translate: Largest shift either way as a fraction of the picture's side, 0 to 1.
        scale: Smallest and largest factor of size, above 0.
        shear: Largest angle of shear either way in degrees, 0 to below 90.

    Raises:
        ValueError: If a range is none.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shear: float = 0.0,
    ) -> None:
        super().__init__()
        for complaint, justified in {
            f"degrees must be in 0…180, not {degrees}": not 0 <= degrees <= 180,
            f"translate must be in 0…1, not {translate}": not 0 <= translate <= 1,
            f"scale must be two factors above 0, the smaller first, not {list(scale)}": (
                len(scale) != 2 or not 0 < scale[0] <= scale[1]
            ),
            f"shear must be in 0…89, not {shear}": not 0 <= shear <= 89,
        }.items():
            if justified:
                raise ValueError(f"{type(self).__name__}: {complaint}.")
        self.degrees = degrees
        self.translate = translate
        self.scale = list(scale)
        self.shear = shear

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, C, H, W), uint8 or float, to as many of the same kind."""
        number, _, height, width = pictures.shape
        maps = self.draw(number, height, width, pictures.device)  # (B, 2, 3)
        return move(pictures, maps)

    def draw(self, number: int, height: int, width: int, device: torch.device) -> Tensor:
        """A map for each of `number` pictures, (B, 2, 3)."""
        around = 2 * torch.rand(4, number, device=device) - 1  # (4, B) in -1…1
        shift = torch.stack([width * around[0], height * around[1]], dim=-1)  # (B, 2)
        low, high = self.scale
        return inverse_affine(
            angle=torch.deg2rad(self.degrees * around[2]),
            shift=self.translate * shift,
            scale=low + (high - low) * torch.rand(number, device=device),
            shear=torch.deg2rad(self.shear * around[3]),
        )


class PerImageElastic(PerImageAffine):
    """Bend each picture as rubber, and turn, scale, shear and shift it; what comes in is black.

    Simard, Steinkraus & Platt 2003, "Best practices for convolutional neural networks applied to
    visual document analysis", section 2: every pixel looks a random distance off, in -1…1 in each
    direction; the distances are smoothed by a Gaussian, so that neighbours go the same way, and
    multiplied by alpha. A hand that writes a digit again bends it so, and no affine map can.

    Args:
        alpha: Factor of the smoothed distances, 0 or more, in pixels; the paper's for 28x28.
        sigma: Standard deviation of the Gaussian in pixels, above 0; the paper's for 28x28. The
            distances have a standard deviation of some 0.16 alpha / sigma pixels.
        degrees: Largest angle of rotation either way, 0 to 180.
        translate: Largest shift either way as a fraction of the picture's side, 0 to 1.
        scale: Smallest and largest factor of size, above 0.
        shear: Largest angle of shear either way in degrees, 0 to below 90.

    Raises:
        ValueError: If a range is none.
    """

    def __init__(
        self,
        alpha: float = 34.0,
        sigma: float = 4.0,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shear: float = 0.0,
    ) -> None:
        super().__init__(degrees, translate, scale, shear)
        if not alpha >= 0 or not sigma > 0:
            raise ValueError(
                f"PerImageElastic: alpha must be 0 or more and sigma above 0, not {alpha} and "
                f"{sigma}."
            )
        self.alpha = alpha
        self.sigma = sigma

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, C, H, W), uint8 or float, to as many of the same kind."""
        number, _, height, width = pictures.shape
        maps = self.draw(number, height, width, pictures.device)  # (B, 2, 3)
        return move(pictures, maps, self.draw_bends(number, height, width, pictures.device))

    def draw_bends(self, number: int, height: int, width: int, device: torch.device) -> Tensor:
        """How far off each pixel looks, to the right and down in pixels, (B, H, W, 2)."""
        around = 2 * torch.rand(2 * number, 1, height, width, device=device) - 1  # (2B, 1, H, W)
        reach = min(round(4 * self.sigma), height - 1, width - 1)  # beyond it a Gaussian is nothing
        offsets = torch.arange(-reach, reach + 1, device=device)  # (S,)
        weights = torch.exp(-0.5 * (offsets / self.sigma) ** 2)  # (S,)
        weights = weights / weights.sum()
        # A Gaussian of the plane is one along each side; beyond the picture the distances are 0.
        smooth = F.conv2d(around, weights.view(1, 1, -1, 1), padding=(reach, 0))
        smooth = F.conv2d(smooth, weights.view(1, 1, 1, -1), padding=(0, reach))  # (2B, 1, H, W)
        return self.alpha * smooth.view(number, 2, height, width).permute(0, 2, 3, 1)


def inverse_affine(angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Where an output pixel at p, counted from the centre, looks in the input: A⁻¹ (p - t).

    A = scale · R(angle) · [[1, tan(shear)], [0, 1]] turns clockwise, as y points downwards.

    Args:
        angle: (B,), radians.
        shift: t, (B, 2), pixels to the right and down.
        scale: (B,).
        shear: (B,), radians; at what is below the centre it pulls to the right.

    Returns:
        A⁻¹ beside -A⁻¹ t, (B, 2, 3).
    """
    # A⁻¹ = [[1, -tan(shear)], [0, 1]] · R(-angle) / scale
    cos, sin, slope = angle.cos(), angle.sin(), shear.tan()  # (B,), (B,), (B,)
    above = torch.stack([cos + slope * sin, sin - slope * cos], dim=-1)  # (B, 2)
    below = torch.stack([-sin, cos], dim=-1)  # (B, 2)
    inverse = torch.stack([above, below], dim=-2) / scale[:, None, None]  # (B, 2, 2)
    return torch.cat([inverse, -inverse @ shift.unsqueeze(-1)], dim=-1)  # (B, 2, 3)


def move(pictures: Tensor, maps: Tensor, bends: Tensor | None = None) -> Tensor:
    """Look up each output pixel where its picture's map says, between four pixels.

    Args:
        pictures: (B, C, H, W), uint8 or float.
        maps: (B, 2, 3), as `inverse_affine` gives them.
        bends: How many pixels off the map each pixel looks, to the right and down, (B, H, W, 2).
    """
    height, width = pictures.shape[-2:]
    # To torch's coordinates, in which half a picture has the length 1.
    half = maps.new_ones(3)
    half[0], half[1] = width / 2, height / 2  # a tensor made of numbers would wait for a GPU
    theta = maps * half / half[:2, None]  # (B, 2, 3)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)  # (B, H, W, 2)
    if bends is not None:
        grid = grid + bends / half[:2]  # (B, H, W, 2)
    moved = F.grid_sample(pictures.float(), grid, align_corners=False)  # (B, C, H, W)
    return moved if pictures.is_floating_point() else moved.round().to(pictures.dtype)
