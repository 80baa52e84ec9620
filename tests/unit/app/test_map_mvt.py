"""The encoder of vector tiles against the specification and GDAL's reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.app.map.tiles import Rings, encode_tile


def rings_of(polygons: list[list[list[tuple[int, int]]]]) -> Rings:
    """Return the rings of each polygon, none closed."""
    every = [(number, ring) for number, rings in enumerate(polygons) for ring in rings]
    lengths = [len(ring) for _, ring in every]
    return Rings(
        np.array([point for _, ring in every for point in ring], np.int64).reshape(-1, 2),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([number for number, _ in every], np.int64),
    )


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
    data = encode_tile(
        "x", rings_of([[[(3, 6), (8, 12), (20, 34)]]]), np.array([7]), {"a": np.array([300])}
    )
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
    assert (
        encode_tile("x", rings_of([]), np.zeros(0, np.int64), {"a": np.zeros(0, np.int64)}) == b""
    )


def test_a_hole_and_two_parts(tmp_path: Path) -> None:
    outer = [(0, 0), (100, 0), (100, 100), (0, 100)]
    hole = [(20, 20), (20, 40), (40, 40), (40, 20)]
    beside = [(200, 0), (300, 0), (300, 50)]
    data = encode_tile("x", rings_of([[outer, hole, beside]]), np.array([1]), {"a": np.array([5])})
    _, (made,) = read(data, tmp_path)
    expected = shapely.MultiPolygon([(outer, [hole]), (beside, [])])
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

    polygons = [[[(x, y), (x + w, y), (x + w, y + h)]] for x, y, w, h in corners]
    ids = np.arange(len(polygons)) * 1000 + base % 2**31
    values = np.arange(len(polygons)) * 7 + base
    with tempfile.TemporaryDirectory() as folder:
        columns, made = read(
            encode_tile("layer", rings_of(polygons), ids, {"one": values, "two": values % 3}),
            Path(folder),
        )
    assert columns["mvt_id"].tolist() == ids.tolist()
    assert columns["one"].tolist() == values.tolist()
    assert columns["two"].tolist() == (values % 3).tolist()
    expected = [shapely.Polygon(rings[0]) for rings in polygons]
    assert shapely.equals(made, expected).all()
