"""Change the colours of a batch of images on a GPU, for `gpu_train.py`.

The changes are those of the policy `aerial` of `rooftrace train`, with cast shadows and haze.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def change_colours(
    image: Tensor, built: Tensor, generator: torch.Generator, rng: np.random.Generator
) -> Tensor:
    """Return images (n, 3, y, x) in 0..1 in another light and of another camera.

    What decides the number of operations is drawn by `rng` on the CPU, so that it need not wait for
    the GPU.

    Args:
        image: (n, 3, y, x) in 0..1; y and x are multiples of 8.
        built: (n, y, x) bool, buildings.
    """
    device, count = image.device, len(image)

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        made = torch.rand(count, channels, 1, 1, generator=generator, device=device)
        return low + (high - low) * made

    def log_uniform(most: float, channels: int = 1) -> Tensor:
        return torch.exp(uniform(-math.log(most), math.log(most), channels))

    def some(share: float) -> Tensor:
        return uniform(0, 1) < share

    shadow = cast_shadow(built, rng.uniform(0, 2 * math.pi), int(rng.integers(1, 13)))
    darker = 1 - shadow[:, None] * uniform(0.3, 0.8)
    image = torch.where(some(0.15), image * darker, image)
    image = image.clamp(1e-4, 1) ** log_uniform(1.6)
    image = image + uniform(-0.15, 0.15)
    middle = image.mean(dim=(1, 2, 3), keepdim=True)
    image = (image - middle) * log_uniform(1.5) + middle
    image = image * log_uniform(1.2, 3)
    grey = image.mean(dim=1, keepdim=True)
    image = torch.where(some(0.5), grey + (image - grey) * log_uniform(1.5), image)
    image = torch.where(some(0.15), grey.expand_as(image), image)
    haze = torch.tensor([0.75, 0.8, 0.85], device=device).view(1, 3, 1, 1)
    image = torch.where(some(0.1), torch.lerp(image, haze.expand_as(image), uniform(0.1, 0.5)),
                        image)  # fmt: skip
    image = blurred(image, torch.where(some(0.25), uniform(0.3, 1.5), 1e-3).view(-1))
    image = coarsened(image, np.where(rng.random(count) < 0.3, rng.uniform(1, 3, count), 1))
    soft = blurred(image, torch.full((count,), 1.0, device=device))
    image = torch.where(some(0.15), image + (image - soft) * uniform(0, 1), image)
    noise = torch.randn(image.shape, generator=generator, device=device)
    image = (image + noise * uniform(0, 0.03)).clamp(0, 1)
    some_to_compress = torch.from_numpy(rng.permutation(count)[: count // 8]).to(device)
    return compressed(image, some_to_compress, uniform(50, 95).view(-1)[some_to_compress])


def cast_shadow(built: Tensor, angle: float, length: int) -> Tensor:
    """Return (n, y, x) 1 where buildings shade the ground beside them, up to `length` pixels."""
    solid = built.float()
    shade = solid.clone()
    for step in range(1, length + 1):
        shift = round(step * math.sin(angle)), round(step * math.cos(angle))
        shade = torch.maximum(shade, torch.roll(solid, shift, dims=(1, 2)))
    return shade - solid


def blurred(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own width in pixels."""
    count, bands = image.shape[:2]
    at = torch.arange(-4, 5, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(at**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(bands, dim=0)
    flat = F.pad(image.reshape(1, count * bands, *image.shape[2:]), (4, 4, 4, 4), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * bands)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * bands)
    return flat.reshape(image.shape)


def coarsened(image: Tensor, factor: np.ndarray[Any, Any]) -> Tensor:
    """Average each image over its factor, and interpolate it back, as a coarser sensor sees it."""
    side = image.shape[-1]
    made = list(image)
    for index, by in enumerate(factor.tolist()):
        if by > 1.05:
            small = F.interpolate(image[index : index + 1], size=round(side / by), mode="area")
            made[index] = F.interpolate(small, size=side, mode="bilinear", align_corners=False)[0]
    return torch.stack(made)


LUMINANCE = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], dtype=torch.float32)  # fmt: skip
"""Steps of the cosine transform of 8 × 8 pixels at quality 50 (JPEG, ITU T.81, table K.1)."""


def compressed(image: Tensor, chosen: Tensor, quality: Tensor) -> Tensor:
    """Round the chosen images as JPEG of a quality of 50 to 95 does, each band like brightness."""
    some, device = image[chosen], image.device
    at = torch.arange(8, device=device, dtype=torch.float32)
    cosine = torch.cos(math.pi / 8 * (at[None] + 0.5) * at[:, None]) / 2
    cosine[0] /= math.sqrt(2)
    steps = LUMINANCE.to(device) * ((100 - quality) / 50).view(-1, 1, 1, 1, 1, 1)
    count, bands, height, width = some.shape
    blocks = some.reshape(count, bands, height // 8, 8, width // 8, 8).transpose(3, 4) * 255
    waves = cosine @ blocks @ cosine.T
    blocks = cosine.T @ (torch.round(waves / steps) * steps) @ cosine
    made = image.clone()
    made[chosen] = (blocks / 255).transpose(3, 4).reshape(some.shape).clamp(0, 1)
    return made
