"""If memory is exhausted, the error names settings that need less."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rooftrace.core.config import load_config
from rooftrace.core.errors import TrainError, is_out_of_memory
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit
from rooftrace.train.task import SegmentationTask

ON_CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 6442450944 bytes. Error code 12 (Cannot allocate memory)"
)


def test_how_it_is_distinguished_from_other_errors() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError(ON_CPU))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.campaign
def test_the_error_says_what_to_lower(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    def full(self: Any, *args: Any) -> None:
        raise RuntimeError(ON_CPU)

    monkeypatch.setattr(SegmentationTask, "training_step", full)
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, ["batch_size=8"])
    with pytest.raises(TrainError) as caught:
        fit(config, tmp_path / "run", base=tiny_folder)
    assert caught.value.exit_code == 5
    assert caught.value.message == "Out of memory: batch_size = 8, crop_px = 64, of Unet."
    assert caught.value.remedy.startswith("Try batch_size = 4 with optimizer.accumulate = 2")
