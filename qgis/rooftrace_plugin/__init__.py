"""QGIS plugin that runs rooftrace. It imports nothing of rooftrace."""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin."""
    from .plugin import RooftracePlugin

    return RooftracePlugin(iface)
