#!/usr/bin/env bash
# buildingregulariser returns an empty table for buildings in degrees.
#
# Guess before the run: a table in longitude and latitude raises, since its thresholds are lengths,
# or is transformed; at the worst buildings come back as they were, which is what it says in a
# warning ("Returning original polygon").
# Seen: of two houses in EPSG:4326 none is left. A step that removes slivers shrinks and grows every
# polygon by a fiftieth of the simplify tolerance, 0.01 degrees or about a kilometre, and drops what
# is empty then. geopandas warns that buffers in degrees are likely incorrect; nobody says that
# buildings are gone. In UTM the same houses are unchanged, though the index of the table is lost: 7
# and 3 become 0 and 1.
# Versions: buildingregulariser 0.2.5, geopandas 1.1.1. Source: buildingregulariser/coordinator.py,
# the step after regularization, buffer(-2 * tolerance / 50).
# Hurt: who regularises footprints from GeoJSON, which is in degrees: nothing is left, and a loop
# over tiles writes empty files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check buildingregulariser==0.2.5 geopandas==1.1.1 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
from buildingregulariser import regularize_geodataframe
from shapely import affinity, box

houses = [affinity.rotate(box(500000, 5000000, 500030, 5000020), 20),
          affinity.rotate(box(500100, 5000000, 500112, 5000010), 50)]
town = geopandas.GeoDataFrame({"id": ["a", "b"]}, geometry=houses, crs=32633, index=[7, 3])
metres = regularize_geodataframe(town)
degrees = regularize_geodataframe(town.to_crs(4326))
print("from UTM:", len(metres), metres.area.round(1).tolist(), "index", metres.index.tolist())
print("from degrees:", len(degrees), "of", len(town))
assert metres.area.round(1).tolist() == [600, 120] and metres.index.tolist() == [0, 1]
assert len(degrees) == 0
PYTHON
