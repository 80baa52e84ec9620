"""The manifest of a run knows the instruction sets of its parts, and refuses to mix them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rooftrace.core.errors import ConfigError
from rooftrace.flows.predict.run_folder import RunFolder, begun_with


def made_with(used: str, precision: str = "int8", **options: Any) -> dict[str, Any]:
    model = {"bundle": "abc", "instruction_set": used, "engine": ["openvino", precision]}
    return {"with": model, "options": {"threshold": 0.5, **options}}


def processor(used: str) -> dict[str, str]:
    return {"name": f"a processor with {used}", "instruction_set": used}


def begin(out: Path, used: str, **more: Any) -> RunFolder:
    """Enter the folder as a part of a run does, and leave it with a block."""
    allow_mixed = more.pop("allow_mixed", False)
    folder = RunFolder(out, made_with(used, **more), [processor(used)], allow_mixed=allow_mixed)
    with folder:
        block = out / ".rooftrace" / "a.parts" / "0000000.part"
        block.parent.mkdir(exist_ok=True)
        block.touch()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    begin(tmp_path, "AVX2")
    return tmp_path


def test_a_run_is_resumed_on_the_same_set(out: Path) -> None:
    found = begun_with(out)
    assert found is not None
    assert found["instruction_set"] == "AVX2"
    folder = begin(out, "AVX2")
    assert (folder.replaced, folder.processors) == (False, [processor("AVX2")])


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_another_set_is_refused_and_nothing_is_lost(out: Path, precision: str) -> None:
    with pytest.raises(ConfigError, match="began with the instruction set AVX2, but the engine"):
        begin(out, "SSE41", precision=precision)
    assert not begin(out, "AVX2").replaced


def test_sets_are_mixed_if_that_is_allowed(out: Path) -> None:
    folder = begin(out, "SSE41", allow_mixed=True)
    assert not folder.replaced
    # The checkpoints of both parts have one key.
    assert folder.made_with == made_with("AVX2")
    assert folder.processors == [processor("AVX2"), processor("SSE41")]
    assert begin(out, "AVX2").processors == folder.processors


def test_another_model_or_option_starts_anew(out: Path) -> None:
    folder = begin(out, "SSE41", min_area_m2=4)
    assert (folder.replaced, folder.processors) == (True, [processor("SSE41")])


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    assert begun_with(tmp_path) is None
    (tmp_path / ".rooftrace").mkdir()
    (tmp_path / ".rooftrace" / "journal.jsonl").write_text('{"with": {"bundle": "abc"}}\n')
    assert begun_with(tmp_path) is None
    (tmp_path / ".rooftrace" / "journal.jsonl").write_text("torn")
    assert begun_with(tmp_path) is None
