"""How the public listener shows errors: a page to browsers, problem+json to programs."""

from __future__ import annotations

from matrix.errors import MatrixError
from matrix.http import Answer, Exchange, Render, error_headers, problem
from matrix.metrics import Registry, series
from matrix.router.pages import Pages


def render_for(pages: Pages, registry: Registry) -> Render:
    """The renderer of a listener; each error it shows is counted by its rule."""

    def render(error: MatrixError, exchange: Exchange) -> Answer:
        registry.counter(series.REFUSED, error.slug, error.reason or "").value += 1
        if not exchange.request.is_navigation:
            return problem(error, exchange.request_id)
        instance = exchange.request.target.decode("ascii")
        headers, body = pages.error(error, exchange.request_id, instance)
        return error.status, [*headers, *error_headers(error)], body

    return render
