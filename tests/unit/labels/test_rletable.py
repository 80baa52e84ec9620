"""Tables of run lengths are written back, and errors name the row."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import LabelError
from rooftrace.labels.rle import (
    RleTable,
    TableColumns,
    TableRow,
    decode_runs,
    encode_runs,
    is_table,
)

SIDE = 224


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["validation.csv", "validation_sample.csv"])
def test_a_contests_table_is_the_same_bytes_after_decoding_each_mask(
    realdata: Path, tmp_path: Path, name: str
) -> None:
    source = realdata / "contest-csv" / name
    table = RleTable.read(source)
    masks = [
        decode_runs(table.runs(row), (SIDE, SIDE), "row", where=table.where(row))
        for row in table.rows
    ]
    assert len(masks) == 100
    assert sum(mask.any() for mask in masks) == (85 if name == "validation.csv" else 0)
    table.write(tmp_path / name, (encode_runs(mask, "row") for mask in masks))
    assert (tmp_path / name).read_bytes() == source.read_bytes()


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]], newline: str
) -> None:
    folder = tmp_path_factory.mktemp("t")
    columns = TableColumns.of(("img_id", "note", "mask_rle"), "here")
    table = RleTable(columns, tuple(TableRow(0, row) for row in cells), newline)
    table.write(folder / "a.csv")
    read = RleTable.read(folder / "a.csv")
    assert [row.cells for row in read.rows] == cells
    assert read.newline == newline


@pytest.mark.parametrize(
    ("header", "indices", "order"),
    [
        ("img_id,img_path,mask_rle", (0, 1, 2), "row"),
        ("ImageId,EncodedPixels", (0, None, 1), "column"),
        ("EncodedPixels,ImageId", (1, None, 0), "column"),
        ("filename,RLE", (None, 0, 1), None),
        ("image_id,width,height,rle_mask", (0, None, 3), None),
    ],
)
def test_columns_are_identified_by_name(
    header: str, indices: tuple[int | None, int | None, int], order: str | None
) -> None:
    columns = TableColumns.of(header.split(","), "t.csv")
    assert (columns.id, columns.path, columns.runs) == indices
    assert columns.custom == order


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("img_id;mask_rle\na;-1\n", "separated by ';'; expected commas"),
        ("img_id,img_path\na,b\n", "expected one for the image's name or file, and one for the"),
        ("mask_rle,x\n-1,b\n", "has the columns 'mask_rle', 'x'"),
        ("id,img_id,mask_rle\n", "has 2 columns that could be the id: 'id', 'img_id'"),
        ("ImageId,ClassId,EncodedPixels\n", "has a column of classes, 'ClassId'"),
        ("ImageId_ClassId,EncodedPixels\n", "has a column of classes, 'ImageId_ClassId'"),
        ("img_id,mask_rle\na,-1\nb\n", "row 3 has 1 cells; expected 2"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(LabelError, match=message) as caught:
        RleTable.read(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_tables_are_known_by_their_header(tmp_path: Path) -> None:
    assert is_table(write(tmp_path / "a.csv", '\ufeff"ImageId","EncodedPixels"\r\n'))
    # To be read and refused with what is amiss, and not as something else.
    assert is_table(write(tmp_path / "b.csv", "img_id;mask_rle\n"))
    assert not is_table(write(tmp_path / "c.csv", "img_id,img_path\n"))
    assert not is_table(write(tmp_path / "d.txt", "img_id,mask_rle\n"))
    assert not is_table(write(tmp_path / "e.csv", ""))
    assert not is_table(tmp_path)
