"""The figures of a set add up those of its scenes."""

import numpy as np

from rooftrace.audit.facts import LabelFacts, SceneFacts, compute_statistics

SIDE = 100


def scene(name: str, building_px: int, **changes: object) -> SceneFacts:
    areas = [] if building_px == 0 else [building_px]
    label = LabelFacts((SIDE * SIDE - building_px, building_px), np.array(areas, np.int64), 0)
    values: dict[str, object] = {
        "id": name, "image": f"{name}.png", "shape_yx": (SIDE, SIDE), "bands": 3,
        "dtype": "uint8", "file_format": "PNG", "valid_share": 1.0, "label": label,
    }  # fmt: skip
    return SceneFacts(**(values | changes))  # type: ignore[arg-type]


def test_areas_in_metres_where_known() -> None:
    made = compute_statistics([scene("a", 100, gsd_m=0.5), scene("b", 400)], 2, 1)
    assert made.size_px.count == 2
    assert (made.size_m2.count, made.size_m2.median) == (1, 25.0)
    assert made.gsd_m.median == 0.5
    assert sum(made.size_m2_histogram.counts) == 1
