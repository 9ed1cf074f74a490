"""A random affine map for each picture of a whole batch, in one go.

The transforms of torchvision draw once for all pictures that they are given at once, so whole
batches turn and shift together. Here every picture has a draw of its own at the same price: all
maps of the plane are computed together, and one bilinear look-up moves all pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PerPictureAffine(nn.Module):
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
                raise ValueError(f"PerPictureAffine: {complaint}.")
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
        shift = around[:2].mT * torch.tensor([width, height], device=device)  # (B, 2)
        low, high = self.scale
        return inverse_affine(
            angle=torch.deg2rad(self.degrees * around[2]),
            shift=self.translate * shift,
            scale=low + (high - low) * torch.rand(number, device=device),
            shear=torch.deg2rad(self.shear * around[3]),
        )


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


def move(pictures: Tensor, maps: Tensor) -> Tensor:
    """Look up each output pixel where its picture's map says, between four pixels.

    Args:
        pictures: (B, C, H, W), uint8 or float.
        maps: (B, 2, 3), as `inverse_affine` gives them.
    """
    height, width = pictures.shape[-2:]
    # To torch's coordinates, in which half a picture has the length 1.
    half = maps.new_tensor([width / 2, height / 2, 1])
    theta = maps * half / half[:2, None]  # (B, 2, 3)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)  # (B, H, W, 2)
    moved = F.grid_sample(pictures.float(), grid, align_corners=False)  # (B, C, H, W)
    return moved if pictures.is_floating_point() else moved.round().to(pictures.dtype)
