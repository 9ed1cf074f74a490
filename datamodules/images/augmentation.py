"""Random geometric augmentation with a separate draw for each image of a batch.

The transforms of torchvision draw once for all images that they get, so that a whole batch is
rotated and shifted alike. Here each image has its own draw at the same cost: all transforms are
computed together, and one bilinear sampling moves all pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PerImageAffine(nn.Module):
    """Rotate, scale, shear and shift each image about its center; uncovered pixels are black.

    All draws are uniform, from torch's global random state.

    Args:
        degrees: Maximum rotation in either direction, 0 to 180.
        translate: Maximum shift in either direction as a fraction of the image's side, 0 to 1.
        scale: Minimum and maximum scale factor, above 0.
        shear: Maximum shear angle in either direction, in degrees, 0 to 89.

    Raises:
        ValueError: If a range is invalid.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shear: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not 0 <= degrees <= 180:
            raise ValueError(f"{name}: degrees must be in [0, 180], got {degrees}.")
        if not 0 <= translate <= 1:
            raise ValueError(f"{name}: translate must be in [0, 1], got {translate}.")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"{name}: scale must be two ascending factors above 0, got {list(scale)}."
            )
        if not 0 <= shear <= 89:
            raise ValueError(f"{name}: shear must be in [0, 89], got {shear}.")
        self.degrees = degrees
        self.translate = translate
        self.scale = list(scale)
        self.shear = shear

    def forward(self, images: Tensor) -> Tensor:
        """Transform images (B, C, H, W), uint8 or float; shape and type stay the same."""
        number, _, height, width = images.shape
        return resample(images, self.draw(number, height, width, images.device))

    def draw(self, number: int, height: int, width: int, device: torch.device) -> Tensor:
        """Draw an affine map for each of `number` images, (B, 2, 3)."""
        uniform = 2 * torch.rand(4, number, device=device) - 1  # (4, B) in [-1, 1)
        shift = torch.stack([width * uniform[0], height * uniform[1]], dim=-1)  # (B, 2)
        low, high = self.scale
        return inverse_affine(
            angle=torch.deg2rad(self.degrees * uniform[2]),
            shift=self.translate * shift,
            scale=low + (high - low) * torch.rand(number, device=device),
            shear=torch.deg2rad(self.shear * uniform[3]),
        )


class PerImageElastic(PerImageAffine):
    """Elastic distortion of each image, in addition to rotation, scale, shear and shift.

    Simard, Steinkraus & Platt 2003, "Best practices for convolutional neural networks applied to
    visual document analysis", section 2: a random displacement field, uniform in [-1, 1] in each
    direction, is smoothed by a Gaussian and multiplied by alpha. It imitates the variation of
    handwriting, which affine maps cannot. Uncovered pixels are black.

    Args:
        alpha: Factor of the smoothed displacements in pixels, at least 0; the paper's for 28x28.
        sigma: Standard deviation of the Gaussian in pixels, above 0; the paper's for 28x28. The
            displacements have a standard deviation of about 0.16 alpha / sigma pixels.
        degrees: Maximum rotation in either direction, 0 to 180.
        translate: Maximum shift in either direction as a fraction of the image's side, 0 to 1.
        scale: Minimum and maximum scale factor, above 0.
        shear: Maximum shear angle in either direction, in degrees, 0 to 89.

    Raises:
        ValueError: If a range is invalid.
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
                f"PerImageElastic: alpha must be at least 0 and sigma above 0, got {alpha} and "
                f"{sigma}."
            )
        self.alpha = alpha
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        """Transform images (B, C, H, W), uint8 or float; shape and type stay the same."""
        number, _, height, width = images.shape
        maps = self.draw(number, height, width, images.device)  # (B, 2, 3)
        displacements = self.draw_displacements(number, height, width, images.device)
        return resample(images, maps, displacements)

    def draw_displacements(
        self, number: int, height: int, width: int, device: torch.device
    ) -> Tensor:
        """Draw the displacement of each pixel, right and down in pixels, (B, H, W, 2)."""
        uniform = 2 * torch.rand(2 * number, 1, height, width, device=device) - 1  # (2B, 1, H, W)
        radius = min(round(4 * self.sigma), height - 1, width - 1)  # the Gaussian is ~0 beyond
        offsets = torch.arange(-radius, radius + 1, device=device)  # (S,)
        weights = torch.exp(-0.5 * (offsets / self.sigma) ** 2)  # (S,)
        weights = weights / weights.sum()
        # A 2D Gaussian is separable; displacements beyond the image count as 0.
        smooth = F.conv2d(uniform, weights.view(1, 1, -1, 1), padding=(radius, 0))
        smooth = F.conv2d(smooth, weights.view(1, 1, 1, -1), padding=(0, radius))  # (2B, 1, H, W)
        return self.alpha * smooth.view(number, 2, height, width).permute(0, 2, 3, 1)


def inverse_affine(angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Return the map A⁻¹ (p - t) from an output pixel p, relative to the center, to the input.

    A = scale · R(angle) · [[1, tan(shear)], [0, 1]] rotates clockwise, as y points down.

    Args:
        angle: Radians, (B,).
        shift: t, pixels to the right and down, (B, 2).
        scale: Scale factors, (B,).
        shear: Radians, (B,); positive angles move pixels below the center to the right.

    Returns:
        [A⁻¹ | -A⁻¹ t], (B, 2, 3).
    """
    # A⁻¹ = [[1, -tan(shear)], [0, 1]] · R(-angle) / scale
    cos, sin, slope = angle.cos(), angle.sin(), shear.tan()  # (B,), (B,), (B,)
    first = torch.stack([cos + slope * sin, sin - slope * cos], dim=-1)  # (B, 2)
    second = torch.stack([-sin, cos], dim=-1)  # (B, 2)
    inverse = torch.stack([first, second], dim=-2) / scale[:, None, None]  # (B, 2, 2)
    return torch.cat([inverse, -inverse @ shift.unsqueeze(-1)], dim=-1)  # (B, 2, 3)


def resample(images: Tensor, maps: Tensor, displacements: Tensor | None = None) -> Tensor:
    """Sample each output pixel bilinearly where its image's map points to.

    Args:
        images: (B, C, H, W), uint8 or float.
        maps: As `inverse_affine` returns them, (B, 2, 3).
        displacements: Added to the map, right and down in pixels, (B, H, W, 2).
    """
    height, width = images.shape[-2:]
    # To torch's normalized coordinates, in which half an image has length 1.
    half = maps.new_ones(3)
    half[0], half[1] = width / 2, height / 2  # creating a tensor of numbers would wait for the GPU
    theta = maps * half / half[:2, None]  # (B, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # (B, H, W, 2)
    if displacements is not None:
        grid = grid + displacements / half[:2]  # (B, H, W, 2)
    moved = F.grid_sample(images.float(), grid, align_corners=False)  # (B, C, H, W)
    return moved if images.is_floating_point() else moved.round().to(images.dtype)
