"""SAM: time and memory of the networks that refine outlines, for a crop and for each building.

Speed does not depend on the values of weights, so that networks of the usual sizes get random ones;
other networks are measured with the weights that are given.
"""

from __future__ import annotations

import time
from typing import Any

from common import argument_parser, measure_part, say, start

_NETWORKS = ("edgetam", "sam2 tiny", "sam base")


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("weights", nargs="*", help="folders of weights; default: random ones")
    parser.add_argument("--prompts", type=int, default=5, help="buildings that are averaged")
    options = parser.parse_args()
    rows = []
    for name in options.weights or _NETWORKS:
        row = measure_part(__file__, "segment", network=name, prompts=options.prompts).row
        say(f"{name}: {row['crop_cpu_s']:.2f} s a crop, {row['building_cpu_s']:.2f} s a building")
        rows.append(row)
    return {"rows": rows}


def segment(network: str, prompts: int) -> dict[str, Any]:
    """Measure one network on a crop of noise."""
    import numpy as np

    from rooftrace.core.types import Window
    from rooftrace.models.clicks import Click, Prompt
    from rooftrace.models.sam import SamSegmenter, load_sam

    made = _random(network) if network in _NETWORKS else None
    segmenter = load_sam(network) if made is None else SamSegmenter(*made, network, "random")
    image = np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8)
    prompt = Prompt((Click(100, 100),), box=Window(80, 80, 40, 40))
    segmenter.segment(segmenter.encode(image), prompt)
    wall, cpu = time.perf_counter(), time.process_time()
    encoded = segmenter.encode(image)
    row = {"network": network, "crop_s": time.perf_counter() - wall}
    row["crop_cpu_s"] = time.process_time() - cpu
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(prompts):
        segmenter.segment(encoded, prompt)
    row["building_s"] = (time.perf_counter() - wall) / prompts
    return row | {"building_cpu_s": (time.process_time() - cpu) / prompts}


def _random(name: str) -> tuple[Any, Any]:
    """Return a network of the usual size with random weights, and its image processor."""
    import transformers

    if name == "sam base":
        return transformers.SamModel(transformers.SamConfig()), transformers.SamImageProcessor()
    if name == "sam2 tiny":
        return transformers.Sam2Model(transformers.Sam2Config()), transformers.Sam2ImageProcessor()
    backbone = {
        "model_type": "timm_wrapper", "architecture": "repvit_m1", "num_classes": 2,
        "label_names": ["one", "other"],
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    }  # fmt: skip
    vision = {"model_type": "edgetam_vision_model", "backbone_config": backbone}
    config = transformers.EdgeTamConfig(vision_config=vision)
    return transformers.EdgeTamModel(config), transformers.Sam2ImageProcessor()


if __name__ == "__main__":
    start(main, segment)
