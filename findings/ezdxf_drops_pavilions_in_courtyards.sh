#!/usr/bin/env bash
# ezdxf reads a block with a pavilion in its courtyard from DXF without the pavilion.
#
# Guess before the run: a HATCH of three outlines in the style "nested" fills the block and the
# pavilion and leaves the yard between them; its geometry in GeoJSON has two polygons.
# Seen: of a block of 20 x 20 m, a yard of 10 x 10 m and a pavilion of 4 x 4 m, the geometry is the
# block with its yard, 300 square metres in place of 316. A house beside the block in the same HATCH
# is kept, and all four outlines are in the entity. There is no message.
# Versions: ezdxf 1.4.5, shapely 2.1.2. Source: ezdxf/addons/geo.py, _boundaries_to_polygons, takes
# outlines of the first and the second level; a comment there says that others are ignored, and the
# documentation of the add-on says that the HATCH entity supports holes.
# Hurt: who takes footprints from plans of a city or a survey: buildings in courtyards are missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ezdxf==1.4.5 shapely==2.1.2 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import ezdxf
import shapely
from ezdxf import const
from ezdxf.addons import geo

block, yard, pavilion, house = (
    shapely.box(0, 0, 20, 20), shapely.box(5, 5, 15, 15), shapely.box(8, 8, 12, 12),
    shapely.box(30, 0, 40, 10),
)
drawing = ezdxf.new()
hatch = drawing.modelspace().add_hatch(
    dxfattribs={"hatch_style": const.HATCH_STYLE_NESTED})
for outline, flags in (
    (block, const.BOUNDARY_PATH_EXTERNAL), (house, const.BOUNDARY_PATH_EXTERNAL),
    (yard, const.BOUNDARY_PATH_OUTERMOST), (pavilion, const.BOUNDARY_PATH_DEFAULT),
):
    hatch.paths.add_polyline_path(outline.exterior.coords[:-1], is_closed=True, flags=flags)
drawing.saveas("town.dxf")
hatch = ezdxf.readfile("town.dxf").modelspace()[0]
assert len(hatch.paths) == 4 and hatch.dxf.hatch_style == const.HATCH_STYLE_NESTED
found = shapely.geometry.shape(geo.proxy(hatch).__geo_interface__)
filled = (block - yard) | pavilion | house
print("areas of the parts:", [part.area for part in found.geoms], "of", filled.area, "together")
assert sorted(part.area for part in found.geoms) == [100, 300] and filled.area == 416
assert not found.intersects(pavilion)
PYTHON
