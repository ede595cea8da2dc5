"""A Matrix that is run for real, with what an operator supplies: any number on one database."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from matrix.net import LocalAuthority
from matrix.testing.issuer import LocalIssuer
from matrix.testing.postgres import drop_database, execute, fresh_database
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase

READY = re.compile(r"ready on (https://\S+?),?(?: \d+ workers)?; internal (http://\S+)")

END_SECONDS = 10.0
"""For a process that has nothing left to do."""


class IssuerProcess:
    """A local issuer that runs by itself, and can be made faulty."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process = subprocess.Popen(
            [sys.executable, "-m", "matrix.testing.issuer_program", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = str(self.tell("listen")["issuer"])
        """The C{iss} of its tokens, which is its address as well."""

    def tell(self, what: str, **arguments: object) -> dict[str, Any]:
        """
        Have it do something, a method of L{matrix.testing.issuer_program.Servant}, and wait
        until it is done.

        @return: its C{issuer} and the number of C{requests} by path.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '"it has ended"')
        assert isinstance(answer, dict), answer
        return answer

    def fetches(self) -> int:
        """How often its key set was asked for."""
        return int(self.tell("look")["requests"].get("/.well-known/jwks.json", 0))

    def issuer(self) -> LocalIssuer:
        """To mint its tokens with the keys that it has now."""
        return LocalIssuer.open(self.directory, issuer=self.name)

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=END_SECONDS)


class Supply:
    """
    A database, an issuer, a certificate for localhost, and secrets: for one Matrix, or for
    several that share them, and with them the machines.
    """

    def __init__(self) -> None:
        # As mktemp makes them, closed to others: machines must be able to pass even so.
        self.home = Path(tempfile.mkdtemp(prefix="matrix-supply-"))
        self.state = self.home / "state"
        self.ca, self.cert, self.key = LocalAuthority(self.home / "tls").ensure()
        self.secrets = {name: secrets.token_urlsafe(36) for name in ("daemon", "admin")}
        self.issuer = IssuerProcess(self.home / "issuer")
        self.dsn = fresh_database()

    def settings(self) -> dict[str, str]:
        """The environment of a Matrix."""
        return {
            "DATABASE_URL": self.dsn,
            "MATRIX_STATE_DIR": str(self.state),
            "MATRIX_TLS_CERT": str(self.cert),
            "MATRIX_TLS_KEY": str(self.key),
            "MATRIX_ISSUER": self.issuer.name,
            "MATRIX_DAEMON_TOKEN": self.secrets["daemon"],
            "MATRIX_ADMIN_TOKEN": self.secrets["admin"],
        }

    def close(self) -> None:
        """Take everything back; no Matrix must run on it any more."""
        self.issuer.close()
        drop_database(self.dsn)
        shutil.rmtree(self.home)


class SuppliedMatrix(RunningMatrix):
    """One router on a L{Supply}. Without one it has its own."""

    def __init__(self, supply: Supply | None = None, **options: Any) -> None:
        """
        @param options: those of L{RunningMatrix}.
        """
        super().__init__(**options)
        self._own = supply is None
        self.supply = supply if supply is not None else Supply()
        self.state = self.supply.state
        self._environment = self.supply.settings() | self._environment
        self._read = 0

    def start(self) -> RunningMatrix:
        self._read = len(self.output()) if self.output_file.exists() else 0
        return super().start()

    def _arguments(self) -> list[str]:
        arguments = "--nodaemon --pidfile= matrix --listen localhost:0 --internal 127.0.0.1:0"
        return [*arguments.split(), "--idle", str(self.idle)]

    def _announcement(self) -> dict[str, Any] | None:
        ready = READY.search(self.output()[self._read :])
        if ready is None:
            return None
        return {
            "public": ready[1],
            "internal": ready[2],
            "admin_token": self.supply.secrets["admin"],
            "pid": self.pid,
            "ca": str(self.supply.ca),
        }

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._own:
                self.supply.close()

    def issuer(self) -> LocalIssuer:
        return self.supply.issuer.issuer()

    def sql(self, statement: str, *values: object) -> None:
        assert not values, "write them into the statement"
        execute(statement, self.supply.dsn)


class TwoRoutersCase(MatrixCase):
    """Two routers on one database."""

    other: Any = None

    @property
    def routers(self) -> list[RunningMatrix]:
        """Both, the one that is told something last."""
        return [self.other, self.matrix]

    @classmethod
    def setUpClass(cls) -> None:
        supply = Supply()
        cls.addClassCleanup(supply.close)
        made = []
        for _ in range(2):
            router = SuppliedMatrix(supply, **cls.SETTINGS)
            cls.addClassCleanup(router.close)
            made.append(router.start())
        cls.matrix, cls.other = made
