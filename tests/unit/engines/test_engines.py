"""Every engine answers the same, and refuses a graph that is not what its contract says."""

import contextlib
import hashlib
import os
import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processor_marks import needs_bf16
from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError, PredictError
from rooftrace.engines import onnxruntime, openvino
from rooftrace.engines.base import INSTRUCTION_SETS, Processor
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.engines.select import load_engine
from rooftrace.flows.doctor import check_engine, measure_engine, tiny_bundle
from rooftrace.io.georeferenced import ArraySource
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle, bundled_model
from rooftrace.models.spec import BundleSpec, Variant
from rooftrace.predict.model_set import read_models
from rooftrace.predict.options import SceneOptions
from rooftrace.tiling.plan import quantise

BUNDLE = tiny_bundle()
GRAPH_ENGINES = ["openvino", "onnxruntime"]
"""Engines that run a plain graph on any machine; tests/contract covers all engines."""


def with_graph(graph: bytes, **spec: object) -> ModelBundle:
    return ModelBundle(BUNDLE.spec.model_copy(update=spec), {GRAPH_NAME: graph}, "a.rooftrace")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 3, 40, 64), dtype=np.uint8)


@pytest.mark.parametrize("name", GRAPH_ENGINES)
def test_every_engine_passes_the_self_test(name: str) -> None:
    engine = load_engine(BUNDLE, engine=name, precision="fp32")
    assert (engine.name, engine.precision) == (name, "fp32")
    check_engine(engine)
    assert measure_engine(engine, BUNDLE.spec, seconds=0) > 0


def test_features_are_means_of_the_widest_layer(pixels: np.ndarray) -> None:
    """The only layer of this network answers the brightness."""
    engine = load_engine(BUNDLE)
    assert isinstance(engine, OpenVinoEngine)
    expected = pixels.mean(axis=(1, 2, 3))[:, None] / 255
    np.testing.assert_allclose(engine.features(pixels), expected, atol=3e-3)
    # Each answer has a network of its own; some processors compute in bf16.
    np.testing.assert_allclose(engine.run(pixels).mean(axis=(2, 3)), expected, atol=3e-3)
    np.testing.assert_allclose(engine.features(pixels[:2]), expected[:2], atol=3e-3)


def test_compiled_networks_are_limited_in_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shape has a network, whose weights and kernels count even where its input is small."""
    engine = load_engine(BUNDLE)
    assert isinstance(engine, OpenVinoEngine)
    monkeypatch.setattr("rooftrace.engines.openvino._KEPT_BYTES", 100 * 2**20)
    for side in range(32, 32 * 9, 32):
        engine.run(np.zeros((1, 3, side, side), np.uint8))
    assert [shape[2] for shape, *_ in engine._networks] == [192, 224, 256]
    # A network that is larger than the limit is used all the same.
    engine.run(np.zeros((1, 3, 2048, 2048), np.uint8))
    assert [shape[2] for shape, *_ in engine._networks] == [2048]


def test_the_network_that_an_image_begins_is_the_one_that_predicts_it() -> None:
    models = read_models(None)
    image, options = ArraySource(np.zeros((3, 90, 70), np.uint8)), SceneOptions(gsd_m=0.5)
    models.begin(image, options)
    models.predictor.predict(image, options=options)
    assert len(vars(models.predictor.engine)["_networks"]) == 1
    # A process that gets them loads its own.
    assert "predictor" not in vars(pickle.loads(pickle.dumps(models)))


def test_a_compiled_network_is_taken_from_the_disk_unless_it_is_damaged(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "user_folder", lambda kind: tmp_path)
    compiled: list[object] = []

    def keep(name: str, network: object) -> None:
        compiled.append(network)
        _keep(name, network)

    _keep = openvino._keep_network
    monkeypatch.setattr(openvino, "_keep_network", keep)
    first, again = (load_engine(BUNDLE).run(pixels) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(compiled) == 1
    (file,) = (tmp_path / "compiled-models").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(load_engine(BUNDLE).run(pixels), first)
    assert len(compiled) == 2

    # One of another precision is another file; those that were used longest ago go.
    monkeypatch.setattr(openvino, "_KEPT_FILES", 1)
    load_engine(BUNDLE, precision="fp32").run(pixels[..., :32])
    (left,) = (tmp_path / "compiled-models").iterdir()
    assert left != file


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_threads_that_share_a_model_get_the_same_answers(
    precision: str, pixels: np.ndarray
) -> None:
    engine = load_engine(BUNDLE, precision=precision)
    assert isinstance(engine, OpenVinoEngine)
    shared = engine.parallel(2)
    batches = [np.roll(pixels, number, axis=3) for number in range(8)]
    expected = [engine.run_quantised(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(shared.run_quantised, batches))
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)
    # The networks of both share one limit of memory.
    engine.release()
    assert not shared._networks


@pytest.mark.parametrize(
    ("bundle", "precision", "last"),
    [
        (BUNDLE, "fp32", "Convolution"),
        *(
            pytest.param(bundled_model(), one, "DepthToSpace", marks=pytest.mark.campaign)
            for one in ("fp32", "int8")
        ),
    ],
)
def test_rounding_inside_the_network_is_rounding(
    bundle: ModelBundle, precision: str, last: str, pixels: np.ndarray
) -> None:
    engine = load_engine(bundle, engine="openvino", precision=precision)
    assert isinstance(engine, OpenVinoEngine)
    probability = engine._read().output(0).get_node().input_value(0)
    assert probability.get_node().get_type_name() == last
    inside, outside = engine.run_quantised(pixels), quantise(engine.run(pixels))
    assert inside.dtype == np.uint8
    # Halves may fall either way, and int8 kernels approximate the sigmoid.
    assert np.abs(inside.astype(int) - outside).max() <= 1
    assert (inside == outside).mean() > (0.9 if precision == "int8" else 0.99)


def test_the_fastest_that_runs_well_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = Variant(engine="openvino", precision="int8", files=("variants/int8.onnx",))
    graph = BUNDLE.part(GRAPH_NAME)
    bundle = ModelBundle(
        BUNDLE.spec.model_copy(update={"variants": (variant,)}),
        {GRAPH_NAME: graph, "variants/int8.onnx": graph},
        "a.rooftrace",
    )
    laptop = Processor("a laptop", "x86_64", INSTRUCTION_SETS["AVX2"])
    on(monkeypatch, laptop)
    # int8 would be faster there, but without VNNI it loses accuracy.
    assert load_engine(bundle).precision == "fp32"
    assert load_engine(bundle, precision="int8").precision == "int8"
    assert load_engine(bundle, engine="onnxruntime").precision == "fp32"
    # Without the int8 variant.
    assert load_engine(BUNDLE).precision == "fp32"
    on(monkeypatch, Processor("a server", "x86_64", INSTRUCTION_SETS["AVX512_CORE_BF16"]))
    assert load_engine(bundle).precision == "int8"
    assert load_engine(BUNDLE).precision == "bf16"
    on(monkeypatch, Processor("a newer laptop", "x86_64", INSTRUCTION_SETS["AVX2_VNNI"]))
    assert load_engine(bundle).precision == "int8"
    on(monkeypatch, Processor("a board", "aarch64", frozenset()))
    assert load_engine(bundle).precision in ("bf16", "fp32")


def on(monkeypatch: pytest.MonkeyPatch, processor: Processor) -> None:
    """Let OpenVINO find a processor, which it lists as able to do all."""
    for module in (openvino, onnxruntime):
        monkeypatch.setattr(module, "this_processor", lambda: processor)
    monkeypatch.setattr(openvino, "_listed", lambda: frozenset({"FP32", "BF16", "INT8"}))


def test_a_precision_that_the_processor_lacks_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, Processor("a server", "x86_64", INSTRUCTION_SETS["AVX512_CORE_VNNI"]))
    with pytest.raises(ConfigError) as refused:
        load_engine(BUNDLE, precision="bf16")
    assert refused.value.message == (
        "The processor a server (AVX512_CORE_VNNI) has no "
        "instructions for bf16, so the built-in self test cannot run in 'bf16' on openvino."
    )
    assert refused.value.remedy == "Use --precision fp32, the fastest here."
    # A file with nothing else: bf16 would be emulated, or fail.
    only = Variant(engine="openvino", precision="bf16", files=("variants/bf16.onnx",))
    parts = {"variants/bf16.onnx": BUNDLE.part(GRAPH_NAME)}
    bundle = ModelBundle(BUNDLE.spec.model_copy(update={"variants": (only,)}), parts, "a.xml")
    with pytest.raises(ConfigError, match=r"a\.xml cannot run in 'bf16'"):
        load_engine(bundle)


@pytest.mark.parametrize("name", GRAPH_ENGINES)
@pytest.mark.parametrize(
    "graph", [b"", b"not a graph", BUNDLE.part(GRAPH_NAME)[:-40], b"\x00" * 500]
)
def test_a_corrupt_graph_is_a_bundle_error(name: str, graph: bytes) -> None:
    with pytest.raises(BundleError, match=r"a\.rooftrace"):
        load_engine(with_graph(graph), engine=name)


@pytest.mark.parametrize("name", GRAPH_ENGINES)
def test_a_graph_of_other_bands_or_classes_is_refused(name: str) -> None:
    graph = BUNDLE.part(GRAPH_NAME)
    four = with_graph(graph, bands=("r", "g", "b", "nir"), mean=(0.0,) * 4, std=(1.0,) * 4)
    with pytest.raises(BundleError, match=r"expected \(n, 4, y, x\)"):
        load_engine(four, engine=name)
    with pytest.raises(BundleError, match=r"\(n, 3, y, x\)"):
        load_engine(with_graph(graph, classes=("a", "b", "c")), engine=name)


@pytest.mark.campaign
@pytest.mark.usefixtures("first_use")
def test_weights_in_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.bin").write_bytes(np.full(3, 0.001, np.float32).tobytes())
    model = onnx.load_from_string(BUNDLE.part(GRAPH_NAME))
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="w.bin")
    tensor.ClearField("raw_data")
    for name in GRAPH_ENGINES:
        with pytest.raises(BundleError, match="cannot be read"):
            load_engine(with_graph(model.SerializeToString()), engine=name)


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError) as caught:
        load_engine(BUNDLE, engine="onnxruntime")
    assert "rooftrace[onnx]" in caught.value.remedy


def test_a_size_the_graph_refuses_is_reported() -> None:
    spec = BundleSpec.model_validate(BUNDLE.spec.model_dump())
    engine = OpenVinoEngine(ModelBundle(spec, BUNDLE.parts, "a.rooftrace"), "fp32")
    with pytest.raises(BundleError, match=r"does not take an input of shape \(1, 4, 32, 32\)"):
        engine.run(np.zeros((1, 4, 32, 32), dtype=np.uint8))


def test_a_fork_of_a_process_with_a_model_refuses_in_place_of_waiting() -> None:
    engine = load_engine(BUNDLE, engine="openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        with contextlib.suppress(PredictError):
            engine.run(np.zeros((1, 3, 32, 96), np.uint8))
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_a_gpu_gets_its_libraries_and_exact_fp32(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    asked: list[Any] = []

    def session(*_: object, providers: list[Any], **__: object) -> None:
        asked.extend(providers)
        raise RuntimeError("no GPU")

    cuda = "CUDAExecutionProvider"
    provider = cuda if kind == "cuda" else "TensorrtExecutionProvider"
    monkeypatch.setattr(runtime, "get_available_providers", lambda: [provider])
    monkeypatch.setattr(
        runtime,
        "preload_dlls",
        lambda: sys.stdout.write("Failed to load libcudart.so"),
        raising=False,
    )
    monkeypatch.setattr(runtime, "InferenceSession", session)
    with pytest.raises(BundleError, match="no GPU"):
        load_engine(BUNDLE, engine=f"onnxruntime-{kind}", precision="fp32")
    wanted = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert asked[-2:] == [(cuda, wanted), "CPUExecutionProvider"]
    if kind == "tensorrt":
        name, plans = asked[0]
        assert (name, plans["trt_fp16_enable"]) == (provider, "0")
        # Plans of two models must not share a folder, since their names do not show the weights.
        graph = hashlib.sha256(BUNDLE.part(GRAPH_NAME)).hexdigest()
        assert Path(plans["trt_engine_cache_path"]).name == graph[:32]
    # A command's stdout may be one JSON object.
    assert capsys.readouterr().out == ""


def test_a_tile_that_fails_on_the_gpu_is_not_run_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    from onnxruntime.capi._pybind_state import EPFail

    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"

    class Session(runtime.InferenceSession):  # type: ignore[misc, name-defined]
        """The processor under the name of a GPU."""

        def __init__(self, graph: bytes, options: object, **given: object) -> None:
            super().__init__(graph, options, **{**given, "providers": [cpu]})

        def get_providers(self) -> list[str]:
            return [cuda, cpu]

    class Failing:
        def __init__(self, session: object) -> None:
            self._session = session

        def run(self, *_: object) -> None:
            raise EPFail("out of memory")

        def __getattr__(self, name: str) -> object:
            return getattr(self._session, name)

    monkeypatch.setattr(runtime, "get_available_providers", lambda: [cuda])
    monkeypatch.setattr(runtime, "InferenceSession", Session)
    engine = load_engine(BUNDLE, engine="onnxruntime-cuda", precision="fp32")
    session = engine._session  # type: ignore[attr-defined]
    monkeypatch.setattr(session, "_sess", Failing(session._sess))
    with pytest.raises(PredictError, match="out of memory"):
        engine.run(np.zeros((1, 3, 64, 64), np.uint8))
    assert capsys.readouterr().out == ""
