"""The issuer's keys, fetched over HTTP ahead of need, and kept while the issuer is down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent
from zope.interface import implementer

from matrix.auth import _keyfile
from matrix.auth._fetch import BadAnswerError, Fetched, download
from matrix.auth._jwk import MAX_LIFETIME, MIN_LIFETIME, Key, read_key_set
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

AHEAD = FETCH_TIMEOUT
"""Seconds before the end of its lifetime that a set is fetched again: so that even a fetch that
takes its time is over when a revoked key must be gone."""

MAX_WAITING = 500
"""Requests that wait for one fetch. Of a flood of made-up key ids no more are held, in the
seconds that a slow issuer takes; those beyond are refused at once."""

OUTCOMES = ("good", "unusable", "unreachable")
"""What may become of a fetch: unusable is an answer that is no key set."""

_log = Logger()


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
        *,
        may_be_empty: bool = False,
    ) -> None:
        """
        @param now: the unix time, in seconds, that the file at C{path} is dated with.
        @param path: where the last good set is kept; nowhere if C{None}.
        @param may_be_empty: whether an issuer that lists no key is as it should be: one
            that signs with a secret.
        """
        self._http = HTTPClient(agent)
        self._url = url
        self._clock = clock
        self._now = now
        self._path = path
        self._may_be_empty = may_be_empty
        self._keys: Mapping[str, Key] = {}
        self._fetched_at = clock.seconds() - STALE_MAX
        self._next_fetch = 0.0
        self._failing = True
        self._attempt: Deferred[None] | None = None
        self._began = 0.0
        self._waiters: dict[Deferred[None], None] = {}
        self._timer: IDelayedCall | None = None
        self._end: IDelayedCall | None = None
        self._stopped = False
        self._subscribers: list[Callable[[Mapping[str, Key]], None]] = []
        self.fetches = 0
        """How often the issuer was asked."""
        self.outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        """What became of that, each by how often."""

    @property
    def failures(self) -> int:
        """How often asking gave no usable key set."""
        return self.outcomes.total() - self.outcomes["good"]

    @property
    def age(self) -> float:
        """Seconds since the keys were fetched last; over L{STALE_MAX} if they never were."""
        return self._clock.seconds() - self._fetched_at

    @property
    def fresh(self) -> bool:
        """Whether the keys in hand are young enough that no revoked one can be among them."""
        return self.age < MAX_LIFETIME

    def subscribe(self, changed: Callable[[Mapping[str, Key]], None]) -> None:
        self._subscribers.append(changed)

    def start(self) -> Deferred[None]:
        """Take up the kept set and ask the issuer; fires after that first attempt, which may
        have failed."""
        kept = _keyfile.load(self._path, self._url) if self._path is not None else None
        if kept is not None:
            self._take_up(*kept)
        return self._fetched()

    def stop(self) -> None:
        """Ask the issuer no more."""
        self._stopped = True
        _cancel(self._timer)
        _cancel(self._end)
        if self._attempt is not None:
            self._attempt.cancel()

    async def find(self, kid: str) -> Key | None:
        key = self._keys.get(kid)
        if key is not None:
            return key
        if self._may_fetch():
            await self._fetched()
            key = self._keys.get(kid)
        if key is None and self._failing:
            raise Unavailable(
                "The sign-in service cannot be reached to check this token.",
                reason="keys",
                retry_after=max(self._next_fetch - self._clock.seconds(), COLD_RETRY),
            )
        return key

    def _may_fetch(self) -> bool:
        """Whether asking the issuer, or waiting for its answer, may help with a key id."""
        if self._stopped:
            return False
        if self._attempt is not None:
            return len(self._waiters) < MAX_WAITING
        return self._clock.seconds() >= self._next_fetch

    def _fetched(self) -> Deferred[None]:
        """Fires after the fetch under way, or after a new one."""
        if self._stopped:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._left)
        self._waiters[waiter] = None
        if self._attempt is None:
            self._fetch()
        return waiter

    def _fetch(self) -> None:
        _cancel(self._timer)
        self.fetches += 1
        self._began = self._clock.seconds()
        self._next_fetch = self._began + THROTTLE
        work = download(self._http, self._url, self._clock, may_be_empty=self._may_be_empty)
        fetched = Deferred.fromCoroutine(work)
        fetched.addTimeout(FETCH_TIMEOUT, self._clock)
        attempt: Deferred[None] = fetched.addCallback(self._accept)
        self._attempt = attempt
        attempt.addErrback(self._reject)
        attempt.addBoth(self._settle)

    def _accept(self, fetched: Fetched) -> None:
        if self._failing and self.failures:
            _log.info("the keys of {url} can be fetched again", url=self._url)
        for refused in fetched.keys.refused:
            _log.warn("{url}: {refused}", url=self._url, refused=refused)
        self._failing = False
        self.outcomes["good"] += 1
        # Whatever came after the question may be missing in the answer.
        self._hold(fetched.keys.keys, self._began)
        if self._path is not None:
            _keyfile.save(self._path, self._url, fetched.document, self._now() - self.age)
        self._again_in(max(fetched.lifetime - self.age - AHEAD, MIN_LIFETIME))

    def _reject(self, failure: Failure) -> None:
        if self._stopped:
            return
        self.outcomes[
            "unusable" if isinstance(failure.value, BadAnswerError) else "unreachable"
        ] += 1
        self._failing = True
        retry = THROTTLE if self._keys else COLD_RETRY
        self._next_fetch = self._clock.seconds() + retry
        _log.warn(
            "the keys of {url} cannot be fetched: {reason}; {count} kept keys may be used for "
            "{left:.0f} s",
            url=self._url,
            reason=failure.getErrorMessage() or repr(failure.value),
            count=len(self._keys),
            left=STALE_MAX - self.age if self._keys else 0.0,
        )
        self._again_in(retry)

    def _settle(self, _result: object) -> None:
        self._attempt = None
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.callback(None)

    def _left(self, waiter: Deferred[None]) -> None:
        self._waiters.pop(waiter, None)

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
        self._hold(keys.keys, self._clock.seconds() - age)

    def _hold(self, keys: Mapping[str, Key], fetched_at: float) -> None:
        """Use these keys, until they are too old."""
        self._fetched_at = fetched_at
        _cancel(self._end)
        if not self._stopped:
            self._end = self._clock.callLater(STALE_MAX - self.age, self._replace, {})
        self._replace(keys)

    def _replace(self, keys: Mapping[str, Key]) -> None:
        if keys != self._keys:
            self._keys = keys
            for changed in self._subscribers:
                changed(keys)

    def _again_in(self, seconds: float) -> None:
        if not self._stopped:
            self._timer = self._clock.callLater(seconds, self._fetch_now)

    def _fetch_now(self) -> None:
        if self._attempt is None:
            self._fetch()


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
