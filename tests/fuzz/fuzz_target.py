"""A reader under attack: its valid files, how they are mutated, and how one is read.

A reader raises `WrongAnswer` where its result contradicts the file. Heavy libraries are imported by
the reader that needs them, since a worker runs one reader alone.
"""

import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from fuzz_mutate import Mutator, mutate
from PIL import Image

from raster_files import write_geotiff
from rooftrace.core.types import Window
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet

TESTS = Path(__file__).parents[1]
for _folder in (TESTS, TESTS / "unit/rest", TESTS / "unit/app"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))

Files = dict[str, bytes]

HEIGHT, WIDTH = 20, 30
GRID = Affine(0.5, 0, 500_000, 0, -0.5, 9_300_000)
"""Transform of the image that footprints are drawn on, in UTM zone 36 south."""

MOST_PX = 1_000_000
"""Number of pixels up to which an image is predicted whole; of a larger one a corner is read."""


class WrongAnswer(Exception):
    """A reader accepted a file and says something else than the second reader."""


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Args:
        name: Name in `ONLY=` and of the folder of its findings.
        make: Function that returns the valid files by name, and the fixed files beside them.
        read: Function that reads the mutated file.
        mutate: Function that mutates a file.
        seconds: Time limit of a try.
    """

    name: str
    make: Callable[[], tuple[Files, Files]]
    read: Callable[[Path], None]
    mutate: Mutator = field(default=mutate)
    seconds: float = 20.0

    @cached_property
    def _made(self) -> tuple[Files, Files]:
        return self.make()

    @property
    def seeds(self) -> Files:
        return self._made[0]

    @property
    def fixed(self) -> Files:
        return self._made[1]


def check(agrees: bool, what: str) -> None:
    if not agrees:
        raise WrongAnswer(what)


def png(shape_yx: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape_yx, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tif(bands: int = 3, **options: Any) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (bands, 40, 40), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = {"crs": "EPSG:32736", "transform": GRID}
        return write_geotiff(Path(folder, "a.tif"), pixels, **place | options).read_bytes()


def json_bytes(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def open_labels(path: Path, **options: Any) -> SceneSet:
    return open_source(SourceConfig(path=str(path), **options))


def masks_of(source: SceneSet) -> Iterator[tuple[str, np.ndarray]]:
    """Read every scene; yield the name of its image and its classes, 255 where it is not valid."""
    for entry in source.entries:
        scene = source.open_scene(entry)
        scene.image.read(Window(0, 0, *(min(side, 64) for side in scene.image.grid.shape)))
        assert scene.label is not None
        assert entry.image is not None
        mask = scene.label.read()
        check(mask.data.shape == scene.image.grid.shape, "a label has another size than its image")
        check(bool((mask.data[mask.valid] < 2).all()), "a label has a class that does not exist")
        yield entry.image.name, np.where(mask.valid, mask.data, 255)


def read_all(path: Path, **options: Any) -> None:
    for _ in masks_of(open_labels(path, **options)):
        pass
