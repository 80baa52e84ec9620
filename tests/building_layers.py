"""Two layers of houses of which the second has true changes, for tests of `rooftrace compare`."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from shapely import affinity, box

UTM = 32633
EAST, NORTH = 500_000.0, 5_000_000.0
SIDE = 12
"""Houses in a row, and in a column."""


def houses() -> list[shapely.Polygon]:
    """Return houses of different sizes and directions, 25 m from each other."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)
    corner = grid * 25.0 + (EAST, NORTH)
    size = rng.uniform(8, 14, corner.shape)
    return [
        affinity.rotate(box(*c, *(c + s)), a)
        for c, s, a in zip(corner, size, rng.uniform(0, 90, len(corner)))
    ]


def changed(old: list[shapely.Polygon]) -> list[shapely.Polygon]:
    """Return the houses after 12 true changes of each kind, every one of another house."""
    new = []
    for number, house in enumerate(old):
        kind = number % SIDE
        if kind == 1:
            house = affinity.translate(house, 5, 0)
        elif kind == 2:
            house = affinity.scale(house, 1.7, 1.0)
        elif kind == 3:
            middle = house.centroid
            half = box(middle.x - 50, middle.y - 50, middle.x, middle.y + 50)
            new.append(house - half)
            house &= half
        elif kind == 5:
            new.append(box(house.centroid.x + 11, house.centroid.y, house.centroid.x + 15,
                           house.centroid.y + 5))  # fmt: skip
        if kind != 4:
            new.append(house)
    return new


def write(path: Path, polygons: list[shapely.Polygon], crs: int = UTM, **columns: Any) -> Path:
    """Write polygons that are given in metres."""
    frame = gpd.GeoDataFrame(columns, geometry=polygons, crs=UTM).to_crs(crs)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


def write_layers(folder: Path) -> tuple[Path, Path]:
    """Write the new layer in metres, and the old one in degrees with attributes."""
    old = houses()
    new = changed(old)
    score = np.random.default_rng(1).random(len(new))
    return (
        write(folder / "new.gpkg", new, id=[f"n{i}" for i in range(len(new))], score=score,
              height=9.0),
        write(
            folder / "old.geojson", old, 4326, id=np.arange(100, 100 + len(old)),
            name=[f"house {i}" for i in range(len(old))], levels=np.arange(len(old)) / 2,
            height=np.arange(len(old)) / 10.0,
        ),
    )  # fmt: skip


def counts(answer: dict[str, Any], side: str) -> dict[str, int]:
    """Return the numbers of buildings of a side by status, of those that occur."""
    return {name: row[side] for name, row in answer["statuses"].items() if row[side]}


TRUTH_OLD = {"same": 96, "changed": 12, "moved": 12, "split": 12, "gone": 12}
TRUTH_NEW = {"same": 96, "changed": 12, "moved": 12, "split": 24, "new": 12}
"""Buildings of each layer by their true status."""
