"""Synthetic scenes and in-memory fakes, for tests, demonstrations and a little training."""

from rooftrace.io.memory import ArraySource
from rooftrace.testing.demo import demo_scene, demo_scene_path, demo_truth_path
from rooftrace.testing.landcover import landcover_legend, write_landcover
from rooftrace.testing.scene import SyntheticScene, generate_scene, write_pairs

__all__ = [
    "ArraySource",
    "SyntheticScene",
    "demo_scene",
    "demo_scene_path",
    "demo_truth_path",
    "generate_scene",
    "landcover_legend",
    "write_landcover",
    "write_pairs",
]
