"""Images are found in a folder and below it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rooftrace.labels.image_files import has_images_under, images_under


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    town = tmp_path / ".kept/town"
    for hidden in (".b.png", ".git/c.png", "north/.ipynb_checkpoints/d.png"):
        write(town / hidden)
    assert not has_images_under(town)
    # A folder that is given may be hidden itself, or lie in a hidden one.
    found = [write(town / name) for name in ("a.png", "north/b.png", "south/old/c.tif")]
    (town / "north/notes.txt").write_text("no image")
    assert images_under(town) == found
    assert images_under(town, ["b.*"]) == found[1:2]
    assert images_under(tmp_path / "not there") == []
