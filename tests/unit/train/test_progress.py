"""A run says how far it is where no progress bar can be drawn."""

from __future__ import annotations

import io
import re
from itertools import count
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.train import callbacks, loop  # noqa: E402
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.refine import refine  # noqa: E402

NET = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


REFINE = "refine={epochs=1, filters=4, depth=3}"


@pytest.mark.parametrize("more", [[], [REFINE]])
def test_a_line_a_minute_without_a_terminal(
    more: list[str], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count(0, 25)

    def lines(console: Console) -> callbacks.ProgressLines:
        return callbacks.ProgressLines(console, lambda: float(next(seconds)))

    monkeypatch.setattr(loop, "ProgressLines", lines)
    output = io.StringIO()
    config = load_config(tiny_folder / "tiny.toml", TrainConfig,
                         [NET, "watch.panel=0", "epochs=1", "samples_per_epoch=32", *more]
                         )  # fmt: skip
    console = Console(file=output, width=200)
    result = loop.fit(config, tmp_path / "run", base=tiny_folder, console=console)
    if more:
        refine(config, result, tmp_path / "run", console=console)
    found = [line for line in output.getvalue().splitlines() if line.startswith("epoch 1: step")]
    assert 1 < len(found) < 8 * (1 + len(more))
    step, rest = r"epoch 1: step \d of 8", r", \d+\.\d samples/s, about 0:\d\d:\d\d left"
    # The generator and the discriminator of a refinement have no loss in common.
    with_loss = [line for line in found if re.fullmatch(rf"{step}, loss 0\.\d{{4}}{rest}", line)]
    without = [line for line in found if re.fullmatch(step + rest, line)]
    assert len(with_loss) > 1
    assert len(with_loss) + len(without) == len(found)
    assert bool(without) == bool(more)
