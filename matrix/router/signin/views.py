"""The pages of signing in and out; all of them work without JavaScript."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from matrix.router.pages import LOG_OUT, Page, local_target, render, still_headers, templates
from matrix.router.signin.troubles import Trouble

SIGN_IN: Final = "/-/signin"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a form brings along and shows again."""

    target: str = "/"
    """Where to go on after it, on our own origin."""
    email: str = ""


class Views:
    """Renders the pages from templates that are compiled once, at start-up."""

    def __init__(self, embedded: bool = False) -> None:
        """
        @param embedded: whether the users are embedded mode's own.
        """
        self._embedded = embedded
        environment = templates()
        self._headers = [
            *still_headers(environment, form=True),
            (b"cache-control", b"no-store"),
        ]
        self._sign_in = environment.get_template("sign_in.html")
        self._code = environment.get_template("sign_in_code.html")
        self._log_out = environment.get_template("log_out.html")

    def sign_in(
        self, request_id: str, wanted: Wanted, trouble: Trouble | None = None, lead: str = ""
    ) -> Page:
        """
        The form with address and password.

        @param trouble: why the last attempt did not succeed.
        @param lead: why there is this form, if not for the obvious reason.
        """
        field = trouble.field if trouble is not None else ""
        return self._headers, render(
            self._sign_in,
            request_id=request_id,
            action=SIGN_IN,
            next=local_target(wanted.target),
            email=wanted.email,
            message=trouble.text if trouble is not None else "",
            wrong=field,
            focus=field or ("password" if wanted.email else "email"),
            lead=lead,
            embedded=self._embedded,
        )

    def code(self, request_id: str, wanted: Wanted, trouble: Trouble | None = None) -> Page:
        """The form for a code that was mailed, if there is such an account."""
        target = local_target(wanted.target)
        return self._headers, render(
            self._code,
            request_id=request_id,
            action=SIGN_IN,
            next=target,
            email=wanted.email,
            message=trouble.text if trouble is not None else "",
            wrong=trouble.field if trouble is not None else "",
            back=f"{SIGN_IN}?next={quote(target, safe='/')}",
        )

    def log_out(self, request_id: str, *, done: bool) -> Page:
        """The button that signs out; or that it was pressed."""
        return self._headers, render(
            self._log_out, request_id=request_id, action=LOG_OUT, done=done
        )
