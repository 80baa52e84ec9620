"""Fail where a folder has more lines of Python than `tools/budget.toml` allows.

A house that grows by a little each day is found too big one day. Who needs more lines raises the
limit in the same commit and gives the reason in its message; who needs fewer lowers it.

    python tools/budget.py            # compare, exit 1 above a limit
    python tools/budget.py --write    # set all limits to what is there
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET = ROOT / "tools/budget.toml"
PACKAGE = "src/rooftrace"

HEADER = """\
# Maximum number of lines of Python in each folder of src/rooftrace ("." holds its modules) and in
# tests. `make lint` fails above a limit: raise it in the commit that needs it, with the reason in
# its message. `python tools/budget.py --write` sets all limits to what is there.
"""


def line_counts() -> dict[str, int]:
    """Return the lines of the tracked and new Python files by folder, `tests` as one."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    counts: dict[str, int] = {}
    for name in listed:
        path = Path(name)
        if path.is_relative_to(PACKAGE):
            folder = path.relative_to(PACKAGE).parts
            key = folder[0] if len(folder) > 1 else "."
        elif path.is_relative_to("tests"):
            key = "tests"
        else:
            continue
        if (ROOT / path).exists():
            counts[key] = counts.get(key, 0) + (ROOT / path).read_bytes().count(b"\n")
    return dict(sorted(counts.items()))


def main() -> None:
    """Compare the counts with the limits, or write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="Set all limits to the counts")
    write = parser.parse_args().write
    counts = line_counts()
    if write:
        rows = "".join(f'"{name}" = {count}\n' for name, count in counts.items())
        BUDGET.write_text(HEADER + rows, encoding="utf-8")
    limits = tomllib.loads(BUDGET.read_text(encoding="utf-8"))
    above = {name: count for name, count in counts.items() if count > limits.get(name, 0)}
    for name, count in above.items():
        print(
            f"{name}: {count} lines, and tools/budget.toml allows {limits.get(name, 0)}. Delete "
            "some, or raise the limit and give the reason in the commit message."
        )
    total = sum(count for name, count in counts.items() if name != "tests")
    print(f"src {total} lines, tests {counts.get('tests', 0)} lines", file=sys.stderr)
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
