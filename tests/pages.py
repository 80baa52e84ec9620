"""The blocks of the pages in docs/, and the outputs that they show."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def steps(page: str) -> list[tuple[str, str, str]]:
    """Return the blocks of a page in order: the line before each, its language and its text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    form = r"^([^\n]*)\n+^```(\w+)\n(.*?)^```"
    return re.findall(form, text, flags=re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [block for _, kind, block in steps(page) if kind == language]


def check_shown(page: str, shown: str, printed: str) -> None:
    """Check that each line that a page shows was printed, except for its numbers."""
    lines = {shape(line) for line in printed.splitlines()}
    for line in shown.splitlines():
        assert shape(line) in lines, f"{page} shows {line!r}, but the output is\n{printed}"


def shape(line: str) -> str:
    """Return a line without its numbers, which differ between runs."""
    return " ".join(re.sub(r"[-+−]?\d[\d.,]*", "#", line).split())
