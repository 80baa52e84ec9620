"""Tables of run lengths: `rooftrace predict --outputs rle`, and tables as DATA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command_line import call
from rooftrace.io.raster import open_raster
from rooftrace.labels.rle.codec import decode_runs
from rooftrace.labels.rle.table import RleTable
from town import write_pairs


def classes_in(path: Path) -> np.ndarray:
    return open_raster(path, palette="indices").read().data[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "data"
    write_pairs(folder, range(4), shape_yx=(96, 128), gsd_m=0.3)
    return folder


@pytest.mark.campaign
def test_the_sample_decides_the_form(data: Path, bundle: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (data / "images").iterdir())
    sample, out = tmp_path / "sample.csv", tmp_path / "submission.csv"
    lines = ["ImageId,EncodedPixels", *(f"{name}," for name in reversed(names))]
    sample.write_bytes("\r\n".join([*lines, ""]).encode())
    code, report = call(
        "predict", data / "images", "-o", tmp_path, "--outputs", "mask,rle", "--sample", sample,
        "-m", bundle, "--threshold", 0.3,
    )  # fmt: skip
    assert code == 0
    assert (report["table"], len(report["outputs"])) == (str(out), 4)
    table = RleTable.read(out)
    assert [table.image_id(row) for row in table.rows] == names[::-1]
    for row in table.rows:
        mask = decode_runs(table.runs(row), (96, 128), "column", where="")
        expected = classes_in(tmp_path / f"{table.image_id(row)}_mask.tif")
        assert np.array_equal(mask, expected == 1)
    assert out.read_bytes().count(b"\r\n") == out.read_bytes().count(b"\n") == 5


def test_a_sample_without_a_table_is_refused(data: Path, tmp_path: Path) -> None:
    code, answer = call("predict", data / "images", "-o", tmp_path, "--sample", "sample.csv")
    assert code == 2
    assert "without --outputs rle" in answer["error"]["message"]


def test_an_image_that_the_sample_lacks_is_an_error(
    data: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "sample.csv").write_text("img_id,mask_rle\nTEST_0,-1\n")
    out = tmp_path / "out"
    code, answer = call(
        "predict", data / "images", "-o", out, "--outputs", "rle",
        "--sample", tmp_path / "sample.csv", "-m", bundle,
    )  # fmt: skip
    assert code == 3
    assert (
        "1 of its 1 image cannot be found: TEST_0 (row 2); 4 images" in answer["error"]["message"]
    )
    assert not out.exists()


@pytest.mark.parametrize("order", ["row", "column"])
def test_data_goes_to_a_table_and_back(data: Path, tmp_path: Path, order: str) -> None:
    table, back = tmp_path / "t.csv", tmp_path / "back"
    code, report = call("convert", data, "--to", "rle", "-o", table, "--order", order)
    assert (code, report["kind"], report["scenes"]) == (0, "rle", 4)
    code, report = call("convert", table, "--to", "folder", "-o", back)
    assert (code, report["scenes"]) == (0, 4)
    assert order == "row" or any("usually go along rows" in note for note in report["notes"])
    for path in sorted((data / "masks").iterdir()):
        (again,) = (back / "masks").glob(f"{path.stem}.*")
        assert np.array_equal(classes_in(path) > 0, classes_in(again) > 0)
