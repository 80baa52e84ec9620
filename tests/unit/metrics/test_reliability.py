"""Reliability by hand, and its picture."""

from __future__ import annotations

import numpy as np
import pytest

from rooftrace.metrics.calibration import Reliability


def test_by_hand() -> None:
    score = np.array([0.85, 0.89, 0.81, 0.25, 1.0], np.float32)
    right = np.array([True, True, False, False, True])
    found = Reliability.of(score, right)
    assert found.count.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 3, 1]
    assert found.objects == 5
    assert found.mean_score[8] == pytest.approx(0.85)
    assert found.share_right[8] == pytest.approx(2 / 3)
    # Three objects are off by 0.85 - 2/3, one by 0.25, one by nothing.
    assert found.ece == pytest.approx((3 * (0.85 - 2 / 3) + 0.25) / 5)
    squares = [0.15**2, 0.11**2, 0.81**2, 0.25**2, 0]
    assert found.brier == pytest.approx(np.mean(squares))
    logs = [np.log(0.85), np.log(0.89), np.log(0.19), np.log(0.75), 0]
    assert found.log_loss == pytest.approx(-np.mean(logs), abs=1e-5)
