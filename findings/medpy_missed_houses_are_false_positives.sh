#!/usr/bin/env bash
# MedPy's true positive rate of objects is 1 for a map that finds one house of four.
#
# Guess before the run: obj_tpr(result, reference) is the share of houses that were found, as recall
# of the same module is for pixels, and obj_fpr the share of what was found and is no house;
# obj_asd(result, reference) takes distances from the result to the reference, as asd does.
# Seen: for a map of one of four houses obj_tpr is 1.0 and obj_fpr 0.75; for one of all four and of
# four false ones they are 0.5 and 0. The "true positive rate" is the precision, and the "false
# positive rate" the share of houses that were missed: the help says so in its first sentence ("how
# many distinct binary objects in the second array do not exists in the first") and the opposite
# below ("objects in results" without counterpart in reference, of "ideal score" 0). obj_asd swaps
# its arrays: its own two examples come out as 0.0 and 0.6, documented as 0.6 and 0.0, and on one
# house it returns what asd does for the arrays the other way round.
# Versions: medpy 0.5.2, scipy 1.15.3, numpy 2.2.6. Source: medpy/metric/binary.py, obj_fpr, obj_tpr
# and __obj_surface_distances, which pass and name result and reference crosswise.
# Hurt: who rates maps of buildings by objects: a map that misses most houses is rated best, and one
# without a false house has the most false positives.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 scipy==1.15.3 \
  SimpleITK==2.5.2 setuptools==80.9.0 wheel==0.45.1
venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation medpy==0.5.2
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from medpy.metric import binary


def town(*corners, size=8):
    """Return a mask of square houses with their upper left corners."""
    mask = np.zeros((44, 44), bool)
    for row, column in corners:
        mask[row : row + size, column : column + size] = True
    return mask


HOUSES = (2, 2), (2, 24), (24, 2), (24, 24)
houses = town(*HOUSES)
one = town(HOUSES[0])
doubled = houses | town((12, 14), (36, 2), (36, 14), (36, 24), size=4)
seen = {}
for name, found in {"one of four houses": one, "four houses and four false": doubled}.items():
    seen[name] = binary.obj_tpr(found, houses), binary.obj_fpr(found, houses)
    print(f"{name}: true positive rate {seen[name][0]}, false positive rate {seen[name][1]};",
          f"recall of pixels {binary.recall(found, houses)}")
assert list(seen.values()) == [(1, 0.75), (0.5, 0)]

whole, strip = town((5, 5), size=20), town((5, 5), size=20)
strip[9:] = False
pairs = {name: [round(float(measure(*arrays)), 2) for arrays in ((strip, whole), (whole, strip))]
         for name, measure in {"asd": binary.asd, "obj_asd": binary.obj_asd}.items()}
print("a strip and its house, and the other way round:", pairs)
assert pairs["obj_asd"] == pairs["asd"][::-1] == [7.37, 1.09]

first = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 1]])
second = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1]])
example = binary.obj_asd(first, second), binary.obj_asd(second, first)
print("documented 0.6 and 0.0:", *example)
assert example == (0, 0.6)
PYTHON
