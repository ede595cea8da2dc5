"""The pages that Matrix itself shows in a browser: waking, error and signed-out."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from matrix.errors import MatrixError, Unauthorized
from matrix.router.accessline import redact

Page = tuple[list[tuple[bytes, bytes]], bytes]
"""The header fields that describe the page, and its body. The status, and the fields of the
error (L{matrix.http.problem.error_headers}), are the caller's."""

WAKE_EVENTS: Final = "/-/wake/events"
LOG_OUT: Final = "/-/logout"
REFRESH: Final = 2
"""Seconds between attempts of a browser without scripts: a resume takes less, a start more."""

_TEMPLATES = Path(__file__).parent / "templates"

# Browsers read a backslash as a slash and leave out tabs and line feeds, so that "/\host"
# and "/<TAB>/host" would lead to another origin (WHATWG URL, basic URL parser). C1 controls
# have no place in a URL either.
_LOCAL = re.compile(r"/(?![/\\])[^\x00-\x20\x7f-\x9f\\\ud800-\udfff]*")

_ADVICE: dict[str, str] = {
    "bad-request": "Check the address for mistakes.",
    "blocked": "Whoever runs this service can tell you why.",
    "forbidden": "Your account may not do this.",
    "not-found": "Check the address for mistakes, or go back to where you came from.",
    "gone": "An account that was deleted cannot be opened again.",
    "too-many-requests": "Wait a moment, then try again.",
    "payload-too-large": "Send something smaller.",
    "uri-too-long": "Open the page from its start instead of by this long address.",
    "head-too-large": "Delete the cookies that your browser keeps for this site, then try again.",
    "bad-gateway": "It may have just stopped; then the next try starts it anew.",
    "unavailable": "It may still be starting, or the service is busy.",
    "gateway-timeout": "It runs, but is busy or stuck. Try again in a moment.",
}
_ADVICE_CLIENT = "Go back and try it another way."
_ADVICE_SERVER = "Try again. If it goes on, tell whoever runs this service the request id below."

_UNFORMED = "form-action 'none'; frame-ancestors 'self'"

_PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""The statuses after which the same request may well succeed."""

_BARRED = frozenset({"blocked", "gone"})
"""What an account may be that only another account helps against."""

_SIGNED_OUT: dict[str | None, str] = {
    "expired": "Your session has ended.",
    "session": "Your session has ended.",
}


def local_target(text: str) -> str:
    """
    A path and query on our own origin: C{text} itself, or C{/} if it could lead a browser
    anywhere else, or holds what no URL holds.
    """
    return text if _LOCAL.fullmatch(text) else "/"


def _shown(target: str) -> str:
    """
    The wanted address as a page names it: not at all, which in a link means the address that
    the browser is at, if it holds a credential. Pages are saved, and sent around.
    """
    written = target.encode("utf-8", "surrogatepass")
    return local_target(target) if redact(written) == written else ""


class Pages:
    """Renders each page from templates that are compiled once, at start-up."""

    def __init__(self, embedded: bool = False, sign_in: str | None = None) -> None:
        """
        @param embedded: whether sign-in links come from this process itself.
        @param sign_in: the path of a page where people can sign in, if there is one.
        """
        self._embedded = embedded
        self._sign_in = sign_in
        environment = templates()
        style, script = (str(environment.globals[name]) for name in ("style", "script"))
        self._waking = environment.get_template("waking.html")
        self._error = environment.get_template("error.html")
        self._signed_out = environment.get_template("signed_out.html")
        self._still = still_headers(environment)
        self._live = [
            *_headers(f"style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'"),
            (b"cache-control", b"no-store"),
        ]

    def waking(self, request_id: str, wanted: str, estimate_s: float | None) -> Page:
        """
        Shown while the user's machine wakes; goes on to C{wanted} by itself.

        @param wanted: the path and query that the browser asked for.
        @param estimate_s: how long this machine's wakes take, in seconds, if known.
        """
        return self._live, render(
            self._waking,
            request_id=request_id,
            wanted=_shown(wanted),
            events=WAKE_EVENTS,
            estimate_ms=round(estimate_s * 1000) if estimate_s else 0,
            estimate_text=_about(estimate_s) if estimate_s else "",
            refresh_s=REFRESH,
        )

    def error(self, error: MatrixError, request_id: str, instance: str) -> Page:
        """
        What went wrong and what to do about it; for a 401, how to sign in.

        @param instance: the path and query that the browser asked for.
        """
        if isinstance(error, Unauthorized):
            return self._signed_out_page(error, request_id)
        default = _ADVICE_SERVER if error.status >= 500 else _ADVICE_CLIENT
        return self._still, render(
            self._error,
            request_id=request_id,
            status=error.status,
            title=error.title,
            detail=error.detail,
            advice=_ADVICE.get(error.slug, default),
            wait_s=ceil(error.retry_after) if error.retry_after else 0,
            again=_shown(instance) if error.status in _PASSING else None,
            leave=LOG_OUT if error.slug in _BARRED else None,
        )

    def _signed_out_page(self, error: Unauthorized, request_id: str) -> Page:
        return self._still, render(
            self._signed_out,
            request_id=request_id,
            status=error.status,
            title=error.title,
            detail=_SIGNED_OUT.get(error.reason, error.detail),
            embedded=self._embedded,
            sign_in=self._sign_in,
        )


def templates() -> Environment:
    """The templates of all pages, with the style and the script that are written into them."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
    )
    # Both are files of ours, and their hashes are what the policies of the pages let run.
    style, script = Markup(_text("pages.css")), Markup(_text("waking.js"))  # noqa: S704
    environment.globals.update(style=style, script=script)
    return environment


def still_headers(environment: Environment, *, form: bool = False) -> list[tuple[bytes, bytes]]:
    """
    The header fields of a page that runs no script.

    @param form: whether it has a form, which goes to ourselves; then it is framed by nobody.
    """
    return _headers(f"style-src {_hash(str(environment.globals['style']))}", form=form)


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text("utf-8")


def render(template: Template, **values: object) -> bytes:
    """A template with its values filled in."""
    # A detail may quote a client's bytes, lone surrogates included; they are no UTF-8.
    return template.render(values).encode("utf-8", "replace")


def _hash(content: str) -> str:
    digest = sha256(content.encode("utf-8")).digest()
    return f"'sha256-{b64encode(digest).decode('ascii')}'"


def _about(seconds: float) -> str:
    if seconds < 1:
        return "under a second"
    whole = round(seconds)
    return "about a second" if whole == 1 else f"about {whole} seconds"


def _headers(sources: str, *, form: bool = False) -> list[tuple[bytes, bytes]]:
    policy = f"default-src 'none'; {sources}; img-src data:; base-uri 'none'; " + (
        "form-action 'self'; frame-ancestors 'none'" if form else _UNFORMED
    )
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode("ascii")),
        (b"referrer-policy", b"same-origin"),
        (b"x-content-type-options", b"nosniff"),
    ]
