"""Crops of the packed images of `gpu_pack.py`, drawn on the device of the training."""

from __future__ import annotations

import json
import math
import tomllib
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray[Any, Any]

NODATA, UNLABELLED, FIRST = 1, 2, 3
"""Numbers of a pixel, see `gpu_pack.py`; from `FIRST` on, buildings."""

RECIPE = Path(__file__).parent / "default.toml"
SHARES = {
    given.get("name", Path(given["path"]).name): given["share"]
    for given in tomllib.loads(RECIPE.read_text(encoding="utf-8"))["data"]["train"]
} | {"dubai": 0.015}
"""Weight of each place when samples are drawn. The labels of Dubai say only what is ground."""

GSD_M = (0.2, 0.5)
PREFER_BUILDINGS = 0.3
POINTS = 1024
"""Centres of crops that are prepared for each image."""

KEEP_INSIDE = 0.8


@dataclass(frozen=True)
class Batch:
    """Images (n, 3, y, x) in 0..1, numbers (n, y, x), a teacher's probabilities (n, y, x)."""

    image: Tensor
    numbers: Tensor
    taught: Tensor | None


class Atlas:
    """All images of a part, end to end in the memory of a device.

    Args:
        packs: Files of `gpu_pack.py`.
        part: "train" or "val".
        without: Places that are left out.

    The probabilities of `gpu_teach.py`, where the packs have them, are a fourth band.
    """

    def __init__(
        self, packs: Sequence[Path], part: str, device: torch.device, without: Sequence[str] = ()
    ) -> None:
        chosen = []
        for path in packs:
            with zipfile.ZipFile(path) as archive:
                for entry in json.loads(archive.read("index.json")):
                    if entry["part"] == part and entry["place"] not in without:
                        key = entry["key"]
                        files = archive.read(f"{key}.jpg"), archive.read(f"{key}.png")
                        has_taught = f"{key}.taught.png" in archive.namelist()
                        taught = archive.read(f"{key}.taught.png") if has_taught else None
                        chosen.append((entry, *files, taught))
        with ThreadPoolExecutor() as threads:
            decoded = list(threads.map(lambda one: decode(*one[1:]), chosen))
        self.entries = [entry for entry, *_ in chosen]
        sizes = [numbers.shape for _, numbers in decoded]
        starts = np.cumsum([0] + [height * width for height, width in sizes])[:-1]
        self.start = torch.tensor(starts, device=device)
        self.height, self.width = (
            torch.tensor([size[axis] for size in sizes], device=device) for axis in (0, 1)
        )
        self.gsd_m = torch.tensor([entry["gsd_m"] for entry in self.entries], device=device)
        bands = decoded[0][0].shape[2]
        pixels = np.concatenate([image.reshape(-1, bands) for image, _ in decoded])
        self.pixels = torch.from_numpy(pixels).to(device)
        numbers = np.concatenate([numbers.reshape(-1) for _, numbers in decoded])
        self.numbers = torch.from_numpy(numbers.astype(np.int32)).to(device)
        rng = np.random.default_rng(0)
        self.on_building, self.on_image = (
            torch.from_numpy(np.stack([points(wanted(one), rng) for _, one in decoded])).to(device)
            for wanted in (is_building, is_shown)
        )
        self.chance = torch.tensor(chances(self.entries, sizes), device=device)

    def image(self, index: int) -> tuple[Array, Array]:
        """Return the bands (y, x, 3 or 4) and the numbers (y, x) of an image."""
        height, width = int(self.height[index]), int(self.width[index])
        area = slice(int(self.start[index]), int(self.start[index]) + height * width)
        shape = (height, width)
        return (
            self.pixels[area].cpu().numpy().reshape(*shape, self.pixels.shape[1]),
            self.numbers[area].cpu().numpy().reshape(shape),
        )

    def draw(self, count: int, side_px: int, generator: torch.Generator) -> Batch:
        """Draw crops: turned by any angle, mirrored, at a scale drawn log-uniformly."""
        device = self.pixels.device

        def uniform(low: float, high: float) -> Tensor:
            made = torch.rand(count, generator=generator, device=device)
            return low + (high - low) * made

        which = torch.multinomial(self.chance, count, replacement=True, generator=generator)
        height, width = self.height[which], self.width[which]
        gsd_m = torch.exp(uniform(math.log(GSD_M[0]), math.log(GSD_M[1])))
        scale = gsd_m / self.gsd_m[which]
        picked = torch.randint(POINTS, (count,), generator=generator, device=device)
        built, seen = (one[which, picked] for one in (self.on_building, self.on_image))
        moved = (uniform(0, 1) < PREFER_BUILDINGS) & (built[:, 0] >= 0)
        row, col = torch.where(moved[:, None], built, seen).unbind(1)
        # Most crops stay inside their image, so that few pixels are nodata.
        inner = torch.where(uniform(0, 1) < KEEP_INSIDE, scale * side_px / 2, 0.0)
        row, col = (
            torch.minimum(
                torch.maximum(at, inner.minimum(side / 2)), side - inner.minimum(side / 2)
            )
            for at, side in ((row, height), (col, width))
        )
        angle = uniform(0, 2 * math.pi)
        mirrored = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale

        sampled = self._warped if device.type == "cpu" else self._gathered
        return sampled(which, side_px, row, col, cos, sin, mirrored)

    def _gathered(self, which: Tensor, side_px: int, *geometry: Tensor) -> Batch:
        """Return crops about `row` and `col` of the images, all at once."""
        row, col, cos, sin, mirrored = (one[:, None, None] for one in geometry)

        def grid(samples: int) -> tuple[Tensor, Tensor]:
            """Return the source rows and columns (n, y, x) of points on the crops."""
            steps = torch.arange(samples, device=which.device, dtype=torch.float32)
            at = (steps + 0.5) * (side_px / samples) - side_px / 2
            down, along = at[None, :, None], at[None, None, :] * mirrored
            return row + sin * along + cos * down - 0.5, col + cos * along - sin * down - 0.5

        rows, cols = grid(side_px)
        numbers = self._nearest(which, rows, cols)
        # Two by two samples per pixel keep fine images from aliasing at half their scale.
        bands = F.avg_pool2d(self._supersampled(which, *grid(2 * side_px)), 2)
        return batch_of(bands, numbers)

    def _warped(self, which: Tensor, side_px: int, *geometry: Tensor) -> Batch:
        """Return the crops of `_gathered`, each by OpenCV, nine times as fast on a CPU."""
        images, planes = [], []
        inverse = cv2.WARP_INVERSE_MAP
        for index, *one in zip(which.tolist(), *(values.tolist() for values in geometry)):
            pixels, plane = self.image(index)
            fine, side = (2 * side_px, 2 * side_px), (side_px, side_px)
            warped = cv2.warpAffine(
                pixels, matrix(0.5, 2 * side_px, *one), fine, flags=cv2.INTER_LINEAR | inverse,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            images.append(cv2.resize(warped, side, interpolation=cv2.INTER_AREA))
            planes.append(
                cv2.warpAffine(
                    plane, matrix(1, side_px, *one), side, flags=cv2.INTER_NEAREST | inverse,
                    borderMode=cv2.BORDER_CONSTANT, borderValue=NODATA,
                )
            )  # fmt: skip
        numbers = torch.from_numpy(np.stack(planes))
        bands = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        return batch_of(bands, numbers)

    def _supersampled(self, which: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        parts = zip(*(torch.split(one, 16) for one in (which, rows, cols)))
        return torch.cat([self._bilinear(*part) for part in parts])

    def _nearest(self, which: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        height, width = (side[which][:, None, None] for side in (self.height, self.width))
        row, col = rows.round().long(), cols.round().long()
        inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        at = self.start[which][:, None, None] + row.clamp(min=0) * width + col
        at = torch.where(inside, at, 0)
        return torch.where(inside, self.numbers[at], NODATA)

    def _bilinear(self, which: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        height, width = (side[which][:, None, None] for side in (self.height, self.width))
        top, left = rows.floor(), cols.floor()
        down, along = (rows - top)[..., None], (cols - left)[..., None]
        start = self.start[which][:, None, None]

        def corner(below: int, beside: int) -> Tensor:
            row = (top.long() + below).clamp(min=0).minimum(height - 1)
            col = (left.long() + beside).clamp(min=0).minimum(width - 1)
            return self.pixels[start + row * width + col].float()

        upper = torch.lerp(corner(0, 0), corner(0, 1), along)
        lower = torch.lerp(corner(1, 0), corner(1, 1), along)
        return torch.lerp(upper, lower, down).permute(0, 3, 1, 2)


def matrix(
    step: float, samples: int, row: float, col: float, cos: float, sin: float, mirrored: float
) -> Array:
    """Return the affine map (2, 3) from columns and rows of a crop to those of its image.

    `step` is the distance of the crop's samples in its pixels; `row` and `col` are its centre.
    """
    turned = step * np.array([[cos * mirrored, -sin], [sin * mirrored, cos]])
    first = turned @ np.full(2, 0.5 - samples / 2) + [col - 0.5, row - 0.5]
    return np.column_stack([turned, first])


def batch_of(bands: Tensor, numbers: Tensor) -> Batch:
    """Return a batch of bands (n, 3 or 4, y, x) in 0..255: colours, and perhaps probabilities."""
    bands = bands / 255
    taught = bands[:, 3] if bands.shape[1] > 3 else None
    return Batch(bands[:, :3] * (numbers != NODATA)[:, None], numbers, taught)


def decode(image: bytes, numbers: bytes, taught: bytes | None) -> tuple[Array, Array]:
    """Decode an image to its bands (y, x, 3 or 4), and its numbers (y, x)."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    plane = cv2.imdecode(np.frombuffer(numbers, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert plane is not None
    if taught is None:
        return pixels, plane
    probability = cv2.imdecode(np.frombuffer(taught, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert probability is not None
    return np.dstack([pixels, probability]), plane


def is_building(numbers: Array) -> Array:
    """Return where pixels are buildings."""
    return np.asarray(numbers >= FIRST, dtype=bool)


def is_shown(numbers: Array) -> Array:
    """Return where the image has pixels."""
    return np.asarray(numbers != NODATA, dtype=bool)


def points(mask: Array, rng: np.random.Generator) -> Array:
    """Return (`POINTS`, 2) random rows and columns where a mask is true; -1 where it never is."""
    places = np.flatnonzero(mask)
    if not len(places):
        return np.full((POINTS, 2), -1, dtype=np.float32)
    picked = places[rng.integers(len(places), size=POINTS)]
    return np.stack(np.divmod(picked, mask.shape[1]), axis=1).astype(np.float32)


def chances(entries: Sequence[dict[str, Any]], sizes: Sequence[Sequence[int]]) -> list[float]:
    """Return the probability of each image: its place's share, by area within the place."""
    areas = [size[0] * size[1] for size in sizes]
    totals: dict[str, int] = {}
    for entry, area in zip(entries, areas):
        totals[entry["place"]] = totals.get(entry["place"], 0) + area
    return [
        SHARES.get(entry["place"], 0.0) * area / totals[entry["place"]]
        for entry, area in zip(entries, areas)
    ]
