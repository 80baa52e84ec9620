"""Synthetic scenes and in-memory fakes, for tests, demonstrations and a little training."""

from rooftrace.testing.scene import SyntheticScene, generate_scene, write_pairs
from rooftrace.testing.sources import ArraySource

__all__ = ["ArraySource", "SyntheticScene", "generate_scene", "write_pairs"]
