"""The page in an application: settings of the server that the page stands on."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from rooftrace.app.page.blocks import build_page, static_text
from rooftrace.app.page.results import ResultStore
from rooftrace.app.page.routes import page_router
from rooftrace.service.service import Service

__all__ = ["mount_page"]

# Fonts by name: Gradio's own themes ask Google for them.
_FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")


def mount_page(app: FastAPI, service: Service, *, video: bool = False) -> FastAPI:
    """Add the page at `/`, and its own routes; called last, since it takes all other addresses.

    No file but uploads and what the page made of them is served; nothing is asked of other
    machines; neither calls nor uploads are recorded.

    Args:
        app: to which it is added.
        service: predicts.
        video: whether there is a tab for videos.
    """
    store = ResultStore()
    app.include_router(page_router(store))
    gr.mount_gradio_app(
        app,
        build_page(service, store, video=video),
        path="/",
        theme=_theme(),
        css=static_text("page.css"),
        allowed_paths=[],
        blocked_paths=[str(Path.cwd())],
        max_file_size=service.limits.upload_bytes,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )
    return app


def _theme() -> gr.themes.Base:
    return gr.themes.Default(
        primary_hue="amber",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="md",
        text_size="sm",
        font=_FONTS,
        font_mono=_MONO,
    )
