"""The instruction set that the engines use, by the processor's flags."""

import os
import subprocess
import sys

import pytest

from rooftrace.engines.base import (
    INSTRUCTION_SETS,
    ConstantEngine,
    Processor,
    engine_processor,
    this_processor,
)

ZEN4 = INSTRUCTION_SETS["AVX512_CORE_BF16"] | {"sse2", "avx512_vbmi"}


@pytest.mark.parametrize(
    ("flags", "used", "int8", "bf16"),
    [
        (ZEN4, "AVX512_CORE_BF16", True, True),
        (INSTRUCTION_SETS["AVX512_CORE"], "AVX512_CORE", False, False),
        (INSTRUCTION_SETS["AVX2_VNNI"], "AVX2_VNNI", True, False),
        (INSTRUCTION_SETS["AVX512_CORE_AMX"] | {"avx_vnni"}, "AVX512_CORE_AMX", True, True),
        (frozenset(), "x86_64: a processor", False, False),
    ],
)
def test_the_set_follows_from_the_flags(
    flags: frozenset[str], used: str, int8: bool, bf16: bool
) -> None:
    processor = Processor("a processor", "x86_64", flags)
    assert processor.instruction_set == used
    assert (processor.has_fast_int8, processor.has_bf16) == (int8, bf16)


def test_a_gpu_has_no_instruction_set() -> None:
    engine = ConstantEngine()
    assert engine_processor(engine)["instruction_set"] == this_processor().instruction_set
    engine.name = "onnxruntime-tensorrt"
    assert engine_processor(engine)["instruction_set"] == ""


_BATCHES = """
import sys
import numpy as np
from rooftrace.engines import openvino
from rooftrace.engines.base import INSTRUCTION_SETS, Processor
from rooftrace.engines.select import load_engine
from rooftrace.models.bundle import bundled_model

older = Processor("older", "x86_64", INSTRUCTION_SETS[sys.argv[1]])
openvino.this_processor = lambda: older
engine = load_engine(bundled_model(), precision=sys.argv[2])
tiles = np.random.default_rng(3).integers(0, 255, (3, 3, 416, 416), np.uint8)
alone = np.concatenate([engine.run(tile[None]) for tile in tiles])
np.testing.assert_array_equal(engine.run(tiles), alone)
"""


@pytest.mark.campaign
@pytest.mark.skipif(
    "avx512_vnni" not in this_processor().flags, reason="this processor has one kind of kernels"
)
@pytest.mark.parametrize("used", ["AVX2", "AVX512_CORE_VNNI"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_tile_has_the_same_answer_in_every_batch(used: str, precision: str) -> None:
    """Otherwise a resumed run, or a cluster, whose batches differ, would write other bytes."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": used}
    subprocess.run([sys.executable, "-c", _BATCHES, used, precision], env=environment, check=True)


def test_openvino_reports_nothing() -> None:
    """A process of its own: here OpenVINO is imported already."""
    code = (
        "import rooftrace.engines.openvino, openvino, sys; openvino.convert_model\n"
        "print(sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "openvino.tools.ovc.telemetry_stub\n"
