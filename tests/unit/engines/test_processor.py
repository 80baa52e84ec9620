"""The instruction set that the engines use: by the processor's flags and the cap together."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rooftrace.core.errors import ConfigError
from rooftrace.engines import processor as module
from rooftrace.engines.base import ConstantEngine, instruction_set_of
from rooftrace.engines.processor import (
    CAP,
    INSTRUCTION_SETS,
    Processor,
    cap_instruction_set,
    highest_shared,
    this_processor,
)

ZEN4 = INSTRUCTION_SETS["AVX512_CORE_BF16"] | {"sse2", "avx512_vbmi"}
ALDER_LAKE = INSTRUCTION_SETS["AVX2_VNNI"]
SAPPHIRE_RAPIDS = INSTRUCTION_SETS["AVX512_CORE_AMX"] | {"avx_vnni"}


def of(flags: frozenset[str], cap: str = "") -> Processor:
    return Processor("a processor", "x86_64", flags, cap)


@pytest.mark.parametrize(
    ("flags", "cap", "used", "int8", "bf16"),
    [
        (ZEN4, "", "AVX512_CORE_BF16", True, True),
        (ZEN4, "AVX512_CORE_VNNI", "AVX512_CORE_VNNI", True, False),
        (ZEN4, "AVX512_CORE", "AVX512_CORE", False, False),
        # It has no VNNI for 256 bits.
        (ZEN4, "AVX2_VNNI", "AVX2", False, False),
        (ALDER_LAKE, "", "AVX2_VNNI", True, False),
        (SAPPHIRE_RAPIDS, "", "AVX512_CORE_AMX", True, True),
        (SAPPHIRE_RAPIDS, "AVX2_VNNI", "AVX2_VNNI", True, False),
        # AVX512_CORE allows no VNNI of any width.
        (SAPPHIRE_RAPIDS, "AVX512_CORE", "AVX512_CORE", False, False),
        (SAPPHIRE_RAPIDS, "SSE41", "SSE41", False, False),
    ],
)
def test_the_set_is_what_the_processor_has_and_the_cap_allows(
    flags: frozenset[str], cap: str, used: str, int8: bool, bf16: bool
) -> None:
    processor = of(flags, cap)
    assert (processor.instruction_set, processor.has_fast_int8, processor.has_bf16) == (
        used, int8, bf16,
    )  # fmt: skip
    assert processor.without_cap.instruction_set == of(flags).instruction_set


def test_where_no_flags_are_listed_the_name_stands_for_the_set() -> None:
    board = Processor("Neoverse-N1", "aarch64", frozenset())
    assert board.instruction_set == "aarch64: Neoverse-N1"
    assert not board.has_fast_int8


def test_the_highest_set_that_all_share() -> None:
    assert highest_shared([of(ZEN4).sets, of(SAPPHIRE_RAPIDS).sets]) == "AVX512_CORE_BF16"
    assert highest_shared([of(ALDER_LAKE).sets, of(SAPPHIRE_RAPIDS).sets]) == "AVX2_VNNI"
    assert highest_shared([of(ALDER_LAKE).sets, of(ZEN4).sets]) == "AVX2"
    assert highest_shared([of(ALDER_LAKE).sets, ()]) is None


@pytest.fixture
def zen4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be a Zen 4, on which the process has loaded no engine."""
    monkeypatch.setattr(module, "_read", lambda: ("AMD EPYC", ZEN4))
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module, "_LIBRARIES", ())
    monkeypatch.delenv(CAP, raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)


@pytest.mark.usefixtures("zen4")
def test_the_cap_of_the_environment_is_recorded_if_it_lowers_the_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {"name": "AMD EPYC", "instruction_set": "AVX512_CORE_BF16"}
    # oneDNN ignores an unknown name, and a set above that of the processor changes nothing.
    for name in ("", "NONSENSE", "ALL", "AVX512_CORE_AMX"):
        monkeypatch.setenv(CAP, name)
        assert this_processor().to_json() == plain
    monkeypatch.setenv(CAP, "avx2")
    assert this_processor().to_json() == {
        "name": "AMD EPYC", "instruction_set": "AVX2", "limited_by": f"{CAP}=AVX2",
    }  # fmt: skip
    engine = ConstantEngine()
    assert instruction_set_of(engine) == "AVX2"
    engine.name = "onnxruntime"
    assert instruction_set_of(engine) == "AVX512_CORE_BF16"
    engine.name = "tensorrt"
    assert instruction_set_of(engine) == ""


@pytest.mark.usefixtures("zen4")
def test_a_process_caps_itself_before_it_loads_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot use the instruction set AVX512_CORE_AMX"):
        cap_instruction_set("AVX512_CORE_AMX")
    monkeypatch.setenv(CAP, "AVX512_CORE_BF16")
    cap_instruction_set("AVX512_CORE")
    assert os.environ[CAP] == "AVX512_CORE"
    with pytest.raises(ConfigError) as refused:
        cap_instruction_set("AVX512_CORE_VNNI")
    assert refused.value.remedy == f"Unset {CAP}."
    monkeypatch.setattr(module, "_LIBRARIES", ("sys",))
    cap_instruction_set("AVX512_CORE")
    with pytest.raises(ConfigError) as late:
        cap_instruction_set("AVX2")
    assert late.value.remedy == f"Set {CAP}=AVX2 before the process starts."


_ONEDNN = {
    "Intel SSE4.1": "SSE41",
    "Intel AVX": "AVX",
    "Intel AVX2": "AVX2",
    "Intel AVX2 with Intel DL Boost": "AVX2_VNNI",
    "Intel AVX2 with Intel DL Boost, float16 and bfloat16 support": "AVX2_VNNI_2",
    "Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions": "AVX512_CORE",
    "Intel AVX-512 with Intel DL Boost": "AVX512_CORE_VNNI",
    "Intel AVX-512 with Intel DL Boost and bfloat16 support": "AVX512_CORE_BF16",
    "Intel AVX 10.1": "AVX512_CORE_FP16",
    "Intel AVX10.1 and Intel AMX with bfloat16 and 8-bit integer support": "AVX512_CORE_AMX",
    "Intel AVX10.1 and Intel AMX with bfloat16, float16 and 8-bit integer support":
        "AVX512_CORE_AMX_FP16",
}  # fmt: skip
"""Sets as oneDNN describes them if ONEDNN_VERBOSE is set."""

_SCRIPT = """
from rooftrace.engines.processor import this_processor
from rooftrace.engines.select import load_engine
from rooftrace.flows.doctor import check_engine, tiny_bundle
check_engine(load_engine(tiny_bundle(), engine="openvino", precision="fp32"))
print("recorded", this_processor().instruction_set)
"""


@pytest.mark.campaign
@pytest.mark.skipif(not this_processor().flags, reason="this system lists no instruction sets")
@pytest.mark.parametrize("cap", ["", "AVX512_CORE_VNNI", "AVX512_CORE", "AVX2_VNNI", "AVX2"])
def test_it_is_the_set_that_onednn_reports(cap: str) -> None:
    environment = {**os.environ, "ONEDNN_VERBOSE": "dispatch", CAP: cap}
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    reported = {line.rpartition("isa:")[2] for line in lines if "info,cpu,isa:" in line}
    recorded = next(line.split()[1] for line in lines if line.startswith("recorded"))
    assert {_ONEDNN[one] for one in reported} == {recorded}
