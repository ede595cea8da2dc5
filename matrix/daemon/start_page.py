"""The start page, that of snapshots, and their assets, served from memory."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from importlib.resources import files

from matrix.api import Api
from matrix.daemon.conditions import Version, is_unmodified
from matrix.http.interfaces import Exchange, HeaderList

_SECURITY = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

_PAGES = (
    ("/", "index.html", b"text/html; charset=utf-8"),
    ("/snapshots", "snapshots.html", b"text/html; charset=utf-8"),
    ("/assets/start.css", "start.css", b"text/css; charset=utf-8"),
    ("/assets/page.js", "page.js", b"text/javascript; charset=utf-8"),
    ("/assets/start.js", "start.js", b"text/javascript; charset=utf-8"),
    ("/assets/snapshots.js", "snapshots.js", b"text/javascript; charset=utf-8"),
)


def register(api: Api) -> None:
    """Add the routes."""
    folder = files("matrix.daemon") / "pages"
    for rule, name, kind in _PAGES:
        body = (folder / name).read_bytes()
        etag = b'"%b"' % blake2b(body, digest_size=12).hexdigest().encode()
        headers = [
            (b"content-type", kind),
            (b"etag", etag),
            # Asked for each time: a new version of the daemon shows at once.
            (b"cache-control", b"private, no-cache"),
            *_SECURITY,
        ]
        api.add("GET", rule, partial(_serve, headers=headers, etag=etag, body=body))


async def _serve(exchange: Exchange, headers: HeaderList, etag: bytes, body: bytes) -> None:
    if is_unmodified(exchange.request, Version(etag, 0)):
        exchange.respond(304, headers[1:3])
    else:
        exchange.respond(200, headers, body)
