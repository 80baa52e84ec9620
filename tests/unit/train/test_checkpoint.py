"""A checkpoint is read without running code, if it is complete and the data is that of the run."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from rooftrace.core.config import load_config
from rooftrace.core.errors import DataError, ExportError
from rooftrace.io.files import replacing
from rooftrace.train import checkpoint as module
from rooftrace.train.checkpoint import SafeCheckpointIO, read_checkpoint
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit
from training_runs import figures, weights

NET = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


def train(folder: Path, run: Path, *overrides: str, resume: bool = False) -> None:
    config = load_config(folder / "tiny.toml", TrainConfig, [NET, *overrides])
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


def test_a_checkpoint_with_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used"):
        read_checkpoint(save(tmp_path / "a.ckpt", {"callbacks": {"Path": tmp_path}}))


def test_a_changed_byte_or_a_missing_end_is_refused(run: Path) -> None:
    state = {name: tensor for name, tensor in weights(run).items() if tensor.numel() < 20}
    path = save(run / "small.ckpt", {"state_dict": state, "epoch": 3})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = rng.choice(len(whole), 60, replace=False)
    broken = [whole[:place] for place in (0, 1, *places)] + [whole[8:], b"PK", bytes(99)]
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            read_checkpoint(path)
        assert str(path) in caught.value.message
        assert caught.value.remedy
    found = 0
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        # A byte between the records holds nothing.
        try:
            same = read_checkpoint(path)["state_dict"]
        except DataError:
            found += 1
        else:
            assert all(torch.equal(same[name], tensor) for name, tensor in state.items())
    assert found > 20


def test_a_disk_that_becomes_full_leaves_the_last_checkpoint(
    tiny_folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}

    def write_full(path: Path, data: Any) -> None:
        with replacing(path) as partial:
            partial.write_bytes(b"the first bytes")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomically", write_full)
    with pytest.raises(ExportError, match="No space left on device") as caught:
        train(tiny_folder, run, "epochs=2", resume=True)
    assert str(run / "checkpoints") in caught.value.message
    assert "free space" in caught.value.remedy
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    monkeypatch.undo()
    train(tiny_folder, run, "epochs=2", resume=True)
    assert len(figures(run)) == 2


@pytest.mark.parametrize("changed", ["train", "val"])
def test_a_run_is_not_resumed_on_other_scenes(
    tiny_folder: Path, run: Path, tmp_path: Path, changed: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(tiny_folder / "data", folder / "data")
    shutil.copy2(tiny_folder / "tiny.toml", folder)
    split = json.loads((tiny_folder / "split.json").read_text())
    split["parts"][changed] += split["parts"].pop("test")
    (folder / "split.json").write_text(json.dumps(split))
    with pytest.raises(
        DataError, match=rf"the part {changed} had \d scenes?, and has \d"
    ) as caught:
        train(folder, run, "epochs=2", resume=True)
    assert "start a new run" in caught.value.remedy
    shutil.copy2(tiny_folder / "split.json", folder)
    train(folder, run, "epochs=2", resume=True)
    assert len(figures(run)) == 2
