"""Masks a second to and from run lengths, compared with the usual loop over runs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, measure_part, rounded, say, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORDERS = ("row", "column")


def main() -> dict[str, Any]:
    options = _options()
    masks = options.work / f"rle_{options.size}px_{options.distinct}.npy"
    if not masks.exists():
        say("generating masks")
        measure_part(__file__, "make", path=masks, size_px=options.size, distinct=options.distinct)
    rows: dict[str, Any] = {}
    for order in ORDERS:
        for name, count in (("ours", options.masks), ("loop", options.loop_masks)):
            say(f"{name}, {order} order: {count} masks")
            run = measure_part(__file__, name, path=masks, count=count, order=order)
            rows[f"{name}_{order}"] = run.row
    return {
        "masks": {"size_px": options.size, "count": options.masks, "distinct": options.distinct},
        "rows": rows,
        "ratios": {
            f"ours/loop {order}": {
                way: rounded(
                    rows[f"loop_{order}"][f"{way}_ms_per_mask"]
                    / rows[f"ours_{order}"][f"{way}_ms_per_mask"]
                )
                for way in ("decode", "encode")
            }
            for order in ORDERS
        },
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--size", type=int, default=1024, help="side of a mask, in pixels")
    parser.add_argument("--masks", type=int, default=1000, help="for rooftrace")
    parser.add_argument("--loop-masks", type=int, default=100, help="for the loop, the slower")
    parser.add_argument("--distinct", type=int, default=20, help="masks that are generated")
    return parser.parse_args()


# What follows runs in processes of its own.


def make(path: str, size_px: int, distinct: int) -> dict[str, Any]:
    """Write the masks (n, y, x) of generated towns, each town turned in all four ways."""
    import numpy as np

    from rooftrace.io.files import replacing
    from town import generate_scene

    towns = [
        generate_scene(seed, (size_px, size_px), 0.3).mask() for seed in range(-(-distinct // 4))
    ]
    turned = [np.rot90(town, k) for town in towns for k in range(4)]
    with replacing(Path(path)) as partial:
        np.save(partial, np.stack(turned[:distinct]).astype(bool))
    return {}


def ours(path: str, count: int, order: Any) -> dict[str, Any]:
    """The functions with which `rooftrace` reads and writes tables."""
    from rooftrace.labels.rle import decode_runs, encode_runs

    return _timed(
        path,
        count,
        lambda mask: encode_runs(mask, order),
        lambda text, shape_yx: decode_runs(text, shape_yx, order, where="the benchmark"),
    )


def loop(path: str, count: int, order: str) -> dict[str, Any]:
    """The usual code of contestants: a loop over runs, a join over numbers."""
    import numpy as np

    def encode(mask: NDArray[np.bool_]) -> str:
        flat = mask.flatten() if order == "row" else mask.T.flatten()
        pixels = np.concatenate([[0], flat, [0]])
        runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
        runs[1::2] -= runs[::2]
        return " ".join(str(number) for number in runs)

    def decode(text: str, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
        numbers = text.split()
        starts, lengths = (np.asarray(part, dtype=int) for part in (numbers[::2], numbers[1::2]))
        flat = np.zeros(shape_yx[0] * shape_yx[1], dtype=bool)
        for first, length in zip(starts - 1, lengths):
            flat[first : first + length] = True
        return flat.reshape(shape_yx) if order == "row" else flat.reshape(shape_yx[::-1]).T

    return _timed(path, count, encode, decode)


def _timed(
    path: str,
    count: int,
    encode: Callable[[NDArray[np.bool_]], str],
    decode: Callable[[str, tuple[int, int]], NDArray[np.bool_]],
) -> dict[str, Any]:
    import numpy as np

    masks = list(np.load(path))
    texts = [encode(mask) for mask in masks]
    shape_yx = masks[0].shape
    for mask, text in zip(masks, texts):
        if not np.array_equal(decode(text, shape_yx), mask):
            raise SystemExit("error: what was decoded is not what was encoded")
    started = time.perf_counter()
    for index in range(count):
        encode(masks[index % len(masks)])
    between = time.perf_counter()
    for index in range(count):
        decode(texts[index % len(texts)], shape_yx)
    done = time.perf_counter()
    return {
        "masks": count,
        "runs_per_mask": rounded(sum(text.count(" ") + 1 for text in texts) / 2 / len(texts)),
        "built_up_share": rounded(float(np.mean(masks))),
        "encode_seconds": rounded(between - started),
        "decode_seconds": rounded(done - between),
        "encode_ms_per_mask": rounded((between - started) / count * 1e3),
        "decode_ms_per_mask": rounded((done - between) / count * 1e3),
    }


if __name__ == "__main__":
    start(main, make, ours, loop)
