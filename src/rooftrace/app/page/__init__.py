"""The Gradio page."""

from rooftrace.app.page.page import build_page, mount_page

__all__ = ["build_page", "mount_page"]
