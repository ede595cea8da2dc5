"""A bucket made ready: there, keeping for a while what is deleted, and honest about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import (
    AbortIncompleteMultipartUpload,
    LifecycleConfig,
    NoncurrentVersionExpiration,
    Rule,
)
from minio.versioningconfig import VersioningConfig

from matrix.errors import ConfigurationError
from matrix.snapshots._content import Expected
from matrix.snapshots._s3_calls import S3Calls
from matrix.snapshots._s3_errors import translated
from matrix.snapshots._s3_writing import S3Upload
from matrix.snapshots.interfaces import AlreadyThere

RULE_ID = "matrix-snapshots"
"""Marks the lifecycle rules that are ours; others are left as they are."""

PARTS_DAYS = 2
"""After which the store itself frees the parts of uploads that were broken off."""

ABSENT_USER = "00000000-0000-0000-0000-000000000000"
"""Nobody's repository: what is tried out goes among its locks, the only place from which the
least privileges let us delete."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where objects are, and how long the store keeps them beyond their deletion."""

    prefix: str
    """All our keys begin with it; ends in a slash."""
    days: int
    """For which a deleted or replaced object can still be had back by the operator."""


def prepare_bucket(calls: S3Calls, keeping: Keeping) -> Sequence[str]:
    """
    Make a bucket ready; what is so already stays as it is.

    @return: what the store or its operator does not let us have, one line each.
    @raise ConfigurationError: the bucket cannot be used at all.
    @raise matrix.snapshots.interfaces.StoreUnavailable: the store cannot be reached.
    """
    _see_that_it_is_there(calls)
    steps: Sequence[Callable[[S3Calls, Keeping], Iterator[str]]] = (
        _version,
        _set_lifecycle,
        _try_conditions,
    )
    return [line for step in steps for line in step(calls, keeping)]


def _see_that_it_is_there(calls: S3Calls) -> None:
    bucket = calls.bucket
    with translated():
        try:
            if not calls.minio.bucket_exists(bucket):
                calls.minio.make_bucket(bucket)
        except S3Error as error:
            if error.code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                return
            if error.code in _REFUSALS:
                raise ConfigurationError(
                    f"the S3 store refuses bucket {bucket} to us ({error.code}): check the keys, "
                    f"make the bucket, and give them the policy that this prints: "
                    f"python -m matrix.snapshots policy --bucket {bucket}"
                ) from None
            raise
        except ValueError as error:
            raise ConfigurationError(f"{bucket!r} cannot be a bucket's name: {error}") from None


def _version(calls: S3Calls, keeping: Keeping) -> Iterator[str]:
    with translated():
        try:
            if calls.minio.get_bucket_versioning(calls.bucket).status == ENABLED:
                return
            calls.minio.set_bucket_versioning(calls.bucket, VersioningConfig(ENABLED))
        except S3Error as error:
            if error.code not in _REFUSALS:
                raise
            yield (
                f"bucket {calls.bucket} keeps no versions ({error.code}): what is deleted is gone "
                "at once; turn versioning on"
            )


def _set_lifecycle(calls: S3Calls, keeping: Keeping) -> Iterator[str]:
    """Without it, versions are kept for ever, and so every lock that ever was."""
    ours = _rules(keeping)
    with translated():
        try:
            present = calls.minio.get_bucket_lifecycle(calls.bucket)
            rules = [] if present is None else list(present.rules)
            others = [rule for rule in rules if not (rule.rule_id or "").startswith(RULE_ID)]
            if {_gist(rule) for rule in rules} >= {_gist(rule) for rule in ours}:
                return
            calls.minio.set_bucket_lifecycle(calls.bucket, LifecycleConfig([*others, *ours]))
        except S3Error as error:
            if error.code not in _REFUSALS:
                raise
            yield (
                f"bucket {calls.bucket} gets no lifecycle rules from us ({error.code}): see that "
                f"versions under {keeping.prefix} that are not current expire after "
                f"{keeping.days} days"
            )


def _rules(keeping: Keeping) -> Sequence[Rule]:
    where = Filter(prefix=keeping.prefix)
    return [
        Rule(
            ENABLED,
            rule_filter=where,
            rule_id=f"{RULE_ID}-versions",
            noncurrent_version_expiration=NoncurrentVersionExpiration(keeping.days),
        ),
        Rule(
            ENABLED,
            rule_filter=where,
            rule_id=f"{RULE_ID}-parts",
            abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(PARTS_DAYS),
        ),
    ]


def _gist(rule: Rule) -> tuple[object, ...]:
    """What is of interest in a rule; stores write the same in various ways."""
    expiry = rule.noncurrent_version_expiration
    parts = rule.abort_incomplete_multipart_upload
    return (
        rule.rule_id,
        rule.status,
        rule.rule_filter.prefix if rule.rule_filter else None,
        expiry.noncurrent_days if expiry else None,
        parts.days_after_initiation if parts else None,
    )


def _try_conditions(calls: S3Calls, keeping: Keeping) -> Iterator[str]:
    """Whether the store refuses to replace an object, when asked to."""
    key = f"{keeping.prefix}{ABSENT_USER}/locks/probe"
    try:
        for _ in range(2):
            upload = S3Upload(calls.wire, key, Expected(5, None), None, replace=False)
            upload.write([b"probe"])
            upload.commit()
    except AlreadyThere:
        return
    finally:
        calls.delete(key)
    yield (
        "the S3 store ignores If-None-Match: two machines of one user that make their repository "
        "at the same moment would leave one of them without; use a store that knows it"
    )


_REFUSALS = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "MethodNotAllowed",
        "NotImplemented",
        "SignatureDoesNotMatch",
    }
)
"""Codes that say that asking again would not help."""
