"""If memory is exhausted, the batch size that fits is found by trying."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.core.errors import TrainError  # noqa: E402
from rooftrace.core.failures import is_out_of_memory  # noqa: E402
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.loop import (  # noqa: E402
    fit,
    largest_that_fits,
)
from rooftrace.train.task import SegmentationTask  # noqa: E402

ON_CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 6442450944 bytes. Error code 12 (Cannot allocate memory)"
)


@given(st.integers(0, 200), st.integers(1, 200))
def test_the_largest_that_fits_was_tried(limit: int, more: int) -> None:
    below = limit + more
    tried = []

    def attempt(number: int) -> None:
        tried.append(number)
        if number > limit:
            raise RuntimeError(ON_CPU)

    assert largest_that_fits(attempt, below) == limit
    assert limit in tried or limit == 0
    assert len(tried) <= below.bit_length()


def test_a_batch_that_fails_otherwise_is_no_answer() -> None:
    def attempt(number: int) -> None:
        if number > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        raise ValueError("Expected more than 1 value per channel when training")

    assert largest_that_fits(attempt, 16) == 0


def test_how_it_is_distinguished_from_other_errors() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError(ON_CPU))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


SETS = (
    'model={architecture="PlainUnet", options={filters=2, depth=1}}', "batch_size=8", "epochs=1",
    "optimizer.ema_decay=0.9", "watch.panel=0",
)  # fmt: skip


def reported_error(folder: Path, run: Path, *sets: str) -> TrainError:
    config = load_config(folder / "tiny.toml", TrainConfig, [*SETS, *sets])
    with pytest.raises(TrainError) as caught:
        fit(config, run, base=folder)
    assert caught.value.exit_code == 5
    return caught.value


def limited(monkeypatch: pytest.MonkeyPatch, step: str, limit: int) -> list[int]:
    """Limit the number of samples in `step`, and return the requested sizes."""
    original = getattr(SegmentationTask, step)
    asked: list[int] = []

    def limited_step(self: Any, batch: Any, *args: Any) -> Any:
        asked.append(len(batch.images))
        if len(batch.images) > limit:
            raise RuntimeError(ON_CPU)
        return original(self, batch, *args)

    monkeypatch.setattr(SegmentationTask, step, limited_step)
    return asked


@pytest.mark.campaign
def test_the_error_names_a_batch_that_went_through(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    asked = limited(monkeypatch, "training_step", 3)
    error = reported_error(tiny_folder, tmp_path / "run")
    assert error.message == "Out of memory: batch_size = 8, crop_px = 64, of PlainUnet."
    assert error.remedy == (
        "batch_size = 3 fits: a step and a validation with it succeeded just now. batch_size = "
        "2 with optimizer.accumulate = 4 keeps the number of samples per step."
    )
    assert asked == [8, 4, 2, 3]
    # What it says is so, and the folder is free for it.
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, [*SETS, "batch_size=3"])
    assert fit(config, tmp_path / "run", base=tiny_folder).trained.epochs == 1


@pytest.mark.campaign
def test_validation_has_to_fit_as_well(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    limited(monkeypatch, "validation_step", 2)
    assert "batch_size = 2 fits" in reported_error(tiny_folder, tmp_path / "run").remedy


@pytest.mark.campaign
def test_where_nothing_fits_the_crop_is_too_large(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    limited(monkeypatch, "training_step", 0)
    remedy = reported_error(tiny_folder, tmp_path / "run").remedy
    assert "down to one sample: lower crop_px" in remedy


def test_another_error_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    def broken(self: Any, *args: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(SegmentationTask, "training_step", broken)
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, SETS)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(config, tmp_path / "run", base=tiny_folder)
