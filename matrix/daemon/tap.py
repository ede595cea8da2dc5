"""C{twistd matrix-daemon}: options and composition."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from matrix.daemon.briefing import Briefing
from matrix.errors import ConfigurationError

TOKEN = "MATRIX_MACHINE_TOKEN"  # noqa: S105 -- the variable's name
_LISTEN = "unix:PATH or tcp:HOST:PORT to listen on"


def _install_reactor() -> None:
    """Run on uvloop, unless C{--reactor} chose already."""
    if "twisted.internet.reactor" not in sys.modules:
        import uvloop
        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop())  # type: ignore[no-untyped-call]


class Options(BaseOptions):
    """The command line of C{twistd matrix-daemon}."""

    synopsis = "[options]"
    longdesc = (
        "Serves one user's workspace over HTTP. Every call must bear the token that the "
        f"environment variable {TOKEN} holds; /healthz alone is open."
    )
    optParameters: ClassVar = [
        ["listen", "l", "tcp:127.0.0.1:8000", _LISTEN],
        ["data", "d", None, "The data directory; the files are in its folder 'workspace'"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _install_reactor()

    def postOptions(self) -> None:
        if not self["data"]:
            raise UsageError("--data DIR: say where the data are")


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    The daemon, ready to start.

    @raise SystemExit: something outside must change first; one line says what.
    """
    if reactor is None:
        from twisted.internet import reactor
    # Out of the environment before anything else runs: no child process is to inherit it.
    token = os.environ.pop(TOKEN, "")
    try:
        briefing = Briefing.taken_from(os.environ)
        return _composed(options, reactor, token, briefing)
    except ConfigurationError as error:
        raise SystemExit(f"twistd matrix-daemon: {error}") from None


def _composed(options: Options, reactor: Any, token: str, briefing: Briefing | None) -> IService:
    # Only now, so that --help stays fast.
    from matrix.daemon.service import MachineDaemon
    from matrix.net import bind, event_loop, parse_listen

    if not token:
        raise ConfigurationError(f"{TOKEN} is not set: give this machine a token")
    event_loop(reactor)
    listeners = bind(parse_listen(options["listen"]))
    data = Path(options["data"]).absolute()
    return MachineDaemon(reactor, data, token, listeners, briefing)
