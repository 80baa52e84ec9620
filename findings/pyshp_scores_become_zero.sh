#!/usr/bin/env bash
# pyshp writes scores as 0, also into a float field.
#
# Guess before the run: field("score", "F"), a field of floating point numbers, holds 0.97; a number
# with more decimals than a field has room for is rounded, or it warns, as it does for long texts.
# Seen: a field has no decimals unless one names their number, for "F" as for "N", and numbers are
# cut: a score of 0.97 is 0, and 3.9 floors are 3. With room for three decimals in eight characters,
# 1,234,567.891 is 1234567. There is neither error nor warning, and GDAL reads what pyshp reads.
# Versions: pyshp 3.1.6, pyogrio 0.12.1. Source: shapefile.py, Writer.field (decimal=0) and the
# writing of records in it.
# Hurt: who writes predicted buildings without GDAL, as plugins and notebooks do: a filter by score
# shows none, and floors and areas are too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyshp==3.1.6 pyogrio==0.12.1 geopandas==1.1.1 pandas==2.3.3
venv/bin/python -W error - <<'PYTHON'
import pyogrio
import shapefile

fields = {"score": ("F", {}), "floors": ("N", {}), "area": ("N", {"size": 8, "decimal": 3})}
with shapefile.Writer("town") as writer:
    for name, (kind, options) in fields.items():
        writer.field(name, kind, **options)
    writer.poly([[[0, 0], [0, 10], [10, 10], [10, 0], [0, 0]]])
    writer.record(0.97, 3.9, 1234567.891)
with shapefile.Reader("town") as reader:
    record = list(reader.record(0))
    names = [field[0] for field in reader.fields[1:]]
table = pyogrio.read_dataframe("town.shp")
print("pyshp:", dict(enumerate(zip(names, record))))
print("GDAL: ", table.drop(columns="geometry").to_dict("records"))
assert [float(value) for value in record] == [0, 3, 1234567]
assert [float(value) for value in table.loc[0, names]] == [0, 3, 1234567]
PYTHON
