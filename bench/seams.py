"""Seams: the share of building pixels that change when the tiles of a scene lie elsewhere.

The scene is predicted as it is and without its first rows and columns, so that every tile moves.
What both have in common, away from the scene's edges, is compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, say, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rooftrace.predict.predictor import Predictor

    Mask = NDArray[np.uint8]

_OVERLAPS = [(0, 0), (32, 8), (64, 16), (96, 32), (128, 48)]
_EDGE_PX = 128
"""Along the edges of a scene nothing is compared: there its tiles are mirrored."""


def main() -> dict[str, Any]:
    import numpy as np

    from rooftrace.io.raster import open_raster
    from rooftrace.predict.predictor import load

    options = _options()
    model = load(options.model, precision=options.precision)
    scene = options.scene or _scene(options, model)
    pixels = open_raster(scene).read().data
    rows = []
    for overlap_px, trim_px in options.overlaps:
        found = {}
        whole = predict(model, pixels, options.tile, overlap_px, trim_px)
        for offset in options.offsets:
            moved = predict(model, pixels[:, offset:, offset:], options.tile, overlap_px, trim_px)
            found[str(offset)] = compare(
                whole[offset:, offset:], moved, offset, options.tile, overlap_px
            )
        stride = model.bundle.spec.input_multiple_px
        of_stride = [row for offset, row in found.items() if int(offset) % stride == 0]
        row = {
            "overlap_px": overlap_px,
            "trim_px": trim_px,
            "largest_share_by_stride": max(
                (one["changed_share"] for one in of_stride), default=None
            ),
            "by_offset": found,
        }
        shares = ", ".join(f"{offset}: {one['changed_share']:.3%}" for offset, one in found.items())
        say(f"overlap {overlap_px}, trim {trim_px}, moved by {shares}")
        rows.append(row)
    return {
        "scene": str(scene),
        "shape_yx": list(np.shape(pixels)[1:]),
        "tile_px": options.tile,
        "precision": model.engine.precision,
        "rows": rows,
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--precision", default="fp32", help="in fp32 it is the seams alone")
    parser.add_argument("--scene", type=Path, help="an image; default: a generated town")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--offsets", type=int, nargs="+", default=[32, 96, 224, 8, 17])
    parser.add_argument("--overlaps", type=_pair, nargs="+", default=_OVERLAPS)
    options = parser.parse_args()
    if any(overlap > options.tile // 4 for overlap, _ in options.overlaps):
        parser.error("tiles overlap by no more than a quarter")
    if options.scene is None and options.size < max(options.offsets) + 3 * _EDGE_PX:
        parser.error("a scene so small has edges alone")
    return options


def _pair(text: str) -> tuple[int, int]:
    overlap, trim = text.split(",")
    return int(overlap), int(trim)


def _scene(options: argparse.Namespace, model: Predictor) -> Path:
    from common import write_scene

    gsd_m = model.bundle.spec.gsd_m or 0.4
    return write_scene(options.work, options.size, gsd_m, "deflate")


def predict(model: Predictor, pixels: Mask, tile_px: int, overlap_px: int, trim_px: int) -> Mask:
    """(y, x) the mask by tiles of exactly one size."""
    from unittest.mock import patch

    from rooftrace.models import spec as contract
    from rooftrace.predict.options import SceneOptions

    spec = model.bundle.spec.model_copy(update={"input_px": tile_px, "context_px": trim_px})
    model = type(model)(type(model.bundle)(spec, model.bundle.parts, ""), model.engine)
    share = trim_px / max(overlap_px, 1)
    with patch.multiple(contract, OVERLAP_PX=overlap_px, TRIM_SHARE=share):
        options = SceneOptions(gsd_m=spec.gsd_m, outputs=("mask",))
        return model.predict(pixels, options=options).mask.data


def compare(
    whole: Mask, moved: Mask, offset: int, tile_px: int, overlap_px: int
) -> dict[str, float]:
    """Shares of the building pixels that differ: all, near lines of either plan, and elsewhere."""
    import numpy as np

    inner = (slice(_EDGE_PX, -_EDGE_PX), slice(_EDGE_PX, -_EDGE_PX))
    stride = tile_px - overlap_px
    near = np.zeros(whole.shape, dtype=bool)
    for shift in (0, offset):
        for axis, length in enumerate(whole.shape):
            place = (np.arange(length) + shift) % stride
            line = (place < overlap_px + 16) | (place > stride - 16)
            near |= line[:, None] if axis == 0 else line[None, :]
    changed, built = (whole != moved)[inner], ((whole == 1) | (moved == 1))[inner]
    near = near[inner]

    def share(where: NDArray[np.bool_]) -> float:
        return float(changed[where].sum() / max(built[where].sum(), 1))

    return {
        "changed_share": share(np.ones_like(near)),
        "near_lines": share(near),
        "elsewhere": share(~near),
    }


if __name__ == "__main__":
    start(main)
