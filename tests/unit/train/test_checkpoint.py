"""A checkpoint is read without running code, and only if it is complete and unchanged."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.core.errors import DataError, ExportError  # noqa: E402
from rooftrace.train import checkpoint as module  # noqa: E402
from rooftrace.train.checkpoint import (  # noqa: E402
    SafeCheckpointIO,
    read_checkpoint,
)
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.loop import fit  # noqa: E402
from training_runs import figures, weights  # noqa: E402

if TYPE_CHECKING:
    pass

NET = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


def train(folder: Path, run: Path, *overrides: str, resume: bool = False) -> None:
    config = load_config(folder / "tiny.toml", TrainConfig, [NET, "watch.panel=0", *overrides])
    fit(config, run, base=folder, resume=resume)


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path, trained: Path) -> Path:
    """A run of one epoch that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(tiny_folder, run, "epochs=1")
    return run


def save(path: Path, value: dict[str, Any]) -> Path:
    SafeCheckpointIO().save_checkpoint(value, path)
    return path


def last(run: Path) -> Path:
    return run / "checkpoints/last.ckpt"


def test_every_value_of_a_checkpoint_is_read_as_it_was(tmp_path: Path) -> None:
    image = torch.rand(2, 3, 4, 5)
    tied = torch.rand(3)
    value = {
        "state_dict": {"a": image, "b": tied, "c": tied, "d": tied[1:]},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "betas": (0.9, 1)}],
        "layout": image.to(memory_format=torch.channels_last),
        "random": random.Random(0).getstate(),
        "numbers": [1, True, None, 2**70, 0.1, math.inf, -math.inf, "text \ud800", ""],
        "odd": {"$tensor": "text", "": [], "/": {}},
        "dtypes": [torch.zeros(2, dtype=d) for d in (torch.bfloat16, torch.bool, torch.int64)],
        "empty": torch.zeros(0, 3),
    }
    again = read_checkpoint(save(tmp_path / "a.ckpt", value))
    assert again["layout"].stride() == value["layout"].stride()  # type: ignore[attr-defined]

    def check(one: Any, other: Any) -> None:
        assert type(one) is type(other)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        elif isinstance(one, dict):
            assert list(one) == list(other)
            for key in one:
                check(one[key], other[key])
        elif isinstance(one, (list, tuple)):
            assert len(one) == len(other)
            for left, right in zip(one, other):
                check(left, right)
        else:
            assert one == other

    check(value, again)


def test_a_number_that_is_not_finite_is_kept(tmp_path: Path) -> None:
    value = {"state_dict": {}, "best": math.nan}
    assert math.isnan(read_checkpoint(save(tmp_path / "a.ckpt", value))["best"])


def test_an_object_is_refused_when_a_checkpoint_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="callbacks/Path"):
        save(tmp_path / "a.ckpt", {"callbacks": {"Path": tmp_path}})
    assert not list(tmp_path.iterdir())


def test_a_changed_byte_or_a_missing_end_is_refused(run: Path) -> None:
    state = {name: tensor for name, tensor in weights(run).items() if tensor.numel() < 20}
    path = save(run / "small.ckpt", {"state_dict": state, "epoch": 3})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = rng.choice(len(whole), 60, replace=False)
    broken = [whole[:place] for place in (0, 1, *places)] + [whole[8:], b"PK", bytes(99)]
    flipped = [bytearray(whole) for _ in places]
    for data, place in zip(flipped, places):
        data[place] ^= 1 << int(rng.integers(8))
    broken += map(bytes, flipped)
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            read_checkpoint(path)
        assert str(path) in caught.value.message
        assert caught.value.remedy


def test_a_disk_that_becomes_full_leaves_the_last_checkpoint(
    tiny_folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}

    def full(tensors: Any, path: Path, metadata: Any = None) -> None:
        Path(path).write_bytes(b"the first bytes")
        raise module.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(ExportError, match="No space left on device") as caught:
        train(tiny_folder, run, "epochs=2", resume=True)
    assert str(run / "checkpoints") in caught.value.message
    assert "free space" in caught.value.remedy
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    monkeypatch.undo()
    train(tiny_folder, run, "epochs=2", resume=True)
    assert len(figures(run)) == 2
