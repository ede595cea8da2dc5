"""Whose tokens are believed: the issuers of the settings, their keys, and the gate with both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import DeferredList
from twisted.logger import Logger
from twisted.web.client import Agent

from matrix.auth import OUTCOMES, Issuer, JwksKeys, Policy, TokenGate, secret_key
from matrix.metrics import Registry, series
from matrix.router.supplies import Supplies, check_issuers, usual_keys
from matrix.settings import OtherIssuer, Settings

KEPT = "jwks.json"
"""The file in the state directory with the main issuer's keys."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_log = Logger()


class Trust:
    """The issuers' keys in one process, kept fresh for as long as it is open."""

    def __init__(self, reactor: Any, settings: Settings, registry: Registry) -> None:
        self._reactor = reactor
        self._settings = settings
        self._registry = registry
        self._agent = Agent(reactor)  # type: ignore[no-untyped-call]
        self._keys: list[JwksKeys] = []

    async def open(self, supplies: Supplies) -> TokenGate:
        """
        A gate for the tokens of all issuers. It waits for their keys, ten seconds at most;
        for none whose kept keys are so young that no revoked one can be among them.

        @raise ConfigurationError: an issuer is configured twice.
        """
        check_issuers(supplies.issuer, self._settings)
        gate = TokenGate(list(self._issuers(supplies)), time.time)
        asked = [(keys, keys.start()) for keys in self._keys]
        await DeferredList([answer for keys, answer in asked if not keys.fresh])
        self._registry.watch(series.TOKENS, lambda: gate.remembered)
        self._registry.watch(series.TOKEN_BYTES, lambda: gate.size)
        return gate

    def stop(self) -> None:
        """Ask the issuers no more."""
        for keys in self._keys:
            keys.stop()

    def _issuers(self, supplies: Supplies) -> Iterator[Issuer]:
        settings = self._settings
        given = settings.jwt_secret
        secret = None if given is None else secret_key(given.get_secret_value())
        keys = self._source(
            supplies.issuer, supplies.jwks_url, KEPT, may_be_empty=given is not None
        )
        policy = self._policy(supplies.issuer, settings.audience, settings.role)
        yield Issuer(policy, keys, secret)
        for other in settings.other_issuers:
            url = other.jwks_url or usual_keys(other.issuer)
            keys = self._source(other.issuer, url, kept_as(other))
            yield Issuer(self._policy(other.issuer, other.audience, other.role), keys)

    def _policy(self, issuer: str, audience: str, role: str) -> Policy:
        settings = self._settings
        return Policy(
            issuer,
            audience,
            role,
            leeway=settings.token_leeway,
            clients=settings.accepted_clients,
            anonymous=settings.anonymous_users,
            second_factor=settings.require_aal2,
        )

    def _source(self, issuer: str, url: str, file: str, *, may_be_empty: bool = False) -> JwksKeys:
        _warn_of_plain(url)
        kept = Path(self._settings.state_dir, file)
        keys = JwksKeys(self._agent, url, self._reactor, time.time, kept, may_be_empty=may_be_empty)
        self._keys.append(keys)
        for outcome in OUTCOMES:
            count = partial(keys.outcomes.__getitem__, outcome)
            self._registry.watch(series.JWKS_FETCHES, count, issuer, outcome)
        self._registry.watch(series.JWKS_AGE_SECONDS, partial(getattr, keys, "age"), issuer)
        return keys


def kept_as(issuer: OtherIssuer) -> str:
    """The file in the state directory with a further issuer's keys."""
    return f"jwks-{sha256(issuer.issuer.encode()).hexdigest()[:16]}.json"


def _warn_of_plain(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        _log.warn(
            "the keys of {url} are fetched without TLS: whoever is on the way can sign tokens "
            "that are accepted; use https",
            url=url,
        )
