"""The local issuer's HTTP side: the parts of Supabase Auth's API that Matrix and browsers use."""

from __future__ import annotations

import hmac
import json
import secrets
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import jwt
from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.server import Site

from matrix.model import UserId

if TYPE_CHECKING:
    from matrix.testing.issuer import LocalIssuer, LocalUser

CACHE_CONTROL = b"public, max-age=600"
"""As Supabase Auth sends it with the key set (facts/supabase.md section 2)."""

API_VERSION = "2024-01-01"
"""The C{X-Supabase-Api-Version} from which errors have the shorter shape."""

WebRequest = Any
"""A C{twisted.web.server.Request}, which has no types of its own."""


class _Refusal(Exception):
    """An answer of the error table in facts/supabase.md section 4."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def _json(request: WebRequest, value: object, status: int = 200) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(value).encode()


def _describe(user: LocalUser) -> dict[str, Any]:
    return {
        "id": user.id,
        "aud": "authenticated",
        "role": "authenticated",
        "email": user.email,
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {},
        "identities": [],
        "is_anonymous": False,
    }


class IssuerApi:
    """The routes, on top of one issuer's state."""

    app = Klein()

    def __init__(self, issuer: LocalIssuer, clock: Any) -> None:
        self._issuer = issuer
        self._clock = clock

    @app.handle_errors(_Refusal)
    def refuse(self, request: WebRequest, failure: Any) -> bytes:
        refusal = failure.value
        if request.getHeader(b"x-supabase-api-version") == API_VERSION.encode():
            return _json(request, {"code": refusal.code, "message": str(refusal)}, refusal.status)
        body = {"code": refusal.status, "error_code": refusal.code, "msg": str(refusal)}
        return _json(request, body, refusal.status)

    @app.route("/.well-known/jwks.json", methods=["GET"])
    async def jwks(self, request: WebRequest) -> bytes:
        await self._enter(request)
        request.setHeader(b"cache-control", CACHE_CONTROL)
        if self._issuer.fault == "invalid":
            return b"<html>not a key set</html>"
        keys = [] if self._issuer.fault == "empty" else self._issuer.keys.listed()
        return _json(request, {"keys": keys})

    @app.route("/token", methods=["POST"])
    async def token(self, request: WebRequest) -> bytes:
        await self._enter(request)
        if request.args.get(b"grant_type") != [b"password"]:
            raise _Refusal(400, "validation_failed", "unsupported_grant_type")
        try:
            given = json.loads(request.content.read())
            email, password = str(given["email"]), str(given["password"])
        except (ValueError, KeyError, TypeError):
            raise _Refusal(400, "bad_json", "Could not parse request body as JSON") from None
        issuer = self._issuer
        user = next((u for u in issuer.users.values() if u.email == email), None)
        expected = issuer.password(user.name if user is not None else "")
        right = hmac.compare_digest(password.encode(), expected.encode())
        if user is None or not right:
            raise _Refusal(400, "invalid_credentials", "Invalid login credentials")
        if user.banned:
            raise _Refusal(400, "user_banned", "User is banned")
        return _json(request, self._session(user))

    @app.route("/user", methods=["GET"])
    async def user(self, request: WebRequest) -> bytes:
        await self._enter(request)
        user, _session = self._authenticate(request)
        return _json(request, _describe(user))

    @app.route("/logout", methods=["POST"])
    async def logout(self, request: WebRequest) -> bytes:
        await self._enter(request)
        user, session = self._authenticate(request)
        scope = request.args.get(b"scope", [b"global"])[0]
        if scope not in (b"global", b"local", b"others"):
            raise _Refusal(400, "validation_failed", f"Unsupported logout scope {scope!r}")
        own = {known for known, name in self._issuer.sessions.items() if name == user.name}
        ended = {session} if scope == b"local" else own | {session}
        if scope == b"others":
            ended -= {session}
        self._issuer.ended |= ended
        for known in ended:
            self._issuer.sessions.pop(known, None)
        request.setResponseCode(204)
        return b""

    async def _enter(self, request: WebRequest) -> None:
        self._issuer.requests[request.path.decode("ascii", "replace")] += 1
        if self._issuer.fault == "slow":
            await deferLater(self._clock, self._issuer.delay)
        if self._issuer.fault == "error":
            raise _Refusal(503, "unexpected_failure", "Service unavailable")

    def _session(self, user: LocalUser) -> dict[str, Any]:
        session = str(uuid4())
        claims = self._issuer.claims(user.name, session)
        self._issuer.sessions[session] = user.name
        return {
            "access_token": self._issuer.mint(user.name, **claims),
            "token_type": "bearer",
            "expires_in": int(self._issuer.life),
            "expires_at": claims["exp"],
            "refresh_token": secrets.token_urlsafe(9),
            "user": _describe(user),
        }

    def _authenticate(self, request: WebRequest) -> tuple[LocalUser, str]:
        field = request.getHeader(b"authorization") or b""
        scheme, _, token = field.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise _Refusal(401, "no_authorization", "This endpoint requires a Bearer token")
        claims = self._check(token)
        session = str(claims.get("session_id", ""))
        by_id = {user.id: user for user in self._issuer.users.values()}
        user = by_id.get(UserId(str(claims.get("sub", ""))))
        if user is None:
            raise _Refusal(403, "user_not_found", "User from sub claim in JWT does not exist")
        if session in self._issuer.ended:
            raise _Refusal(403, "session_not_found", "Session from session_id claim is not found")
        if user.banned:
            raise _Refusal(403, "user_banned", "User is banned")
        return user, session

    def _check(self, token: bytes) -> dict[str, Any]:
        try:
            key = self._issuer.keys.by_kid(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise _Refusal(403, "bad_jwt", "invalid JWT: unrecognized JWT kid")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.private.public_key(),
                algorithms=[key.algorithm],
                options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            raise _Refusal(403, "bad_jwt", f"invalid JWT: {error}") from None
        if self._issuer.now() >= claims.get("exp", 0):
            raise _Refusal(403, "bad_jwt", "invalid JWT: token is expired")
        return claims


class _Connections(WrappingFactory):
    """Knows the open connections, so that closing can end them."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._empty: Deferred[None] | None = None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        if self._empty is not None and not self.protocols:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def abort(self) -> Deferred[None]:
        """End all connections at once; fires when they are gone."""
        if not self.protocols:
            return succeed(None)
        self._empty = Deferred()
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()
        return self._empty if self._empty is not None else succeed(None)


class IssuerServer:
    """The API on a loopback port."""

    def __init__(self, issuer: LocalIssuer, reactor: Any) -> None:
        self._reactor = reactor
        resource = IssuerApi(issuer, reactor).app.resource()
        site = Site(resource, reactor=reactor)  # type: ignore[no-untyped-call]
        site.noisy = False
        self._connections = _Connections(site)
        self._port: Any = None
        self.url = ""

    def listen(self, port: int) -> str:
        self._port = self._reactor.listenTCP(port, self._connections, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"
        return self.url

    async def close(self) -> None:
        if self._port is not None:
            await self._port.stopListening()
            await self._connections.abort()
