"""The choice of images to label, with the model whose probability is the brightness of a pixel."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.label_next import run_next
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.config import SourceConfig
from rooftrace.predict.plan import AS_FOUND
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.uncertainty import measure_uncertainty
from tiny_models import write_tiny_bundle

SIDE = 64


def picture(seed: int, brightness: int, spread: int = 20) -> np.ndarray:
    """Return (y, x, 3) uint8 with a coarse pattern of its own around a brightness."""
    coarse = np.random.default_rng(seed).uniform(-spread, spread, (6, 6)).astype(np.float32)
    fine = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.repeat((fine - fine.mean() + brightness).round().clip(1, 255), 3).reshape(
        SIDE, SIDE, 3
    ).astype(np.uint8)  # fmt: skip


def save(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model to which pixels darker than 115 are nothing like a building."""
    return write_tiny_bundle(tmp_path / "tiny.rooftrace", threshold=0.9)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images that are unsure, sure, dark, mostly nodata, copies, and labelled."""
    images = tmp_path / "data" / "images"
    save(images, "unsure", picture(1, 128))
    save(images, "unsure_copy", picture(1, 128)[:, ::-1])
    save(images, "half_sure", picture(2, 180))
    save(images, "sure", picture(3, 235))
    save(images, "dark", picture(4, 104, spread=5))
    save(images, "edge", np.where(np.arange(SIDE)[:, None, None] < 40, 0, picture(5, 128)))
    save(images, "labelled", picture(6, 128))
    save(images, "labelled_copy", picture(6, 130))
    tasks = [
        {"id": number, "data": {"image": path.name}, "annotations": annotations(path.stem)}
        for number, path in enumerate(sorted(images.iterdir()))
    ]
    (images / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    return images


def annotations(name: str) -> list[dict[str, object]]:
    """An annotation without a region says that the image shows no building."""
    return [{"id": 1, "result": []}] if name == "labelled" else []


def config(path: Path) -> SourceConfig:
    return SourceConfig(path=str(path), nodata=0)


def tasks(images: Path) -> SourceConfig:
    return config(images / "tasks.json")


def test_the_uncertain_first_and_none_without_worth(data: Path, model: Path) -> None:
    report = run_next(tasks(data), 10, bundle=model)
    names = [one.id for one in report.chosen]
    assert set(names) == {"half_sure", "sure", "unsure"}
    assert (report.images, report.labelled) == (8, 1)
    assert (report.nodata, report.empty) == (("edge",), ("dark",))
    # Of two copies the more uncertain one is left, and the first if they are equal.
    assert report.near_duplicates == ("labelled_copy", "unsure_copy")
    assert "Only 3 images could be chosen, 10 were asked for; cut large ones" in report.notes[-1]
    by_name = {one.id: one for one in report.chosen}
    # The labelled image has the brightness of "unsure", so there is little to learn from it.
    assert names[-1] == "unsure"
    assert by_name["unsure"].entropy > 0.95 > by_name["half_sure"].entropy
    assert by_name["sure"].entropy < by_name["half_sure"].entropy
    assert by_name["half_sure"].disagreement == 0.0
    assert by_name["half_sure"].built_up == 0.0 < by_name["sure"].built_up


@pytest.mark.campaign
def test_without_labels_the_most_uncertain_is_first(data: Path, model: Path) -> None:
    (data / "tasks.json").unlink()
    report = run_next(config(data), 2, bundle=model)
    first, second = report.chosen
    assert first.id in ("unsure", "unsure_copy", "labelled", "labelled_copy")
    assert first.distance is None
    assert second.distance is not None
    assert second.distance > 0
    # The first of one choice is the first of every longer one.
    longer = run_next(config(data), 4, bundle=model)
    assert longer.chosen[:2] == report.chosen


def test_the_views_disagree_where_the_network_is_not_symmetric() -> None:
    class Slanted(PointwiseEngine):
        """Calls the left half of each tile building."""

        def run(self, batch: np.ndarray) -> np.ndarray:
            answer = np.zeros((len(batch), 1, *batch.shape[2:]), np.float32)
            answer[..., : batch.shape[3] // 2] = 1
            return answer

        def features(self, batch: np.ndarray) -> np.ndarray:
            return batch.mean(axis=(2, 3), dtype=np.float32)

    image = ArraySource(np.moveaxis(picture(0, 128), 2, 0))
    found = measure_uncertainty(Predictor(tiny_bundle(), Slanted()), image, AS_FOUND)
    assert (found.disagreement, found.entropy) == (1.0, pytest.approx(0, abs=1e-6))
    assert (found.built_up, found.valid_share, found.shows_building) == (0.5, 1.0, True)
    assert found.features == pytest.approx(np.full(3, 128), abs=0.5)
    assert found.total == pytest.approx(1.0)
