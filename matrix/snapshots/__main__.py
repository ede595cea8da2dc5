"""C{python -m matrix.snapshots policy --bucket NAME}: what the operator installs in the store."""

from __future__ import annotations

import click

from matrix.snapshots.policy import bucket_policy
from matrix.snapshots.repository import Shape


@click.group()
def main() -> None:
    """What the operator of the S3 store needs from us."""


@main.command()
@click.option("--bucket", required=True, help="The bucket's name.")
@click.option("--prefix", default=Shape().prefix, show_default=True, help="Before all our keys.")
@click.option("--retention", is_flag=True, help="For the key with which old snapshots go.")
@click.option("--set-up", is_flag=True, help="Also let the bucket be made ready, once.")
def policy(bucket: str, prefix: str, retention: bool, set_up: bool) -> None:
    """Print the least that the router's key must be allowed, for MinIO or AWS."""
    click.echo(bucket_policy(bucket, prefix, retention=retention, set_up=set_up))


if __name__ == "__main__":
    main(prog_name="python -m matrix.snapshots")
