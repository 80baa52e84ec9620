"""One suite over every engine of the registry: the same answers, and the same refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError, PredictError
from rooftrace.engines.base import Engine
from rooftrace.engines.select import ENGINES, load_engine
from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, ModelBundle, read_bundle
from town import generate_scene

if TYPE_CHECKING:
    from tests.conftest import TinyRun

pytest.importorskip("torch")

pytestmark = pytest.mark.campaign

"""Packages that each engine needs beyond the core install."""

CLOSE = {"fp32": 1e-4, "bf16": 0.03, "fp16": 0.01}


@pytest.fixture(scope="module")
def bundle(tiny_run: TinyRun) -> ModelBundle:
    """A trained network, with its graph and its weights."""
    return read_bundle(tiny_run.bundle)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    image = generate_scene(3, (128, 192)).image
    return np.stack([image[:, :64, i * 64 : (i + 1) * 64] for i in range(3)])


@pytest.fixture(scope="module")
def expected(bundle: ModelBundle, pixels: np.ndarray) -> np.ndarray:
    answer = load_engine(bundle, engine="openvino", precision="fp32").run(pixels)
    # Where it is the same everywhere, any engine would be close.
    assert answer.std() > 0.005
    return answer


CASES = [(name, precision) for name in ENGINES for precision in ("fp32", "bf16")]


@pytest.fixture
def engine(request: pytest.FixtureRequest, bundle: ModelBundle) -> Engine:
    name, precision = request.param
    kind = ENGINES[name]
    if precision not in kind.offers(bundle):
        pytest.skip(f"{name} has no {precision} of a bundle")
    if lacking := kind.lacks(precision):
        pytest.skip(lacking)
    try:
        kind.check()
    except (MissingExtraError, ConfigError) as error:
        pytest.skip(str(error))
    return load_engine(bundle, engine=name, precision=precision)


@pytest.mark.parametrize("engine", CASES, indirect=True)
def test_the_same_answers(engine: Engine, pixels: np.ndarray, expected: np.ndarray) -> None:
    answer = engine.run(pixels)
    assert (answer.shape, answer.dtype) == (expected.shape, np.float32)
    assert float(np.abs(answer - expected).max()) < CLOSE[engine.precision]
    assert answer.min() >= 0
    assert answer.max() <= 1


@pytest.mark.parametrize("engine", CASES, indirect=True)
def test_a_tile_does_not_see_its_batch(engine: Engine, pixels: np.ndarray) -> None:
    together = engine.run(pixels)
    alone = np.concatenate([engine.run(pixels[i : i + 1]) for i in range(len(pixels))])
    turned = engine.run(pixels[::-1])[::-1]
    # Kernels are chosen by the size of a batch, and sums end otherwise in their last digits.
    close = 1e-5 if engine.precision == "fp32" else CLOSE[engine.precision]
    np.testing.assert_allclose(together, alone, atol=close)
    np.testing.assert_allclose(together, turned, atol=close)


@pytest.mark.parametrize("engine", CASES, indirect=True)
def test_sizes_may_change_from_call_to_call(engine: Engine, pixels: np.ndarray) -> None:
    first = engine.run(pixels[:1])
    kept = first.copy()
    assert engine.run(pixels[:2, :, :32]).shape == (2, 1, 32, 64)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(engine.run(pixels[:1]), kept, atol=1e-6)
    engine.release()
    np.testing.assert_allclose(engine.run(pixels[:1]), kept, atol=1e-6)


@pytest.mark.parametrize("engine", CASES, indirect=True)
@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (1, 2, 64, 64)])
def test_shapes_that_the_network_does_not_take(engine: Engine, shape: tuple[int, ...]) -> None:
    with pytest.raises((BundleError, PredictError), match=str(shape)[1:-1]) as caught:
        engine.run(np.zeros(shape, np.uint8))
    assert caught.value.remedy


@pytest.mark.parametrize("name", list(ENGINES))
def test_a_bundle_without_what_an_engine_takes(name: str, bundle: ModelBundle) -> None:
    empty = replace(bundle, parts={})
    with pytest.raises(ConfigError, match=f"cannot run on the engine {name}, which takes"):
        load_engine(empty, engine=name)


@pytest.mark.parametrize(
    ("part", "name"), [(GRAPH_NAME, "openvino"), (GRAPH_NAME, "onnxruntime"),
                       (WEIGHTS_NAME, "torch")],
)  # fmt: skip
def test_damaged_parts_are_bundle_errors(part: str, name: str, bundle: ModelBundle) -> None:
    data = bundle.part(part)
    for damaged in (b"", data[: len(data) // 2], b"\xff" * 400):
        broken = replace(bundle, parts={**bundle.parts, part: damaged})
        with pytest.raises(BundleError, match="best_iou"):
            load_engine(broken, engine=name)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "Nothing"},
        {"encoder": "nothing"},
        {"options": {"decoder_channels": [64, 32, 16, 8, 8]}},
        {"options": {"checkpoint_path": "weights"}},
        {"options": {"pretrained_cfg_overlay": {"file": "/etc/passwd"}}},
        {"surprise": 1},
        None,
    ],
)
def test_a_network_that_the_weights_are_not_of(
    change: dict[str, object] | None, bundle: ModelBundle
) -> None:
    recorded = None if change is None else {**bundle.spec.training["model"], **change}
    training = {**bundle.spec.training, "model": recorded}
    other = replace(bundle, spec=bundle.spec.model_copy(update={"training": training}))
    with pytest.raises(BundleError, match="best_iou"):
        load_engine(other, engine="torch")


def test_cuda_that_is_not_there_is_a_sentence(bundle: ModelBundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ConfigError, match="needs an ONNX Runtime with CUDA") as caught:
        load_engine(bundle, engine="onnxruntime-cuda")
    assert "onnxruntime-gpu" in caught.value.remedy


def test_cuda_that_does_not_start_is_no_silent_processor(
    bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    named = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: named)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ConfigError, match="could not start"),
    ):
        load_engine(bundle, engine="onnxruntime-cuda")


def test_weights_alone_are_enough_for_torch(
    bundle: ModelBundle, pixels: np.ndarray, expected: np.ndarray
) -> None:
    only = replace(bundle, parts={WEIGHTS_NAME: bundle.part(WEIGHTS_NAME)})
    engine = load_engine(only, precision="fp32")
    assert engine.name == "torch"
    np.testing.assert_allclose(engine.run(pixels), expected, atol=CLOSE["fp32"])
