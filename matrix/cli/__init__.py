"""C{matrix ...}: what an operator asks of, and tells, a running Matrix."""

from matrix.cli._commands import main

__all__ = ["main"]
