"""HTML pages that need no network, from the templates that come with rooftrace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2

__all__ = ["read_asset", "render_page"]


def render_page(template: str, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """A page as text.

    Strangers' names are escaped wherever they stand. What the template does not know fails.

    Args:
        template: its file among the assets, which may include others of them.
        filters: how values are written, by name.
        values: what the template shows.
    """
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(read_asset),
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)


def read_asset(name: str) -> str:
    """The text of a file that comes with rooftrace."""
    return (resources.files("rooftrace") / "assets" / name).read_text(encoding="utf-8")
