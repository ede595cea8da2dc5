"""Supabase Auth's REST API, as far as sign-in needs it: grants, one-time codes, sign-out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

API_VERSION = b"2024-01-01"
"""From this version on, errors have their code in C{code} (facts/supabase.md section 4)."""

API_TIMEOUT = 10.0
"""Seconds for one call, answer included: a person waits for it."""

MAX_ANSWER = 256 * 1024
"""Bytes. A session has some 4 KB; most of a long one are a user's metadata."""

DEFAULT_LIFE = 3600.0
"""Seconds that an access token lives if the answer does not say: Supabase's default."""

LONGEST_WAIT = 3600.0
"""Seconds of C{Retry-After} that are believed."""

_ENDED = frozenset({"session_not_found", "session_expired", "user_not_found", "user_banned"})
"""Codes that say that a session, or its user, is no more. A refused API key is none of them."""


_REFUSALS = frozenset({400, 401, 403, 422, 429})
"""What the API refuses with; its gateway gives no code with them."""


class ApiUnreachable(Exception):
    """The sign-in service cannot be reached, is in trouble, or talks nonsense: try again later."""


class ApiRefusal(Exception):
    """The sign-in service understood, and refused."""

    def __init__(self, status: int, code: str, retry_after: float | None = None) -> None:
        """
        @param code: Supabase's error code; empty if there was none.
        @param retry_after: seconds, if the answer said so.
        """
        super().__init__(f"status {status}, code {code or 'unknown'}")
        self.status = status
        self.code = code
        self.retry_after = retry_after

    @property
    def spends_refresh(self) -> bool:
        """Whether it says, of a refresh, that its token gets nothing any more."""
        return self.ends_session or (self.status == 400 and bool(self.code))

    @property
    def ends_session(self) -> bool:
        """Whether it says that the session, or its user, is no more."""
        return self.status in (401, 403) and self.code in _ENDED


@dataclass(frozen=True, slots=True)
class Grant:
    """What a sign-in or a refresh gives: a token, and what gets the next one."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    life: float
    """Seconds from now for which the access token is good."""


class AuthApi:
    """
    The API below one address.

    Each call ends within L{API_TIMEOUT} and raises L{ApiRefusal} or L{ApiUnreachable}. What
    was sent, passwords and tokens, is in neither.
    """

    def __init__(self, agent: IAgent, url: str, key: str, clock: IReactorTime) -> None:
        """
        @param url: without a slash at the end, such as C{https://REF.supabase.co/auth/v1}.
        @param key: the project's publishable (or anon) key; empty for none.
        """
        self._agent = agent
        self._url = url.rstrip("/")
        self._key = key
        self._clock = clock

    def __repr__(self) -> str:
        return f"<AuthApi at {self._url}>"

    async def password(self, email: str, password: str) -> Grant:
        """Sign in with an e-mail address and a password."""
        given = {"email": email, "password": password}
        return _grant(await self._post("token?grant_type=password", given))

    async def send_code(self, email: str) -> None:
        """Have a one-time code mailed to a user there is; nobody is registered."""
        await self._post("otp", {"email": email, "create_user": False})

    async def verify_code(self, email: str, code: str) -> Grant:
        """Sign in with a code that was mailed."""
        given = {"type": "email", "email": email, "token": code}
        return _grant(await self._post("verify", given))

    async def refresh(self, refresh_token: str) -> Grant:
        """The session's next tokens. The refresh token is used up, whether we get the answer
        or not."""
        given = {"refresh_token": refresh_token}
        return _grant(await self._post("token?grant_type=refresh_token", given))

    async def logout(self, access_token: str) -> None:
        """End the token's session, and no other of its user."""
        await self._call(b"POST", "logout?scope=local", access_token)

    async def user(self, access_token: str) -> None:
        """
        Ask whether the token's session still is.

        @raise ApiRefusal: whether it is no more, L{ApiRefusal.ends_session} says.
        """
        await self._call(b"GET", "user", access_token)

    async def _post(self, path: str, given: Mapping[str, object]) -> Mapping[str, Any]:
        return await self._call(b"POST", path, body=json.dumps(given).encode())

    async def _call(
        self, method: bytes, path: str, token: str = "", body: bytes | None = None
    ) -> Mapping[str, Any]:
        asking = Deferred.fromCoroutine(self._ask(method, path, token, body))
        asking.addTimeout(API_TIMEOUT, self._clock)
        try:
            status, headers, answer = await asking
        except (CancelledError, ApiUnreachable):
            raise
        except DeferredTimeout:
            raise ApiUnreachable(f"no answer within {API_TIMEOUT:g} s") from None
        except Exception as error:  # noqa: BLE001 -- treq's failures are of many families
            # Of the error only its kind: its text may hold what was sent.
            raise ApiUnreachable(f"it cannot be asked: {type(error).__name__}") from None
        return _judged(status, headers, answer)

    async def _ask(
        self, method: bytes, path: str, token: str, body: bytes | None
    ) -> tuple[int, Headers, bytes]:
        headers = Headers({b"accept": [b"application/json"], b"user-agent": [b"matrix"]})
        headers.addRawHeader(b"x-supabase-api-version", API_VERSION)
        if self._key:
            headers.addRawHeader(b"apikey", self._key.encode())
        if token:
            headers.addRawHeader(b"authorization", b"Bearer " + token.encode())
        if body is not None:
            headers.addRawHeader(b"content-type", b"application/json")
        # One client for each call: cookies that one user's answer sets must not go with another's.
        response = await HTTPClient(self._agent).request(
            method.decode(),
            f"{self._url}/{path}",
            headers=headers,
            data=body,
            allow_redirects=False,
            reactor=self._clock,  # type: ignore[arg-type] # only its time is used
        )
        answer = bytearray()

        def collect(data: bytes) -> None:
            answer.extend(data)
            if len(answer) > MAX_ANSWER:
                raise ApiUnreachable(f"an answer of more than {MAX_ANSWER} bytes")

        await response.collect(collect)
        return response.code, response.headers, bytes(answer)


def _judged(status: int, headers: Headers, answer: bytes) -> Mapping[str, Any]:
    """
    The members of a good answer.

    @raise ApiRefusal, ApiUnreachable: it is none.
    """
    try:
        found = json.loads(answer) if answer else {}
    except ValueError:
        found = None
    members = found if isinstance(found, dict) else None
    if status in (200, 204):
        if members is None:
            raise ApiUnreachable("its answer is no JSON object")
        return members
    code = _code(members or {})
    if status not in _REFUSALS and not (400 <= status < 500 and code):
        # No API answers so: it is in trouble, or something else is at its address.
        raise ApiUnreachable(f"status {status}")
    raise ApiRefusal(status, code, _retry_after(headers))


def _code(members: Mapping[str, Any]) -> str:
    """An error's code, in any of the shapes that there are."""
    for name in ("error_code", "code", "error"):
        code = members.get(name)
        if isinstance(code, str) and code.isascii() and code.isprintable():
            return code[:100]
    return ""


def _retry_after(headers: Headers) -> float | None:
    text = (headers.getRawHeaders(b"retry-after") or [b""])[0]
    return min(float(text), LONGEST_WAIT) if text.isdigit() else None


def _grant(members: Mapping[str, Any]) -> Grant:
    access, refresh = members.get("access_token"), members.get("refresh_token")
    life = members.get("expires_in")
    if not (isinstance(access, str) and isinstance(refresh, str) and access and refresh):
        raise ApiUnreachable("its answer has no tokens")
    if not isinstance(life, int | float) or isinstance(life, bool) or not 0 < life < 1e9:
        life = DEFAULT_LIFE
    return Grant(access, refresh, float(life))
