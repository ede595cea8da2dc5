"""The issuer's keys, fetched over HTTP ahead of need, and kept while the issuer is down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from matrix.auth import _keyfile
from matrix.auth._jwk import Key, KeySet, lifetime, read_key_set
from matrix.auth.interfaces import IKeySource
from matrix.errors import Unavailable

FETCH_TIMEOUT = 10.0
"""Seconds for one fetch, body included."""

THROTTLE = 30.0
"""Seconds between fetches while there are keys: a flood of made-up key ids costs the issuer
no more than one request in this time, and so does an issuer that is down."""

COLD_RETRY = 2.0
"""Seconds between fetches while there is no key at all, when nobody can come in anyway."""

STALE_MAX = 3600.0
"""Seconds for which keys are used after the last good fetch while the issuer is down: long
enough for an outage, not so long that a revoked key lives on."""

MAX_DOCUMENT = 256 * 1024
"""Bytes of a key set; a real one has about 1 KB."""

_log = Logger()


class BadAnswerError(Exception):
    """The issuer answered, but not with a usable key set."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    document: bytes
    keys: KeySet
    lifetime: float


def _only_header(response: IResponse, name: bytes) -> str | None:
    values = response.headers.getRawHeaders(name)
    return b", ".join(values).decode("latin-1") if values else None


@implementer(IKeySource)
class JwksKeys:
    """
    The key set at one URL.

    Once started it refreshes itself when its lifetime is over, so a request waits for the
    issuer only if it names a key that is not known. All who wait share one fetch. An
    answer without a single usable key counts as a failure: the keys in hand stay, within
    L{STALE_MAX}.
    """

    def __init__(
        self,
        agent: IAgent,
        url: str,
        clock: IReactorTime,
        now: Callable[[], float],
        path: Path | None = None,
    ) -> None:
        """
        @param now: the unix time, in seconds, that the file at C{path} is dated with.
        @param path: where the last good set is kept; nowhere if C{None}.
        """
        self._http = HTTPClient(agent)
        self._url = url
        self._clock = clock
        self._now = now
        self._path = path
        self._keys: Mapping[str, Key] = {}
        self._fetched_at = 0.0
        self._next_fetch = 0.0
        self._failing = True
        self._attempt: Deferred[None] | None = None
        self._waiters: list[Deferred[None]] = []
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._subscribers: list[Callable[[Mapping[str, Key]], None]] = []
        self.fetches = 0
        """How often the issuer was asked."""
        self.failures = 0
        """How often that gave no usable key set."""

    def subscribe(self, changed: Callable[[Mapping[str, Key]], None]) -> None:
        self._subscribers.append(changed)

    def start(self) -> Deferred[None]:
        """Take up the kept set and ask the issuer; fires after that first attempt, which may
        have failed."""
        kept = _keyfile.load(self._path) if self._path is not None else None
        if kept is not None:
            self._take_up(*kept)
        return self._fetched()

    def stop(self) -> None:
        """Ask the issuer no more."""
        self._stopped = True
        self._cancel_timer()
        if self._attempt is not None:
            self._attempt.cancel()

    async def find(self, kid: str) -> Key | None:
        key = self._keys.get(kid)
        if key is not None:
            return key
        if self._may_fetch():
            await self._fetched()
        key = self._keys.get(kid)
        if key is None and (self._failing or not self._keys):
            raise Unavailable(
                "The sign-in service cannot be reached to check this token.",
                reason="keys",
                retry_after=max(self._next_fetch - self._clock.seconds(), COLD_RETRY),
            )
        return key

    def _may_fetch(self) -> bool:
        if self._stopped:
            return False
        return self._attempt is not None or self._clock.seconds() >= self._next_fetch

    def _fetched(self) -> Deferred[None]:
        """Fires after the fetch under way, or after a new one."""
        if self._stopped:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        if self._attempt is None:
            self._fetch()
        return waiter

    def _fetch(self) -> None:
        self._cancel_timer()
        self.fetches += 1
        self._next_fetch = self._clock.seconds() + THROTTLE
        download = Deferred.fromCoroutine(self._download())
        download.addTimeout(FETCH_TIMEOUT, self._clock)
        attempt: Deferred[None] = download.addCallback(self._accept)
        self._attempt = attempt
        attempt.addErrback(self._reject)
        attempt.addBoth(self._settle)

    async def _download(self) -> _Fetched:
        response = await self._http.get(
            self._url,
            headers=Headers({b"accept": [b"application/json"], b"user-agent": [b"matrix"]}),
            allow_redirects=False,
            reactor=self._clock,  # type: ignore[arg-type] # only its time is used
        )
        document = bytearray()

        def collect(data: bytes) -> None:
            document.extend(data)
            if len(document) > MAX_DOCUMENT:
                raise BadAnswerError(f"the key set is longer than {MAX_DOCUMENT} bytes")

        await response.collect(collect)
        if response.code != 200:
            raise BadAnswerError(f"status {response.code}")
        try:
            keys = read_key_set(bytes(document))
        except ValueError as error:
            raise BadAnswerError(str(error)) from None
        if not keys.keys:
            raise BadAnswerError("; ".join(("no usable key", *keys.refused)))
        seconds = lifetime(_only_header(response, b"cache-control"), _only_header(response, b"age"))
        return _Fetched(bytes(document), keys, seconds)

    def _accept(self, fetched: _Fetched) -> None:
        if self._failing and self.failures:
            _log.info("the keys of {url} can be fetched again", url=self._url)
        for refused in fetched.keys.refused:
            _log.warn("{url}: {refused}", url=self._url, refused=refused)
        self._failing = False
        self._fetched_at = self._clock.seconds()
        self._replace(fetched.keys.keys)
        if self._path is not None:
            _keyfile.save(self._path, fetched.document, self._now())
        self._again_in(fetched.lifetime)

    def _reject(self, failure: Failure) -> None:
        if self._stopped:
            return
        self.failures += 1
        self._failing = True
        left = self._fetched_at + STALE_MAX - self._clock.seconds()
        if left <= 0:
            self._replace({})
        retry = THROTTLE if self._keys else COLD_RETRY
        self._next_fetch = self._clock.seconds() + retry
        _log.warn(
            "the keys of {url} cannot be fetched: {reason}; {count} kept keys may be used for "
            "{left:.0f} s",
            url=self._url,
            reason=failure.getErrorMessage() or repr(failure.value),
            count=len(self._keys),
            left=max(left, 0.0) if self._keys else 0.0,
        )
        self._again_in(min(retry, left) if self._keys else retry)

    def _settle(self, _result: object) -> None:
        self._attempt = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _take_up(self, document: bytes, fetched_at: float) -> None:
        age = max(self._now() - fetched_at, 0.0)
        if age >= STALE_MAX:
            _log.info("the kept key set is {age:.0f} s old and not used", age=age)
            return
        try:
            keys = read_key_set(document)
        except ValueError as error:
            _log.warn("the kept key set is unusable: {error}", error=error)
            return
        self._fetched_at = self._clock.seconds() - age
        self._replace(keys.keys)

    def _replace(self, keys: Mapping[str, Key]) -> None:
        if keys != self._keys:
            self._keys = keys
            for changed in self._subscribers:
                changed(keys)

    def _again_in(self, seconds: float) -> None:
        if not self._stopped:
            self._timer = self._clock.callLater(seconds, self._fetch_now)

    def _fetch_now(self) -> None:
        self._timer = None
        if self._attempt is None:
            self._fetch()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
