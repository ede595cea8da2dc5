"""Makes the provider that the settings ask for."""

from __future__ import annotations

from typing import Any

from twisted.web.client import Agent, HTTPConnectionPool, _HTTP11ClientFactory

from matrix.errors import ConfigurationError
from matrix.machines._fly import FlyClient
from matrix.machines._fly_http import FlyHttp
from matrix.machines._fly_plans import TEMPLATE, FlyPlace, FlyPlans
from matrix.machines._fly_provider import FlyProvider
from matrix.machines._fly_rates import RateLimiter
from matrix.machines._local import LocalProvider
from matrix.machines.interfaces import IProvider, Paces
from matrix.settings import Settings

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection to Fly's API."""

KEPT_CONNECTIONS = 64
"""To Fly's API, unused: a crowd that wakes needs many at once, and each takes a handshake."""

KEPT_SECONDS = 30
"""Less than what proxies commonly close unused connections after."""


class _QuietFactory(_HTTP11ClientFactory):
    """Says nothing of each connection to Fly that begins or ends."""

    noisy = False


def open_provider(settings: Settings, reactor: Any, paces: Paces | None = None) -> IProvider:
    """
    The one of MATRIX_PROVIDER.

    @param paces: shared with all processes that use the same machines.
    @raise ConfigurationError: its settings cannot be used; says which.
    """
    if settings.provider == "local":
        return LocalProvider(settings.state_dir, settings.local_command, reactor)
    plans = fly_plans(settings)
    assert settings.fly_token is not None  # the settings are checked
    pool = HTTPConnectionPool(reactor)  # type: ignore[no-untyped-call]
    pool._factory = _QuietFactory
    pool.maxPersistentPerHost = KEPT_CONNECTIONS
    pool.cachedConnectionTimeout = KEPT_SECONDS
    agent = Agent(reactor, connectTimeout=CONNECT_TIMEOUT, pool=pool)  # type: ignore[no-untyped-call]
    limiter = RateLimiter(reactor, restarted=True)
    token = settings.fly_token.get_secret_value()
    http = FlyHttp(agent, reactor, settings.fly_api, token, limiter, paces)
    return FlyProvider(FlyClient(http), plans, reactor, let_go=pool.closeCachedConnections)


def fly_plans(settings: Settings) -> FlyPlans:
    """
    What machines at Fly are to be like.

    @raise ConfigurationError: a setting is missing, or the template cannot be used.
    """
    app, image, regions = settings.fly_app, settings.fly_image, settings.fly_places
    if app is None or image is None or not regions:
        raise ConfigurationError(
            "MATRIX_FLY_APP, MATRIX_FLY_IMAGE, MATRIX_FLY_REGIONS: set them, so that it is clear "
            "what machines are made of, and where"
        )
    template = settings.fly_template or TEMPLATE
    sizes = settings.fly_spare_sizes
    return FlyPlans(FlyPlace(settings.fly_org, app, regions, image, template, sizes))
