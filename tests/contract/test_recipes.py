"""Every recipe is read as it is, and trains for a few steps on generated data."""

import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rooftrace.core.config import parse_config, read_config
from rooftrace.models.start import fill_from_start
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit
from town import write_pairs

pytestmark = pytest.mark.campaign

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))
CROP_PX = 64
DRAWN = {"ucm-drawn.json": "ucm-unlabelled/images", "banepa-drawn.json": "banepa-chips/unlabelled"}
"""Outlines that were drawn for the bundled model, and the folder of their images."""


def write_classes(folder: Path, classes: int) -> None:
    """Two images of bars of all classes, each in a grey of its own, with masks of indices."""
    for number in range(2):
        bars = np.linspace(0, classes, 2 * CROP_PX, endpoint=False).astype(np.uint8)
        mask = np.broadcast_to(np.roll(bars, 17 * number), (2 * CROP_PX,) * 2)
        image = np.repeat(mask[..., None] * (255 // classes), 3, axis=2)
        for kind, pixels in (("images", image), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / kind / f"bars_{number}.png"), pixels)


def shortened(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe with its data, its size and its length changed, and nothing that it is about."""
    labels = raw["data"].get("labels", {})
    count = len(labels.get("classes", "ab"))
    if count > 2:
        write_classes(folder / "pairs", count)
    else:
        write_pairs(folder / "pairs", range(2), shape_yx=(2 * CROP_PX,) * 2, gsd_m=0.5)
    pairs = {"path": str(folder / "pairs")}
    raw["data"] = {
        "labels": {"classes": labels.get("classes", ["background", "building"])},
        "train": [{**pairs, "part": "[:1]"}],
        "val": [{**pairs, "part": "[1:]"}],
    }
    if "encoder" in raw["model"]:
        raw["model"]["encoder_weights"] = "none"
    if "refine" in raw:
        raw["refine"] |= {"epochs": 1, "filters": 4, "batch_size": 2}
    raw |= {"crop_px": CROP_PX, "epochs": 1, "samples_per_epoch": 4, "batch_size": 2}
    raw |= {"precision": "fp32", "device": "cpu"}
    # Bundles of large networks take long to make, and are made of all kinds in other tests.
    raw.setdefault("export", {})["int8"] = False
    return raw


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains(path: Path, tmp_path: Path) -> None:
    raw = read_config(path)
    if str(raw["model"].get("start", "")).startswith("../runs/"):
        # The run of another recipe; the bundled model stands in for it.
        raw["model"]["start"] = "default"
    raw = fill_from_start(raw, path.parent)
    whole = parse_config(raw, TrainConfig, source=path.name)
    raw = shortened(raw, tmp_path)
    short = parse_config(raw, TrainConfig, source=path.name)
    assert (short.model.architecture, short.loss) == (whole.model.architecture, whole.loss)
    assert (short.optimizer, short.schedule) == (whole.optimizer, whole.schedule)
    result = fit(short, tmp_path / "run", base=tmp_path)
    assert result.trained.epochs == 1
    epoch, value, weights = result.trained.best["best_loss"]
    assert epoch == 1
    assert np.isfinite(value)
    assert weights.is_file()


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `gpu_pack.py` writes, of two generated images."""
    folder = tmp_path_factory.mktemp("packs")
    write_pairs(folder / "generated", range(2), shape_yx=(192, 192), gsd_m=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        gpu_pack = importlib.import_module("gpu_pack")
    part = gpu_pack.Part()
    images = gpu_pack.scenes(folder, "generated", None, "train")
    for use, entry in zip(("train", "val"), images, strict=True):
        part.add(replace(entry, part=use))
    (folder / "part-0.zip").write_bytes(part.finish())
    return folder


def test_the_training_on_a_gpu_has_a_teacher_and_resumes_after_a_kill(
    packs: Path, tmp_path: Path
) -> None:
    start, log, out = FOLDER / "weights/start.safetensors", tmp_path / "log.jsonl", tmp_path
    command = [
        sys.executable, FOLDER / "gpu_train.py", packs, out, "--device", "cpu", "--batch", "2",
        "--side", "64", "--start", start, "--teacher", start, "--teacher-scales", "0.5", "1",
        "--fix-stages", "3", "--seconds",
    ]  # fmt: skip
    with subprocess.Popen([*map(str, command), "60"]) as first:
        deadline = time.monotonic() + 240
        while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        first.kill()
    killed = [json.loads(line) for line in log.read_text().splitlines()][-1]
    subprocess.run([*map(str, command), str(killed["seconds"] + 2)], check=True)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    assert steps[-1]["step"] > killed["step"] > 0
    assert all(0 < line[kind] < 9 for line in steps for kind in ("labels", "teacher"))
    figures = json.loads((out / "figures.json").read_text())
    assert lines[-1]["figures"] == figures
    assert 0 < figures["generated"]["iou@0.5"] < 1
    assert not (out / "checkpoint.pt").exists()


def _drawn(atlas: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch = atlas.draw(2, 128, torch.Generator().manual_seed(0))
    return batch.image, batch.numbers


def test_a_teacher_counts_where_there_is_no_label(packs: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        gpu_train = importlib.import_module("gpu_train")
    cpu, start = torch.device("cpu"), FOLDER / "weights/start.safetensors"
    atlas = gpu_train.Atlas([packs / "part-0.zip"], "val", cpu)
    image, numbers = _drawn(atlas)
    atlas._warped = atlas._gathered
    gathered, their_numbers = _drawn(atlas)
    assert (numbers != their_numbers).float().mean() < 0.001
    assert (image - gathered).abs().mean() < 1 / 255
    teacher = gpu_train.Teacher([start], [1.0, 1.5], cpu)
    taught = teacher(image)
    assert taught.std() > 0.1
    # The mean of a crop and its mirror image is mirrored with the crop.
    assert torch.allclose(teacher(image.flip(3)).flip(2), taught, atol=0.05)
    unlabelled = torch.full(taught.shape, gpu_train.UNLABELLED)
    same, other = taught.logit(1e-3)[:, None], torch.zeros_like(taught)[:, None]
    assert gpu_train.loss_of(other, unlabelled) == 0
    learned, not_yet = (gpu_train.loss_of_student(one, taught, unlabelled) for one in (same, other))
    assert learned < not_yet


def test_packs_keep_what_a_teacher_says_of_their_training_images(
    packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    gpu_teach, gpu_train = map(importlib.import_module, ("gpu_teach", "gpu_train"))
    start, cpu = FOLDER / "weights/start.safetensors", torch.device("cpu")
    command = ["", packs, tmp_path, "--device", "cpu", "--scales", "1", "1.5", "--teacher", start]
    monkeypatch.setattr("sys.argv", [str(word) for word in command])
    monkeypatch.setattr(gpu_teach, "CERTAIN", ())
    gpu_teach.main()
    atlas = gpu_train.Atlas([tmp_path / "part-0.zip"], "train", cpu)
    batch = atlas.draw(2, 128, torch.Generator().manual_seed(0))
    said = gpu_train.Teacher([start], [1.0, 1.5], cpu)(batch.image)
    assert (batch.taught - said).abs().mean() < 0.06 < said.std()
    monkeypatch.setattr(gpu_teach, "CERTAIN", ("generated",))
    gpu_teach.main()
    pixels, numbers = gpu_train.Atlas([tmp_path / "part-0.zip"], "train", cpu).image(0)
    assert np.array_equal(pixels[..., 3] == 255, numbers >= gpu_train.FIRST)


@pytest.mark.skipif("ROOFTRACE_DATA" not in os.environ, reason="needs the real imagery")
@pytest.mark.parametrize("name", DRAWN)
def test_drawn_outlines_lie_within_their_images(name: str) -> None:
    labels = json.loads((FOLDER / "labels" / name).read_text(encoding="utf-8"))
    sizes = {}
    for image in labels["images"]:
        path = Path(os.environ["ROOFTRACE_DATA"]) / DRAWN[name] / image["file_name"]
        pixels = cv2.imread(str(path))
        assert pixels is not None, path
        sizes[image["id"]] = pixels.shape[1::-1]
        assert (image["width"], image["height"]) == sizes[image["id"]], path.name
    for outline in labels["annotations"]:
        for ring in outline["segmentation"]:
            corners = np.reshape(ring, (-1, 2))
            assert corners.min() >= 0
            assert (corners <= sizes[outline["image_id"]]).all(), outline["id"]
