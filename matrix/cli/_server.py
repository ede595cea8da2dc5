"""Finds the running Matrix and talks to its admin API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from matrix.settings import Settings

RUN_FILE = "run.json"
"""Where in its state directory an embedded Matrix says how it can be reached (mode 0600)."""

ANSWER_LIMIT = 16 * 1024 * 1024
"""Bytes: the longest answer is a thousand events."""

LINE_LIMIT = 64 * 1024
"""Bytes of one line of an answer that comes line by line."""

TIMEOUT = 10.0
"""Seconds for an answer from memory or one query."""

CONTROL_TIMEOUT = 180.0
"""Seconds for a wake or suspend: the server gives up first and says why."""

SPEAKING = frozenset({"user", "deleted"})
"""Reasons of refusals whose detail says everything, so that a title would only be in the way."""

NOT_RUNNING = "start it with script/server, or name its state directory with --state-dir"


class CommandError(Exception):
    """The command cannot be carried out; the text is one line for the operator."""

    def __init__(self, text: str, reason: str = "") -> None:
        """
        @param reason: the stable code of the server's refusal, if it was that.
        """
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Server:
    """A running Matrix, as seen from the command line."""

    url: str
    """Of the internal listener, without a slash at the end."""
    admin_token: str = field(repr=False)

    def get(self, path: str) -> Any:
        """
        Ask the admin API.

        @param path: below C{/admin/v1/}, encoded.
        @raise CommandError: there is no answer, or the answer is a refusal.
        """
        return self._call("GET", path, TIMEOUT)

    def post(self, path: str) -> Any:
        """
        Tell the admin API to do something.

        @param path: below C{/admin/v1/}, encoded.
        @raise CommandError: there is no answer, or the answer is a refusal.
        """
        return self._call("POST", path, CONTROL_TIMEOUT)

    def follow(self, path: str) -> Iterator[Any]:
        """
        Tell the admin API to do something that takes long; what it tells of it, as it comes.

        @param path: below C{/admin/v1/}, encoded.
        @raise CommandError: there is no answer, or the answer is a refusal, or breaks off.
        """
        with self._answer("POST", path, CONTROL_TIMEOUT) as answer:
            while line := answer.readline(LINE_LIMIT):
                yield json.loads(line)

    def _call(self, method: str, path: str, timeout: float) -> Any:
        with self._answer(method, path, timeout) as answer:
            return json.loads(answer.read(ANSWER_LIMIT))

    @contextmanager
    def _answer(self, method: str, path: str, timeout: float) -> Iterator[Any]:
        """
        An answer, to be read.

        @raise CommandError: it cannot be had, or not be read.
        """
        request = Request(  # noqa: S310 - the scheme was checked by locate()
            f"{self.url}/admin/v1/{path}",
            method=method,
            headers={"Authorization": f"Bearer {self.admin_token}", "Accept": "application/json"},
        )
        # Without proxies: the environment's are for the outside, and must not see the token.
        opener = build_opener(ProxyHandler({}), _NoRedirects())
        try:
            with opener.open(request, timeout=timeout) as answer:
                yield answer
        except HTTPError as error:
            with error:
                raise _refusal(error) from None
        except TimeoutError:
            raise CommandError(f"Matrix at {self.url} gave no answer in {timeout:g} s") from None
        except (URLError, OSError, HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise CommandError(f"Matrix at {self.url} cannot be reached: timed out") from None
            raise CommandError(
                f"Matrix does not answer at {self.url} ({_reason(error)}): is it running?"
            ) from None
        except ValueError:
            raise CommandError(f"what answers at {self.url} is not Matrix") from None


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: following it would take the token to somebody else."""

    def redirect_request(self, *_: object) -> None:
        return None


def user_path(user: str, *below: str) -> str:
    """The path of a user, or of something below."""
    return "/".join(("users", quote(user, safe=""), *below))


def session_path(session: str, *below: str) -> str:
    """The path of a session, or of something below."""
    return "/".join(("sessions", quote(session, safe=""), *below))


def locate(settings: Settings) -> Server:
    """
    Where the Matrix runs that these settings mean: the one they name with C{MATRIX_INTERNAL}
    and C{MATRIX_ADMIN_TOKEN}, else the embedded one of the state directory.

    @raise CommandError: neither is to be found.
    """
    token = settings.admin_token
    if token is not None and (settings.internal is not None or not settings.embedded):
        return Server(_internal_url(settings.internal), token.get_secret_value())
    path = settings.state_dir / RUN_FILE
    try:
        return _from_run_file(path)
    except FileNotFoundError:
        if settings.embedded:
            message = f"no Matrix runs in {settings.state_dir.absolute()}: {NOT_RUNNING}"
        else:
            message = "MATRIX_ADMIN_TOKEN is not set: give the one that the server runs with"
        raise CommandError(message) from None
    except OSError as error:
        raise CommandError(
            f"cannot read {path}: {error.strerror}; run this as the user that runs Matrix"
        ) from None


def _internal_url(internal: str | None) -> str:
    from matrix.model import host_port

    host, port = host_port(internal or "127.0.0.1:9443")
    # A listener on every address is reached on loopback.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _from_run_file(path: Path) -> Server:
    try:
        content = json.loads(path.read_text("utf-8"))
        url, token = content["internal"], content["admin_token"]
        usable = isinstance(token, str) and url.startswith(("http://", "https://"))
    except (ValueError, LookupError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise CommandError(f"{path} is not what Matrix writes: start Matrix anew")
    return Server(url.rstrip("/"), token)


def _refusal(error: HTTPError) -> CommandError:
    try:
        problem = json.loads(error.read(ANSWER_LIMIT))
        title, detail = str(problem["title"]), str(problem.get("detail", ""))
        reason = str(problem.get("reason", ""))
    except (ValueError, LookupError, TypeError, AttributeError, OSError, HTTPException):
        return CommandError(f"what answers at {error.url} is not Matrix (status {error.code})")
    if error.code == 401:
        return CommandError(
            "the server does not take this admin token: check MATRIX_ADMIN_TOKEN", reason
        )
    if not detail or reason in SPEAKING:
        return CommandError(detail or title, reason)
    return CommandError(f"{title}: {detail}", reason)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
