"""All readers under attack, by name."""

from __future__ import annotations

import fuzz_files
import fuzz_images
import fuzz_labels
import fuzz_models
import fuzz_requests
import fuzz_verbs
from fuzz_target import Target, WrongAnswer

__all__ = ["TARGETS", "Target", "WrongAnswer"]

_GROUPS = (fuzz_images, fuzz_models, fuzz_labels, fuzz_files, fuzz_requests, fuzz_verbs)

TARGETS = {one.name: one for group in _GROUPS for one in group.TARGETS}
