#!/usr/bin/env bash
# netcal's calibration error falls to 0 when bins with few houses are left out of it.
#
# Guess before the run: with sample_threshold, bins of scores that hold fewer samples "are not
# included into the miscalibration metrics", as the docstring says: the error is that of the rest.
# Seen: of 160 houses whose scores are 0.3 too high throughout, ECE and ACE are 0.3. A threshold of
# 80 leaves out a bin of 60 houses: the other bin of 100 is wrong by 0.3 as well, but ECE is 0.1875
# and ACE 0.15, and with a threshold that leaves out both, 0. The bins are counted as calibrated:
# accuracy and confidence of theirs become 0, their houses stay in the total of ECE and they in the
# number of bins of ACE. The maps of accuracy and confidence that come with return_map fall too.
# Versions: netcal 1.4.0, scipy 1.15.3, numpy 2.2.6. Source: netcal/metrics/Miscalibration.py,
# binning (nan_to_num with 0) and process (total_samples, non_empty_bins of all samples).
# Hurt: who compares the scores of models by tile or by size of house, where bins are sparse, and
# raises the threshold for robust figures: the fewer houses there are, the better a model looks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check scipy==1.15.3 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps netcal==1.4.0
venv/bin/python -W ignore - <<'PYTHON'
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

# The package imports PyTorch for other measures; these need only the name of its tensors.
torch = sys.modules["torch"] = ModuleType("torch")
torch.Tensor = type("Tensor", (), {})
netcal = sys.modules["netcal"] = ModuleType("netcal")
netcal.__path__ = [str(Path(path) / "netcal") for path in sys.path]
metrics = sys.modules["netcal.metrics"] = ModuleType("netcal.metrics")
metrics.__path__ = [str(Path(path) / "netcal" / "metrics") for path in sys.path]
statistics = sys.modules["netcal.Stats"] = ModuleType("netcal.Stats")
statistics.hpdi = netcal.hpdi = None
from netcal.Decorator import accepts

netcal.accepts = accepts
from netcal.Helper import squeeze_generic

netcal.squeeze_generic = squeeze_generic
from netcal.metrics.confidence.ACE import ACE
from netcal.metrics.confidence.ECE import ECE

# 100 candidates with a score of 0.85 of which 55 are houses, and 60 of 0.45 of which 9 are.
scores = np.repeat([0.85, 0.45], [100, 60])
houses = np.repeat([1, 0, 1, 0], [55, 45, 9, 51])
assert "are not included into the miscalibration metrics" in ECE.__doc__
seen = {}
for threshold in (1, 80, 101):
    seen[threshold] = [
        round(float(kind(10, sample_threshold=threshold).measure(scores, houses)), 4)
        for kind in (ECE, ACE)
    ]
    print("bins of at least", threshold, "samples: ECE, ACE", seen[threshold])
only = round(float(ECE(10).measure(scores[:100], houses[:100])), 4)
print("ECE of the larger bin alone", only)
assert seen == {1: [0.3, 0.3], 80: [0.1875, 0.15], 101: [0, 0]}
assert only == 0.3
PYTHON
