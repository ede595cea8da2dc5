"""The local issuer's API: the parts of Supabase Auth's that Matrix and browsers use."""

from __future__ import annotations

import hmac
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jwt
from klein import Klein
from twisted.internet.task import deferLater

from matrix.testing._issuer_grants import Refusal, Session

if TYPE_CHECKING:
    from matrix.testing.issuer import LocalIssuer, LocalUser

API_VERSION = "2024-01-01"
"""The C{X-Supabase-Api-Version} from which errors have the shorter shape."""

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_CODE_TYPES = ("email", "magiclink")
"""The kinds of verification that a mailed code is for."""

# What is left to the rules below, which answer as Supabase does and by the issuer's own time.
_UNCHECKED: jwt.types.Options = {
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_sub": False,
}

WebRequest = Any
"""A C{twisted.web.server.Request}, which has no types of its own."""


class _OAuthRefusal(Refusal):
    """A refusal in the shape of RFC 6749 section 5.2, which a few answers still have."""


def _json(request: WebRequest, value: object, status: int = 200) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(value).encode()


def _parameters(request: WebRequest) -> dict[str, Any]:
    """The members of a JSON body that are strings or booleans: no other kind is used here."""
    try:
        given = dict(json.loads(request.content.read()).items())
    except (ValueError, AttributeError) as error:
        message = f"Could not parse request body as JSON: {error}"
        raise Refusal(400, "bad_json", message) from None
    return {name: value for name, value in given.items() if isinstance(value, str | bool)}


def _email(given: dict[str, Any]) -> str:
    email = str(given.get("email", "")).lower()
    if not _EMAIL.fullmatch(email):
        message = "Unable to validate email address: invalid format"
        raise Refusal(400, "validation_failed", message)
    return email


def _describe(user: LocalUser, signed_in_at: float) -> dict[str, Any]:
    since = datetime.fromtimestamp(signed_in_at, UTC).isoformat()
    return {
        "id": user.id,
        "aud": "authenticated",
        "role": "authenticated",
        "email": user.email,
        "email_confirmed_at": since,
        "phone": "",
        "confirmed_at": since,
        "last_sign_in_at": since,
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {},
        "identities": [],
        "created_at": since,
        "updated_at": since,
        "is_anonymous": False,
    }


class IssuerApi:
    """The routes, on top of one issuer's state."""

    app = Klein()

    def __init__(self, issuer: LocalIssuer, clock: Any) -> None:
        self._issuer = issuer
        self._clock = clock

    @app.handle_errors(Refusal)
    def refuse(self, request: WebRequest, failure: Any) -> bytes:
        refusal = failure.value
        if isinstance(refusal, _OAuthRefusal):
            body = {"error": refusal.code, "error_description": str(refusal)}
            return _json(request, body, refusal.status)
        request.setHeader(b"x-sb-error-code", refusal.code.encode())
        if request.getHeader(b"x-supabase-api-version") == API_VERSION.encode():
            request.setHeader(b"x-supabase-api-version", API_VERSION.encode())
            return _json(request, {"code": refusal.code, "message": str(refusal)}, refusal.status)
        body = {"code": refusal.status, "error_code": refusal.code, "msg": str(refusal)}
        return _json(request, body, refusal.status)

    @app.route("/.well-known/jwks.json", methods=["GET"])
    async def jwks(self, request: WebRequest) -> bytes:
        await self._enter(request, gated=False)
        request.setHeader(b"cache-control", self._issuer.cache_control.encode())
        if self._issuer.fault == "invalid":
            return b"<html>not a key set</html>"
        keys = [] if self._issuer.fault == "empty" else self._issuer.keys.listed()
        return _json(request, {"keys": keys})

    @app.route("/token", methods=["POST"])
    async def token(self, request: WebRequest) -> bytes:
        await self._enter(request)
        grants = {"password": self._password, "refresh_token": self._refresh, "pkce": self._pkce}
        grant = grants.get(request.args.get(b"grant_type", [b""])[0].decode("latin-1"))
        if grant is None:
            raise Refusal(400, "invalid_credentials", "unsupported_grant_type")
        return _json(request, self._session(grant(_parameters(request))))

    def _password(self, given: dict[str, Any]) -> Session:
        issuer = self._issuer
        if not given.get("email"):
            raise Refusal(400, "validation_failed", "missing email or phone")
        user = issuer.by_email(str(given["email"]))
        if user is not None and user.banned:
            raise Refusal(400, "user_banned", "User is banned")
        expected = issuer.password(user.name if user is not None else "")
        right = hmac.compare_digest(str(given.get("password", "")).encode(), expected.encode())
        if user is None or not right:
            raise Refusal(400, "invalid_credentials", "Invalid login credentials")
        return issuer.sessions.begin(user.name, "password")

    def _refresh(self, given: dict[str, Any]) -> Session:
        token = str(given.get("refresh_token", ""))
        if not token:
            raise _OAuthRefusal(400, "invalid_request", "refresh_token required")
        name = self._issuer.sessions.find(token).name
        if self._issuer.user(name).banned:
            raise Refusal(400, "user_banned", "Invalid Refresh Token: User Banned")
        return self._issuer.sessions.refresh(token)

    def _pkce(self, given: dict[str, Any]) -> Session:
        # Nobody signs in with a provider here, so no code was ever given out.
        if not (given.get("auth_code") and given.get("code_verifier")):
            message = "both auth code and code verifier should be non-empty"
            raise Refusal(400, "validation_failed", f"invalid request: {message}")
        message = "invalid flow state, no valid flow state found"
        raise Refusal(404, "flow_state_not_found", message)

    @app.route("/otp", methods=["POST"])
    async def otp(self, request: WebRequest) -> bytes:
        await self._enter(request)
        given = _parameters(request)
        if given.get("phone"):
            raise Refusal(400, "phone_provider_disabled", "Unsupported phone provider")
        if not given.get("email"):
            raise Refusal(400, "validation_failed", "One of email or phone must be set")
        email = _email(given)
        if self._issuer.by_email(email) is None:
            if given.get("create_user", True) is False:
                raise Refusal(422, "otp_disabled", "Signups not allowed for otp")
            self._issuer.add_user(email)
        self._issuer.sent(email, self._issuer.codes.send(email))
        return _json(request, {})

    @app.route("/verify", methods=["POST"])
    async def verify(self, request: WebRequest) -> bytes:
        await self._enter(request)
        given = _parameters(request)
        if not given.get("type"):
            raise Refusal(400, "validation_failed", "Verify requires a verification type")
        if bool(given.get("token")) == bool(given.get("token_hash")):
            message = "Verify requires either a token or a token hash"
            raise Refusal(400, "validation_failed", message)
        if given.get("token_hash"):
            raise Refusal(403, "otp_expired", "Email link is invalid or has expired")
        email = _email(given)
        user = self._issuer.by_email(email)
        if user is not None and user.banned:
            raise Refusal(403, "user_banned", "User is banned")
        right = given["type"] in _CODE_TYPES and self._issuer.codes.redeem(email, given["token"])
        if user is None or not right:
            raise Refusal(403, "otp_expired", "Token has expired or is invalid")
        return _json(request, self._session(self._issuer.sessions.begin(user.name, "otp")))

    @app.route("/user", methods=["GET"])
    async def user(self, request: WebRequest) -> bytes:
        await self._enter(request)
        user, _session = self._authenticate(request)
        return _json(request, _describe(user, self._issuer.now()))

    @app.route("/logout", methods=["POST"])
    async def logout(self, request: WebRequest) -> bytes:
        await self._enter(request)
        user, session = self._authenticate(request)
        scope = request.args.get(b"scope", [b"global"])[0].decode("latin-1")
        if scope not in ("global", "local", "others"):
            raise Refusal(400, "validation_failed", f'Unsupported logout scope "{scope}"')
        self._issuer.sessions.sign_out(user.name, session, scope)
        request.setResponseCode(204)
        return b""

    async def _enter(self, request: WebRequest, gated: bool = True) -> None:
        path = request.path.removeprefix(b"/auth/v1").decode("ascii", "replace")
        self._issuer.requests[path] += 1
        if self._issuer.fault == "slow":
            await deferLater(self._clock, self._issuer.delay)
        if self._issuer.fault == "error":
            raise Refusal(503, "unexpected_failure", "Service unavailable")
        key = (request.getHeader(b"apikey") or b"").decode("latin-1")
        if gated and self._issuer.api_key_wanted not in ("", key):
            raise Refusal(401, "no_authorization", "No API key found in request")

    def _session(self, session: Session) -> dict[str, Any]:
        issuer = self._issuer
        claims = issuer.claims(session.name, session)
        return {
            "access_token": issuer.mint(session.name, **claims),
            "token_type": "bearer",
            "expires_in": int(issuer.life),
            "expires_at": claims["exp"],
            "refresh_token": session.refresh_tokens[-1],
            "user": _describe(issuer.user(session.name), session.began),
        }

    def _authenticate(self, request: WebRequest) -> tuple[LocalUser, str]:
        field = request.getHeader(b"authorization") or b""
        scheme, _, token = field.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Refusal(401, "no_authorization", "This endpoint requires a valid Bearer token")
        claims = self._check(token)
        subject = claims.get("sub")
        if not subject:
            raise Refusal(403, "bad_jwt", "invalid claim: missing sub claim")
        if not _is_uuid(subject):
            raise Refusal(400, "bad_jwt", "invalid claim: sub claim must be a UUID")
        user = next((user for user in self._issuer.users.values() if user.id == subject), None)
        if user is None:
            raise Refusal(403, "user_not_found", "User from sub claim in JWT does not exist")
        session = claims.get("session_id")
        if not _is_uuid(session):
            raise Refusal(403, "bad_jwt", "invalid claim: session_id claim must be a UUID")
        if session in self._issuer.sessions.ended:
            message = "Session from session_id claim in JWT does not exist"
            raise Refusal(403, "session_not_found", message)
        if user.banned:
            raise Refusal(403, "user_banned", "User is banned")
        return user, str(session)

    def _check(self, token: bytes) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            key = self._issuer.keys.by_kid(header.get("kid"))
            if key is None and header["alg"] != "HS256":
                raise Refusal(403, "bad_jwt", "invalid JWT: unrecognized JWT kid")
            claims: dict[str, Any] = jwt.decode(
                token,
                self._issuer.legacy_secret if key is None else key.private.public_key(),
                algorithms=["HS256" if key is None else key.algorithm],
                options=_UNCHECKED,
            )
        except jwt.InvalidTokenError as error:
            raise Refusal(403, "bad_jwt", f"invalid JWT: {error}") from None
        if self._issuer.now() >= claims.get("exp", 0):
            raise Refusal(403, "bad_jwt", "invalid JWT: token is expired")
        return claims


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(UUID(value))
    except ValueError:
        return False
