"""Labels that are written for YOLO are read back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raster_files import write_geotiff
from rooftrace.flows.convert import run_convert
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source


@pytest.mark.parametrize("names", [("background", "building"), ("background", "road", "building")])
def test_what_is_written_is_read(names: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = {}
    for name in "ab":
        mask = rng.integers(0, len(names), (12, 15)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        mask[8:28, 8:28] = len(names) - 1
        mask[12:16, 12:16] = mask[20:24, 12:24] = 0
        truth[name] = mask
        for kind, values in (("images", mask * 9), ("masks", mask)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            write_geotiff(tmp_path / "data" / kind / f"{name}.tif", values)
    labels = LabelConfig(classes=names)
    data = SourceConfig(path=str(tmp_path / "data"), labels=labels)
    report = run_convert(data, "yolo", tmp_path / "out")
    assert report.scenes == 2
    # Of a tree, by its kind, and by data.yaml as Ultralytics takes it.
    for path, kind in (("out", None), ("out", "yolo"), ("out/data.yaml", None)):
        read = open_source(SourceConfig(path=str(tmp_path / path), kind=kind, labels=labels))
        for scene in read:
            assert scene.label is not None
            np.testing.assert_array_equal(scene.label.read().data, truth[scene.id[-1]])
