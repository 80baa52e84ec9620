"""ONNX files in QGIS's Deepness: its steps repeated on an exported file give rooftrace's mask.

`Deepness` below follows `ModelBase`, `Segmentor`, `preprocessing_utils` and
`MapProcessorSegmentation._process_tile` of https://github.com/PUTvision/qgis-plugin-deepness, and
`_load_model_and_display_info` of its dock widget, which sets a number from the last dimension.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.flows.export import run as export_flow
from rooftrace.flows.export.run import run_export
from rooftrace.models.bundle import GRAPH_NAME, write_bundle
from rooftrace.models.exported import read_model
from rooftrace.predict.predictor import load
from tiny_models import write_tiny_bundle
from town import generate_scene

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


class Deepness:
    """Reader of a segmentation model, as in Deepness."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (self.input,) = self.session.get_inputs()
        found = self.session.get_modelmeta().custom_metadata_map
        self.meta = {key: json.loads(text) for key, text in found.items() if key != "rooftrace"}
        shape = self.session.get_outputs()[0].shape
        assert len(shape) == 4
        assert shape[2] == shape[3]
        # The form has a field for whole numbers here, which takes no name of a dimension.
        assert isinstance(self.input.shape[-1], int)

    def names(self) -> list[str]:
        """Return the names of the classes, whose keys must be consecutive numbers."""
        ordered = sorted(self.meta["class_names"].items(), key=lambda one: int(one[0]))
        assert [int(key) for key, _ in ordered] == list(range(len(ordered)))
        return [name for _, name in ordered]

    def mask(self, tile: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the (y, x) classes of a (y, x, band) tile."""
        mean = np.array([float(one) for one in self.meta["standardization_mean"]], np.float32)
        std = np.array([float(one) for one in self.meta["standardization_std"]], np.float32)
        batch = np.float32(tile[None, ..., : self.input.shape[-3]] * 1.0 / 255.0)
        batch = np.transpose((batch - mean) / std, (0, 3, 1, 2))
        (result,) = self.session.run(None, {self.input.name: batch})
        result[result < float(self.meta["seg_thresh"])] = 0.0
        if result.shape[1] == 1:
            return (result != 0).astype(np.int64)[0, 0]
        return result.argmax(axis=1)[0]


def with_second_head(graph: bytes) -> bytes:
    """Return a graph whose output has its only channel twice."""
    model = onnx.load_from_string(graph)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["mask" if name == output.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Concat", ["mask"] * 2, [output.name], axis=1))
    output.type.tensor_type.shape.dim[1].dim_value = 2
    return bytes(model.SerializeToString())


@pytest.fixture
def few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_flow, "_CHECK_TILES", 2)


@pytest.mark.usefixtures("few_tiles")
@pytest.mark.parametrize(
    "name", ["tiny", "separated", pytest.param("default", marks=pytest.mark.campaign)]
)
def test_it_gives_the_mask_of_rooftrace(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.rooftrace"
    write_tiny_bundle(path, gsd_m=0.3, threshold=0.4, context_px=8)
    bundle = None if name == "default" else path
    if name == "separated":
        tiny = read_model(path)
        spec = tiny.spec.model_copy(update={"separation": "border"})
        write_bundle(path, spec, {GRAPH_NAME: with_second_head(tiny.part(GRAPH_NAME))})
    out = tmp_path / "deepness.onnx"
    run_export(bundle, "onnx", out, tile_px=256, mask_only=True)
    model, deepness = load(bundle), Deepness(out)
    spec = model.bundle.spec
    assert deepness.input.shape[1:] == [len(spec.bands), 256, 256]
    assert deepness.names() == list(spec.classes)
    assert deepness.meta["model_type"] == "Segmentor"
    assert deepness.meta["resolution"] == pytest.approx(100 * (spec.gsd_m or 0))
    assert int(deepness.meta["tile_size"]) == 256
    assert deepness.meta["tiles_overlap"] / 100 * 256 / 2 >= spec.context_px
    scene = generate_scene(7, (256, 256), spec.gsd_m or 0.3).image
    mine = load(out, engine="onnxruntime").predict(scene, gsd_m=spec.gsd_m).mask
    found = deepness.mask(np.moveaxis(scene, 0, -1))
    assert 0.02 < found.mean() < 0.98
    np.testing.assert_array_equal(found, mine.data)
    # The file is the same model for rooftrace, which divides what touches by the watershed.
    assert read_model(out).spec.separation is None
    assert read_model(out).spec.input_px == 256
    assert model.predict(scene, gsd_m=spec.gsd_m).mask.data.mean() == pytest.approx(
        mine.data.mean(), abs=0.02
    )


@pytest.mark.usefixtures("few_tiles")
def test_models_that_it_cannot_run_have_no_entries(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "two.rooftrace", separation="border")
    from rooftrace.models.exported import _for_deepness

    assert _for_deepness(read_model(bundle).spec) == {}
