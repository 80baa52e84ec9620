"""The encoder of vector tiles against the specification and GDAL's reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.app.map.tiles import encode_tile


def read(data: bytes, folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Attributes and polygons by GDAL, x right and y down."""
    path = folder / "tile.mvt"
    path.write_bytes(data)
    meta, _, wkb, columns = pyogrio.raw.read(f"MVT:{path}", CLIP="NO")
    upright = shapely.from_wkb(wkb)
    flipped = shapely.transform(upright, lambda xy: np.stack([xy[:, 0], 4096 - xy[:, 1]], axis=1))
    return dict(zip(map(str, meta["fields"]), columns)), flipped


def test_the_polygon_of_the_specification() -> None:
    # Section 4.3.5.5: MoveTo(3, 6), LineTo(8, 12), LineTo(20, 34), ClosePath.
    polygon = np.array([shapely.Polygon([(3, 6), (8, 12), (20, 34)])])
    data = encode_tile("x", polygon, np.array([0]), np.array([7]), {"a": np.array([300])})
    geometry = bytes([9, 6, 12, 18, 10, 12, 24, 44, 15])
    feature = bytes([8, 7, 0x12, 2, 0, 0, 0x18, 3, 0x22, 9]) + geometry
    layer = (
        bytes([0x78, 2, 0x0A, 1]) + b"x"
        + bytes([0x12, len(feature)]) + feature
        + bytes([0x1A, 1]) + b"a"
        + bytes([0x22, 3, 0x28, 0xAC, 2])
        + bytes([0x28, 0x80, 0x20])
    )  # fmt: skip
    assert data == bytes([0x1A, len(layer)]) + layer


def test_nothing_is_no_bytes() -> None:
    none = np.zeros(0, np.int64)
    assert encode_tile("x", np.zeros(0, np.object_), none, none, {"a": none}) == b""


def test_a_hole_and_two_parts(tmp_path: Path) -> None:
    outer = [(0, 0), (100, 0), (100, 100), (0, 100)]
    hole = [(20, 20), (20, 40), (40, 40), (40, 20)]
    beside = [(200, 0), (300, 0), (300, 50)]
    expected = shapely.MultiPolygon([(outer, [hole]), (beside, [])])
    parts = shapely.get_parts(expected)
    data = encode_tile("x", parts, np.array([0, 0]), np.array([1]), {"a": np.array([5])})
    _, (made,) = read(data, tmp_path)
    assert shapely.equals(made, expected)


triangles = st.lists(
    st.tuples(
        st.integers(-64, 4000), st.integers(-64, 4000), st.integers(1, 160), st.integers(1, 160)
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(triangles, st.integers(0, 2**33))
def test_gdal_reads_what_was_meant(corners: list[tuple[int, int, int, int]], base: int) -> None:
    import tempfile

    polygons = shapely.polygons([[(x, y), (x + w, y), (x + w, y + h)] for x, y, w, h in corners])
    number = np.arange(len(polygons))
    ids = number * 1000 + base % 2**31
    values = number * 7 + base
    with tempfile.TemporaryDirectory() as folder:
        columns, made = read(
            encode_tile("layer", polygons, number, ids, {"one": values, "two": values % 3}),
            Path(folder),
        )
    assert columns["mvt_id"].tolist() == ids.tolist()
    assert columns["one"].tolist() == values.tolist()
    assert columns["two"].tolist() == (values % 3).tolist()
    assert shapely.equals(made, polygons).all()
