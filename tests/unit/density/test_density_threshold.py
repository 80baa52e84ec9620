"""The fitted threshold has the best accuracy and lies in the widest gap between examples."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.core.errors import ConfigError, LabelError
from rooftrace.density.files import DEFAULT_THRESHOLD, read_threshold
from rooftrace.flows.density.images import balanced_accuracy, fit_threshold


@pytest.mark.campaign
@settings(max_examples=15)
@given(
    sparse=st.lists(st.floats(0, 1), min_size=2, max_size=12),
    dense=st.lists(st.floats(0, 1), min_size=2, max_size=12),
)
def test_no_other_threshold_is_better(sparse: list[float], dense: list[float]) -> None:
    shares = np.array(sparse + dense)
    is_dense = np.arange(len(shares)) >= len(sparse)
    found, _ = fit_threshold(shares, is_dense)
    assert found.fit is not None
    best = max(balanced_accuracy(is_dense, shares >= t) for t in [0, *shares, 1.1])
    assert found.fit.balanced_accuracy == pytest.approx(best)
    assert balanced_accuracy(is_dense, shares >= found.threshold) == pytest.approx(best)


def test_the_middle_of_the_widest_gap() -> None:
    shares = np.array([0.1, 0.2, 0.5, 0.6])
    found, _ = fit_threshold(shares, np.array([False, False, True, True]))
    assert found.threshold == pytest.approx(0.35)
    # A threshold on either side of 0.3 makes one mistake; the wider gap is from 0.5 to 0.9.
    shares = np.array([0.1, 0.5, 0.3, 0.9])
    found, _ = fit_threshold(shares, np.array([False, False, True, True]))
    assert found.threshold == pytest.approx(0.7)


def test_few_examples_are_noted_and_too_few_refused() -> None:
    _, notes = fit_threshold(np.array([0.1, 0.2, 0.5, 0.6]), np.array([0, 0, 1, 1], bool))
    assert len(notes) == 2
    assert "fewer than 10" in notes[0]
    with pytest.raises(LabelError, match="1 example is labelled dense"):
        fit_threshold(np.array([0.1, 0.2, 0.5]), np.array([0, 0, 1], bool))


def test_written_and_read(tmp_path: Path) -> None:
    shares = np.linspace(0, 1, 20)
    found, _ = fit_threshold(shares, shares > 0.5)
    found.write(tmp_path / "t.json")
    assert read_threshold(tmp_path / "t.json") == found
    assert found.classes(np.array([0.9, 0.1, np.nan])).tolist() == ["dense", "sparse", None]
    assert DEFAULT_THRESHOLD.classes(np.array([0.2, 0.19])).tolist() == ["dense", "sparse"]


@pytest.mark.parametrize("text", ["", "[]", '{"threshold": 2}', '{"limit": 0.2}'])
def test_invalid_threshold_files(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"t\.json"):
        read_threshold(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_threshold(tmp_path / "absent.json")
