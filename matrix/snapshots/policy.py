"""The least that a key to the bucket must allow, as a policy for the operator to install. Pure."""

from __future__ import annotations

import json

SERVE = ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
LOOK = ("s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:GetLifecycleConfiguration")
SET_UP = ("s3:CreateBucket", "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration")


def bucket_policy(bucket: str, prefix: str, *, retention: bool, set_up: bool) -> str:
    """
    A policy in the language of AWS and MinIO, as JSON.

    Nothing in it lets a version be deleted: with versioning on, what the key's bearer
    deletes or replaces stays retrievable until the lifecycle rule says otherwise.

    @param prefix: what all our keys begin with; ends in a slash.
    @param retention: also let old snapshots be deleted, as pruning must.
    @param set_up: also let the bucket be made ready, as a first start does.
    """
    here = f"arn:aws:s3:::{bucket}"
    deletable = f"{here}/{prefix}*" if retention else f"{here}/{prefix}*/locks/*"
    statements: list[dict[str, object]] = [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": [here],
        },
        {"Effect": "Allow", "Action": [*LOOK, *(SET_UP if set_up else ())], "Resource": [here]},
        {"Effect": "Allow", "Action": [*SERVE], "Resource": [f"{here}/{prefix}*"]},
        {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [deletable]},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)
