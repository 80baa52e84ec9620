"""A checkpoint is read without running code, and only if it is complete and unchanged."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.core.errors import DataError, ExportError, RooftraceError  # noqa: E402
from rooftrace.train import checkpoint as module  # noqa: E402
from rooftrace.train.checkpoint import (  # noqa: E402
    SafeCheckpointIO,
    checked_on_load,
    read_checkpoint,
)
from rooftrace.train.config import OptimizerConfig, TrainConfig  # noqa: E402
from rooftrace.train.loop import fit  # noqa: E402
from rooftrace.train.task import make_optimizer  # noqa: E402
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


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def test_code_in_a_checkpoint_does_not_run(tiny_folder: Path, run: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save(read_checkpoint(last(run)) | {"more": Code(mark)}, last(run))
    with pytest.raises(DataError, match=r"last\.ckpt cannot be used: .* holds code") as caught:
        train(tiny_folder, run, "epochs=2", resume=True)
    assert not mark.exists()
    assert "new run in another folder" in caught.value.remedy
    assert "weights_only" not in str(caught.value)


def test_a_pickled_checkpoint_of_an_earlier_version_is_resumed(
    tiny_folder: Path, run: Path, tmp_path: Path
) -> None:
    train(tiny_folder, tmp_path / "whole", "epochs=2")
    torch.save(read_checkpoint(last(run)), last(run))
    train(tiny_folder, run, "epochs=2", resume=True)
    assert figures(run) == figures(tmp_path / "whole")
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())
    with safe_open(last(run), "pt") as file:
        assert file.metadata()["format"] == "rooftrace checkpoint 1"


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


@pytest.mark.parametrize("pickled", [False, True])
def test_a_changed_byte_or_a_missing_end_is_refused(run: Path, pickled: bool) -> None:
    state = {name: tensor for name, tensor in weights(run).items() if tensor.numel() < 20}
    path = save(run / "small.ckpt", {"state_dict": state, "epoch": 3})
    if pickled:
        torch.save(read_checkpoint(path), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = rng.choice(len(whole), 60, replace=False)
    broken = [whole[:place] for place in (0, 1, *places)] + [whole[8:], b"PK", bytes(99)]
    if not pickled:  # a pickle has no hash
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


def values(data: Any) -> list[tuple[Any, Any]]:
    """Return each place in plain data as a container and a key."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, part in list(pairs):
        found.append((data, key))
        if isinstance(part, (dict, list)):
            found += values(part)
    return found


@pytest.mark.campaign
def test_odd_content_with_a_right_hash_is_an_answer_or_an_error(
    tiny_folder: Path, run: Path
) -> None:
    whole = last(run).read_bytes()
    record = (run / "config.json").read_bytes()
    rng = random.Random(0)
    odd = [None, -1, 2**80, 1e300, "x", [], {}, {"$tensor": "x"}, {"$tuple": 3}, [[]] * 3]
    refused = 0
    for _ in range(60):
        last(run).write_bytes(whole)
        (run / "config.json").write_bytes(record)
        tensors = load_file(last(run))
        state = json.loads(tensors["$state"].numpy().tobytes())
        container, key = rng.choice(values(state))
        container[key] = rng.choice(odd)
        tensors["$state"] = torch.frombuffer(bytearray(json.dumps(state).encode()),
                                             dtype=torch.uint8)  # fmt: skip
        digest = module._sha256(tensors)
        metadata = {"format": "rooftrace checkpoint 1", "sha256": digest}
        module.save_tensors(last(run), tensors, metadata)
        with suppress(RooftraceError):
            refused += 1
            train(tiny_folder, run, "epochs=2", resume=True)
            refused -= 1
    assert refused > 10


def test_content_that_does_not_fit_the_run_is_refused(tiny_folder: Path, run: Path) -> None:
    kept = read_checkpoint(last(run))
    save(last(run), kept | {"loops": {"fit_loop": None}})
    with pytest.raises(DataError, match=r"last\.ckpt does not fit this run") as caught:
        train(tiny_folder, run, "epochs=2", resume=True)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "place",
    [
        ("epoch_loop.batch_progress", "total", "completed"),
        ("epoch_progress", "total", "ready"),
        ("epoch_loop.state_dict", "_batches_that_stepped"),
    ],
)
def test_counts_that_are_no_numbers_are_refused_before_they_are_raised(
    place: tuple[str, ...], run: Path
) -> None:
    kept = read_checkpoint(last(run))
    *outer, count = place
    inner = kept["loops"]["fit_loop"]
    for key in outer:
        inner = inner[key]
    assert isinstance(inner[count], int)
    inner[count] = "2"
    save(last(run), kept)
    with pytest.raises(DataError, match=f"its count '{count}' of steps or epochs is no whole"):
        read_checkpoint(last(run))


@pytest.mark.parametrize("callbacks", [[], {"Data": [1]}, {"Data": None}])
def test_states_of_callbacks_without_names_are_refused(callbacks: object, run: Path) -> None:
    save(last(run), read_checkpoint(last(run)) | {"callbacks": callbacks})
    with pytest.raises(DataError, match=r"of its callback.* no names"):
        read_checkpoint(last(run))


def optimizer(kind: str, *, momentum: float = 0.9) -> torch.optim.Optimizer:
    """Return an optimiser of one layer, after one step."""
    own = {"momentum": momentum} if kind == "sgd" else {}
    net = torch.nn.Linear(3, 2)
    net(torch.ones(1, 3)).sum().backward()
    made = checked_on_load(make_optimizer(OptimizerConfig(kind=kind, **own), net))
    made.step()
    return made


@pytest.mark.parametrize(("kind", "momentum"), [("adamw", 0.9), ("adam", 0.9), ("sgd", 0.9),
                                                ("sgd", 0.0)])  # fmt: skip
def test_the_state_of_each_optimizer_is_loaded_again(kind: str, momentum: float) -> None:
    kept = optimizer(kind, momentum=momentum).state_dict()
    again = optimizer(kind, momentum=momentum)
    again.load_state_dict(kept)
    again.step()


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        # Fused Adam writes as many values as the weight has, past the end of these.
        ("state", "exp_avg", torch.zeros(1), r"exp_avg of the weight 0 is \(\(1,\)"),
        ("state", "exp_avg_sq", torch.zeros(6), r"exp_avg_sq .* expected \(\(2, 3\)"),
        ("state", "exp_avg", torch.zeros(2, 3, dtype=torch.int64), "torch.int64"),
        ("state", "step", torch.zeros(2), "step of the weight 0"),
        ("state", "step", 1.0, "step of the weight 0 is 1.0"),
        ("state", "exp_avg", None, "exp_avg of the weight 0 is None"),
        ("state", "more", torch.zeros(2, 3), "the weight 0 has .*more"),
        ("group", "lr", "fast", "lr is 'fast'"),
        ("group", "lr", math.nan, "lr is nan"),
        ("group", "betas", (0.9,), r"betas is \(0.9,\)"),
        ("group", "amsgrad", "yes", "amsgrad is 'yes'"),
    ],
)
def test_a_state_that_would_damage_memory_is_refused(
    where: str, key: str, value: Any, message: str
) -> None:
    state = optimizer("adamw").state_dict()
    (state["state"][0] if where == "state" else state["param_groups"][0])[key] = value
    with pytest.raises(DataError, match=message):
        optimizer("adamw").load_state_dict(state)


def test_a_state_of_other_weights_or_of_another_kind_is_refused() -> None:
    state = optimizer("adamw").state_dict()
    state["state"][9] = state["state"][0]
    with pytest.raises(DataError, match="there is no weight 9"):
        optimizer("adamw").load_state_dict(state)
    state = optimizer("adamw").state_dict()
    del state["state"][1]["exp_avg"]
    with pytest.raises(DataError, match=r"the weight 1 has .* expected .*exp_avg"):
        optimizer("adamw").load_state_dict(state)


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
