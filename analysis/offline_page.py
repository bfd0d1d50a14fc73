"""HTML that stands alone: every script and style inside the file, and a policy under which nothing else may load.

The Content-Security-Policy names each script by its SHA-256, so that text which slipped through escaping still could
not run. Plotly and the figures' data are packed, which makes a page of 300 runs a third of its size; ``plots.js``
unpacks them, and a browser that can't shows the printed figures.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["data_uri", "packed", "render_page", "render_plots", "script"]


def script(name: str) -> str:
    """The text of ``templates/<name>``, to be inlined."""
    return files("analysis").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def plotly_script() -> str:
    """Plotly's own library, 4.8 MB."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def packed(text: str) -> Markup:
    """``text`` for an element that ``plots.js`` unpacks: gzip in base64, in which no character acts on HTML."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii"))


@cache
def _packed_plotly() -> Markup:
    return packed(plotly_script())


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


def _policy(scripts: Iterable[str], connect: str) -> str:
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"font-src 'none'; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def render_plots(
    template: str, plots_json: str, *scripts: str, connect: Literal["'none'", "'self'"] = "'none'", **context: Any
) -> str:
    """``template`` around the figures of ``plots_json``: Plotly, the style sheet, and the ``scripts`` of ``templates/``
    inlined after ``plots.js``, with a policy for them alone. A page that is served may ask whoever serves it for data:
    ``connect``."""
    inlined = [script(name) for name in ("plots.js", *scripts)]
    packages = {"plotly": _packed_plotly(), "plots": packed(plots_json)}
    return _render(template, inlined, [plotly_script(), *inlined], connect, packages, context)


def render_page(template: str, *scripts: str, connect: Literal["'none'", "'self'"] = "'none'", **context: Any) -> str:
    """``template`` without figures: the style sheet and the ``scripts`` inlined, with a policy for them alone."""
    inlined = [script(name) for name in scripts]
    return _render(template, inlined, inlined, connect, {}, context)


def _render(
    template: str,
    inlined: Iterable[str],
    allowed: Iterable[str],
    connect: str,
    packages: dict[str, Markup],
    context: dict[str, Any],
) -> str:
    """packages: what ``plots.js`` unpacks, by the id of its element."""
    return (
        _environment()
        .get_template(template)
        .render(
            policy=_policy(allowed, connect),
            page_css=Markup(script("page.css")),
            packages=packages,
            scripts=[Markup(text) for text in inlined],
            **context,
        )
    )
