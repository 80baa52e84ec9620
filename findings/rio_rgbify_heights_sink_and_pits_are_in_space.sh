#!/usr/bin/env bash
# rio-rgbify lowers heights that fit its steps by a step, and puts a pit at a height of 16,777 km.
#
# Guess before the run: a height that is a multiple of the interval comes back as it was, others at
# the nearest step; what lies below the base is at the base or an error, as there is for a range
# of more than 256 ** 3 steps.
# Seen: of the heights 0.0, 0.1 to 99.9 m, with Mapbox's base of -10000 and interval of 0.1, 400 of
# 1,000 come back 0.1 m lower, 2.9 as 2.8, and none higher; in float32 398. Nine more times change
# nothing. Heights between the steps are lower by half a step in the mean. With the base 0, the
# default, a pit of -5 m comes back at 16,777,211 m, without a message, since the check is of the
# range alone. The decoder of the library and the formula of Mapbox agree.
# Versions: rio-rgbify 0.4.0 (the latest), numpy 2.2.6, rasterio 1.4.4. Source: rio_rgbify/
# encoders.py, data_to_rgb: the lowest byte is cut off, not rounded; _range_check has the range.
# Hurt: who serves terrain or surface models as RGB tiles: roofs sink by up to a step, and pits,
# polders and voids below the base are spikes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rio-rgbify==0.4.0 numpy==2.2.6 \
  rasterio==1.4.4
cat > town.py <<'PYTHON'
import numpy
from rio_rgbify.encoders import _decode, data_to_rgb


def there_and_back(heights, base=-10_000, interval=0.1):
    """Return the heights that the RGB tile of these heights has, by the formula of Mapbox."""
    tile = data_to_rgb(heights, base, interval)
    red, green, blue = tile.astype("float64")
    found = base + (red * 256 * 256 + green * 256 + blue) * interval
    assert numpy.array_equal(found, _decode(tile, base, interval))
    return found


steps = numpy.round(numpy.arange(1000) * 0.1, 1)[None]
for dtype in ("float64", "float32"):
    error = (there_and_back(steps.astype(dtype)) - steps).round(3)
    print(dtype, "values of the error and their numbers:", *numpy.unique(error, return_counts=True))
    assert set(numpy.unique(error)) == {-0.1, 0}
    assert (error < 0).sum() == {"float64": 400, "float32": 398}[dtype]
assert there_and_back(numpy.array([[2.9]])).round(3) == 2.8

sunk = steps
for _ in range(10):
    sunk = there_and_back(sunk)
assert numpy.allclose(sunk, there_and_back(steps))
between = numpy.linspace(0, 100, 99_991)[None]
print("between the steps: mean error", (there_and_back(between) - between).mean().round(3))
assert -0.051 < (there_and_back(between) - between).mean() < -0.049

pit = there_and_back(numpy.array([[-5.0, 0, 12]]), base=0, interval=1)
print("heights of a pit of -5 m, a street and a roof of 12 m:", pit.tolist())
assert pit.tolist() == [[16_777_211, 0, 12]]
PYTHON
venv/bin/python -W ignore town.py
