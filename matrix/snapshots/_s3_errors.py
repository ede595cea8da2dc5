"""What went wrong at the store, in our words: absences are certain, all else is trouble."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from matrix.errors import InsufficientStorage, MatrixError
from matrix.snapshots.interfaces import AlreadyThere, NoSuchObject, OutOfRange, StoreUnavailable

_CODE = re.compile(rb"<Code>([A-Za-z]{1,80})</Code>")

ABSENT = frozenset({"NoSuchKey"})
TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
FULL = frozenset({"XMinioStorageFull", "EntityTooLarge", "QuotaExceeded", "InsufficientStorage"})


def refusal(status: int, code: str) -> MatrixError:
    """
    What an answer of the store that is no success means.

    Only C{NoSuchKey} is an absence: C{NoSuchBucket}, C{AccessDenied} and all the rest say
    nothing of the object, and a client that took them for one would begin anew.
    """
    if code in ABSENT:
        return NoSuchObject("there is no such object")
    if code in TAKEN or status == 412:
        return AlreadyThere("there is such an object already")
    if code == "InvalidRange" or status == 416:
        return OutOfRange("the object does not have these bytes")
    if code in FULL or status == 507:
        return InsufficientStorage("the store has no space left", reason="store-full")
    return StoreUnavailable(f"the store answered {status} {code}".rstrip())


def code_of(body: bytes) -> str:
    """The code in an error of S3's; empty if it says none."""
    found = _CODE.search(body)
    return found[1].decode("ascii") if found else ""


@contextmanager
def translated() -> Iterator[None]:
    """
    Within it, what minio, urllib3 and sockets raise becomes one of ours.

    @raise StoreUnavailable: and the other errors of L{refusal}.
    """
    try:
        yield
    except S3Error as error:
        raise refusal(error.response.status, error.code or "") from None
    except (InvalidResponseError, ServerError) as error:
        raise StoreUnavailable(f"the store gave no proper answer: {_brief(error)}") from None
    except (MinioException, ParseError, ValueError) as error:
        raise StoreUnavailable(f"the store's answer makes no sense: {_brief(error)}") from None
    except (HTTPError, HTTPException, OSError) as error:
        raise StoreUnavailable(f"the store cannot be reached: {_brief(error)}") from None


def _brief(error: BaseException) -> str:
    """The innermost reason, without addresses of objects or signed URLs, which reprs hold."""
    while (inner := getattr(error, "reason", None)) and isinstance(inner, BaseException):
        error = inner
    while not isinstance(error, OSError) and error.__cause__ is not None:
        error = error.__cause__
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
