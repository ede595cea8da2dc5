"""Booting a local machine: its address, its environment, its command."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from matrix.machines._command import Command
from matrix.machines._home import Home, Record
from matrix.machines._residents import MACHINE_ID
from matrix.machines.interfaces import ProviderError
from matrix.model import Address
from matrix.processes import SpawnError, python_reach, spawn

LOOPBACK = "127.0.0.1"
PATH = f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin"
LIMITS = {resource.RLIMIT_CORE: 0}  # a core file would hold the machine's secrets


def boot(
    home: Home, record: Record, command: Command, environment: Mapping[str, str], lock: int
) -> Record:
    """
    Start a machine's leader. Blocks: call it in a thread.

    The record is on disk before, the pid file before the first instruction of the
    command runs, and C{lock} is held until then whatever becomes of us: a crash anywhere
    leaves either nothing running or something that is found again.

    @raise ProviderError: the command cannot be run.
    """
    by_socket = command.mentions("socket")
    port = None if by_socket and not command.mentions("port") else _free_port()
    if by_socket:
        record, address = home.place_socket(record)
    else:
        address = Address(host=LOOPBACK, port=port)
    values = {
        "socket": address.path or "",
        "port": str(port or ""),
        "data": str(home.data),
        "user": home.user_id,
    }
    record = replace(record, boot_id=uuid4().hex, address=str(address))
    home.forget_process()
    home.save(record)
    home.turn_log()
    try:
        spawn(
            command.fill(values),
            env={**_basics(home, record, port), **environment},
            cwd=home.data,
            identity=record.identity,
            log=home.log,
            reach=[*python_reach(), *command.files()],
            writable=[Path(record.run)] if record.run else [],
            limits=LIMITS,
            pid_file=home.pid_file,
            hold=[lock],
        )
    except SpawnError as error:
        raise ProviderError(str(error)) from None
    return record


def _basics(home: Home, record: Record, port: int | None) -> dict[str, str]:
    """The whole environment of a machine but for what the router adds."""
    basics = {
        "HOME": str(home.data),
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "MATRIX_USER": home.user_id,
        MACHINE_ID: record.machine_id,
    }
    if port is not None:
        basics["PORT"] = str(port)
    if "TZ" in os.environ:
        basics["TZ"] = os.environ["TZ"]
    return basics


def _free_port() -> int:
    """
    A port that is free now; the machine takes it a moment later. Nothing keeps another
    process from being faster: a socket is the safer choice where machines are strangers.
    """
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
