"""A run is not resumed on other data than it was trained on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

torch = pytest.importorskip("torch")

from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.core.errors import DataError  # noqa: E402
from rooftrace.flows.convert import run_convert  # noqa: E402
from rooftrace.labels.config import SourceConfig  # noqa: E402
from rooftrace.labels.kinds import open_source  # noqa: E402
from rooftrace.labels.split import read_split  # noqa: E402
from rooftrace.train.checkpoint import (  # noqa: E402
    read_checkpoint,
    record_files,
)
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.loop import fit  # noqa: E402
from training_runs import figures  # noqa: E402

NET = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


def train(folder: Path, *overrides: str, resume: bool = False) -> Path:
    sets = [NET, "watch.panel=0", *overrides]
    fit(load_config(folder / "tiny.toml", TrainConfig, sets), folder / "run", base=folder,
        resume=resume)  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for part in ("tiny.toml", "split.json"):
        shutil.copy2(tiny_folder / part, folder)
    shutil.copytree(tiny_folder / "data", folder / "data")
    train(folder, "epochs=1")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A folder with data and a run of one epoch, which may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "folder"))


def image(folder: Path, number: int, part: str = "images") -> Path:
    # The scenes of the split's test part are not among the data of a run.
    return sorted((folder / "data" / part).glob("*.tif"))[used(folder)[number]]


def used(folder: Path) -> list[int]:
    files = read_checkpoint(folder / "run/checkpoints/last.ckpt")["callbacks"]["Data"]["files"]
    every = sorted((folder / "data/images").glob("*.tif"))
    return [n for n, path in enumerate(every) if f"data/images/{path.name}" in files]


def mirror(path: Path) -> None:
    with rasterio.open(path, "r+") as file:
        file.write(np.ascontiguousarray(file.read()[:, :, ::-1]))


def test_changed_images_and_labels_are_named(folder: Path) -> None:
    paths = [image(folder, 0), image(folder, 2), image(folder, 1, "masks")]
    for path in paths:
        mirror(path)
    before = {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()}
    with pytest.raises(DataError, match=r"folder/run: 3 files are changed \(data/") as caught:
        train(folder, "epochs=2", resume=True)
    assert all(f"data/{path.parent.name}/{path.name}" in caught.value.message for path in paths)
    assert "Restore these files, or start a new run" in caught.value.remedy
    assert {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()} == before


def test_data_that_was_moved_or_only_touched_is_the_same(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("data/*/*"):
        os.utime(path, (1, 1))
    moved = folder.rename(tmp_path / "moved")
    train(moved, "epochs=2", resume=True)
    assert len(figures(moved / "run")) == 2


def test_missing_and_new_files_are_named(folder: Path) -> None:
    path, mask = image(folder, 0), image(folder, 0, "masks")
    split = read_split(folder / "split.json")
    parts = {name: tuple(i for i in ids if i != path.stem) for name, ids in split.parts.items()}
    with_all = parts | {"train": (*parts["train"], path.stem, *parts["test"])}
    (folder / "split.json").write_text(split.model_copy(
        update={"parts": with_all | {"test": ()}}).model_dump_json())  # fmt: skip
    with pytest.raises(DataError, match=r"2 files are new \(data/images/"):
        train(folder, "epochs=2", resume=True)
    (folder / "split.json").write_text(split.model_copy(update={"parts": parts}).model_dump_json())
    path.unlink()
    mask.unlink()
    with pytest.raises(DataError, match=rf"2 files are missing \(data/images/{path.name}, data"):
        train(folder, "epochs=2", resume=True)


@pytest.mark.parametrize(("kind", "out"), [("rle", "a.csv"), ("coco", "a.json"),
                                           ("footprints", "a.gpkg")])  # fmt: skip
def test_the_file_of_all_labels_is_recorded(
    tiny_folder: Path, tmp_path: Path, kind: str, out: str
) -> None:
    data = SourceConfig(path=str(tiny_folder / "data"))
    written = run_convert(data, kind, tmp_path / out).path
    images = str(tiny_folder / "data/images") if kind == "footprints" else None
    files = set(open_source(SourceConfig(path=str(written), images=images, chip_px=64)).files)
    assert any(path.name == out for path in files)
    assert sum(path.suffix == ".tif" for path in files) == 6


def test_a_changed_byte_changes_the_record(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {}
    for name, size in (("empty", 0), ("small", 5000), ("large", 10**6)):
        files[name] = tmp_path / name
        files[name].write_bytes(rng.bytes(size))
    first = record_files(files | {"absent": tmp_path / "absent"})
    assert list(first) == list(files)
    for place in (0, 4999):
        data = bytearray(files["small"].read_bytes())
        data[place] ^= 1
        files["small"].write_bytes(data)
        assert record_files(files)["small"] != first["small"]
        first = record_files(files)
