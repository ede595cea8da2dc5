"""C{/-/snapshot}: the router has a snapshot taken, and sees how it goes."""

from __future__ import annotations

import re
from typing import Any

from matrix.api import Api, dump, read_json, send_json
from matrix.daemon.runs import Run, Runs
from matrix.errors import BadRequest, Unsupported
from matrix.http.interfaces import Exchange

PLACE = "/-/snapshot"

CAUSES = ("interval", "suspend", "operator", "rollout")
"""Why a snapshot is taken."""

TAGS = 20
"""Of one snapshot, at most."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=-]{0,99}")
_NDJSON = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def register(api: Api, runs: Runs) -> None:
    """Add the routes."""

    @api.route("GET", PLACE)
    async def look(exchange: Exchange) -> None:
        running = runs.running
        now = None if running is None else _running(running)
        send_json(exchange, {"running": now, "last": runs.last})

    @api.route("POST", PLACE)
    async def take(exchange: Exchange) -> None:
        run = runs.begin(*_wanted(await read_json(exchange)))
        _follow(exchange, run)


def refuse(api: Api, missing: str) -> None:
    """Answer each of the routes with what is missing, in one sentence."""

    async def answer(exchange: Exchange) -> None:
        raise Unsupported(missing, reason="snapshots")

    for method in ("GET", "POST"):
        api.add(method, PLACE, answer)


def _follow(exchange: Exchange, run: Run) -> None:
    """Tell the client how it goes. One who leaves ends nothing."""
    exchange.begin(200, _NDJSON)

    def send(event: dict[str, Any]) -> None:
        exchange.write(dump(event) + b"\n")
        if event["kind"] != "progress":
            exchange.end()

    exchange.on_gone(lambda: run.leave(send))
    run.follow(send)


def _running(run: Run) -> dict[str, Any]:
    progress = run.progress
    return {
        "cause": run.cause,
        "since": round(run.since, 3),
        "seconds": run.duration,
        "stage": progress.stage,
        "files_done": progress.files_done,
        "bytes_done": progress.bytes_done,
        "bytes_total": progress.bytes_total,
    }


def _wanted(body: Any) -> tuple[str, list[str], bool]:
    if not isinstance(body, dict):
        raise BadRequest('write an object, such as {"cause":"operator"}', reason="field")
    cause, tags = body.get("cause"), body.get("tags", [])
    only_changes = body.get("unless_unchanged", False)
    if cause not in CAUSES:
        raise BadRequest(f"cause: write one of {', '.join(CAUSES)}", reason="field")
    if not isinstance(only_changes, bool):
        raise BadRequest("unless_unchanged: write true or false", reason="field")
    if not (isinstance(tags, list) and len(tags) <= TAGS and all(map(_is_tag, tags))):
        raise BadRequest(
            f"tags: write a list of at most {TAGS} texts of letters, digits and . _ : = -",
            reason="field",
        )
    return cause, tags, only_changes


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str) and _TAG.fullmatch(tag) is not None
