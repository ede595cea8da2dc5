"""All that the daemon answers, behind its one token."""

from __future__ import annotations

from collections.abc import Callable

import matrix
from matrix.api import Api, BearerCheck, send_json
from matrix.daemon import start_page
from matrix.daemon.events import Events
from matrix.daemon.files import Files
from matrix.http.interfaces import Exchange


def site(
    token: str,
    files: Files,
    events: Events,
    watching: Callable[[], str],
) -> Api:
    """
    The daemon's handler of requests.

    @param token: what every call but C{/healthz} must bear.
    @param watching: how watching files fares, for C{/healthz}.
    """
    api = Api(BearerCheck(token))

    @api.route("GET", "/healthz", public=True)
    async def healthz(exchange: Exchange) -> None:
        health = {"status": "ok", "version": matrix.__version__, "events": watching()}
        send_json(exchange, health)

    start_page.register(api)
    files.register(api)
    events.register(api)
    return api
