"""A local token issuer that speaks Supabase Auth's dialect: for embedded mode and for tests.

Everything it does is described in facts/supabase.md. It mints good tokens and, for tests,
every kind of bad one; its HTTP side can be made to fail.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from uuid import NAMESPACE_DNS, uuid4, uuid5

from matrix.errors import ConfigurationError
from matrix.model import UserId, user_id
from matrix.testing._issuer_grants import Codes, Session, Sessions
from matrix.testing._issuer_http import IssuerServer
from matrix.testing._issuer_keys import CURRENT, KeyRing, SigningKey, read_private, write_private

ISSUER = "http://localhost/auth/v1"
"""The C{iss} of local tokens. A name, not an address: tokens outlive the server's port."""

TOKEN_LIFE = 3600.0
"""Seconds, as Supabase's default."""

CACHE_CONTROL = "public, max-age=600"
"""As Supabase Auth sends it with the key set (facts/supabase.md section 2)."""

API_KEY_LIFE = 10 * 365 * 86400.0
"""Seconds: Supabase's legacy API keys live for ten years."""

USERS = ("alice", "bob")

_USER_NAMESPACE = uuid5(NAMESPACE_DNS, "users.matrix.localhost")
_HMAC = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}

KeyState = Literal["current", "standby", "previous"]


class Fault(StrEnum):
    """What may be wrong with the issuer's HTTP side."""

    NONE = "none"
    ERROR = "error"
    """Every answer is a 503."""
    SLOW = "slow"
    """Every answer waits for C{LocalIssuer.delay} seconds."""
    EMPTY = "empty"
    """The key set has no keys, as that of a project with a symmetric secret only."""
    INVALID = "invalid"
    """The key set is no JSON."""


@dataclass
class LocalUser:
    """A user of the local issuer."""

    name: str
    id: UserId
    email: str
    banned: bool = False

    @classmethod
    def named(cls, name: str) -> LocalUser:
        """
        The user of this name, with the same id wherever and whenever it is made.

        @param name: may be an e-mail address.
        """
        email = name if "@" in name else f"{name}@localhost"
        return cls(name, user_id(str(uuid5(_USER_NAMESPACE, name))), email)


def _encode(part: bytes) -> bytes:
    return urlsafe_b64encode(part).rstrip(b"=")


def _encode_json(value: Mapping[str, Any]) -> bytes:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


class LocalIssuer:
    """
    An issuer whose keys live in one directory. L{open} it to mint tokens; L{listen} serves
    its HTTP side on loopback.
    """

    def __init__(
        self,
        keys: KeyRing,
        secret: bytes,
        mail: Path,
        *,
        issuer: str = ISSUER,
        now: Callable[[], float] = time.time,
        life: float = TOKEN_LIFE,
    ) -> None:
        """
        @param secret: the legacy HS256 secret, from which passwords are derived as well.
        @param mail: the directory that stands for everybody's mailbox.
        @param now: the unix time, seconds.
        @param life: seconds for which tokens are valid.
        """
        self.keys = keys
        self.legacy_secret = secret
        self.issuer = issuer
        self.life = life
        self.now = now
        self.users = {name: LocalUser.named(name) for name in USERS}
        self.sessions = Sessions(now)
        """Those begun over HTTP; a token that was minted has a session that is not here."""
        self.codes = Codes(mail, now)
        self.sent: Callable[[str, str], None] = lambda email, code: None
        """Called with an address and the code that was mailed to it."""
        self.api_key_wanted = ""
        """The C{apikey} without which only the key set is served, as Supabase's gateway has it;
        none is needed if this is empty."""
        self.requests: Counter[str] = Counter()
        """How often each path was asked for."""
        self.cache_control = CACHE_CONTROL
        """What is sent with the key set."""
        self.fault = Fault.NONE
        self.delay = 1.0
        """Seconds that L{Fault.SLOW} takes."""
        self._server: IssuerServer | None = None

    @classmethod
    def open(cls, directory: Path, **options: Any) -> LocalIssuer:
        """
        The issuer of a directory, which is made, with keys of mode 0600, if need be. Several
        processes may have it open; no server need be running.

        @param options: C{issuer}, C{now} and C{life}.
        @raise ConfigurationError: a file in it is unusable.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "legacy-secret"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(48).encode())
        return cls(KeyRing(directory), read_private(path), directory / "mail", **options)

    def user(self, name: str) -> LocalUser:
        """
        @raise ConfigurationError: there is no such user; names those there are.
        """
        try:
            return self.users[name]
        except KeyError:
            known = ", ".join(sorted(self.users))
            raise ConfigurationError(
                f"the local issuer has no user {name!r}, only {known}"
            ) from None

    def add_user(self, name: str) -> LocalUser:
        """Have one more user, for as long as this object lives."""
        return self.users.setdefault(name, LocalUser.named(name))

    def password(self, name: str) -> str:
        """A user's password: the same at each start, and another in each directory."""
        digest = hmac.digest(self.legacy_secret, b"password:" + name.encode(), "sha256")
        return _encode(digest[:12]).decode()

    def code(self, name: str) -> str:
        """
        The latest one-time code that a user was mailed, by whichever process.

        @raise FileNotFoundError: none was.
        """
        return self.codes.received(self.user(name).email)

    def by_email(self, email: str) -> LocalUser | None:
        """The user with this address, however its letters are written."""
        address = email.lower()
        return next((user for user in self.users.values() if user.email == address), None)

    def claims(self, name: str, session: Session | None = None) -> dict[str, Any]:
        """The claims of a session; of a new sign-in with a password, if it is C{None}."""
        user = self.user(name)
        now = int(self.now())
        method, since = (session.method, int(session.began)) if session else ("password", now)
        return {
            "iss": self.issuer,
            "sub": user.id,
            "aud": "authenticated",
            "exp": int(now + self.life),
            "iat": now,
            "email": user.email,
            "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {},
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": method, "timestamp": since}],
            "session_id": session.id if session is not None else str(uuid4()),
            "is_anonymous": False,
        }

    def mint(
        self,
        user: str,
        *,
        life: float | None = None,
        signed_by: KeyState = "current",
        alg: str | None = None,
        secret: bytes | None = None,
        header: Mapping[str, Any] | None = None,
        without: Collection[str] = (),
        **claims: Any,
    ) -> str:
        """
        An access token of a user, good unless told otherwise.

        @param life: seconds from now to C{exp}; negative for an expired token.
        @param signed_by: the state of the key that signs.
        @param alg: another algorithm than that key's: C{none}, or C{HS256} and its
            siblings, which sign with C{secret}.
        @param secret: for C{HS...}; the public key's PEM (key confusion) if C{None}.
        @param header: members of the header to set, or with C{None} to leave out.
        @param without: claims to leave out.
        @param claims: claims to set or replace.
        """
        payload = self.claims(user) | claims
        if life is not None and "exp" not in claims:
            payload["exp"] = int(self.now() + life)
        for name in without:
            payload.pop(name, None)
        return self._sign(payload, self.keys[signed_by], alg, secret, header or {})

    def api_key(self, role: str = "anon") -> str:
        """A legacy API key, C{anon} or C{service_role}: a valid JWT that is nobody's token."""
        now = int(self.now())
        payload = {"iss": "supabase", "ref": "local", "role": role}
        dates = {"iat": now, "exp": int(now + API_KEY_LIFE)}
        key = self.keys[CURRENT]
        return self._sign(payload | dates, key, "HS256", self.legacy_secret, {"kid": None})

    def _sign(
        self,
        payload: Mapping[str, Any],
        key: SigningKey,
        alg: str | None,
        secret: bytes | None,
        header: Mapping[str, Any],
    ) -> str:
        algorithm = alg or key.algorithm
        merged = {"alg": algorithm, "typ": "JWT", "kid": key.kid} | dict(header)
        members = {name: value for name, value in merged.items() if value is not None}
        message = _encode_json(members) + b"." + _encode_json(payload)
        if algorithm in _HMAC:
            signature = hmac.digest(secret or key.public_pem, message, _HMAC[algorithm])
        elif algorithm.lower() == "none":
            signature = b""
        else:
            signature = key.sign(message)
        return (message + b"." + _encode(signature)).decode("ascii")

    @property
    def url(self) -> str:
        """
        Where L{listen} serves.

        @raise RuntimeError: it does not.
        """
        if self._server is None:
            raise RuntimeError("the issuer is not listening")
        return self._server.url

    @property
    def jwks_url(self) -> str:
        """Where its key set is served."""
        return f"{self.url}/.well-known/jwks.json"

    async def listen(self, reactor: Any, port: int = 0) -> str:
        """
        Serve over HTTP on loopback.

        @param port: 0 for any free one.
        @return: the URL, without a slash at the end.
        """
        self._server = IssuerServer(self, reactor)
        return self._server.listen(port)

    async def close(self) -> None:
        """Stop serving, connections included."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.close()
