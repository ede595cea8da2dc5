"""The internal listener of a router: admin API and metrics for operators, repositories for
machines."""

from __future__ import annotations

import socket
import time
from functools import partial

from twisted.internet.interfaces import IListeningPort

from matrix.auth import MachineProof, MachineSecrets
from matrix.http import Exchange, ServerFactory
from matrix.net import Admission, NativeServerEndpoint
from matrix.router import archive as archives
from matrix.router import machine_api
from matrix.router.archive import Archive
from matrix.router.busy import BusyApi
from matrix.router.care import Care
from matrix.router.census import census
from matrix.router.engine import Engine, Machinery
from matrix.router.internal import Crew, Instance, InternalApi
from matrix.router.machine_api import MachineApi
from matrix.router.provision_api import ProvisionApi
from matrix.router.reverting_api import RevertingApi
from matrix.router.snapshots.api import SnapshotsApi
from matrix.router.supplies import Supplies
from matrix.router.upkeep_api import UpkeepApi


class Inside:
    """Answers on the internal listener for as long as it is open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._archive = Archive(engine)
        self._care: Care | None = None
        self._factory: ServerFactory | None = None
        self._ports: list[IListeningPort] = []

    async def open(
        self,
        internal: list[socket.socket],
        instance: Instance,
        live: Machinery,
        supplies: Supplies,
        crew: Crew | None = None,
    ) -> None:
        """
        Accept connections.

        @param crew: the processes that serve the public listener, if it is not this one.
        """
        engine = self._engine
        api = InternalApi(
            live.directory,
            live.waker,
            engine.registry,
            instance,
            engine.reactor,
            supplies.admin_token,
            crew,
            partial(census, engine.reactor, engine.loop, engine.wheel),
        )
        snapshots = SnapshotsApi(live.directory, live.waker, live.taker)
        snapshots.join(api.add)
        ProvisionApi(live.fleet, engine.reactor).join(api.add)
        archive = self._archive
        self._care = care = Care(engine, live, supplies.master)
        UpkeepApi(live.directory).join(api.add)
        RevertingApi(engine.reactor, live.directory, care.reverting).join(api.add)
        archive.open(live.directory, supplies.master, care.begin)
        machines = self._for_machines(live, supplies)
        snapshots.join_machines(machines)

        def handler(exchange: Exchange) -> None:
            path = exchange.request.path
            if path.startswith(archives.PLACE):
                archive(exchange)
            elif path.startswith(machine_api.PLACE):
                machines(exchange)
            else:
                api(exchange)

        self._factory = ServerFactory(
            handler, engine.wheel, engine.limits, finished=archive.measure(engine.registry)
        )
        # The last files are the database's and the logs'; nobody is told so who gets none.
        admission = Admission(engine.files.operators, telling=0)
        for listener in internal:
            endpoint = NativeServerEndpoint(engine.loop, listener, admission=admission)
            self._ports.append(await endpoint.listen(self._factory))

    def _for_machines(self, live: Machinery, supplies: Supplies) -> MachineApi:
        """What machines may ask: each part adds its own."""
        secret = MachineSecrets(supplies.master).machine_to_router
        api = MachineApi(MachineProof(live.directory, secret, self._engine.reactor))
        BusyApi(live.directory, self._engine.settings.busy_max, time.time).join(api)
        return api

    def close(self) -> None:
        """Accept no more."""
        for port in self._ports:
            port.stopListening()
        if self._factory is not None:
            self._factory.drain()

    def abort(self) -> None:
        """End what is still open."""
        if self._factory is not None:
            for connection in list(self._factory.connections):
                connection.abort()

    async def finish(self) -> None:
        """Let go of what was served, when nobody asks any more."""
        if self._care is not None:
            await self._care.close()
        await self._archive.close()


def instance_of(engine: Engine, public: str, internal: socket.socket) -> Instance:
    """
    What a daemon says of itself.

    @param public: the URL of the public listener.
    """
    listeners = {"public": public, "internal": url("http", internal)}
    return Instance(engine.settings.provider, listeners, engine.reactor.seconds())


def url(scheme: str, listener: socket.socket) -> str:
    """Where a listening socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("127.0.0.1", "::1") and scheme == "https":
        host = "localhost"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
