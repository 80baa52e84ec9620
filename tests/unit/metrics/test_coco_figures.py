"""The figures of COCO against pycocotools given whole scenes, and against one made by hand."""

import math
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools import mask as tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rooftrace.metrics.objects import CocoCollector

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]


def as_it_is(scenes: list[Scene]) -> dict[str, float]:
    """pycocotools with an image per scene, its own way to read results, and its own summary."""
    images, annotations, results = [], [], []
    for image, (truth, predicted, scores) in enumerate(scenes, start=1):
        assert truth is not predicted
        images.append({"id": image, "height": truth.shape[0], "width": truth.shape[1]})
        for side, into in ((truth, annotations), (predicted, results)):
            for number in np.unique(side[side > 0]):
                runs = tools.encode(np.asfortranarray((side == number).astype(np.uint8)))
                entry = {"image_id": image, "category_id": 1, "segmentation": runs}
                if side is truth:
                    entry |= {"id": len(into) + 1, "area": int(tools.area(runs)), "iscrowd": 0}
                else:
                    entry |= {"score": float(scores[number - 1])}
                into.append(entry)
    with redirect_stdout(StringIO()):
        labelled = COCO()
        labelled.dataset = {
            "images": images, "annotations": annotations, "categories": [{"id": 1}], "info": {},
        }  # fmt: skip
        labelled.createIndex()
        evaluation = COCOeval(labelled, labelled.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar ar_small ar_medium ar_large"
    return dict(zip(names.split(), evaluation.stats.tolist()))


def ours(scenes: list[Scene]) -> dict[str, float]:
    collector = CocoCollector()
    for number, scene in enumerate(scenes):
        collector.add(str(number), *scene)
    return collector.figures()


def town(rng: np.random.Generator, side: int, cell: int) -> Scene:
    """Homes in cells, found askew, some missed, some not there; scores come in tenths."""
    truth, predicted = np.zeros((2, side, side), np.int32)
    count = (side // cell) ** 2
    for number, place in enumerate(rng.permutation(count)):
        top, left = np.array(np.unravel_index(place, (side // cell,) * 2)) * cell
        size = rng.integers(cell // 4, cell - 3, 2)
        for layer, chance, slip in ((truth, 0.9, 0), (predicted, 0.8, rng.integers(0, 2, 2))):
            y, x = np.add((top, left), slip)
            if rng.random() < chance:
                layer[y : y + size[0], x : x + size[1]] = number + 1
    return truth, predicted, (rng.integers(0, 10, count) / 10).astype(np.float32)


@pytest.mark.parametrize("seed", range(2))
def test_scenes_are_judged_as_pycocotools_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Homes of up to 197 pixels a side, so that there are some of each range of area.
    scenes = [town(rng, 80, 10), town(rng, 80, 16), town(rng, 180, 60), town(rng, 400, 200)]
    expected, found = as_it_is(scenes), ours(scenes)
    assert {name: expected[name] for name in found} == pytest.approx(found, abs=1e-12)
    assert 0.1 < found["ap"] < found["ap50"] < 1


def test_all_objects_count_where_coco_takes_a_hundred() -> None:
    side = np.arange(1, 145, dtype=np.int32).reshape(12, 12).repeat(3, axis=0).repeat(3, axis=1)
    scene = side, side.copy(), np.linspace(0, 1, 144, dtype=np.float32)
    assert ours([scene])["ar"] == 1
    assert as_it_is([scene])["ar"] == pytest.approx(100 / 144)


def test_scenes_without_objects() -> None:
    collector = CocoCollector()
    assert all(math.isnan(value) for value in collector.figures().values())
    one = np.ones((4, 4), np.int32)
    collector.add("a", one, one, np.ones(1, np.float32))
    collector.add("empty", 0 * one, 0 * one, np.zeros(0, np.float32))
    assert collector.figures()["ap"] == pytest.approx(1)
    nothing = CocoCollector()
    nothing.add("a", one, 0 * one, np.zeros(0, np.float32))
    assert (nothing.figures()["ap"], nothing.figures()["ar"]) == (0, 0)
