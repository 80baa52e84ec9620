#!/usr/bin/env bash
# mapbox-vector-tile drops counts and float32 scores of numpy from its tiles, and keeps float64.
#
# Guess before the run: a number of numpy that the encoder does not know raises, as in json, or is
# written as the number that it is; all of them alike.
# Seen: of buildings whose properties are elements of numpy arrays, tiles have the height (float64)
# and neither the floors (int64), the score (float32) nor whether the roof is flat (bool): float64
# is a subclass of Python's float, and a property of another type is left out without a word. A
# feature's id of int64 is kept. With .item() all properties are there.
# Versions: mapbox-vector-tile 2.2.0, shapely 2.1.2, numpy 2.2.6. Source:
# mapbox_vector_tile/encoder.py, _can_handle_val.
# Hurt: who serves predicted footprints as tiles: a filter by score hides all of them, and a style
# that colours by floors draws them alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mapbox-vector-tile==2.2.0 shapely==2.1.2 numpy==2.2.6
venv/bin/python -W error - <<'PYTHON'
import mapbox_vector_tile
import numpy as np
from shapely import box

columns = {
    "floors": np.array([2, 3]), "flat": np.array([True, False]),
    "height": np.array([6.5, 9.5]), "score": np.array([0.5, 0.75], np.float32),
}
numbers = np.array([7, 9])


def tiles(value):
    features = [
        {"geometry": box(20 * row, 0, 20 * row + 10, 10), "id": numbers[row],
         "properties": {name: value(column[row]) for name, column in columns.items()}}
        for row in range(2)
    ]
    data = mapbox_vector_tile.encode({"name": "buildings", "features": features})
    read = mapbox_vector_tile.decode(data)["buildings"]["features"]
    assert [one["id"] for one in read] == [7, 9]
    found = [one["properties"] for one in read]
    print({name: type(value(column[0])).__name__ for name, column in columns.items()}, "->", found)
    return found


assert tiles(lambda element: element) == [{"height": 6.5}, {"height": 9.5}]
assert tiles(lambda element: element.item()) == [
    {"floors": 2, "flat": True, "height": 6.5, "score": 0.5},
    {"floors": 3, "flat": False, "height": 9.5, "score": 0.75},
]
PYTHON
