"""State dicts of other programs: read without running code, and matched by name."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file

from rooftrace.core.errors import BundleError
from rooftrace.models.state_dict import match_weight_names, read_state_dict

WEIGHTS = {"encoder.first.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}
NAMES = list(WEIGHTS)


def prefixed(prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": weight for name, weight in WEIGHTS.items()}


WRAPPED = {
    "plain": WEIGHTS,
    "lightning": {"state_dict": prefixed("model."), "epoch": 3, "hyper_parameters": {"lr": 1e-3}},
    "data parallel": {"model_state_dict": prefixed("module."), "optimizer": {"lr": 1e-3}},
    "both": {"state_dict": prefixed("model.module.")},
    "by another name": {"net": WEIGHTS, "optimizer": {"state": {}}},
    "with a loss": {"state_dict": {**prefixed("net."), "criterion.weight": torch.ones(2)}},
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_usual_wrappings_are_taken_off(wrapped: Any, tmp_path: Path) -> None:
    torch.save(wrapped, tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth")
    matched = match_weight_names(found, NAMES)
    for name, weight in WEIGHTS.items():
        assert torch.equal(matched[name], weight)
    assert set(matched) - set(NAMES) <= {"criterion.weight"}


class Runs:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"state_dict": {**WEIGHTS, "x": Runs(trap)}}, tmp_path / "w.pth")
    with pytest.raises(BundleError, match=r"asks Python to load \w+\.mkdir, which may run code"):
        read_state_dict(tmp_path / "w.pth")
    assert not trap.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    torch.save(model, tmp_path / "w.pt")
    with pytest.raises(BundleError, match=r"torch\.nn\.modules\.container\.Sequential"):
        read_state_dict(tmp_path / "w.pt")
    with pytest.deprecated_call():
        torch.jit.script(model).save(tmp_path / "w.pt")
    with pytest.raises(BundleError, match="is a TorchScript archive"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "lr": 0.1}, {}])
def test_a_file_without_weights_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BundleError, match="expected a state dict"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_files_are_errors_of_ours(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save(WEIGHTS, path)
    else:
        save_file(WEIGHTS, path)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError, match=r"Get the file again|holds no weights"):
            read_state_dict(path)
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 4):
            data[at] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            found = read_state_dict(path)
        except BundleError:
            continue
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())
