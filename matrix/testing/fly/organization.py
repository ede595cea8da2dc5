"""An organization's machines and volumes in pages: the cheap way to see all of them."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.machines import chooser
from matrix.testing.fly.records import Machine, Volume
from matrix.testing.fly.refusals import Refusal, invalid
from matrix.testing.fly.views import machine_view, volume_views
from matrix.testing.fly.world import World, rfc3339

LIMIT = 1000

_R = TypeVar("_R", Machine, Volume)


class Organization:
    """What can be listed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def actions(self) -> Sequence[Action]:
        """The table."""
        return (
            Action("orgs.machines", "GET", "/orgs/<org>/machines", self.machines,
                   answer="OrgMachinesResponse"),
            Action("orgs.volumes", "GET", "/orgs/<org>/volumes", self.volumes,
                   answer="OrgVolumesResponse"),
        )  # fmt: skip

    def machines(self, call: Call) -> dict[str, Any]:
        """Those of the regions that answer; the others are named."""
        world, chosen = self._world, chooser(call)
        away = world.error_regions
        page, cursor = self._page(
            call,
            (
                machine
                for machine in world.machines.values()
                if machine.region not in away and chosen(machine)
            ),
        )
        listed = [self._machine(machine, call.flag("summary")) for machine in page]
        answer: dict[str, Any] = {"machines": listed, "next_cursor": cursor}
        if page:
            answer["last_machine_id"] = page[-1].id
            answer["last_updated_at"] = rfc3339(page[-1].updated_at)
        return answer | ({"error_regions": list(away)} if away else {})

    def volumes(self, call: Call) -> dict[str, Any]:
        """Those that were deleted too, if asked for."""
        world, deleted = self._world, call.flag("include_deleted")
        region, states = call.text("region"), call.choices("state")
        page, cursor = self._page(
            call,
            (
                volume
                for volume in world.volumes.values()
                if (deleted or not volume.is_gone)
                and region in (None, volume.region)
                and (not states or volume.state in states)
            ),
        )
        listed = [
            {**view, "app_name": volume.app, "updated_at": rfc3339(volume.updated_at)}
            for volume, view in zip(page, volume_views(world, page), strict=True)
        ]
        answer: dict[str, Any] = {"volumes": listed, "next_cursor": cursor}
        if page:
            answer["last_volume_id"] = page[-1].id
            answer["last_updated_at"] = rfc3339(page[-1].updated_at)
        return answer

    def _machine(self, machine: Machine, summary: bool) -> dict[str, Any]:
        whole = machine_view(self._world, machine, summary=True)
        names = ("id", "name", "state", "region", "instance_id", "version", "private_ip",
                 "created_at", "updated_at")  # fmt: skip
        view = {name: whole[name] for name in names} | {"app_name": machine.app}
        if not summary:
            shown = ("guest", "image", "metadata")
            config = machine.config
            view["config"] = {name: config[name] for name in shown if config.get(name)}
        return view

    def _page(self, call: Call, records: Iterable[_R]) -> tuple[list[_R], str]:
        """One page, and where the next begins; no such place if this is the last."""
        if call.path["org"] != call.org:
            raise Refusal(403, "unauthorized: the token is another organization's")
        limit = call.number("limit")
        limit = LIMIT if limit is None else limit
        if not 1 <= limit <= LIMIT:
            raise invalid(f"limit is {limit}: it is from 1 to {LIMIT}")
        after = self._after(call)
        mine = {app.name for app in self._world.apps.values() if app.org == call.org}
        left = sorted(
            (
                record
                for record in records
                if record.app in mine and (record.updated_at, record.id) > after
            ),
            key=lambda record: (record.updated_at, record.id),
        )
        page = left[:limit]
        cursor = ""
        if len(left) > limit:
            text = f"{page[-1].updated_at!r} {page[-1].id}"
            cursor = urlsafe_b64encode(text.encode()).decode()
        return page, cursor

    @staticmethod
    def _after(call: Call) -> tuple[float, str]:
        cursor, since = call.text("cursor"), call.text("updated_after")
        try:
            if cursor:
                at, _, last = urlsafe_b64decode(cursor).decode().partition(" ")
                return float(at), last
            if since:
                return datetime.fromisoformat(since).timestamp(), "\x7f"
        except ValueError:
            raise invalid("cursor or updated_after cannot be read") from None
        return 0.0, ""
