"""The last good key set on disk, so that a start without the issuer can still verify tokens."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

from twisted.logger import Logger

_log = Logger()


def save(path: Path, url: str, document: bytes, fetched_at: float) -> None:
    """
    Replace the file at once, so that a reader or a crash finds the old or the new one.

    A failure is logged, not raised: the keys in memory go on working. The file is not
    flushed to the medium: after a power cut it may be unreadable, which L{load} survives,
    and a flush would stall the event loop.

    @param url: where the document is from.
    @param fetched_at: unix time, seconds.
    """
    text = document.decode("utf-8", "replace")
    record = json.dumps({"url": url, "fetched_at": fetched_at, "document": text})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(record)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        _log.warn("the key set cannot be kept in {path}: {error}", path=str(path), error=error)


def load(path: Path, url: str) -> tuple[bytes, float] | None:
    """The document kept from C{url} and when it was fetched; C{None}, with a log line, if it is
    unusable or from elsewhere, as after a move to another issuer."""
    try:
        record = json.loads(path.read_bytes())
        document, fetched_at = str(record["document"]).encode(), float(record["fetched_at"])
        source = record["url"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warn("the key set in {path} is unusable: {error!r}", path=str(path), error=error)
        return None
    if source != url:
        _log.info("the key set in {path} is from another place", path=str(path))
        return None
    if not math.isfinite(fetched_at):
        # Against NaN no age would ever be too old.
        _log.warn("the key set in {path} has no proper date", path=str(path))
        return None
    return document, fetched_at
