#!/usr/bin/env bash
# geowrangler's mean of a zone is the true one divided by the number of districts that it meets.
#
# Guess before the run: "mean" of create_area_zonal_stats is the mean weighted by area: of districts
# of 12 m mean height that fill a zone it is 12 m, however many there are.
# Seen: of one district of 12 m it is 12, of two of 12 m 6, of ten of 12 m 1.2; of halves of 10 and
# 20 m it is 7.5, below both. imputed_mean, which makes up for ground without data, is divided alike.
# raw_mean is 12 each time, but takes a sliver of a district for as much as the rest: 15 m for a
# zone of 99 % 10 m and 1 % 20 m. The sum of the apportioned values would be right. No message.
# Versions: geowrangler 0.5.1 (the latest), geopandas 1.2.0, pandas 2.3.3, shapely 2.2.0. Source:
# geowrangler/area_zonal_stats.py: compute_intersect_stats multiplies each value by its share of the
# zone, and build_agg_area_dicts then takes the mean of these products in place of their sum.
# Hurt: who gives grid cells the heights, densities or scores of districts: cells at borders of
# districts have a half or a third of their neighbours' value, and the borders show in the map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.2.0 \
  pandas==2.3.3 numpy==2.2.6 morecantile==7.1.0 2> pip.log
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geowrangler==0.5.1 2>> pip.log
venv/bin/python -W ignore - <<'PYTHON'
import geopandas as gpd
import numpy as np
import shapely
from geowrangler.area_zonal_stats import create_area_zonal_stats


def measure(heights, shares):
    """Return the means of a zone of 100 x 100 m that districts share from west to east."""
    edges = 500_000 + 100 * np.concatenate([[0], np.cumsum(shares)])
    strips = [shapely.box(west, 0, east, 100) for west, east in zip(edges, edges[1:])]
    districts = gpd.GeoDataFrame({"height": heights}, geometry=strips, crs=25832)
    zone = gpd.GeoDataFrame(geometry=[shapely.box(500_000, 0, 500_100, 100)], crs=25832)
    kinds = ["mean", "imputed_mean", "raw_mean"]
    asked = [{"column": "height", "func": kinds, "output": kinds, "fillna": [False] * 3}]
    row = create_area_zonal_stats(zone, districts, asked).iloc[0]
    assert np.isclose(row["intersect_area_sum"], 10_000)
    return [round(float(row[kind]), 3) for kind in kinds]


for heights, shares, expected in (
    ([12], [1], [12, 12, 12]),
    ([12, 12], [0.5, 0.5], [6, 6, 12]),
    ([12] * 10, [0.1] * 10, [1.2, 1.2, 12]),
    ([10, 20], [0.5, 0.5], [7.5, 7.5, 15]),
    ([10, 20], [0.99, 0.01], [5.05, 5.05, 15]),
):
    seen = measure([float(height) for height in heights], shares)
    right = np.dot(heights, shares)
    print(f"{len(heights)} districts: weighted mean {right:.2f} m; mean {seen[0]},",
          f"imputed_mean {seen[1]}, raw_mean {seen[2]}")
    assert seen == expected
PYTHON
