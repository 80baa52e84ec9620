"""Outlines are refined by themselves, do not overlap, and stay where the answer disagrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import strategies as st

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError, PredictError
from rooftrace.flows.predict.cluster import ClusterOptions
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.georeferenced import ArraySource
from rooftrace.models.clicks import Prompt, Segment
from rooftrace.predict import plan as scene_module
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import load
from tiny_models import write_tiny_bundle

pytestmark = pytest.mark.usefixtures("small_blocks")

Answer = Callable[[np.ndarray, Prompt], np.ndarray]
"""Function that returns the mask (y, x) of an image (3, y, x) and a prompt."""


@dataclass
class FakeSegmenter:
    """Answers prompts by a function; see `PromptSegmenter`."""

    answer: Answer
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    prompts: int = 0

    @property
    def record(self) -> dict[str, Any]:
        return {"kind": "fake"}

    def encode(self, image: np.ndarray) -> np.ndarray:
        assert image.dtype == np.uint8
        self.shapes.append(image.shape)
        return image

    def segment(self, image: np.ndarray, prompt: Prompt) -> Segment:
        self.prompts += 1
        return Segment(self.answer(image, prompt), 1.0)


def boxes(grown_px: int = 0) -> Answer:
    """Return the answer that fills the box, grown on all sides."""

    def answer(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        assert prompt.box is not None
        # The point lies inside the outline, which is bright.
        (click,) = prompt.clicks
        row, col = int(click.row), int(click.col)
        assert image[:, row, col].mean() > 127
        mask = np.zeros(image.shape[1:], np.bool_)
        around = prompt.box.padded(grown_px)
        mask[max(around.row, 0) : around.row_stop, max(around.col, 0) : around.col_stop] = True
        return mask

    return answer


def nothing(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    return np.zeros(image.shape[1:], np.bool_)


def everything(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    return np.ones(image.shape[1:], np.bool_)


def town_pixels() -> np.ndarray:
    """Houses with a corner cut off, a long one, and a corner of nodata: (3, y, x)."""
    rng = np.random.default_rng(3)
    image = np.full((420, 800), 40, np.uint8)
    for row in range(30, 390, 50):
        for col in range(30, 760, 50):
            height, width = rng.integers(16, 44, 2)
            image[row : row + height, col : col + width] = 220
            image[row : row + height // 3, col : col + width // 3] = 40
    image[300:330, 20:780] = 40
    image[305:325, 40:600] = 220
    image[305:309, 40:90] = 40
    image[330:, 700:] = 0
    return np.stack([image] * 3)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("town") / "town.tif"
    return write_geotiff(path, town_pixels(), nodata=0, tiled=True, compress="deflate")


def predicted(
    town: Path, wide_bundle: Path, out: Path, segmenter: FakeSegmenter | None, **options: Any
) -> geopandas.GeoDataFrame:
    run_predict(
        find_inputs([town]),
        read_models(wide_bundle),
        out,
        SceneOptions(**options),
        segmenter=segmenter,
    )
    return geopandas.read_file(out / "town_buildings.gpkg")


@pytest.fixture(scope="module")
def unrefined(
    small_blocks: None, town: Path, wide_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Results of the town without a refinement."""
    out = tmp_path_factory.mktemp("own")
    predicted(town, wide_bundle, out, None)
    return out


def test_answers_that_agree_become_the_outlines(
    town: Path, wide_bundle: Path, unrefined: Path, tmp_path: Path
) -> None:
    own = geopandas.read_file(unrefined / "town_buildings.gpkg")
    segmenter = FakeSegmenter(boxes())
    refined = predicted(town, wide_bundle, tmp_path / "refined", segmenter)
    assert len(own) == len(refined) == segmenter.prompts > 100
    assert "refined" not in own.columns
    assert refined["refined"].dtype == bool
    assert refined["refined"].mean() > 0.95
    np.testing.assert_array_equal(own["score"], refined["score"])
    boxed = shapely.box(*shapely.bounds(own.geometry.to_numpy()).T)
    # The outline of the model, from which the box is taken, lies up to a pixel beside its pixels.
    changed = refined["refined"].to_numpy()
    shared = shapely.area(shapely.intersection(refined.geometry.to_numpy(), boxed))
    joined = shapely.area(shapely.union(refined.geometry.to_numpy(), boxed))
    assert ((shared / joined)[changed] > 0.85).all()
    assert (refined["area_m2"][changed] > own["area_m2"][changed]).mean() > 0.9
    record = json.loads((tmp_path / "refined" / "run.json").read_text())
    assert record["options"]["refine"] == {"kind": "fake"}
    assert record["figures"][0]["refined"] == changed.sum()
    counted = f"the outlines of {changed.sum()} of {len(own)} buildings were refined."
    assert any(counted in note for note in record["notes"])


def test_outlines_that_meet_do_not_overlap(wide_bundle: Path) -> None:
    image = np.full((3, 400, 400), 40, np.uint8)
    for row, col in np.ndindex(5, 5):
        image[:, 20 + 64 * row :, 20 + 64 * col :][:, :60, :60] = 220
    own = load(wide_bundle).predict(image).footprints.geometry.to_numpy()
    left, top, right, bottom = shapely.bounds(own).T
    assert shared_areas(shapely.box(left - 4, top - 4, right + 4, bottom + 4)).size == 72
    found = load(wide_bundle).predict(image, segmenter=FakeSegmenter(boxes(grown_px=4))).footprints
    assert found.refined.sum() > 10
    assert shared_areas(found.geometry.to_numpy()).max(initial=0) < 1e-3
    assert found.geometry.area.sum() > 1.05 * shapely.area(own).sum()


def shared_areas(shapes: np.ndarray) -> np.ndarray:
    """Return the areas that pairs of polygons share, without those that do not."""
    one, other = shapely.STRtree(shapes).query(shapes)
    one, other = one[one < other], other[one < other]
    shared = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    return shared[shared > 0]


@pytest.mark.parametrize("answer", [nothing, everything])
def test_outlines_stay_where_the_answer_disagrees(
    town: Path, wide_bundle: Path, unrefined: Path, tmp_path: Path, answer: Answer
) -> None:
    own = geopandas.read_file(unrefined / "town_buildings.gpkg")
    kept = predicted(town, wide_bundle, tmp_path / "kept", FakeSegmenter(answer))
    assert not kept["refined"].any()
    assert own.geometry.geom_equals_exact(kept.geometry, 0).all()
    figures = [
        json.loads((out / "run.json").read_text())["figures"][0]
        for out in (unrefined, tmp_path / "kept")
    ]
    assert figures[0]["regularized"] == figures[1]["regularized"]


@pytest.mark.campaign
def test_blocks_do_not_show(
    town: Path, wide_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for block_px in (300, 600, 4096):
        monkeypatch.setattr(scene_module, "BLOCK_PX", block_px)
        out = tmp_path / str(block_px)
        table = predicted(town, wide_bundle, out, FakeSegmenter(boxes(grown_px=3)))
        assert table["refined"].any()
        files.append({p.name: p.read_bytes() for p in out.iterdir() if p.name != "run.json"})
    assert files[0] == files[1] == files[2]


def test_a_run_that_failed_is_resumed_with_the_same_bytes(
    town: Path, wide_bundle: Path, tmp_path: Path
) -> None:
    predicted(town, wide_bundle, tmp_path / "whole", FakeSegmenter(boxes(grown_px=3)))

    def breaks(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        if broken.prompts > 100:
            raise RuntimeError("no kernel")
        return boxes(grown_px=3)(image, prompt)

    broken = FakeSegmenter(breaks)
    with pytest.raises(PredictError, match=r"failed at rows .*: no kernel"):
        predicted(town, wide_bundle, tmp_path / "broken", broken)
    assert broken.prompts == 101
    parts = sorted((tmp_path / "broken").rglob("refined_*.part"))
    assert len(parts) == 2
    # A damaged file of answers counts as none.
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    resumed = FakeSegmenter(boxes(grown_px=3))
    report = run_predict(
        find_inputs([town]), read_models(wide_bundle), tmp_path / "broken", segmenter=resumed
    )
    assert report.resumed_blocks > 1
    kept = report.outputs[0].buildings - resumed.prompts
    assert 0 < kept < resumed.prompts
    assert not list((tmp_path / "broken").rglob("refined_*.part"))
    for path in (tmp_path / "whole").iterdir():
        if path.name != "run.json":
            assert path.read_bytes() == (tmp_path / "broken" / path.name).read_bytes(), path.name


def test_outlines_do_not_cover_nodata(wide_bundle: Path) -> None:
    """The right third of the house is nodata, which the network does not know."""
    image = np.full((3, 300, 300), 40, np.uint8)
    image[:, 100:160, 80:120] = 220
    valid = np.ones((300, 300), np.bool_)
    valid[:, 120:] = False

    def beyond(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        mask = np.zeros(image.shape[1:], np.bool_)
        # In the crop of the whole columns 0 to 256.
        mask[44:116, 75:140] = True
        return mask

    found = (
        load(wide_bundle)
        .predict(ArraySource(image, valid=valid), segmenter=FakeSegmenter(beyond))
        .footprints
    )
    assert found.refined.tolist() == [True]
    assert found.geometry[0].bounds[2] <= 120.01
    assert found.geometry[0].bounds[0] < 76


def test_what_cannot_be_refined_is_refused_before_the_work(
    town: Path, wide_bundle: Path, tmp_path: Path
) -> None:
    segmenter = FakeSegmenter(boxes())
    inputs = find_inputs([town])
    with pytest.raises(ConfigError, match="only the mask was requested"):
        predicted(town, wide_bundle, tmp_path, segmenter, outputs=("mask",))
    with pytest.raises(ConfigError, match="refine works in one process"):
        run_predict(
            inputs,
            read_models(wide_bundle),
            tmp_path,
            cluster=ClusterOptions(),
            segmenter=segmenter,
        )
    other = write_tiny_bundle(tmp_path / "nir.rooftrace", bands=("nir", "green", "blue"))
    with pytest.raises(ConfigError, match="sees nir, green, blue as uint8; expected red"):
        run_predict(inputs, read_models(other), tmp_path, segmenter=segmenter)
    assert segmenter.shapes == []


bounds = st.tuples(
    st.floats(0, 5000), st.floats(0, 5000), st.floats(0.5, 3000), st.floats(0.5, 3000)
)
