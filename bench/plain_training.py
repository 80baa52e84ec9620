"""A training loop as people write it: PIL, albumentations, a DataLoader with workers, fp32.

The scenes are cut to tiles of PNG at the model's metres per pixel once, before any clock starts:
that is what such a loop expects. albumentations is no part of the development environment:

    pip install albumentations==2.0.8
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from rooftrace.core.scales import WorkingScales
from rooftrace.labels.source import SceneSet
from rooftrace.samples.dataset import EvalTiles

# It asks the package index for a newer version when it is imported.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

try:
    import albumentations as A
except ImportError:
    raise SystemExit("error: the plain loop needs albumentations==2.0.8, by pip") from None

__all__ = ["PlainLoop", "infinite_batches", "write_tiles"]

TILE_PX = 512
WORKERS = 2
LEARNING_RATE = 1e-3

_ENOUGH_VALID = 0.3
"""Minimum share of valid pixels of a training tile; black tiles teach nothing."""


def write_tiles(sources: Sequence[SceneSet], folder: Path, gsd_m: float | None) -> int:
    """Cut labelled scenes to `images/*.png` and `masks/*.png` (0 and 255), and say how many."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    scales = None if gsd_m is None else WorkingScales(gsd_m)
    written = 0
    for place, source in enumerate(sources):
        tiles = EvalTiles(source, crop_px=TILE_PX, scales=scales, cache_bytes=2**30)
        for number in range(len(tiles)):
            tile = tiles[number]
            if tile.valid.mean() < _ENOUGH_VALID:
                continue
            name = f"{place:02d}_{number:05d}.png"
            pixels = np.rint(np.moveaxis(tile.image, 0, -1)).astype(np.uint8)
            mask = np.where(tile.target == source.building_class, 255, 0).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
            Image.fromarray(mask).save(folder / "masks" / name)
            written += 1
    if not written:
        raise SystemExit(f"error: no tile of {TILE_PX} px of these scenes has enough in it")
    return written


class _Tiles(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of the tiles of a folder, changed at random."""

    def __init__(self, folder: Path, crop_px: int) -> None:
        self._folder = folder
        self._names = sorted(path.name for path in (folder / "images").glob("*.png"))
        self._change = A.Compose(
            [
                A.RandomCrop(crop_px, crop_px),
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.5),
                A.RandomRotate90(p=0.5),
                A.Rotate(limit=30, p=0.3),
                A.RandomBrightnessContrast(p=0.3),
                A.Normalize(),
            ]
        )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Normalised image (band, y, x) and mask (1, y, x) of 0 and 1, both float32."""
        name = self._names[index]
        with Image.open(self._folder / "images" / name) as image:
            pixels = np.array(image.convert("RGB"))
        with Image.open(self._folder / "masks" / name) as mask:
            building = (np.array(mask) > 127).astype(np.float32)
        changed = self._change(image=pixels, mask=building)
        image_chw = np.ascontiguousarray(changed["image"].transpose(2, 0, 1))
        return torch.from_numpy(image_chw), torch.from_numpy(changed["mask"])[None]


class _Shuffled(Sampler[int]):
    """Shuffled passes over all tiles, one after the other, without end.

    Args:
        start: Number of tiles that were drawn before.
    """

    def __init__(self, size: int, seed: int, start: int) -> None:
        self._size, self._seed, self._start = size, seed, start

    def __iter__(self) -> Iterator[int]:
        passes, skipped = divmod(self._start, self._size)
        while True:
            order = np.random.default_rng((self._seed, passes)).permutation(self._size)
            yield from order[skipped:].tolist()
            passes, skipped = passes + 1, 0


def infinite_batches(
    folder: Path, *, crop_px: int, batch_size: int, seed: int, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from worker processes; `start` of them were taken before."""
    tiles = _Tiles(folder, crop_px)
    loader = DataLoader(
        tiles,
        batch_size=batch_size,
        sampler=_Shuffled(len(tiles), seed, start * batch_size),
        num_workers=WORKERS,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


class PlainLoop:
    """Forward, loss, backward, step: fp32, rows of pixels band by band, one learning rate."""

    def __init__(self, net: nn.Module, device: str = "cpu") -> None:
        self.net = net.to(device).train()
        self._device = device
        self._bce = nn.BCEWithLogitsLoss()
        self._dice = smp.losses.DiceLoss(mode="binary")
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)

    def step(self, batch: tuple[Tensor, Tensor]) -> float:
        images, masks = (part.to(self._device) for part in batch)
        logits = self.net(images)
        loss = 0.6 * self._bce(logits, masks) + 0.4 * self._dice(logits, masks)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RuntimeError("the plain loop's loss is no longer a finite number")
        return value

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
