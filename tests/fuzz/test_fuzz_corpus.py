"""Inputs that once broke a reader end in a right answer or in an error of ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fuzz_mutate import mutate_json
from fuzz_run import attempt, mutant, replay
from fuzz_targets import TARGETS, Target, WrongAnswer

from rooftrace.core.errors import LabelError

CORPUS = Path(__file__).parents[1] / "fuzz_corpus"
"""Inputs as READER/KIND/input/NAME; each is the smallest that was found."""

OPEN: dict[str, str] = {}
"""Findings that are not mended yet, with the reason; mending one means removing its line."""


def _kept() -> list[object]:
    inputs = [path for path in sorted(CORPUS.glob("*/*/input/**/*")) if path.is_file()]
    cases = []
    for path in inputs:
        reader, kind = path.relative_to(CORPUS).parts[:2]
        why = OPEN.get(f"{reader}/{kind}")
        marks = [pytest.mark.xfail(strict=True, reason=why)] if why else []
        cases.append(pytest.param(path, id=f"{reader}/{kind}", marks=marks))
    return cases


@pytest.mark.parametrize("path", _kept())
@pytest.mark.filterwarnings("ignore")
def test_a_past_finding_ends_in_an_answer_or_an_error(path: Path) -> None:
    outcome = replay(path)
    assert outcome["end"] != "finding", f"{outcome['type']} in {outcome['where']}"


QUICK_VERBS = ("v-convert", "v-card")
"""Commands that are run in `make test`; the others are campaigns."""

SLOW = (
    "checkpoint",
    "rest",
    "review",
    *(one for one in TARGETS if one.startswith("v-") and one not in QUICK_VERBS),
)


@pytest.mark.parametrize(
    "reader",
    [pytest.param(one, marks=[pytest.mark.campaign] if one in SLOW else []) for one in TARGETS],
)
@pytest.mark.filterwarnings("ignore")
def test_valid_files_are_accepted(reader: str, tmp_path: Path) -> None:
    target = TARGETS[reader]
    for name, data in target.seeds.items():
        outcome = attempt(target, tmp_path, name, data)
        assert outcome["end"] == "accepted", f"{name}: {outcome}"


def test_open_findings_are_in_the_corpus() -> None:
    kept = {str(path.parent.relative_to(CORPUS)) for path in CORPUS.glob("*/*/input")}
    assert set(OPEN) <= kept


def test_a_try_is_repeated_by_its_seed_and_number() -> None:
    for number in range(20):
        assert mutant(TARGETS["split"], 3, number) == mutant(TARGETS["split"], 3, number)


def _raises(error: Exception) -> Target:
    def read(path: Path) -> None:
        if path.read_bytes() != b"good":
            raise error

    return Target("fake", lambda: ({"a": b"good"}, {}), read)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (LabelError("It is torn."), "refused"), (LabelError(""), "finding"),
        (KeyError("a"), "finding"), (MemoryError(), "finding"), (WrongAnswer("a"), "finding"),
    ],
)  # fmt: skip
def test_only_our_errors_with_a_message_are_answers(
    tmp_path: Path, error: Exception, end: str
) -> None:
    assert attempt(_raises(error), tmp_path, "a", b"good")["end"] == "accepted"
    assert attempt(_raises(error), tmp_path, "a", b"bad")["end"] == end


def test_mutated_json_is_mostly_json() -> None:
    rng, parsed = np.random.default_rng(0), 0
    for _ in range(100):
        text = mutate_json(rng, b'{"a": [1, 2, {"b": "c"}], "d": 0.5}')
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            continue
        parsed += 1
    assert parsed > 80
