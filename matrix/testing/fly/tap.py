"""C{twistd matrix-fly}: options and composition."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from matrix.errors import ConfigurationError


def _install_reactor() -> None:
    """Run on uvloop, unless C{--reactor} chose already."""
    if "twisted.internet.reactor" not in sys.modules:
        import uvloop
        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop())  # type: ignore[no-untyped-call]


class Options(BaseOptions):
    """The command line of C{twistd matrix-fly}."""

    synopsis = "[options]"
    longdesc = (
        "Stands in for Fly's Machines API on loopback; its machines are local processes, each "
        "with a loopback address of its own. See docs/emulator.md."
    )
    optFlags: ClassVar = [
        ["keep-machines", "k", "Leave the machines' processes running at the end"],
        ["check-answers", "c", "Check each answer against Fly's description"],
    ]
    optParameters: ClassVar = [
        ["listen", "l", "127.0.0.1:4280", "HOST:PORT of the API, on loopback"],
        ["state-dir", "d", ".matrix-fly", "Where it keeps everything"],
        ["program", "p", "daemon", "What machines run: daemon, tiny or a command"],
        ["token", "t", None, "The API token; by default $FLY_API_TOKEN, or 'fly-emulator'"],
        ["org", "o", "personal", "The token's organization"],
        ["network", "n", None, "Loopback network of the machines' addresses"],
        ["seed", None, 0, "What chance is made of", int],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["set"] = []
        _install_reactor()

    def opt_set(self, text: str) -> None:
        """NAME=VALUE: a timing, as resume=0.3 or start=0.5-2, or a switch; may be repeated"""
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--set {text}: write NAME=VALUE")
        self["set"].append((name, value))

    opt_s = opt_set


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    The emulator, ready to start.

    @raise SystemExit: something must change first; one line says what.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        return _composed(options, reactor)
    except ConfigurationError as error:
        raise SystemExit(f"twistd matrix-fly: {error}") from None


def _composed(options: Options, reactor: Any) -> IService:
    # Only now, so that --help stays fast.
    try:
        from matrix.testing.fly.service import EmulatorService
        from matrix.testing.fly.tuning import Tuning
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: pip install 'matrix-door[test]'"
        ) from None

    tuning = Tuning()
    for name, value in options["set"]:
        tuning.set(name, value)
    token = options["token"] or os.environ.get("FLY_API_TOKEN") or "fly-emulator"
    return EmulatorService(
        reactor,
        *(Path(options["state-dir"]), options["listen"], options["program"]),
        network=options["network"],
        keep_machines=bool(options["keep-machines"]),
        tuning=tuning,
        tokens={token: options["org"]},
        seed=options["seed"],
        check_answers=bool(options["check-answers"]),
    )
