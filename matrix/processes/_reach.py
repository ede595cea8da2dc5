"""Which directories a program of ours must be able to read in order to run at all."""

from __future__ import annotations

import sys
from pathlib import Path

import matrix


def python_reach() -> list[Path]:
    """
    What our own Python needs: its prefixes, the C{matrix} package, and the plugin
    directory beside it.

    The checkout itself is not in the list: only what runs, never the rest of it (a state
    directory, an C{.env} file).
    """
    packages = [Path(place) for place in matrix.__path__]
    plugins = [package.parent / "twisted" for package in packages]
    paths = [Path(sys.prefix), Path(sys.base_prefix), *packages, *plugins]
    return [path for path in dict.fromkeys(paths) if path.is_dir()]
