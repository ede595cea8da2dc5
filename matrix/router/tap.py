"""C{twistd matrix}: options and composition."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.python.usage import Options as BaseOptions

from matrix.errors import ConfigurationError


class Options(BaseOptions):
    """The command line of C{twistd matrix}."""

    synopsis = "[options]"
    longdesc = (
        "One public door to every user's own machine: validates, wakes, proxies, suspends. "
        "Every setting and its environment variable: .env.example."
    )
    optFlags: ClassVar = [
        [
            "embedded",
            "e",
            "Even if DATABASE_URL is set: bring along PostgreSQL, issuer and certificate",
        ]
    ]
    optParameters: ClassVar = [
        ["env-file", None, None, "Read settings from this file"],
        ["listen", "l", None, "HOST:PORT of the public TLS listener"],
        ["internal", "i", None, "HOST:PORT of the internal listener"],
        ["idle", None, None, "Seconds without use after which a machine is suspended"],
        ["workers", "w", None, "Processes that serve the public listener"],
        ["state-dir", None, None, "Where embedded mode keeps everything it makes"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _install_reactor()


def _install_reactor() -> None:
    """Run on uvloop, unless C{--reactor} chose already."""
    if "twisted.internet.reactor" not in sys.modules:
        import uvloop
        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop())  # type: ignore[no-untyped-call]


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    The router, its sockets bound and its certificate checked, ready to start.

    @raise SystemExit: the operator must change something first; one line says what.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        return _composed(options, reactor)
    except ConfigurationError as error:
        raise SystemExit(f"twistd matrix: {error}") from None


def _composed(options: Options, reactor: Any) -> IService:
    # Only now, so that --help stays fast.
    from matrix.net import bind, event_loop, parse_listen, server_context
    from matrix.router.embedded import Embedded, check_loopback
    from matrix.router.service import Router
    from matrix.router.supplies import from_settings
    from matrix.router.workers.supervisor import Supervisor
    from matrix.settings import load

    event_loop(reactor)
    settings = load(
        options["env-file"],
        listen=options["listen"],
        internal=options["internal"],
        idle_timeout=options["idle"],
        state_dir=options["state-dir"],
        workers=options["workers"],
        database_url="" if options["embedded"] else None,
    )
    service = Router if settings.workers == 1 else Supervisor
    public = parse_listen(settings.listen or ("localhost:8443" if settings.embedded else ":443"))
    internal = parse_listen(settings.internal or "127.0.0.1:9443")
    embedded = None
    if settings.embedded:
        check_loopback("MATRIX_LISTEN", public.host)
        check_loopback("MATRIX_INTERNAL", internal.host)
        embedded = Embedded(reactor, settings)
        settings = embedded.settle(settings)
        tls = server_context(embedded.cert, embedded.key)
    else:
        from_settings(settings)
        tls = server_context(Path(str(settings.tls_cert)), Path(str(settings.tls_key)))
    sockets = bind(public, queues=settings.workers), bind(internal)
    return service(reactor, settings, embedded, *sockets, tls)
