"""Key points of a smart tool: as clicks, and the building that they give."""

from __future__ import annotations

import base64
from contextlib import closing
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from rooftrace.core.types import GeoGrid
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.sources import ArraySource
from rooftrace.labels.labelstudio.export import ClassRegion, label_of
from rooftrace.labels.labelstudio.regions import find_regions
from rooftrace.labels.labelstudio.write import Control, label_config
from rooftrace.models.clicks import CLICK_BANDS, Click
from rooftrace.predict.clicks import ClickModel
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.service.clicks import ClickTool
from rooftrace.service.labelling import labeller
from rooftrace.service.labelling.interface import ControlKind, ControlSettings, LabelControl
from rooftrace.service.labelling.labeller import Labeller, clicked_regions, clicks_of
from rooftrace.service.service import RequestDefaults, Service

SHAPE = (96, 128)
METRES = SceneOptions(gsd_m=0.3)
HOUSES = np.zeros(SHAPE, np.bool_)
HOUSES[8:40, 16:40] = HOUSES[48:72, 72:112] = True
PICTURE = np.where(HOUSES, 230, 30).astype(np.uint8)[None].repeat(3, axis=0)


class CountingEngine(PointwiseEngine):
    calls = 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.calls += 1
        return super().run(batch)


def tool() -> ClickTool:
    """Return a tool whose network takes bright pixels for buildings."""
    bundle, extra = tiny_bundle(), len(CLICK_BANDS)
    update = {
        "bands": ("red", "green", "blue", *CLICK_BANDS),
        "dtype": "float32",
        "mean": (*bundle.spec.mean[:3], *[0.0] * extra),
        "std": (*bundle.spec.std[:3], *[1.0] * extra),
        "gsd_m": 0.3,
        "threshold": 0.5,
    }
    spec = bundle.spec.model_copy(update=update)
    return ClickTool(ClickModel(replace(bundle, spec=spec), CountingEngine()))


def key_point(x: float, y: float, **others: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": ["Roof"]}
    return {"id": "k", "type": "keypointlabels", "value": value, **others}


def test_key_points_are_clicks() -> None:
    points = [
        key_point(25, 50), key_point(75, 10, is_positive=0), key_point(30, 40, is_positive=True)
    ]  # fmt: skip
    assert clicks_of({"result": points}, "Roof") == (
        Click(0.5, 0.25), Click(0.1, 0.75, positive=False), Click(0.4, 0.3)
    )  # fmt: skip
    # The first click of a building is on it.
    assert clicks_of({"result": points[1:]}, "Roof") == (
        Click(0.4, 0.3), Click(0.1, 0.75, positive=False)
    )  # fmt: skip


@pytest.mark.parametrize(
    "results",
    [
        [],
        None,
        [key_point(25, 50, is_positive=0)],
        [key_point(25, 50), {"type": "rectanglelabels", "value": {}}],
        [{**key_point(25, 50), "value": {"x": 1, "y": 1, "keypointlabels": ["Road"]}}],
        [{**key_point(25, 50), "value": {"x": 1, "y": 1, "labels": ["Road"]}}],
        ["x"],
    ],
)
def test_what_is_no_click_on_a_building(results: object) -> None:
    assert clicks_of({"result": results}, "Roof") == ()
    assert clicks_of(None, "Roof") == clicks_of({"result": [key_point(1, 1)]}, None) == ()


@pytest.mark.parametrize("kind", ["polygon", "brush", "rectangle"])
def test_a_click_gives_one_building(kind: ControlKind) -> None:
    control = LabelControl(kind, Control("c", "pic"), "photo", {1: "Roof"}, False,
                           ControlSettings())  # fmt: skip
    found = tool().outline("one", ArraySource(PICTURE), [Click(60, 90)], METRES)
    [result] = clicked_regions(found, control, "Roof")
    assert (result["from_name"], result["to_name"]) == ("c", "pic")
    assert result["value"][f"{kind}labels"] == ["Roof"]
    regions, others = find_regions([result], "here")
    assert others == []
    [painted] = [tuple(ClassRegion(one, 1) for one in regions)]
    shown = label_of([painted], GeoGrid(SHAPE), "here").read().data == 1
    wanted = HOUSES & (np.arange(128) >= 64)
    assert (shown & wanted).sum() / (shown | wanted).sum() > 0.93
    # Suggestions for the same task have different ids.
    assert clicked_regions(found, control, "Roof")[0]["id"] != result["id"]


def test_a_request_continues_the_one_before() -> None:
    """Label Studio sends all clicks each time; only the new ones run the network."""
    made, image = tool(), ArraySource(PICTURE)
    engine = made.model.engine
    assert isinstance(engine, CountingEngine)
    first, second = Click(60, 90), Click(20, 20)
    one = made.outline("image", image, [first], METRES)
    after_one = engine.calls
    made.outline("image", image, [first], METRES)
    assert engine.calls == after_one
    both = made.outline("image", image, [first, second], METRES)
    after_two = engine.calls
    assert after_two > after_one
    assert np.array_equal(both.mask & one.mask, one.mask)
    # Other clicks, another image and other metres start anew, with the answers of a new tool.
    fresh = tool().outline("image", image, [second], METRES)
    assert np.array_equal(made.outline("image", image, [second], METRES).mask, fresh.mask)
    dark = ArraySource(np.full_like(PICTURE, 30))
    assert not made.outline("dark", dark, [second], METRES).mask.any()
    made.outline("image", image, [second], SceneOptions(gsd_m=0.2))
    assert engine.calls > after_two + 2
    calls = engine.calls
    for options in (SceneOptions(gsd_m=0.2, bands="3,2,1"), SceneOptions(gsd_m=0.2, stretch="0,9")):
        made.outline("image", image, [second], options)
        assert engine.calls > calls
        calls = engine.calls


def test_clicks_read_an_image_as_predictions_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The houses are in the third band, and grey until they are stretched."""
    monkeypatch.setattr(labeller, "load_clicks", lambda: tool().model)
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    # OpenCV has the third band of the file first.
    pixels[..., 0] = np.where(HOUSES, 110, 10)
    image = base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()
    task = {"id": 1, "data": {"image": f"data:image/png;base64,{image}"}}
    defaults = RequestDefaults(SceneOptions(gsd_m=0.3, bands="3,2,1", stretch="0,120"))
    context = {"result": [key_point(70, 62)]}
    context["result"][0]["value"]["keypointlabels"] = ["building"]
    with closing(
        Service(Predictor(tiny_bundle(), PointwiseEngine()), defaults=defaults)
    ) as service:
        made = Labeller(service)
        config = label_config(("background", "building"))
        [answer] = made.predictions([task], config, "1", context)
    assert len(answer["result"]) == 1
