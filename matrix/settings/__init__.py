"""Every setting there is: read from the environment, a C{.env} file, or systemd credentials."""

from matrix.settings._issuers import OtherIssuer
from matrix.settings._load import TYPO_RATIO, load
from matrix.settings._model import Settings, env_name
from matrix.settings._text import example, table

__all__ = ["TYPO_RATIO", "OtherIssuer", "Settings", "env_name", "example", "load", "table"]
