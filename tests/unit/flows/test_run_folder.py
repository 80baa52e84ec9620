"""The manifest of a run lists the finished images, also after a full disk or a power failure."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import ExportError
from rooftrace.flows.predict.inputs import SceneInput, find_inputs
from rooftrace.flows.predict.run_folder import MANIFEST, FinishedImage, RunFolder
from rooftrace.io.companions import WORK_FOLDER


def made_with(used: str, precision: str = "int8", **options: Any) -> dict[str, Any]:
    model = {
        "bundle": "abc",
        "instruction_set": used,
        "engine": {"name": "openvino", "precision": precision},
    }
    return {"with": model, "options": options}


WITH = made_with("AVX2")


@pytest.fixture
def scenes(tmp_path: Path) -> list[SceneInput]:
    (tmp_path / "in").mkdir()
    for name in "abc":
        Image.fromarray(np.full((20, 50, 3), 40, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    return list(find_inputs([tmp_path / "in"]).scenes)


def record_of(scene: SceneInput) -> dict[str, Any]:
    return {"name of the image": scene.name}


def add(folder: RunFolder, *scenes: SceneInput) -> None:
    for scene in scenes:
        folder.add(scene, FinishedImage([], record_of(scene)))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_images_after_one_that_does_not_fit_on_the_disk_are_listed(
    scenes: list[SceneInput], tmp_path: Path
) -> None:
    a, b, c = scenes
    manifest = tmp_path / WORK_FOLDER / MANIFEST
    with RunFolder(tmp_path, WITH) as folder:
        add(folder, a)
        with (
            files_of_at_most(manifest.stat().st_size + 10),
            pytest.raises(ExportError, match="could not be written"),
        ):
            add(folder, b)
        assert folder.finished(a) == folder.entry(a)["record"] == record_of(a)
        assert folder.finished(b) is None
        add(folder, c)
        assert folder.entry(c)["record"] == record_of(c)
    with RunFolder(tmp_path, WITH) as folder:
        assert [folder.finished(one) for one in (a, c)] == [record_of(a), record_of(c)]


def test_a_run_is_resumed_on_another_processor_with_a_note(
    scenes: list[SceneInput], tmp_path: Path
) -> None:
    a, b, _ = scenes
    with RunFolder(tmp_path, made_with("AVX512_CORE_VNNI")) as folder:
        add(folder, a)
    with RunFolder(tmp_path, made_with("AVX2", "fp32")) as folder:
        assert folder.finished(a) == record_of(a)
        # The checkpoints of both parts have one key.
        assert folder.made_with == made_with("AVX512_CORE_VNNI")
        (note,) = folder.notes
        assert "began with openvino in int8 on AVX512_CORE_VNNI and is resumed with" in note
        assert "openvino in fp32 on AVX2" in note
        add(folder, b)
    with RunFolder(tmp_path, made_with("AVX512_CORE_VNNI")) as folder:
        assert (folder.finished(b), folder.notes) == (record_of(b), [])
    with RunFolder(tmp_path, made_with("AVX2", threshold=0.4)) as folder:
        assert folder.finished(a) is None
        assert "starts from the beginning" in folder.notes[0]


@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_images_before_a_damaged_line_are_kept(
    scenes: list[SceneInput], tmp_path: Path, damage: str
) -> None:
    a, b, c = scenes
    with RunFolder(tmp_path, WITH) as folder:
        add(folder, *scenes)
    manifest = tmp_path / WORK_FOLDER / MANIFEST
    *before, of_b, of_c = manifest.read_bytes().splitlines(keepends=True)
    damaged = {"cut": [of_b[:9]], "zeros": [bytes(len(of_b) - 1), b"\n", of_c]}
    manifest.write_bytes(b"".join([*before, *damaged[damage]]))
    for _ in range(2):
        with RunFolder(tmp_path, WITH) as folder:
            assert not folder.notes
            found = [folder.finished(one) for one in (a, b, c)]
        assert found == [record_of(a), None, None]
    with RunFolder(tmp_path, WITH) as folder:
        add(folder, b)
    with RunFolder(tmp_path, WITH) as folder:
        assert folder.finished(b) == record_of(b)
