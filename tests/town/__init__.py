"""Generated scenes with their truth, for tests, benchmarks, tutorials and small trainings.

`generate_scene` draws a town from a seed. Shipped files, figures in the documentation and tests
depend on its random stream: a change of the order of random draws changes every pixel.
"""

from rooftrace.io.files import demo_scene_path
from town.scene import SyntheticScene, demo_scene, demo_truth_path, generate_scene, write_pairs

__all__ = [
    "SyntheticScene", "demo_scene", "demo_scene_path", "demo_truth_path", "generate_scene",
    "write_pairs",
]  # fmt: skip
