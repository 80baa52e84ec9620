"""Refuse text that is not plain English: fragments, banned words and long lines of prose.

The check reads docstrings, attribute docstrings, `help=` and `description=` texts, comments,
strings and names in Python files, and the prose of Markdown, HTML and JavaScript files.

    python tools/plain_english.py                           # the whole repository
    python tools/plain_english.py src/rooftrace/io --count  # findings a file

The exit code is 1 where something is found. A line that must keep its words, such as a value of a
file format, ends with `# plain-english: keep`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

FRAGMENT = (
    "Of", "That", "What", "Whatever", "Whether", "Where", "Wherever", "How", "So", "As", "Which",
    "Who", "Whose", "Whom", "Why", "Those", "Than", "Such", "By", "With", "From", "In", "At", "To",
    "For", "On", "And", "But", "Or",
)  # fmt: skip
"""First words that begin a docstring as a fragment instead of a sentence."""

LEANING = ("The same", "It", "Its", "They", "Their", "Them", "This", "These", "Both", "Also", "Too")
"""First words of a docstring that can only be understood with the text above it."""

ENTRY = (
    "of",
    "that",
    "what",
    "where",
    "how",
    "so",
    "as",
    "which",
    "who",
    "whose",
    "those",
    "than",
    "why",
)
"""First words that begin the description of an argument or attribute as a fragment."""

BANNED = (
    r"told|tells?|telling|teller",
    r"(?:go|goes|going|gone|went) on with",
    r"so many|so much as|as many as may be",
    r"nobody|whoever|whatever|whichever|whomever",
    r"affairs?|next to (?:no|nothing)|by now|of it alone|to be borne",
    r"(?<!far )(?<!px )(?<! m )(?<!pixels )(?<!metres )apart(?! from)",
)
"""Words and phrases that style.md does not allow, as regular expressions."""

KEEP = "plain-english: keep"
"""Comment that exempts its line."""

COLUMNS = 100
"""Maximum length of a line of prose in Markdown."""

_BANNED = re.compile(rf"(?<![\w/.-])(?:{'|'.join(BANNED)})(?![\w/-])", re.IGNORECASE)
_BANNED_NAME = re.compile(r"(?:^|_)(?:told|tells?|nobody|whoever|whatever)(?:_|$)", re.IGNORECASE)
_LEANING = re.compile(rf"\s*(?:{'|'.join(LEANING)})\b")
_SENTENCE_END = re.compile(r"[.:?!…)`]$")
_ENTRY = re.compile(rf"^\s+[\w`*, ]+: (?:{'|'.join(ENTRY)})\b", re.IGNORECASE)
_SECTION = re.compile(r"^\s*(?:Args|Attributes|Raises|Returns|Yields):\s*$")
_TEXT_KEYWORDS = {"help", "description", "summary", "epilog", "short_help"}
_PROSE = {".md", ".html", ".js"}
_SKIPPED = ("vendor/", "tools/plain_english.py", "LICENSE")


class Problem(NamedTuple):
    """One place that is not plain English."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def check_python(path: Path, text: str) -> Iterator[Problem]:
    """Yield the problems of a Python file."""
    tree = ast.parse(text)
    for docstring in _docstrings(tree):
        value = docstring.value
        assert isinstance(value, str)
        yield from _openings(path, docstring.lineno, value)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in _TEXT_KEYWORDS:
            value_node = node.value
            if isinstance(value_node, ast.Constant) and isinstance(value_node.value, str):
                word = _first_word(value_node.value)
                if word in FRAGMENT:
                    yield Problem(path, value_node.lineno, f"text begins as a fragment: {word!r}")
        name = _defined_name(node)
        if name and _BANNED_NAME.search(name):
            yield Problem(path, getattr(node, "lineno", 1), f"name: {name}")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) and KEEP not in token.line:
            for offset, line in enumerate(token.string.split("\n")):
                yield from _banned(path, token.start[0] + offset, line)


def check_prose(path: Path, text: str) -> Iterator[Problem]:
    """Yield the problems of a Markdown, HTML or JavaScript file."""
    in_code = False
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        if in_code:
            continue
        yield from _banned(path, number, line)
        is_prose = not line.lstrip().startswith(("|", "#", "!", "<", "[", ":::", "    "))
        if path.suffix == ".md" and is_prose and len(line) > COLUMNS and " " in line[:COLUMNS]:
            yield Problem(path, number, f"line of {len(line)} columns; {COLUMNS} are allowed")


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for index, statement in enumerate(node.body):
            if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
                continue
            before = node.body[index - 1] if index else None
            follows = before is None or isinstance(before, (ast.Assign, ast.AnnAssign))
            if isinstance(statement.value.value, str) and follows:
                yield statement.value


def _openings(path: Path, line: int, docstring: str) -> Iterator[Problem]:
    word = _first_word(docstring)
    if word in FRAGMENT:
        yield Problem(path, line, f"docstring begins as a fragment: {word!r}")
    if match := _LEANING.match(docstring):
        yield Problem(path, line, f"docstring leans on the text above: {match.group().strip()!r}")
    summary = docstring.strip().partition("\n\n")[0].rstrip()
    if summary and not _SENTENCE_END.search(summary):
        yield Problem(path, line, f"summary has no end: {summary[-40:]!r}")
    in_section = False
    for offset, text in enumerate(docstring.split("\n")):
        if _SECTION.match(text):
            in_section = True
        elif in_section and _ENTRY.match(text):
            yield Problem(path, line + offset, f"entry begins as a fragment: {text.strip()[:60]!r}")


def _banned(path: Path, line: int, text: str) -> Iterator[Problem]:
    for match in _BANNED.finditer(text):
        yield Problem(path, line, f"banned: {match.group()!r}")


def _first_word(text: str) -> str:
    match = re.match(r"\s*([A-Za-z]+)\b", text)
    return match.group(1) if match else ""


def _defined_name(node: ast.AST) -> str | None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return None


def problems_of(path: Path) -> list[Problem]:
    """Return the problems of one file, in the order of its lines."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = check_python(path, text) if path.suffix == ".py" else check_prose(path, text)
    return sorted(found, key=lambda problem: problem.line)


def tracked_files(under: list[str]) -> list[Path]:
    """Return the files that git tracks, without vendored ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *under], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    return [
        Path(name)
        for name in listed
        if name
        and Path(name).suffix in {".py", *_PROSE}
        and not any(skipped in name for skipped in _SKIPPED)
        and (ROOT / name).exists()
    ]


def main() -> None:
    """Check the files below the given paths and print what is found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("paths", nargs="*", help="Files or folders; default the repository")
    parser.add_argument("--count", action="store_true", help="Print the number of findings a file")
    options = parser.parse_args()
    total = 0
    for path in tracked_files(options.paths):
        found = problems_of(path)
        total += len(found)
        if options.count and found:
            print(f"{len(found):5} {path}")
        elif not options.count:
            print(*found, sep="\n", end="\n" if found else "")
    print(f"{total} findings", file=sys.stderr)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
