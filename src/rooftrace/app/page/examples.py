"""Images to try the page with: parts of the generated scene that comes with rooftrace."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rooftrace.core.types import Window
from rooftrace.io.display import as_rgb
from rooftrace.io.export import write_raster
from rooftrace.io.memory import ArraySource
from rooftrace.io.raster import open_raster
from rooftrace.testing.demo import demo_scene_path

__all__ = ["Example", "Examples"]


@dataclass(frozen=True)
class Example:
    """An image.

    Args:
        title: what it is called.
        window: of the demo scene; None is all of it.
        placed: whether it says where it lies, and so how large its pixels are.
    """

    title: str
    window: Window | None = None
    placed: bool = True


EXAMPLES = (
    Example("Town"),
    Example("Dense", Window(900, 720, 512, 512)),
    Example("Sparse", Window(40, 60, 512, 512)),
    Example("No scale", Window(480, 1290, 512, 512), placed=False),
)

_THUMB_PX = 160


class Examples:
    """The examples as files, in a folder that is removed with this object."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rooftrace-examples-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.paths = [self._write(example) for example in EXAMPLES]

    def _write(self, example: Example) -> Path:
        scene = demo_scene_path()
        name = example.title.lower().replace(" ", "-")
        if example.window is None:
            return Path(shutil.copy(scene, self._folder / f"{name}.tif"))
        raster = open_raster(scene).read(example.window)
        source = ArraySource(raster.data, raster.grid if example.placed else None, name=name)
        return write_raster(self._folder, name, source)

    def html(self) -> str:
        """A button with a picture for each."""
        made = []
        for number, (example, path) in enumerate(zip(EXAMPLES, self.paths)):
            rgb = as_rgb(open_raster(path).read().data)
            small = cv2.resize(rgb, (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA)
            done, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]))
            assert done
            picture = b64encode(bytes(data)).decode()
            made.append(
                f'<button type="button" data-pick="{number}">'
                f'<img src="data:image/jpeg;base64,{picture}" alt="">{example.title}</button>'
            )
        return f'<div class="rt-examples" role="group" aria-label="Examples">{"".join(made)}</div>'
