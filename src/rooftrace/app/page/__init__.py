"""The Gradio page."""

from rooftrace.app.page.blocks import build_page
from rooftrace.app.page.mount import mount_page

__all__ = ["build_page", "mount_page"]
