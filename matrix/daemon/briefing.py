"""What the router told this machine at boot: whose it is, and where its snapshots go."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from matrix.errors import ConfigurationError

_REST = "rest:"
_NEEDED = (
    "MATRIX_USER",
    "MATRIX_ROUTER_URL",
    "MATRIX_ROUTER_TOKEN",
    "MATRIX_RESTIC_ACCOUNT",
    "MATRIX_RESTIC_PASSWORD",
)


@dataclass(frozen=True, slots=True)
class Briefing:
    """All that a machine needs for its snapshots."""

    user: str
    router_url: str
    """Where the router listens for machines, without a slash at the end."""
    router_token: str = field(repr=False)
    repository: str
    """The repository's URL, as C{http://HOST:PORT/restic/USER/}."""
    account: str = field(repr=False)
    """What this machine shows to the repository service."""
    password: str = field(repr=False)
    """What the repository is encrypted with."""

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Briefing | None:
        """
        Take it out of the environment, which child processes inherit.

        @return: C{None} if this machine has no snapshots.
        @raise ConfigurationError: a part of it is missing, or is no URL.
        """
        repository = environment.pop("MATRIX_RESTIC_REPOSITORY", "")
        secret = ("MATRIX_ROUTER_TOKEN", "MATRIX_RESTIC_ACCOUNT", "MATRIX_RESTIC_PASSWORD")
        told = {name: environment.get(name, "") for name in _NEEDED}
        for name in secret:
            environment.pop(name, None)
        if not repository:
            return None
        missing = [name for name in _NEEDED if not told[name]]
        if missing:
            raise ConfigurationError(
                f"MATRIX_RESTIC_REPOSITORY needs {', '.join(missing)} to be set too"
            )
        url = repository.removeprefix(_REST)
        if url == repository or urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError("MATRIX_RESTIC_REPOSITORY: write rest:http://HOST:PORT/PATH/")
        user, router_url, token, account, password = (told[name] for name in _NEEDED)
        return cls(
            user=user,
            router_url=router_url.rstrip("/"),
            router_token=token,
            repository=url.rstrip("/") + "/",
            account=account,
            password=password,
        )

    def restic_environment(self) -> dict[str, str]:
        """
        What restic is told, all by environment: arguments can be read by everybody. The
        account is in the URL, because restic before 0.16 takes it from nowhere else.
        """
        url = urlsplit(self.repository)
        login = f"{quote(self.user, safe='')}:{quote(self.account, safe='')}"
        address = url._replace(netloc=f"{login}@{url.netloc}").geturl()
        return {"RESTIC_REPOSITORY": _REST + address, "RESTIC_PASSWORD": self.password}

    def hide(self, text: str) -> str:
        """The text without our secrets."""
        for secret in (self.account, self.password, self.router_token):
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        return text
