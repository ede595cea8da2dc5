"""The services that C{twistd} can run for Matrix: data only, loaded by each C{twistd --help}."""

from twisted.application.service import ServiceMaker

matrix = ServiceMaker(
    "Matrix router",
    "matrix.router.tap",
    "The public door: validates who asks, wakes their machine, and proxies to it.",
    "matrix",
)

matrix_daemon = ServiceMaker(
    "Matrix daemon",
    "matrix.daemon.tap",
    "What runs inside a user's machine: their workspace, over HTTP.",
    "matrix-daemon",
)

matrix_fly = ServiceMaker(
    "Matrix's Fly emulator",
    "matrix.testing.fly.tap",
    "Stands in for Fly's Machines API on loopback, with local processes for machines.",
    "matrix-fly",
)

__all__ = ["matrix", "matrix_daemon", "matrix_fly"]
