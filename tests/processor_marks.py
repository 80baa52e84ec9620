"""Marks of tests that need instructions which not every processor has."""

import pytest

from rooftrace.engines.openvino import KIND

_LACKING = KIND.lacks("bf16")

needs_bf16 = pytest.mark.skipif(bool(_LACKING), reason=_LACKING)
"""Mark of tests that run a network in bf16 with OpenVINO."""
