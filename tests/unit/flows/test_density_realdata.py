"""Built-up shares of real masks in several formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.flows.density.images import run_by_image
from rooftrace.flows.density.run import run_density


@pytest.mark.realdata
def test_real_masks(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "vegas" / "masks"
    report = run_by_image(folder, tmp_path / "vegas")
    pictures = [np.asarray(Image.open(path).convert("L")) for path in sorted(folder.iterdir())]
    np.testing.assert_allclose(report.shares, [(picture > 127).mean() for picture in pictures])
    first = sorted(folder.iterdir())[0]
    cells = run_density([first], tmp_path / "cells", cell_m=20, gsd_m=0.39)
    assert cells.total is not None
    assert float(cells.total.built_up_share) == pytest.approx(report.shares[0])
