"""What a browser gets that asks for a page and is not signed in: MATRIX_LOGIN."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit, urlunsplit

from matrix.auth import Reason
from matrix.errors import Unauthorized
from matrix.http import Answer, Exchange, RequestHead, error_headers
from matrix.router.signin.views import Views, Wanted

Greeting = Callable[[Unauthorized, Exchange], Answer | None]
"""Makes the answer for a navigation without a session; C{None} for the usual error page."""

Clean = Callable[[bytes], bytes]
"""Makes a target one without credentials."""

ENDED = "Your session has ended."

_LEADS = {
    Reason.MISSING.value: "",
    Reason.EXPIRED.value: ENDED,
    Reason.REVOKED.value: ENDED,
    Reason.SESSION.value: ENDED,
    Reason.SIGNED_OUT.value: ENDED,
}
"""Why there is a sign-in page, where a person need not know more than the refusal's own words."""

_SENT_AWAY = frozenset({Reason.MISSING.value, Reason.EXPIRED.value, Reason.SIGNED_OUT.value})
"""The refusals that the operator's page mends. For any other it would send people back with the
same token, again and again."""


def with_form(views: Views, clean: Clean) -> Greeting:
    """
    Our own sign-in form, in place of what was wanted and under its address.

    @param clean: takes from a target the credential that was refused: it is not to come back.
    """

    def greet(error: Unauthorized, exchange: Exchange) -> Answer:
        wanted = Wanted(clean(exchange.request.target).decode("ascii"))
        lead = _LEADS.get(error.reason or "", error.detail)
        headers, body = views.sign_in(exchange.request_id, wanted, lead=lead)
        return error.status, [*headers, *_fields(error, b"cache-control")], body

    return greet


def with_redirect(login_url: str, clean: Clean) -> Greeting:
    """
    The way to the operator's page, and from there back to what was wanted.

    @param clean: as for L{with_form}.
    """

    def greet(error: Unauthorized, exchange: Exchange) -> Answer | None:
        if error.reason not in _SENT_AWAY:
            return None
        location = (b"Location", away(login_url, exchange.request, clean(exchange.request.target)))
        return 303, [location, *_fields(error, b"www-authenticate")], b""

    return greet


def away(login_url: str, request: RequestHead, target: bytes) -> bytes:
    """
    The operator's page, told where to come back to.

    @param target: a path and query on the request's own host.
    """
    parts = urlsplit(login_url)
    host = request.fields.host
    if host is None:
        return login_url.encode()
    back = quote(b"https://" + host + target, safe="")
    query = f"{parts.query}&next={back}" if parts.query else f"next={back}"
    return urlunsplit(parts._replace(query=query)).encode()


def _fields(error: Unauthorized, but: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields of an error, all but one."""
    return [field for field in error_headers(error) if field[0].lower() != but]
