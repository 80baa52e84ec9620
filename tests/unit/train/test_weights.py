"""Weights that do not fit a network are listed, and never left out without a word."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file
from torch import nn

from rooftrace.core.config import load_config
from rooftrace.core.errors import ConfigError
from rooftrace.train.checkpoint import SafeCheckpointIO, load_weights, read_checkpoint
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


def test_what_is_missing_surplus_or_of_another_shape_is_listed(tmp_path: Path) -> None:
    state = net().state_dict()
    before = {name: weight.clone() for name, weight in state.items()}
    found = {name: weight for name, weight in state.items() if not name.startswith("1.")}
    found |= {"head.weight": torch.zeros(2), "2.weight": torch.zeros(1, 4, 3, 3)}
    save_file(found, tmp_path / "b.safetensors")
    other = net()
    other.load_state_dict(before)
    with pytest.raises(ConfigError) as caught:
        load_weights(other, tmp_path / "b.safetensors")
    output = caught.value.message
    assert (
        "missing 1.weight, 1.bias, 1.running_mean, 1.running_var, 1.num_batches_tracked (5)"
        in output
    )
    assert "surplus head.weight (1)" in output
    assert "of another shape 2.weight (1, 4, 3, 3) for (1, 4, 1, 1) (1)" in output
    assert all(torch.equal(w, before[n]) for n, w in other.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_what_is_no_file_of_weights_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.safetensors"
    with pytest.raises(ConfigError, match=r"d\.safetensors cannot be read"):
        load_weights(net(), path)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"d\.safetensors cannot be read"):
        load_weights(net(), path)


def test_a_checkpoint_of_another_network_is_not_resumed(tiny_folder: Path, tmp_path: Path) -> None:
    sets = ['model={architecture="PlainUnet", options={filters=4, depth=2}}']
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, [*sets, "epochs=1"])
    fit(config, tmp_path, base=tiny_folder)
    last = tmp_path / "checkpoints" / "last.ckpt"
    kept = read_checkpoint(last)
    first = next(iter(kept["state_dict"]))
    kept["state_dict"]["old.name"] = kept["state_dict"].pop(first)
    SafeCheckpointIO().save_checkpoint(kept, last)
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, [*sets, "epochs=2"])
    with pytest.raises(ConfigError) as caught:
        fit(config, tmp_path, base=tiny_folder, resume=True)
    assert f"missing {first} (1); surplus old.name (1)" in caught.value.message
