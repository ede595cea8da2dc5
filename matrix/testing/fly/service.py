"""The emulator as a service of C{twistd}."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from matrix.errors import ConfigurationError
from matrix.net import Daemon, parse_listen
from matrix.testing.fly.addresses import Addresses
from matrix.testing.fly.command import Command
from matrix.testing.fly.emulator import FlyEmulator

_log = Logger()


class EmulatorService(Daemon):
    """Listens from start to stop."""

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        listen: str,
        program: str,
        *,
        network: str | None,
        keep_machines: bool,
        **options: Any,
    ) -> None:
        """
        @param options: those of L{matrix.testing.fly.emulator.Parts}.
        @raise ConfigurationError: something given cannot be used.
        """
        super().__init__(reactor)
        self.name = "matrix-fly"
        place = parse_listen(listen)
        host = "127.0.0.1" if place.host == "localhost" else place.host
        if host is None or not host.startswith("127."):
            raise ConfigurationError(
                f"--listen {listen}: it protects nothing, so it listens on 127.0.0.1:PORT only"
            )
        Command.parse(program)
        addresses = Addresses(str(directory.absolute()), network)
        self._place = host, place.port or 0
        self._keep = keep_machines
        self._make = partial(
            FlyEmulator, reactor, directory, program, addresses=addresses, **options
        )
        self._emulator: FlyEmulator | None = None

    async def start(self) -> None:
        # Not before: twistd may fork in between, and threads and timers are left behind then.
        self._emulator = self._make()
        try:
            url = self._emulator.listen(*self._place)
        except CannotListenError as error:
            raise ConfigurationError(f"cannot listen: {error.socketError}") from None
        _log.info("Fly's Machines API at {url}", url=url)

    async def stop(self) -> None:
        if self._emulator is not None:
            await self._emulator.close(end_machines=not self._keep)
