"""TensorRT without a GPU: the error messages, and the calls to a fake of the package."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rooftrace.core.errors import (
    BundleError,
    ConfigError,
    ExportError,
    MissingExtraError,
)
from rooftrace.engines.select import ENGINES, load_engine
from rooftrace.engines.tensorrt import TensorRtEngine, build_plan, built_with, profiles_of
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import Variant

torch = pytest.importorskip("torch")

SPEC = tiny_bundle().spec.model_copy(update={"input_multiple_px": 32})
FILES = ("variants/model.engine",)
VARIANT = Variant(engine="tensorrt", precision="fp16", files=FILES)
BUNDLE = ModelBundle(
    SPEC.model_copy(update={"variants": (VARIANT,)}), {FILES[0]: b"a plan"}, "a.engine"
)


class FakeTensorRt:
    """The used part of the package; a network's answer is the mean of the bands over 255."""

    __version__ = "10.0"

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, ...]]] = []
        self.tensors: dict[str, tuple[int, ...]] = {
            "image": (-1, 3, -1, -1),
            "probabilities": (-1, 1, -1, -1),
        }
        self.loads = self.parses = self.builds = self.executes = True
        self.profiles: list[tuple[tuple[int, ...], ...]] = []
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.BuilderFlag = SimpleNamespace(TF32=7)
        self.cleared: list[int] = []
        fake = self

        class Logger:
            ERROR = 1

            def __init__(self, level: int) -> None:
                pass

        class Context:
            def set_optimization_profile_async(self, number: int, stream: int) -> bool:
                self.number = number
                return True

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                self.shape = shape
                return len(shape) == 4 and shape[1] == 3

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return (self.shape[0], 1, *self.shape[2:])

            def set_tensor_address(self, name: str, address: int) -> bool:
                setattr(self, name, address)
                return True

            def execute_async_v3(self, stream: int) -> bool:
                fake.calls.append((self.number, self.shape))
                given = memory(self.image, self.shape)
                wanted = memory(self.probabilities, self.get_tensor_shape("probabilities"))
                wanted[:] = given.mean(axis=1, keepdims=True) / 255
                return fake.executes

        engine = SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=lambda i: list(fake.tensors)[i],
            get_tensor_shape=lambda name: fake.tensors[name],
            create_execution_context=Context,
        )

        class Runtime:
            def __init__(self, logger: Logger) -> None:
                pass

            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                return engine if fake.loads and plan == b"a plan" else None

        class Profile:
            def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
                assert name == "image"
                fake.profiles.append(shapes)

        class Builder:
            def __init__(self, logger: Logger) -> None:
                pass

            def create_network(self, flags: int) -> int:
                assert flags == 2, "strongly typed"
                return flags

            def create_builder_config(self) -> Any:
                return SimpleNamespace(
                    add_optimization_profile=lambda profile: 0, clear_flag=fake.cleared.append
                )

            def create_optimization_profile(self) -> Profile:
                return Profile()

            def build_serialized_network(self, network: int, config: Any) -> bytes | None:
                return b"a plan" if fake.builds else None

        class OnnxParser:
            num_errors = 1

            def __init__(self, network: int, logger: Logger) -> None:
                pass

            def parse(self, graph: bytes) -> bool:
                return fake.parses

            def get_error(self, number: int) -> Any:
                return SimpleNamespace(desc=lambda: "no such operator.")

        self.Logger, self.Runtime, self.Builder = Logger, Runtime, Builder
        self.OnnxParser = OnnxParser


def memory(address: int, shape: tuple[int, ...]) -> np.ndarray:
    import ctypes

    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """TensorRT and a GPU whose memory is the processor's."""
    made, empty = FakeTensorRt(), torch.empty
    stream = SimpleNamespace(cuda_stream=1, synchronize=lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, device: empty(shape, dtype=dtype))
    return made


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for asked in (lambda: load_engine(BUNDLE), lambda: build_plan(b"", SPEC), built_with):
        with pytest.raises(MissingExtraError, match="'tensorrt'") as caught:
            asked()
        assert "pip install tensorrt" in caught.value.remedy


def test_without_a_gpu(fake: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked in (lambda: load_engine(BUNDLE), lambda: build_plan(b"", SPEC)):
        with pytest.raises(ConfigError, match="PyTorch finds none on this machine") as caught:
            asked()
        assert "openvino" in caught.value.remedy


def test_a_bundle_is_not_for_it(fake: FakeTensorRt) -> None:
    with pytest.raises(ConfigError, match="cannot run on the engine tensorrt") as caught:
        load_engine(tiny_bundle(), engine="tensorrt")
    assert "openvino" in caught.value.remedy


def test_it_is_what_a_plan_is_run_on(fake: FakeTensorRt) -> None:
    engine = load_engine(BUNDLE)
    assert (engine.name, engine.precision) == ("tensorrt", "fp16")
    assert engine.settings == {"tensorrt": "10.0", "gpu": "a GPU"}  # type: ignore[attr-defined]
    ENGINES["tensorrt"].check()


def test_small_tiles_go_together_and_large_ones_alone(fake: FakeTensorRt) -> None:
    engine = load_engine(BUNDLE)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 64, 96), dtype=np.uint8)
    answer = engine.run(pixels)
    expected = pixels.mean(axis=1, keepdims=True) / 255
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    assert fake.calls == [(0, (16, 3, 64, 96)), (0, (4, 3, 64, 96))]
    fake.calls.clear()
    large = engine.run(np.zeros((2, 3, 32, 1664), np.uint8))
    assert large.shape == (2, 1, 32, 1664)
    assert fake.calls == [(1, (1, 3, 32, 1664))] * 2
    engine.release()  # type: ignore[attr-defined]
    assert engine.run(pixels[:1]).shape == (1, 1, 64, 96)


def test_a_plan_of_another_machine(fake: FakeTensorRt) -> None:
    fake.loads = False
    with pytest.raises(BundleError, match="the GPU model") as caught:
        load_engine(BUNDLE)
    assert "rooftrace export" in caught.value.remedy


@pytest.mark.parametrize(
    "tensors",
    [
        {"image": (-1, 4, -1, -1), "probabilities": (-1, 1, -1, -1)},
        {"image": (-1, 3, -1, -1), "probabilities": (-1, 2, -1, -1)},
        {"picture": (-1, 3, -1, -1), "probabilities": (-1, 1, -1, -1)},
        {"image": (-1, 3, -1, -1), "probabilities": (-1, 1)},
    ],
)
def test_a_plan_of_another_contract(fake: FakeTensorRt, tensors: dict) -> None:
    fake.tensors = tensors
    with pytest.raises(BundleError, match="takes and gives"):
        TensorRtEngine(SPEC, b"a plan", "fp16", "a.engine")


def test_a_plan_is_built_for_the_sizes_that_come(fake: FakeTensorRt) -> None:
    assert build_plan(b"graph", SPEC) == b"a plan"
    assert fake.profiles == [
        ((1, 3, 32, 32), (16, 3, 512, 512), (16, 3, 512, 512)),
        ((1, 3, 32, 32), (1, 3, 1664, 1664), (1, 3, 1664, 1664)),
    ]
    # Else fp32 is not what its name says.
    assert fake.cleared == [7]
    assert profiles_of(SPEC.model_copy(update={"input_multiple_px": 96})) == ((16, 576), (1, 1728))
    assert profiles_of(SPEC.model_copy(update={"input_px": 224})) == ((16, 224),)


def test_what_cannot_be_built_is_reported(fake: FakeTensorRt) -> None:
    fake.builds = False
    with pytest.raises(ExportError, match="it reports no reason"):
        build_plan(b"graph", SPEC)
    fake.parses = False
    with pytest.raises(ExportError, match="no such operator") as caught:
        build_plan(b"graph", SPEC)
    assert caught.value.message.endswith("no such operator.")
