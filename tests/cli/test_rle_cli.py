"""`rooftrace predict --rle` and tables of run lengths as DATA, through the real command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rooftrace.data.rle.table import RleTable
from rooftrace.io.raster import open_raster
from rooftrace.testing import write_pairs

if TYPE_CHECKING:
    from tests.cli.conftest import Call


def classes_in(path: Path) -> np.ndarray:
    return open_raster(path, palette="indices").read().data[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "data"
    write_pairs(folder, range(4), shape_yx=(96, 128), gsd_m=0.3)
    return folder


def test_the_sample_decides_the_form(call: Call, data: Path, bundle: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (data / "images").iterdir())
    sample, out = tmp_path / "sample.csv", tmp_path / "submission.csv"
    lines = ["ImageId,EncodedPixels", *(f"{name}," for name in reversed(names))]
    sample.write_bytes("\r\n".join([*lines, ""]).encode())
    code, told = call(
        "predict", data / "images", "--rle", out, "--sample", sample, "-m", bundle,
        "--threshold", 0.3,
    )  # fmt: skip
    assert code == 0
    assert (told["path"], told["images"], told["order"]) == (str(out), 4, "column")
    code, _ = call("predict", data / "images", "-o", tmp_path, "-m", bundle, "--threshold", 0.3)
    assert code == 0
    table = RleTable.read(out)
    assert [table.image_id(row) for row in table.rows] == names[::-1]
    for row in table.rows:
        mask = table.mask(row, (96, 128), "column")
        expected = classes_in(tmp_path / f"{table.image_id(row)}_mask.tif")
        assert np.array_equal(mask, expected == 1)
    assert out.read_bytes().count(b"\r\n") == out.read_bytes().count(b"\n") == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rle", "t.csv", "-o", "out"], "-o has no use with --rle."),
        (["--rle", "t.csv", "--min-area", "4"], "--min-area has no use with --rle."),
        (["-o", "out", "--sample", "t.csv"], "--sample belongs to --rle."),
        (["-o", "out", "--order", "row"], "--order belongs to --rle."),
        ([], "Neither --out (-o) nor --rle was given."),
    ],
)
def test_options_that_do_not_go_together(
    call: Call, data: Path, arguments: list[str], told: str
) -> None:
    code, answer = call("predict", data / "images", *arguments)
    assert (code, answer["error"]["message"]) == (2, told)
    assert answer["error"]["remedy"]


def test_an_image_that_the_sample_lacks_is_an_error(
    call: Call, data: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "sample.csv").write_text("img_id,mask_rle\nTEST_0,-1\n")
    out = tmp_path / "t.csv"
    code, answer = call(
        "predict", data / "images", "--rle", out, "--sample", tmp_path / "sample.csv", "-m", bundle
    )
    assert code == 3
    assert "1 of its 1 images are not there: TEST_0 (row 2); 4 images" in answer["error"]["message"]
    assert not out.exists()


@pytest.mark.parametrize("order", ["row", "column"])
def test_data_goes_to_a_table_and_back(call: Call, data: Path, tmp_path: Path, order: str) -> None:
    table, back = tmp_path / "t.csv", tmp_path / "back"
    code, told = call("convert", data, "--to", "rle", "-o", table, "--order", order)
    assert (code, told["kind"], told["scenes"]) == (0, "rle", 4)
    code, told = call("convert", table, "--to", "folder", "-o", back)
    assert (code, told["scenes"]) == (0, 4)
    assert order == "row" or any("mostly go along rows" in note for note in told["notes"])
    for path in sorted((data / "masks").iterdir()):
        (again,) = (back / "masks").glob(f"{path.stem}.*")
        assert np.array_equal(classes_in(path) > 0, classes_in(again) > 0)
