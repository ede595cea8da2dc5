"""Fly's Machines API, as far as Matrix needs it (facts/fly.md section 2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from matrix.machines._fly_errors import Action, FlyError, Verdict
from matrix.machines._fly_http import Call, FlyHttp
from matrix.machines._fly_rates import READING, Priority
from matrix.machines._fly_types import (
    FlyLease,
    FlyMachine,
    FlyPage,
    FlySnapshot,
    FlyStart,
    FlyVolume,
    FlyWait,
)

WAIT_RANGE = (1, 60)
"""Seconds: a wait for longer or shorter is refused (facts/fly.md section 4)."""

WAIT_MARGIN = 10.0
"""Seconds that the answer to a wait may take beyond the wait."""

PAGE = 1000
"""Machines or volumes in a page of an organisation's: as many as Fly gives."""

Config = Mapping[str, Any]


class FlyClient:
    """
    Fly's API, one method for each thing there is to do.

    Each raises L{FlyError}; nothing is repeated here, since whether it may be is for the
    caller to judge by the error's verdict.
    """

    def __init__(self, http: FlyHttp) -> None:
        self._http = http

    def close(self) -> None:
        """See L{FlyHttp.close}."""
        self._http.close()

    # apps

    async def create_app(self, name: str, org: str, network: str | None = None) -> None:
        """Make an app. One that exists is an error C{app-name-taken}, ours or not."""
        body = {"name": name, "org_slug": org} | ({"network": network} if network else {})
        await self._http.tell(Call(Action.OTHER, "POST", "/apps", "apps", body))

    async def has_app(self, name: str) -> bool:
        """Whether there is an app of this name that we may see."""
        try:
            await self._http.tell(Call(Action.READ, "GET", _app(name), name))
        except FlyError as error:
            if error.reason == "not-found":
                return False
            raise
        return True

    # machines

    async def create_machine(
        self,
        app: str,
        name: str,
        region: str,
        config: Config,
        *,
        launch: bool = True,
        priority: Priority = Priority.WAKE,
    ) -> FlyMachine:
        """
        Make a machine and, if it is to be launched, start it. Refused with C{name-taken} if
        the name is another's.
        """
        body: dict[str, Any] = {"name": name, "region": region, "config": dict(config)}
        body |= {} if launch else {"skip_launch": True}
        call = Call(
            Action.CREATE, "POST", f"{_app(app)}/machines", app, body, timeout=60.0, shared=True
        )
        return await self._http.ask(call, FlyMachine, priority)

    async def machine(
        self, app: str, machine_id: str, priority: Priority = Priority.WAKE
    ) -> FlyMachine:
        """A machine as it is now."""
        call = Call(Action.READ, "GET", _machine(app, machine_id), machine_id, rate=READING)
        return await self._http.ask(call, FlyMachine, priority)

    async def machines(self, app: str, **metadata: str) -> list[FlyMachine]:
        """An app's machines, or those with this metadata."""
        query = {f"metadata.{name}": value for name, value in metadata.items()}
        call = Call(Action.READ, "GET", f"{_app(app)}/machines", app, query=query, shared=True)
        return await self._http.ask(call, list[FlyMachine])

    async def update_machine(
        self,
        app: str,
        machine: FlyMachine,
        config: Config,
        *,
        launch: bool = False,
        nonce: str = "",
        priority: Priority = Priority.HOUSEKEEPING,
    ) -> FlyMachine:
        """Replace a machine's whole config, if it is still the one that C{machine} has."""
        body = {
            "config": dict(config),
            "current_version": machine.instance_id,
            "skip_launch": not launch,
        }
        path = _machine(app, machine.id)
        call = Call(Action.UPDATE, "POST", path, machine.id, body, nonce=nonce)
        return await self._http.ask(call, FlyMachine, priority)

    async def start(self, app: str, machine_id: str, nonce: str = "") -> FlyStart:
        """
        Start or resume a machine. That it is started already, or about to be, is no error.
        """
        path = f"{_machine(app, machine_id)}/start"
        try:
            started = await self._http.ask(
                Call(Action.START, "POST", path, machine_id, nonce=nonce), FlyStart
            )
        except FlyError as error:
            if error.verdict is not Verdict.DONE:
                raise
            return FlyStart(previous_state=error.reason)
        if started.status == "error":  # with a 200 (facts/fly.md section 2)
            raise FlyError(Verdict.AMBIGUOUS, "start", f"start: {started.message}", status=200)
        return started

    async def stop(self, app: str, machine_id: str, nonce: str = "") -> None:
        """Stop a machine; a suspended one loses its memory."""
        path = f"{_machine(app, machine_id)}/stop"
        call = Call(Action.STOP, "POST", path, machine_id, body={}, nonce=nonce)
        await self._http.tell(call, Priority.HOUSEKEEPING)

    async def suspend(self, app: str, machine_id: str, nonce: str = "") -> None:
        """Begin to suspend a machine; it takes seconds."""
        path = f"{_machine(app, machine_id)}/suspend"
        call = Call(Action.SUSPEND, "POST", path, machine_id, nonce=nonce)
        await self._http.tell(call, Priority.HOUSEKEEPING)

    async def destroy(self, app: str, machine_id: str) -> None:
        """Begin to destroy a machine. That there is none is no error."""
        path = _machine(app, machine_id)
        call = Call(Action.DESTROY, "DELETE", path, machine_id, query={"force": "true"})
        await self._done(call)

    async def wait(self, app: str, machine: FlyMachine, state: str, seconds: float) -> FlyWait:
        """
        Return once the machine is in a state, or in one of several with commas between.

        @param seconds: how long to wait, brought into the range that Fly accepts.
        @raise FlyError: C{not-reached}: it is not, yet.
        """
        least, most = WAIT_RANGE
        timeout = min(max(round(seconds), least), most)
        query = {"state": state, "timeout": str(timeout)}
        if "stopped" in state or "suspended" in state:  # a must, say Fly's guides
            query |= {"version": machine.instance_id, "instance_id": machine.instance_id}
        call = Call(
            Action.WAIT, "GET", f"{_machine(app, machine.id)}/wait", machine.id,
            query=query, timeout=timeout + WAIT_MARGIN,
        )  # fmt: skip
        return await self._http.ask(call, FlyWait)

    async def set_metadata(self, app: str, machine_id: str, key: str, value: str) -> None:
        """Write on a machine; it gets no new version and does not boot."""
        path = f"{_machine(app, machine_id)}/metadata/{_segment(key)}"
        call = Call(Action.OTHER, "POST", path, machine_id, {"value": value})
        await self._http.tell(call, Priority.HOUSEKEEPING)

    async def acquire_lease(self, app: str, machine_id: str, seconds: int, why: str) -> FlyLease:
        """Keep others from changing a machine for a while."""
        path = f"{_machine(app, machine_id)}/lease"
        call = Call(Action.LEASE, "POST", path, machine_id, {"ttl": seconds, "description": why})
        found = FlyLease.unwrapped(await self._http.ask(call, dict[str, Any]))
        return FlyLease.model_validate(found)

    async def release_lease(self, app: str, machine_id: str, nonce: str) -> None:
        """Let others change the machine again."""
        path = f"{_machine(app, machine_id)}/lease"
        call = Call(Action.LEASE, "DELETE", path, machine_id, nonce=nonce)
        await self._http.tell(call)

    # volumes

    async def create_volume(
        self,
        app: str,
        request: Config,
        priority: Priority = Priority.WAKE,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> FlyVolume:
        """
        Make a volume: new, from a snapshot (C{snapshot_id}) or a fork (C{source_volume_id}).

        @param before: awaited right before the call is made.
        """
        call = Call(
            Action.VOLUME, "POST", f"{_app(app)}/volumes", app, request,
            timeout=60.0, shared=True, before=before,
        )  # fmt: skip
        return await self._http.ask(call, FlyVolume, priority)

    async def volume(self, app: str, volume_id: str) -> FlyVolume:
        """A volume as it is now."""
        path = _volume(app, volume_id)
        return await self._http.ask(Call(Action.READ, "GET", path, volume_id), FlyVolume)

    async def volumes(self, app: str) -> list[FlyVolume]:
        """An app's volumes but those that were deleted."""
        path = f"{_app(app)}/volumes"
        call = Call(Action.READ, "GET", path, path, shared=True, joint=True)
        found = await self._http.ask(call, list[FlyVolume])
        return [volume for volume in found if not volume.is_gone]

    async def delete_volume(self, app: str, volume_id: str) -> None:
        """Delete a volume that no machine has. That there is none is no error."""
        call = Call(Action.DESTROY, "DELETE", _volume(app, volume_id), volume_id)
        await self._done(call)

    async def snapshots(self, app: str, volume_id: str) -> list[FlySnapshot]:
        """Fly's own snapshots of a volume."""
        path = f"{_volume(app, volume_id)}/snapshots"
        return await self._http.ask(Call(Action.READ, "GET", path, volume_id), list[FlySnapshot])

    # everything

    async def org_machines(self, org: str, cursor: str | None = None) -> FlyPage:
        """A page of all machines of an organisation: the cheap way to see them all."""
        return await self._page(org, "machines", cursor)

    async def org_volumes(self, org: str, cursor: str | None = None) -> FlyPage:
        """A page of all its volumes."""
        return await self._page(org, "volumes", cursor)

    async def _page(self, org: str, what: str, cursor: str | None) -> FlyPage:
        query = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
        call = Call(
            Action.READ, "GET", f"/orgs/{_segment(org)}/{what}", org, query=query, shared=True
        )
        return await self._http.ask(call, FlyPage, Priority.HOUSEKEEPING)

    async def _done(self, call: Call) -> None:
        try:
            await self._http.tell(call, Priority.HOUSEKEEPING)
        except FlyError as error:
            if error.verdict is not Verdict.DONE:
                raise


def _segment(text: str) -> str:
    return quote(text, safe="")


def _app(name: str) -> str:
    return f"/apps/{_segment(name)}"


def _machine(app: str, machine_id: str) -> str:
    return f"{_app(app)}/machines/{_segment(machine_id)}"


def _volume(app: str, volume_id: str) -> str:
    return f"{_app(app)}/volumes/{_segment(volume_id)}"
