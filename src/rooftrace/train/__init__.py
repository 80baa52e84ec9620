"""Training: from a configuration to bundles. All of it needs PyTorch."""

import rooftrace.models._torch  # noqa: F401  (before Lightning, which imports torchvision)
