"""How the public listener shows errors: a page to browsers, problem+json to programs."""

from __future__ import annotations

from matrix.auth import Origins
from matrix.errors import MatrixError, Unauthorized
from matrix.http import Answer, Exchange, Render, error_headers, problem
from matrix.metrics import Registry, series
from matrix.router.cors import cors_headers
from matrix.router.pages import Pages
from matrix.router.signin.greeting import Greeting


def render_for(
    pages: Pages, registry: Registry, origins: Origins, greeting: Greeting | None = None
) -> Render:
    """
    The renderer of a listener; each error it shows is counted by its rule.

    @param greeting: what a browser without a session gets instead of an error page.
    """

    def render(error: MatrixError, exchange: Exchange) -> Answer:
        registry.counter(series.REFUSED, error.slug, error.reason or "").value += 1
        request = exchange.request
        if not request.is_navigation:
            status, fields, content = problem(error, exchange.request_id)
            return status, [*fields, *cors_headers(request, origins)], content
        if greeting is not None and isinstance(error, Unauthorized):
            welcome = greeting(error, exchange)
            if welcome is not None:
                return welcome
        instance = request.target.decode("ascii")
        headers, body = pages.error(error, exchange.request_id, instance)
        return error.status, [*headers, *error_headers(error)], body

    return render
