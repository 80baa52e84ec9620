#!/usr/bin/env bash
# geoarrow-rust-core's from_shapely drops the heights of roofs by its default method alone.
#
# Guess before the run: a roof as a shapely polygon with heights becomes an array of XYZ by either
# method, "wkb" (the default) or "ragged": they are two ways to the same array; from_shapely and
# from_wkb agree.
# Seen: by default the array is of type XY and the heights of points, walls and roofs are gone; by
# method="ragged" it is XYZ, and from_wkb(shapely.to_wkb(...)) keeps them too. No warning.
# Versions: geoarrow-rust-core 0.6.3, shapely 2.2.0, pyarrow 26.0.1, numpy 2.4.6. Source:
# geoarrow/rust/core/_interop.pyi names both methods without a word on heights; the default calls
# shapely.to_wkb with output_dimension=2, which the script shows.
# Hurt: who moves roofs, lidar points or footprints with the height of the ground from shapely to
# Arrow: they stand at no height in what is written from there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geoarrow-rust-core==0.6.3 \
  shapely==2.2.0 pyarrow==26.0.1 numpy==2.4.6 pyproj==3.7.2
venv/bin/python -W ignore - <<'PYTHON'
import geoarrow.rust.core as geoarrow
import pyarrow as pa
import shapely

calls = []
to_wkb = shapely.to_wkb


def spied(*arguments, **options):
    calls.append(options)
    return to_wkb(*arguments, **options)


shapely.to_wkb = spied


def texts(array):
    return pa.array(geoarrow.to_wkt(array)).to_pylist()


for shape in ("POLYGON Z((0 0 5,9 0 5,9 6 8,0 0 5))", "POINT Z(1 2 8)",
              "MULTIPOLYGON Z(((0 0 5,9 0 5,9 6 8,0 0 5)))"):
    given = shapely.from_wkt([shape])
    default = texts(geoarrow.from_shapely(given))
    ragged = texts(geoarrow.from_shapely(given, method="ragged"))
    wkb = texts(geoarrow.from_wkb(pa.array(to_wkb(given))))
    print("default:", *default, "| ragged:", *ragged, "| from_wkb:", *wkb)
    flat = texts(geoarrow.from_wkb(pa.array(to_wkb(shapely.force_2d(given)))))
    assert default == flat != wkb
    assert ragged == wkb and " Z(" in wkb[0]
print("options of to_wkb:", calls[0])
assert calls[0]["output_dimension"] == 2
PYTHON
