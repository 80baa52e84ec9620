"""A stopped prediction is resumed, and its files are those of an uninterrupted one."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine

from raster_files import PLACE, write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.flows.predict.image_run import RunReport
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions

pytestmark = pytest.mark.usefixtures("small_blocks")

OPTIONS = SceneOptions(cell_m=50)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Houses of 7 to 40 pixels, half of them on the edges of blocks, and a corner of nodata."""
    return write_town(tmp_path_factory.mktemp("town") / "town.tif", 900)


def write_town(path: Path, side: int, cell_px: int = 18, left_px: int = 0) -> Path:
    rng = np.random.default_rng(3)
    cells = -(-side // cell_px)
    coarse = rng.integers(0, 256, (3, cells, cells), dtype=np.uint8)
    data = np.kron(coarse, np.ones((1, cell_px, cell_px), np.uint8))[:, :side, :side]
    data[:, -side // 5 :, : side // 3] = 0
    place = PLACE["transform"] @ Affine.translation(left_px, 0)
    options = {"nodata": 0, "tiled": True, "compress": "deflate", "transform": place}
    return write_geotiff(path, data, **options)


def results(out: Path) -> dict[str, bytes]:
    """Return every file except the record, which holds times."""
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.name != "run.json"}


def predict(path: Path, bundle: Path, out: Path, **options: Any) -> RunReport:
    return run_predict(find_inputs([path], **options), read_models(bundle), out, OPTIONS)


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """Let the network be asked so often and no more; how many tiles it saw."""
    seen: list[int] = []
    run = OpenVinoEngine.run_quantised

    def counted(self: OpenVinoEngine, batch: np.ndarray) -> np.ndarray:
        if len(seen) == calls:
            raise KeyboardInterrupt
        seen.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(OpenVinoEngine, "run_quantised", counted)
    monkeypatch.setattr("rooftrace.predict.pipeline.BATCH_PX", 1)
    return seen


@pytest.mark.campaign
@pytest.mark.parametrize("calls", [1, 6, 11])
def test_stopped_and_gone_on_with(
    calls: int, wide_bundle: Path, town: Path, tmp_path: Path
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    with pytest.MonkeyPatch.context() as patch:
        first = stop_after(patch, calls)
        with pytest.raises(KeyboardInterrupt):
            predict(town, wide_bundle, out)
    assert not (out / "town_mask.tif").exists()
    with pytest.MonkeyPatch.context() as patch:
        second = stop_after(patch, 10_000)
        report = predict(town, wide_bundle, out)
    with pytest.MonkeyPatch.context() as patch:
        everything = stop_after(patch, 10_000)
        predict(town, wide_bundle, again)
    assert results(out) == results(again)
    # What was lost is at most what waited to be finished: no finished block is computed twice.
    per_block = 4
    kept = len(everything) - len(second)
    assert kept <= len(first)
    assert report.resumed_blocks == 0 or kept > 0
    assert kept >= len(first) - 4 * per_block


def test_finished_images_are_not_done_again(
    wide_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write_town(folder / f"{name}.tif", 120)
    torn = (folder / "b.tif").read_bytes()
    (folder / "b.tif").write_bytes(torn[: len(torn) // 2])
    with pytest.raises(DataError, match=r"1 of 3 images failed"):
        predict(folder, wide_bundle, tmp_path / "out")
    (folder / "b.tif").write_bytes(torn)
    seen = stop_after(monkeypatch, 10_000)
    report = predict(folder, wide_bundle, tmp_path / "out")
    assert (report.resumed_images, len(seen)) == (2, 1)
    assert [Path(output.input).stem for output in report.outputs] == ["a", "b", "c"]
    assert [output.buildings for output in report.outputs] == [report.outputs[0].buildings] * 3
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("package", "name"), [(cv2, "__version__"), (rasterio, "__gdal_version__")]
)
def test_another_version_of_a_library_that_reads_pixels_begins_anew(
    package: ModuleType, name: str, wide_bundle: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "in").mkdir()
    write_town(tmp_path / "in" / "a.tif", 120)
    (tmp_path / "in" / "b.tif").write_bytes((tmp_path / "in" / "a.tif").read_bytes()[:1000])

    def run() -> None:
        with pytest.raises(DataError, match=r"1 of 2 images failed"):
            predict(tmp_path / "in", wide_bundle, tmp_path / "out")

    run()
    seen = stop_after(monkeypatch, 10_000)
    run()
    assert not seen
    monkeypatch.setattr(package, name, "0.0.0")
    run()
    assert len(seen) == 1


def stop_at_file(monkeypatch: pytest.MonkeyPatch, count: int) -> list[Path]:
    """Interrupt when so many files have got their names; which ones."""
    written: list[Path] = []
    replace = Path.replace

    def replaced(path: Path, target: Path) -> Path:
        replace(path, target)
        written.append(target)
        if len(written) == count:
            raise KeyboardInterrupt
        return target

    monkeypatch.setattr(Path, "replace", replaced)
    return written


ALL = range(1, 99)


@pytest.mark.parametrize(
    ("names", "mosaic", "stops"),
    [("a", False, [1]), *(pytest.param(*one, ALL, marks=pytest.mark.campaign) for one in (
        ("a", False), ("ab", False), ("ab", True)))],
)  # fmt: skip
def test_stopped_after_any_file(
    names: str, mosaic: bool, stops: Sequence[int], wide_bundle: Path, tmp_path: Path
) -> None:
    """One image, a folder of two, and a scene of two tiles in several blocks."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(names):
        write_town(tmp_path / "in" / f"{name}.tif", 320 if mosaic else 120, left_px=320 * number)

    def run(out: Path) -> dict[str, bytes]:
        predict(tmp_path / "in", wide_bundle, out, mosaic=mosaic)
        return results(out)

    expected = run(tmp_path / "whole")
    for stop in stops:
        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
            written = stop_at_file(patch, stop)
            run(tmp_path / str(stop))
        if len(written) < stop:
            assert stop > len(expected)
            break
        assert run(tmp_path / str(stop)) == expected


@pytest.mark.campaign
def test_a_corrupt_block_of_the_source(wide_bundle: Path, town: Path, tmp_path: Path) -> None:
    with rasterio.open(town) as dataset:
        at = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    data = bytearray(town.read_bytes())
    data[at : at + 200] = bytes(200)
    torn = tmp_path / "town.tif"
    torn.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"town\.tif cannot be read as an image \(rows "):
        predict(torn, wide_bundle, tmp_path / "out")
    assert list((tmp_path / "out" / ".rooftrace" / "town.parts").glob("*.part"))
    options = SceneOptions(cell_m=50, forgiving=True)
    report = run_predict(find_inputs([torn]), read_models(wide_bundle), tmp_path / "out", options)
    assert any("tiles failed and became nodata" in note for note in report.notes)
