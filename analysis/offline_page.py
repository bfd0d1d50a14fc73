"""HTML that stands alone: every script and style inside the file, and a policy under which nothing else may load.

The Content-Security-Policy names each inlined script by its SHA-256, so that text which slipped through escaping still
could not run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["data_uri", "embedded_json", "plotly_script", "render_page", "script"]


def script(name: str) -> str:
    """The text of ``templates/<name>``, to be inlined."""
    return files("analysis").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def plotly_script() -> str:
    """Plotly's own library, 4.8 MB."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def embedded_json(text: str) -> Markup:
    """JSON that is safe inside a ``<script type="application/json">``: no ``<`` can end the element or open another."""
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def data_uri(content: bytes, file_format: str) -> str:
    """A picture as the source of an ``img``: an SVG's ids can't meet another's there, and nothing in it runs."""
    kind = {"svg": "svg+xml"}.get(file_format, file_format)
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _policy(scripts: Mapping[str, str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts.values()]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src 'none'; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def render_page(template: str, scripts: Mapping[str, str], **context: Any) -> str:
    """``template`` with ``scripts`` inlined under their names, the style sheet, and a policy for them alone."""
    trusted = {name: Markup(text) for name, text in scripts.items()}
    return (
        _environment()
        .get_template(template)
        .render(policy=_policy(scripts), page_css=Markup(script("page.css")), **trusted, **context)
    )
