#!/usr/bin/env bash
# A transformation between vertical datums without its geoid grid returns heights unchanged.
#
# Guess before the run: without the grid of the geoid, pyproj raises, or returns infinity; at the
# latest with only_best=True, which promises the best operation or an error.
# Seen: from ellipsoidal heights to EGM96 or EGM2008 heights, and between these, z = 100 comes back as
# 100.0 without a warning, also with only_best=True. At 5 E, 52 N the geoid lies about 43 m above the
# ellipsoid. Only accuracy = -1, which also means "not known", the words "ballpark vertical
# transformation" in the description, and an error with allow_ballpark=False tell it from a real one.
# Versions: pyproj 3.7.2 with PROJ 9.5.1 from its wheel, network off. Source: the descriptions of the
# operations that PROJ builds, printed below.
# Hurt: who subtracts a terrain model in heights above the geoid from a surface model in heights above
# the ellipsoid after such a transformation: every building is tens of metres too tall or too low.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyproj==3.7.2
PROJ_NETWORK=OFF venv/bin/python -W error - <<'PYTHON'
from pyproj import Transformer, proj_version_str
from pyproj.exceptions import ProjError

assert proj_version_str == "9.5.1", proj_version_str
EGM96, EGM2008 = "EPSG:4326+5773", "EPSG:4326+3855"
for source, target in (("EPSG:4979", EGM96), ("EPSG:4979", EGM2008), (EGM96, EGM2008)):
    for options in ({}, {"only_best": True}):
        made = Transformer.from_crs(source, target, always_xy=True, **options)
        height = made.transform(5.0, 52.0, 100.0)[2]
        print(source, target, options, height, made.accuracy, made.description)
        assert (height, made.accuracy) == (100.0, -1.0)
        assert "ballpark vertical transformation" in made.description
    try:
        Transformer.from_crs(source, target, always_xy=True, allow_ballpark=False)
        raise SystemExit("allow_ballpark=False no longer refuses")
    except ProjError as error:
        print("allow_ballpark=False:", error)
PYTHON
