"""Tables of run lengths and COCO results are judged, a scene at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_scenes import HOUSES, SHAPE, houses, judged, write_png, write_table

from rooftrace.core.errors import ConfigError, DataError, LabelError, LayoutError
from rooftrace.flows.evaluate.run import EvalOptions

SIZED = EvalOptions(size_yx=SHAPE)
EMPTY = np.zeros(SHAPE, np.uint8)
MASKS = {"a": houses(), "b": EMPTY, "c": houses(1), "d": EMPTY}


def test_the_dice_of_each_image_as_the_contest_counts_it(tmp_path: Path) -> None:
    truth = write_table(tmp_path / "truth.csv", MASKS)
    guess = {"a": houses(0, 1), "b": EMPTY, "c": EMPTY, "d": houses(0)}
    report = judged(write_table(tmp_path / "p.csv", guess), truth, SIZED)
    a = 2 * houses(0, 1).sum() / (houses(0, 1).sum() + houses().sum())
    # Both empty is right, one of them alone is all wrong.
    assert [row["dice"] for row in report.by_image()] == [pytest.approx(a, abs=1e-6), None, 0, 0]
    assert report.to_json()["per_image"]["dice"] == pytest.approx((a + 1 + 0 + 0) / 4, abs=1e-6)
    assert (tmp_path / "p.csv").read_text().count(",-1\n") == 2


@pytest.mark.parametrize("order", ["row", "column"])
def test_both_orders_of_runs(tmp_path: Path, order: Any) -> None:
    truth = write_table(tmp_path / "t.csv", MASKS)
    path = write_table(tmp_path / "p.csv", MASKS, order, "name,runs")
    report = judged(path, truth, EvalOptions(size_yx=SHAPE, order=order))
    assert report.to_json()["per_image"]["dice"] == 1
    # Columns that say nothing, and too few runs to prove anything.
    with pytest.raises(LabelError, match="may go either way") as raised:
        judged(path, truth, SIZED)
    assert "--order row or --order column" in raised.value.remedy


def test_what_does_not_fit_is_reported(tmp_path: Path) -> None:
    truth = write_table(tmp_path / "t.csv", MASKS)
    path = write_table(tmp_path / "p.csv", {"a": houses(), "x": EMPTY})
    with pytest.raises(LayoutError, match="3 of 4 labelled scenes have no prediction: b, c, d; 1"):
        judged(path, truth, SIZED)
    with pytest.raises(LayoutError, match="1 of 1 predictions belong to no labelled scene: x"):
        judged(write_table(path, {"x": EMPTY}), truth, SIZED)
    path.write_text("img_id,mask_rle\na,4799 9\nb,-1\nc,-1\nd,-1\n")
    with pytest.raises(LabelError, match=r"p\.csv, row 2, column 'mask_rle': the run 4799 9"):
        judged(path, truth, SIZED)
    path.write_text("img_id;mask_rle\na;-1\n")
    with pytest.raises(LabelError, match="expected commas"):
        judged(path, truth, SIZED)
    with pytest.raises(DataError, match="which is not found") as raised:
        judged(write_table(path, MASKS), truth)
    assert "--size" in raised.value.remedy
    write_png(tmp_path / "q/a.png", houses())
    with pytest.raises(ConfigError, match="no prediction is a table"):
        judged(tmp_path / "q", truth, EvalOptions(size_yx=SHAPE, order="row"))


def results(*boxes: tuple[int, tuple[int, ...], float], name: str = "a") -> list[dict[str, Any]]:
    """COCO results of houses."""
    return [
        {
            "image_id": name,
            "category_id": category,
            "score": score,
            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
        }
        for category, (x0, y0, x1, y1), score in boxes
    ]


def test_coco_results(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    write_png(tmp_path / "truth/a.png", houses())
    write_png(tmp_path / "truth/b.png", EMPTY)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(results(*((1, box, 0.9 - 0.4 * n) for n, box in enumerate(HOUSES)))))
    whole = judged(path, tmp_path / "truth")
    assert whole.to_json()["pixel"]["iou"] == 1
    assert (whole.objects.matched, whole.images[0].score.tolist()) == (
        3, pytest.approx([0.1, 0.5, 0.9]),
    )  # fmt: skip
    sure = judged(path, tmp_path / "truth", EvalOptions(threshold=0.3))
    assert sure.objects.predicted == 2
    assert sure.coco is not None


@pytest.mark.parametrize("name", ["building", "roof"])
def test_coco_results_by_the_numbers_of_coco_labels(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pycocotools")
    write_png(tmp_path / "labels/a.png", np.zeros((*SHAPE, 3), np.uint8))
    left, top, right, bottom = HOUSES[1]
    outline = [left, top, right, top, right, bottom, left, bottom]
    truth = tmp_path / "labels/truth.json"
    truth.write_text(
        json.dumps({
            "images": [{"id": 17, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}],
            "annotations": [
                {"id": 1, "image_id": 17, "category_id": 5, "segmentation": [outline]}
            ],
            "categories": [{"id": 5, "name": name}, {"id": 6, "name": "road"}],
        })
    )  # fmt: skip
    guess = results((5, HOUSES[1], 0.9), (6, HOUSES[0], 0.9))
    path = tmp_path / "p.json"
    path.write_text(json.dumps([one | {"image_id": 17} for one in guess]))
    # A folder with one such file has the same numbers.
    for labels in (truth, truth.parent):
        report = judged(path, labels)
        assert report.to_json()["pixel"]["iou"] == 1
        assert any("1 detection of other categories (6) left out" in one for one in report.notes)
    path.write_text(json.dumps([guess[0] | {"image_id": 17, "category_id": 0}]))
    with pytest.raises(LabelError, match="has the category 0; buildings have 5"):
        judged(path, truth)
    path.write_text(json.dumps([one | {"image_id": 17 + n} for n, one in enumerate(guess[:1] * 2)]))
    with pytest.raises(LayoutError, match="1 of 2 predictions belong to no labelled scene: 18"):
        judged(path, truth)
    path.write_text(json.dumps([one | {"image_id": 18} for one in guess]))
    with pytest.raises(LabelError, match="none of its images"):
        judged(path, truth)


def test_coco_results_of_a_part_of_coco_labels(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    images, guess = [], []
    for number, house in enumerate(HOUSES):
        # Tools count ids from 0, and files from 1.
        name = f"{number + 1}.png"
        write_png(tmp_path / name, np.zeros((*SHAPE, 3), np.uint8))
        images.append({"id": number, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]})
        guess += [one | {"image_id": number, "id": number} for one in results((1, house, 0.9))]
    truth, split = tmp_path / "truth.json", tmp_path / "split.json"
    categories = [{"id": 1, "name": "building"}]
    every = {"images": images, "annotations": guess, "categories": categories}
    truth.write_text(json.dumps(every))
    split.write_text(json.dumps({"parts": {"train": ["2", "3"], "test": ["1"]}}))
    (tmp_path / "p").mkdir()
    path = tmp_path / "p/p.json"
    path.write_text(json.dumps(guess))
    report = judged(path, truth, EvalOptions(split=f"{split}:test"))
    assert report.to_json()["pixel"]["iou"] == 1
