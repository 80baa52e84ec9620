"""Random changes of a training sample: where it is cut out, and what its colours look like."""

from rooftrace.data.augment.colour import change_colours
from rooftrace.data.augment.config import AugmentConfig
from rooftrace.data.augment.geometry import crop_transform, warp, window_under

__all__ = ["AugmentConfig", "change_colours", "crop_transform", "warp", "window_under"]
