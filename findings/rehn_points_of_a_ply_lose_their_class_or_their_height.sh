#!/usr/bin/env bash
# rehn drops the last column of a PLY where heights above ground replace z, even z itself.
#
# Guess before the run: height_norm_f with replace_z=True writes the points with their heights
# above the ground as z, the former z as original_z, and all other columns as they were.
# Seen: of x, y, z and classification, the class is gone: x, y, z, original_z and the mark of
# ground are there. Of x, y and z alone, x, y and original_z are left, and no height above ground
# is in the file at all. With replace_z=False all columns are there and the heights are right: 0
# for the ground, 6 m for a roof. Where the file already marks its ground in the last column,
# nothing is lost. There is no message.
# Versions: ReHN 1.0.2, numpy 2.4.6, pykdtree 1.4.3. Source: rehn/main.py, height_norm_f writes
# dtype.names[:-1], as if the last column were always the mark of ground.
# Hurt: who normalises classified clouds of towns: roofs lose their class, or whichever column is
# the last, such as the blue of colours, and a cloud of bare points loses its heights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rehn==1.0.2 numpy==2.4.6 pykdtree==1.4.3
venv/bin/python - <<'PYTHON'
import contextlib
import io

import numpy as np
import rehn
from rehn.utils.ply import read_ply, write_ply

# A flat roof of 4 x 4 m, 6 m above the ground of 20 x 20 m.
x, y = np.random.default_rng(0).uniform(0, 20, (2, 2000))
roof = (abs(x - 10) < 2) & (abs(y - 10) < 2)
columns = {"x": x, "y": y, "z": np.where(roof, 106.0, 100.0),
           "classification": np.where(roof, 6, 2).astype(np.uint8),
           "scalar_is_ground": (~roof).astype(np.uint8)}
np.save("ground.npy", ~roof)


def normalise(count, replace):
    """Return the points of a file with the first columns after heights are above the ground."""
    names = list(columns)[:count]
    write_ply("town.ply", [columns[name] for name in names], names)
    with contextlib.redirect_stdout(io.StringIO()):
        rehn.height_norm_f("town.ply", "out.ply", ground_mask_path="ground.npy", n_k=20,
                           replace_z=replace)
    points = read_ply("out.ply")
    print(f"{' '.join(names)}, replace_z={replace}: {' '.join(points.dtype.names)}")
    return points


whole = normalise(4, False)
assert whole.dtype.names == ("x", "y", "z", "classification", "norm_z", "scalar_is_ground")
assert np.allclose(whole["norm_z"], np.where(roof, 6, 0))
classified = normalise(4, True)
assert classified.dtype.names == ("x", "y", "z", "original_z", "scalar_is_ground")
assert np.allclose(classified["z"], np.where(roof, 6, 0))
bare = normalise(3, True)
assert bare.dtype.names == ("x", "y", "original_z", "scalar_is_ground")
assert np.allclose(bare["original_z"], columns["z"])
marked = normalise(5, True)
assert marked.dtype.names == ("x", "y", "z", "classification", "original_z", "scalar_is_ground")
PYTHON
