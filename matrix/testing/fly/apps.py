"""Apps, and the regions that there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.lifecycle import Lifecycle
from matrix.testing.fly.records import App
from matrix.testing.fly.refusals import Refusal, invalid
from matrix.testing.fly.states import GONE
from matrix.testing.fly.views import app_view
from matrix.testing.fly.volumes import Volumes
from matrix.testing.fly.world import REGIONS, World

_NAME = re.compile(r"[a-z0-9-]{1,62}")
"""Under 63 characters, says facts/fly.md section 2."""


class Apps:
    """What can be done with apps."""

    def __init__(self, world: World, lifecycle: Lifecycle, volumes: Volumes) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._volumes = volumes

    def actions(self) -> Sequence[Action]:
        """The table."""
        return (
            Action("apps.list", "GET", "/apps", self.listed, answer="ListAppsResponse"),
            Action("apps.create", "POST", "/apps", self.create, 201, "CreateAppRequest"),
            Action("apps.get", "GET", "/apps/<app>", self.get, answer="App"),
            Action("apps.delete", "DELETE", "/apps/<app>", self.delete, 202),
            Action("regions.list", "GET", "/platform/regions", self.regions,
                   answer="main.regionResponse"),
        )  # fmt: skip

    def create(self, call: Call) -> dict[str, Any]:
        """A new app; its network is fixed from now on."""
        world = self._world
        name = self._name(call.body)
        if call.body.get("org_slug", call.org) != call.org:
            raise Refusal(403, "unauthorized: the token is another organization's")
        if name in world.apps:
            raise Refusal(422, "Validation failed: Name has already been taken", "name_taken")
        network = call.body.get("network") or "default"
        app = App(name, world.new_id("app", 16), call.org, network, world.now())
        world.apps[name] = app
        world.store.save(app)
        return {"id": app.id, "created_at": int(app.created_at * 1000)}

    def _name(self, body: dict[str, Any]) -> str:
        field = self._world.tuning.switches.app_name_field
        name = body.get("name") if field != "app_name" else None
        if name is None and field != "name":
            name = body.get("app_name")
        if name is None:
            raise invalid("an app needs a name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Refusal(422, "Validation failed: Name may only contain letters, numbers, dashes")
        return name

    def listed(self, call: Call) -> dict[str, Any]:
        """An organization's apps."""
        org = call.text("org_slug")
        if org is None:
            raise invalid("org_slug is missing")
        if org != call.org:
            raise Refusal(403, "unauthorized: the token is another organization's")
        apps = [app for app in self._world.apps.values() if app.org == org]
        views = [app_view(self._world, app) for app in apps]
        shown = ("id", "name", "machine_count", "volume_count", "network")
        listed = [{name: view[name] for name in shown} for view in views]
        return {"total_apps": len(listed), "apps": listed}

    def get(self, call: Call) -> dict[str, Any]:
        """One app."""
        return app_view(self._world, self._world.app(call))

    def delete(self, call: Call) -> None:
        """With C{force}, all that it has goes too."""
        app, force = self._world.app(call), call.flag("force")
        machines = list(self._world.machines_of(app))
        if machines and not force:
            raise Refusal(412, f"failed_precondition: app {app.name} has {len(machines)} machines")
        for machine in machines:
            if machine.state not in GONE:
                self._lifecycle.destroy(machine)
        for volume in list(self._world.volumes_of(app)):
            self._volumes.remove(volume)
        del self._world.apps[app.name]
        self._world.store.forget(app)

    def regions(self, call: Call) -> dict[str, Any]:
        """With its members in capitals, as Fly has it, or as its description has it."""
        rows = [
            {"code": code, "name": code.upper(), "gateway_available": True, "deprecated": False}
            for code in REGIONS
        ]
        if self._world.tuning.switches.regions_capitalised == "yes":
            return {"Nearest": REGIONS[0], "Regions": rows}
        return {"nearest": REGIONS[0], "regions": rows}
