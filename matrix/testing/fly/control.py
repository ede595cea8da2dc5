"""The emulator's own API, under C{/_emulator/}: what goes wrong, what was asked, and what the
emulated Fly's operators may do to its hosts. It asks for no token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from matrix.errors import ConfigurationError
from matrix.testing.fly.api import Answer, Asked, FlyApi
from matrix.testing.fly.dns import lookup
from matrix.testing.fly.faults import Fault
from matrix.testing.fly.operators import Operators
from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import ROWS, Refusal, not_found
from matrix.testing.fly.world import World

PREFIX = "/_emulator"

Handler = Callable[[Mapping[str, str], Mapping[str, list[str]], Any], Any]
"""Gets the path's places, the query and the body."""


class Control:
    """What can be asked of the emulator as such."""

    def __init__(self, world: World, api: FlyApi, operators: Operators) -> None:
        self._world = world
        self._api = api
        self._operators = operators
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "/", self._summary),
            ("GET", "/calls", self._calls),
            ("DELETE", "/calls", lambda *_: self._api.calls.clear()),
            ("GET", "/faults", lambda *_: self._api.faults.shown()),
            ("POST", "/faults", self._add_fault),
            ("DELETE", "/faults", lambda *_: self._api.faults.clear()),
            ("DELETE", "/faults/<int:number>", self._remove_fault),
            ("GET", "/rows", lambda *_: {name: row.text for name, row in ROWS.items()}),
            ("GET", "/settings", lambda *_: world.tuning.shown()),
            ("POST", "/settings", self._set),
            ("POST", "/capacity", self._capacity),
            ("POST", "/error-regions", self._error_regions),
            ("GET", "/dns", self._dns),
            ("GET", "/processes", lambda *_: operators.processes()),
            ("POST", "/reset", lambda *_: operators.reset()),
            ("POST", "/machines/<machine>/<what>", self._to_machine),
        )  # fmt: skip
        self.paths = tuple((method, rule) for method, rule, _ in table)
        """Of all calls, below the prefix."""
        self._routes = Map(
            [Rule(PREFIX + rule, methods=[method], endpoint=do) for method, rule, do in table],
            strict_slashes=False,
        ).bind("emulator")

    async def answer(self, asked: Asked) -> Answer:
        """What it says."""
        try:
            do, path = self._routes.match(asked.path, asked.method)
        except HTTPException as error:
            return Answer(
                error.code or 404, {"error": f"{asked.method} {asked.path}: {error.name}"}
            )
        try:
            body = json.loads(asked.body) if asked.body else {}
            value = do(path, parse_qs(asked.query), body)
            if hasattr(value, "__await__"):
                value = await value
        except (ConfigurationError, ValueError) as error:
            return Answer(400, {"error": str(error)})
        except Refusal as refusal:
            return Answer(refusal.status, refusal.body())
        return Answer(200, value if value is not None else {"ok": True})

    def _summary(self, path: Any, query: Any, body: Any) -> dict[str, Any]:
        world = self._world
        states: dict[str, int] = {}
        for machine in world.machines.values():
            states[machine.state] = states.get(machine.state, 0) + 1
        return {
            "seed": world.chance.seed,
            "apps": len(world.apps),
            "machines": states,
            "volumes": sum(1 for volume in world.volumes.values() if not volume.is_gone),
            "waiting": len(world.waits),
            "calls": self._api.calls.total,
        }

    def _calls(self, path: Any, query: Mapping[str, list[str]], body: Any) -> dict[str, Any]:
        action, subject = query.get("action", [None])[-1], query.get("subject", [None])[-1]
        return self._api.calls.shown(action, subject)

    def _add_fault(self, path: Any, query: Any, body: Any) -> dict[str, int]:
        return {"number": self._api.faults.add(Fault.read(_object(body)))}

    def _remove_fault(self, path: Any, query: Any, body: Any) -> None:
        self._api.faults.remove(path["number"])

    def _set(self, path: Any, query: Any, body: Any) -> dict[str, str]:
        for name, value in _object(body).items():
            self._world.tuning.set(name, str(value))
        return self._world.tuning.shown()

    def _capacity(self, path: Any, query: Any, body: Any) -> dict[str, int]:
        for region, room in _object(body).items():
            if room is None:
                self._world.capacity.pop(region, None)
            else:
                self._world.capacity[region] = int(room)
        return self._world.capacity

    def _error_regions(self, path: Any, query: Any, body: Any) -> list[str]:
        self._world.error_regions[:] = _object(body).get("regions", [])
        return self._world.error_regions

    def _dns(self, path: Any, query: Mapping[str, list[str]], body: Any) -> list[str]:
        return lookup(self._world, query.get("name", [""])[-1])

    def _to_machine(self, path: Mapping[str, str], query: Any, body: Any) -> Any:
        deeds = self._operators.deeds()
        if path["what"] not in deeds:
            raise ConfigurationError(f"there is no {path['what']!r}, only {', '.join(deeds)}")
        return deeds[path["what"]](self._machine(path["machine"]))

    def _machine(self, machine_id: str) -> Machine:
        machine = self._world.machines.get(machine_id)
        if machine is None:
            raise not_found("machine")
        return machine


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ConfigurationError("the body must be a JSON object")
    return body
