#!/usr/bin/env bash
# PROJ transforms AGD66 to GDA2020 without a shift of datum outside Canberra: 206 m off.
#
# Guess before the run: EPSG:20256 (AGD66) to EPSG:7856 (GDA2020), both grids in EPSG's registry,
# goes over GDA94, for which EPSG has operations; at the latest only_best=True raises if none is used.
# Seen: near Sydney coordinates move by 13 m, the other ellipsoid alone, in place of 218 m, as the way
# over EPSG:28356 (GDA94) shows; there is no warning. TransformerGroup lists one operation, a "ballpark
# geographic offset", calls it the best that there is, and names no missing one. only_best=True
# returns the same. Only the accuracy of -1 and the word "ballpark" tell, and allow_ballpark=False.
# Versions: pyproj 3.7.2 with PROJ 9.5.1 from its wheel. Source: the EPSG registry in proj.db, whose
# only direct operation from AGD66 to GDA2020 covers the Australian Capital Territory.
# Hurt: who lays cadastre or building labels of before 1994 over new Australian imagery: nothing fits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyproj==3.7.2
PROJ_NETWORK=OFF venv/bin/python -W error - <<'PYTHON'
import math
from pyproj import Transformer, proj_version_str
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup

assert proj_version_str == "9.5.1", proj_version_str
AGD66, GDA94, GDA2020 = "EPSG:20256", "EPSG:28356", "EPSG:7856"
sydney = 334_000.0, 6_251_000.0


def by(source, target, at, **options):
    return Transformer.from_crs(source, target, always_xy=True, **options).transform(*at)


direct = by(AGD66, GDA2020, sydney)
through = by(GDA94, GDA2020, by(AGD66, GDA94, sydney))
print("moved by", round(math.dist(sydney, direct), 1), "m; over GDA94 by",
      round(math.dist(sydney, through), 1), "m; apart:", round(math.dist(direct, through), 1), "m")
assert math.dist(sydney, direct) < 15
assert 200 < math.dist(direct, through) < 215
assert by(AGD66, GDA2020, sydney, only_best=True) == direct
group = TransformerGroup(AGD66, GDA2020, always_xy=True)
(only,) = group.transformers
print(only.description, only.accuracy, group.best_available, group.unavailable_operations)
assert "Ballpark" in only.description
assert only.accuracy == -1
assert group.best_available
assert not group.unavailable_operations
try:
    by(AGD66, GDA2020, sydney, allow_ballpark=False)
    raise SystemExit("allow_ballpark=False no longer refuses")
except ProjError as error:
    print("allow_ballpark=False:", error)
PYTHON
