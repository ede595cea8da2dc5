"""Puts signing in and out together for one process, as MATRIX_LOGIN wants it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from twisted.internet.interfaces import IReactorTime
from twisted.web.client import Agent

from matrix.api import Answering
from matrix.auth import AuthApi, Handles, IGate
from matrix.directory import IDirectory
from matrix.errors import NotFound
from matrix.http import Exchange
from matrix.metrics import Registry
from matrix.model import Principal
from matrix.router.asking import query_of
from matrix.router.bearings import Compass
from matrix.router.engine import Engine
from matrix.router.idle import Periodic
from matrix.router.owners import this_router
from matrix.router.pages import local_target
from matrix.router.signin.attempts import Attempts
from matrix.router.signin.clerk import Clerk
from matrix.router.signin.desk import SignInDesk
from matrix.router.signin.greeting import Clean, Greeting, away, with_form, with_redirect
from matrix.router.signin.leave import Leaving
from matrix.router.signin.links import LinkDesk, SignInLinks
from matrix.router.signin.refresher import Refresher
from matrix.router.signin.sessions import BrowserSessions, signed_out
from matrix.router.signin.views import SIGN_IN, Views
from matrix.router.supplies import Supplies
from matrix.router.validate import Validator

PURGE_INTERVAL = 3600.0
"""Seconds between two clearances of sign-ins that have ended."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a browser without a session gets."""

    mode: Literal["builtin", "redirect", "off"]
    url: str = ""
    """The operator's page, to redirect to."""
    links: SignInLinks | None = None
    """Those that embedded mode has printed."""


@dataclass(frozen=True, slots=True)
class OwnSessions:
    """What sessions of our own cookie need."""

    api: AuthApi
    refresher: Refresher
    sessions: BrowserSessions


class Reception:
    """Whoever comes without a session is received here, and leaves here."""

    def __init__(
        self,
        clock: IReactorTime,
        registry: Registry,
        directory: IDirectory,
        login: Login,
        own: OwnSessions | None,
    ) -> None:
        """
        @param own: C{None} if the issuer cannot be asked for sessions.
        """
        self._clock = clock
        self._registry = registry
        self._directory = directory
        self._login = login
        self._own = own
        self._stops: list[Callable[[], None]] = []
        self.resolve: Callable[[bytes], Awaitable[Principal]] = _nobody
        """Whom our own cookie speaks for; see L{BrowserSessions.resolve}."""
        self.renew: Callable[[str], Awaitable[float | None]] | None = None
        """See L{BrowserSessions.renew}."""
        if own is not None:
            self.resolve, self.renew = own.sessions.resolve, own.sessions.renew
            purging = Periodic(clock, PURGE_INTERVAL, self._purge)
            purging.start()
            self._stops += [purging.stop, own.refresher.stop]

    def furnish(
        self, add: Callable[[str, str, Answering], None], validator: Validator, compass: Compass
    ) -> Greeting | None:
        """
        Answer below C{/-/}.

        @param add: takes a method, a path and who answers there.
        @return: what a browser without a session gets; C{None} for an error page.
        """
        login, own = self._login, self._own
        views = Views(embedded=login.links is not None)
        leaving = Leaving(
            None if own is None else own.api,
            None if own is None else own.sessions,
            self._directory.sessions,
            validator,
            compass,
            views,
        )
        leaving.register(add)
        self._stops.append(leaving.stop)
        clean = compass.places.without_query
        show: Answering = _no_page
        greeting: Greeting | None = None
        if login.mode == "redirect":
            show = _send_away(login.url, clean)
            greeting = with_redirect(login.url, clean)
        if own is not None:
            clerk = Clerk(own.api, own.sessions, self._clock)
            self._stops.append(clerk.stop)
            if login.mode == "builtin":
                attempts = Attempts(self._clock.seconds)
                identify = validator.principal
                desk = SignInDesk(clerk, attempts, views, leaving, identify, self._registry)
                desk.register(add)
                show, greeting = desk.show, with_form(views, clean)
            if login.links is not None:
                show = LinkDesk(login.links, clerk, leaving, self._registry, show).show
        add("GET", SIGN_IN, show)
        return greeting

    def stop(self) -> None:
        """Give up what is under way."""
        for stop in self._stops:
            stop()

    async def _purge(self) -> None:
        await self._directory.sign_ins.purge()


def open_reception(
    engine: Engine, supplies: Supplies, directory: IDirectory, gate: IGate
) -> Reception:
    """The reception that the settings want."""
    settings = engine.settings
    key, own = settings.supabase_key, None
    if key is not None or supplies.links is not None:  # embedded mode's issuer wants no key
        agent = Agent(engine.reactor)  # type: ignore[no-untyped-call]
        shown = "" if key is None else key.get_secret_value()
        api = AuthApi(agent, supplies.api_url, shown, engine.reactor)
        refresher = Refresher(
            directory.sign_ins, api, engine.reactor, time.time, this_router(), engine.registry
        )
        handles = Handles(supplies.master)
        sessions = BrowserSessions(gate, directory.sign_ins, handles, refresher, time.time)
        own = OwnSessions(api, refresher, sessions)
    usual: Literal["builtin", "off"] = "off" if own is None else "builtin"
    login = Login(settings.login or usual, settings.login_url or "", supplies.links)
    return Reception(engine.reactor, engine.registry, directory, login, own)


async def _nobody(handle: bytes) -> Principal:
    raise signed_out()


async def _no_page(exchange: Exchange) -> None:
    raise NotFound("Sign in where your tokens come from; there is no page here.")


def _send_away(login_url: str, clean: Clean) -> Answering:
    async def show(exchange: Exchange) -> None:
        target = local_target(query_of(exchange.request).get("next", "/"))
        location = away(login_url, exchange.request, clean(target.encode()))
        exchange.respond(303, [(b"Location", location), (b"Cache-Control", b"no-store")])

    return show
