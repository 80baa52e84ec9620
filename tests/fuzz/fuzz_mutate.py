"""Seeded mutations of small valid files: of bytes, of numbers in text, and of JSON values.

A mutation depends on the random generator alone, so a try is repeated by its seed and number.
"""

import copy
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Rng = np.random.Generator

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 256, 65536, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 2**64,
    10**40, -(2**63), 0.5, -0.0, 1e-300, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "1e3", "nan", "-1", "a", "\0", "\ud800", "é", "\u202e", "../../x", "/", ".",
    "a" * 3000, "http://127.0.0.1:1/", "/vsicurl/http://127.0.0.1:1/a.tif", [], {}, [[]], [None],
    {"": None}, [1, 2, 3], ["a", 1], [[0, 0], [1, 1]], {"a": {"a": {}}}, "@DEEP90@",
)  # fmt: skip
"""Values that replace others. `@DEEP90@` becomes a list nested 90 times."""

NUMBERS = ("0", "-1", "1", "1e999", "-1e308", "nan", "NaN", "inf", "4294967296", "9" * 400, "0x10",
           "1_000", "0.1.2", "", "1e-320", "９")  # fmt: skip
"""Texts that replace a number."""

INTEGERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
"""Numbers that replace two, four or eight bytes."""


def mutate(rng: Rng, name: str, data: bytes, others: list[bytes]) -> bytes:
    """Return a mutated copy of a file, by the ways that suit its suffix.

    Args:
        name: Name of the file.
        data: Content of a valid file.
        others: Contents of other valid files, of which pieces are spliced in.
    """
    suffix = name.rpartition(".")[2]
    if suffix in ("json", "geojson") and rng.random() < 0.75:
        return mutate_json(rng, data)
    if suffix in ("json", "geojson", "csv", "txt", "vrt", "xml") and rng.random() < 0.7:
        return mutate_text(rng, data)
    return mutate_bytes(rng, data, others)


def mutate_bytes(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    """Return a copy with one to four changes; half of them lie in the first 400 bytes."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not made:
            break
        end = min(len(made), 400) if rng.random() < 0.5 else len(made)
        at = int(rng.integers(0, end))
        size = min(int(2 ** rng.uniform(0, 10)), len(made) - at)
        way = int(rng.integers(0, 7))
        if way == 0:
            made[at] ^= 1 << int(rng.integers(0, 8))
        elif way == 1:
            width, order = int(rng.choice([2, 4, 8])), "<>"[int(rng.integers(0, 2))]
            number = int(rng.choice(INTEGERS[: {2: 11, 4: 14, 8: 15}[width]]))
            at -= at % 2
            made[at : at + width] = struct.pack(order + {2: "H", 4: "I", 8: "Q"}[width], number)
        elif way == 2:
            del made[at:]
        elif way == 3:
            del made[at : at + size]
        elif way == 4:
            made[at:at] = made[at : at + size] * int(rng.integers(1, 20))
        elif way == 5:
            other = others[int(rng.integers(0, len(others)))]
            start = int(rng.integers(0, max(len(other), 1)))
            made[at : at + size] = other[start : start + size]
        else:
            made[at : at + size] = rng.bytes(size)
    return bytes(made)


def mutate_text(rng: Rng, data: bytes) -> bytes:
    """Return a copy with numbers or words replaced, and lines removed or repeated."""
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(int(rng.integers(1, 4))):
        way = int(rng.integers(0, 3))
        places = list(re.finditer((r"[\w./-]+", r"-?\d+(\.\d+)?", r".+\n")[way], text))
        if places:
            match = places[int(rng.integers(0, len(places)))]
            values = (pick(rng, ODD), pick(rng, NUMBERS), match[0] * int(rng.integers(0, 4)))
            text = text[: match.start()] + str(values[way]) + text[match.end() :]
    return text.encode("utf-8", "surrogatepass")


def pick(rng: Rng, values: tuple[Any, ...]) -> Any:
    return copy.deepcopy(values[int(rng.integers(0, len(values)))])


def mutate_json(rng: Rng, data: bytes) -> bytes:
    """Return a copy with one to three values replaced, removed, repeated or wrapped."""
    tree = mutate_tree(rng, json.loads(data))
    text = json.dumps(tree)
    return re.sub(r'"@DEEP(\d+)@"', lambda m: "[" * int(m[1]) + "]" * int(m[1]), text).encode()


def mutate_tree(rng: Rng, tree: Any) -> Any:
    """Return a copy of plain data with one to three of its values changed."""
    tree = [copy.deepcopy(tree)]
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        # Values near the root are few, so half of the changes are among them.
        holder, key = pick_place(rng, places[:40] if rng.random() < 0.5 else places)
        value, way = holder[key], int(rng.integers(0, 6))
        if way == 0 and holder is not tree:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(value)] * int(rng.integers(1, 4))
        elif way == 2:
            holder[key] = [value] if rng.random() < 0.5 else {"a": value}
        elif way == 3 and isinstance(value, (int, float)):
            holder[key] = str(value) if rng.random() < 0.5 else -value
        elif way == 4:
            other, name = pick_place(rng, places)
            holder[key] = copy.deepcopy(other[name])
        else:
            holder[key] = pick(rng, ODD)
    return tree[0]


def pick_place(rng: Rng, places: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    return places[int(rng.integers(0, len(places)))]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a tree as its holder and the key there, the outer ones first."""
    level = [tree]
    while level:
        places = [
            (holder, key)
            for holder in level
            for key in (list(holder) if isinstance(holder, dict) else range(len(holder)))
        ]
        yield from places
        level = [one[key] for one, key in places if isinstance(one[key], (dict, list))]


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip of the files, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


Mutator = Callable[[Rng, str, bytes, list[bytes]], bytes]
