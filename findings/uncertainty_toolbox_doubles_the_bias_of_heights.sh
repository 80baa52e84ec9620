#!/usr/bin/env bash
# uncertainty-toolbox's recalibrated median of heights that are 1 m too large is 2 m too large.
#
# Guess before the run: get_quantile_recalibrator learns from predictions with known truth how
# often the truth lies below each predicted quantile, as documented, and moves the quantiles there:
# the median of heights that are all predicted 1 m too large falls by 1 m, and has half of the
# truth below.
# Seen: it rises by 1 m, and 98 % of the true heights lie below it; of heights predicted 1 m too
# small it falls by 1 m, and 2 % lie below. Without a bias all is right. The share below a quantile
# is counted for prediction less truth in place of truth less prediction: 16 % in place of 84 %
# below the predicted median. The calibration errors, which only know how far the curve is from the
# diagonal, hide it, and get_interval_recalibrator is right. There is no message.
# Versions: uncertainty-toolbox 0.1.1, scikit-learn 1.7.2, numpy 2.2.6. Source:
# uncertainty_toolbox/ metrics_calibration.py, get_proportion_lists_vectorized and
# get_proportion_under_quantile, residuals = y_pred - y_true.
# Hurt: who corrects heights of buildings, or other values, with measured ones: each correction of
# a model with a bias makes it worse, and plots of the calibration curve show it on the wrong side.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uncertainty-toolbox==0.1.1 \
  scikit-learn==1.7.2 scipy==1.15.3 matplotlib==3.10.7 numpy==2.2.6
MPLBACKEND=agg venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from uncertainty_toolbox.metrics_calibration import (
    get_proportion_under_quantile,
    mean_absolute_calibration_error,
)
from uncertainty_toolbox.recalibration import (
    get_interval_recalibrator,
    get_quantile_recalibrator,
)

random = np.random.default_rng(0)
truth = random.uniform(3, 30, 4000)
noise = random.normal(0, 1, 4000)
spread = np.ones(4000)


def correct(bias):
    """Return shares and mean errors in metres before and after the recalibration."""
    heights = truth + noise + bias
    quantile = get_quantile_recalibrator(heights, spread, truth)
    interval = get_interval_recalibrator(heights, spread, truth)(heights, spread, 0.9)
    median = quantile(heights, spread, 0.5)
    figures = {
        "share of truth below the prediction": np.mean(truth <= heights),
        "the same by the toolbox": get_proportion_under_quantile(heights, spread, truth, 0.5),
        "error of the mean": np.mean(heights - truth),
        "and of the recalibrated median": np.mean(median - truth),
        "share of truth below it": np.mean(truth <= median),
        "in the interval of 0.9": np.mean((interval.lower <= truth) & (truth <= interval.upper)),
        "calibration error": mean_absolute_calibration_error(
            heights, spread, truth, prop_type="quantile"),
    }
    return {name: round(float(figure), 2) for name, figure in figures.items()}


seen = {bias: correct(bias) for bias in (0, 1, -1)}
for bias, figures in seen.items():
    print(f"heights {bias:+} m -", ", ".join(f"{name} {each}" for name, each in figures.items()))
for bias, figures in seen.items():
    below, by_toolbox, before, after, below_after, inside, _ = figures.values()
    assert abs(before - bias) < 0.05 and abs(after - 2 * bias) < 0.1 and abs(inside - 0.9) < 0.02
    assert abs(below + by_toolbox - 1) < 0.03
    assert abs(below_after - {0: 0.5, 1: 0.98, -1: 0.02}[bias]) < 0.02
PYTHON
