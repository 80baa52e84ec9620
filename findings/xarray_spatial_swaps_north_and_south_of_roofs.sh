#!/usr/bin/env bash
# xarray-spatial says that roofs face north where they face south, if rows run from south to north.
#
# Guess before the run: aspect and hillshade take directions from the coordinates x and y of the
# array and slopes from the size of its pixels, as slope of the same library does.
# Seen: of a roof that faces south the aspect is 180 with y from north to south and 0 with y from
# south to north, as netCDF and Zarr often have it: the rows count, not their coordinates. hillshade
# lights its other side, too, and knows no pixel size: the same roof at 1 m and at 0.25 m per pixel
# is differently bright, and slope is 26.57 degrees in all cases.
# Versions: xarray-spatial 0.5.3, xarray 2025.12.0. Source: xrspatial/aspect.py, _cpu;
# xrspatial/hillshade.py, _run_numpy (np.gradient(data) without a distance).
# Hurt: who takes the solar potential of roofs from a surface model: the best roofs of the town are
# the worst. Sorting by y from north to south before is right for aspect.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check xarray-spatial==0.5.3 xarray==2025.12.0 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import xarray
import xrspatial


def roof(pixel):
    """Return a roof of 10 m that rises by half a metre for each metre to the north."""
    place = np.arange(pixel / 2, 10, pixel)
    heights = np.repeat(place[::-1, None] / 2, place.size, 1)
    return xarray.DataArray(heights, dims=("y", "x"), coords={"y": place[::-1], "x": place})


def measures(name, heights):
    middle = {"y": 5.125, "x": 5.125}
    found = tuple(
        round(float(value.sel(middle, method="nearest")), 2)
        for value in (
            xrspatial.slope(heights), xrspatial.aspect(heights),
            xrspatial.hillshade(heights, azimuth=180, angle_altitude=45),
        )
    )
    print(name, "slope, aspect, light from the south:", found)
    return found


assert measures("y falls", roof(1)) == (26.57, 180, 0.97)
assert measures("y rises", roof(1).sortby("y")) == (26.57, 0, 0.66)
assert measures("pixels of 0.25 m", roof(0.25)) == (26.57, 180, 0.89)
PYTHON
