"""Test that an engine below the processor's own instruction set runs one tile before the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines import processor as module
from rooftrace.engines.base import ConstantEngine
from rooftrace.engines.processor import CAP, INSTRUCTION_SETS
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.predict.executor import executing
from rooftrace.predict.cluster.worker import BlockWorker
from rooftrace.predict.instruction_set import check_limited, check_portable, use_first_set
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.predictor import Predictor


class FailingEngine(ConstantEngine):
    """An engine as OpenVINO under a limit: it loads, and fails at its first tile."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        raise BundleError("object is not initialized.", remedy="Unset the limit.")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FailingEngine:
    """The engine that all model sets load, on a processor with AVX-512 that has no limit."""
    monkeypatch.setattr(module, "_read", lambda: ("a Xeon", INSTRUCTION_SETS["AVX512_CORE_AMX"]))
    monkeypatch.setattr(module, "_LIBRARIES", ())
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv(CAP, raising=False)
    failing = FailingEngine()
    monkeypatch.setattr(ModelSet, "_engine", lambda *_: failing)
    return failing


def test_a_worker_of_a_cluster_tests_a_tile_where_it_is_limited(
    engine: FailingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ModelSet((tiny_bundle(),))
    BlockWorker(models, None, Path.cwd())
    assert not engine.shapes
    monkeypatch.setenv(CAP, "AVX2")
    with pytest.raises(ConfigError, match="set AVX2 on the processor a Xeon: object is not init"):
        BlockWorker(models, None, Path.cwd())
    assert engine.shapes == [(1, 3, 256, 256)]


def test_one_process_tests_a_tile_of_a_portable_run(
    engine: FailingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ModelSet((tiny_bundle(),))
    with executing(models):
        assert not engine.shapes
    # So that the limit, which the run sets, ends with the test.
    monkeypatch.setenv(CAP, "")
    engine.name = "openvino"
    with pytest.raises(ConfigError, match="does not run with the instruction set AVX2") as refused:
        executing(models, portable=True).__enter__()
    assert refused.value.remedy.startswith("Use another --precision.")
    assert engine.shapes == [(1, 3, 256, 256)]


def test_the_tile_has_a_size_that_the_model_takes(
    engine: FailingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAP, "AVX2")
    bundle = tiny_bundle()
    for changes, side in (({"input_multiple_px": 96}, 288), ({"input_px": 64}, 64)):
        spec = bundle.spec.model_copy(update=changes)
        changed = type(bundle)(spec, bundle.parts, bundle.source)
        with pytest.raises(ConfigError):
            check_limited(Predictor(changed, engine))
        assert engine.shapes.pop() == (1, 3, side, side)


def test_a_portable_run_takes_one_engine_only() -> None:
    mixed = ConstantEngine()
    mixed.settings = {"members": [{"engine": "openvino"}, {"engine": "torch"}]}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="but the model runs on torch"):
        check_portable(mixed)
    mixed.settings = {"members": [{"engine": "openvino"}]}  # type: ignore[attr-defined]
    check_portable(mixed)


@pytest.mark.usefixtures("engine")
def test_a_resumed_run_uses_the_first_set_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CAP, "")
    assert use_first_set("AVX512_CORE_AMX") == []
    assert use_first_set("AVX2_VNNI") == []
    (note,) = use_first_set("AVX512_CORE")
    assert "began with the instruction set AVX512_CORE, so it is resumed with it" in note
