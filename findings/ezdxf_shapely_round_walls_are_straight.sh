#!/usr/bin/env bash
# ezdxf-shapely cuts off apses and round towers: arcs of light polylines become straight walls.
#
# Guess before the run: convert_lwpolyline turns the arcs of a LWPOLYLINE, its bulges, into many
# short segments, as convert_2d_polyline does for a POLYLINE and as its degrees_per_segment says.
# Seen: of a chapel of 10 x 10 m with a half round apse, 139.3 m2, it makes the square without the
# apse, 100 m2; of a round tower of 10 m across, drawn as four quarters, a square that stands on its
# corner, 50 m2 of 78.5. degrees_per_segment changes nothing. The same as POLYLINE have 139.3 and
# 78.5 m2. There is no message.
# Versions: ezdxf-shapely 1.0 (the latest), ezdxf 1.4.2, shapely 2.1.2. Source:
# ezdxf_shapely/conversion.py, convert_lwpolyline: a bulge counts if len(v1) == 4, and the points of
# ezdxf have five values.
# Hurt: who takes footprints out of drawings: CAD programs write LWPOLYLINE by default.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ezdxf-shapely==1.0 ezdxf==1.4.2 \
  shapely==2.1.2 numpy==2.2.6 geomdl==5.4.0 2> pip.log
venv/bin/python -W ignore - <<'PYTHON'
import math

import ezdxf
import numpy as np
import shapely
from ezdxf_shapely import convert_2d_polyline, convert_lwpolyline

space = ezdxf.new().modelspace()
quarter = math.tan(math.pi / 8)
for name, corners, right, seen in (
    ("a chapel with an apse", [(0, 0, 0), (10, 0, 1), (10, 10, 0), (0, 10, 0)],
     100 + math.pi * 25 / 2, 100),
    ("a round tower", [(5, 0, quarter), (10, 5, quarter), (5, 10, quarter), (0, 5, quarter)],
     math.pi * 25, 50),
    ("a square house", [(0, 0, 0), (10, 0, 0), (10, 10, 0), (0, 10, 0)], 100, 100),
):
    light = space.add_lwpolyline(corners, format="xyb", close=True)
    heavy = space.add_polyline2d(corners, format="xyb", close=True)
    areas = [shapely.Polygon(convert_lwpolyline(light, angle)).area for angle in (1, 10)]
    other = shapely.Polygon(convert_2d_polyline(heavy, 1)).area
    print(f"{name}: {right:.1f} m2, LWPOLYLINE {areas[0]:.1f}, POLYLINE {other:.1f}")
    assert np.allclose(areas, seen)
    assert abs(other - right) < 0.1
PYTHON
