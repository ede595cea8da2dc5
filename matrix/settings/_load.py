"""Reads the settings from everywhere they may be given, and refuses what cannot be meant."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_settings import SettingsError

from matrix.errors import ConfigurationError
from matrix.settings._model import PREFIX, Settings, env_name

TYPO_RATIO = 0.85
"""How alike (0 to 1) an unknown name must be to a setting's to be taken for a misspelling.
Lower, and names that other programs own would be refused."""


def load(env_file: str | Path | None = None, **overrides: object) -> Settings:
    """
    Read the settings: C{overrides} win over the environment, which wins over C{env_file}
    and over systemd's credentials directory. An empty value counts as not given.

    @param overrides: settings by field name; C{None} for one that was not given, an empty
        text to have none whatever the environment says.
    @raise ConfigurationError: a file is unreadable or a value is unusable; names the setting.
    @raise TypeError: an override is no setting.
    """
    if strangers := overrides.keys() - Settings.model_fields.keys():
        raise TypeError(f"no such setting: {', '.join(sorted(strangers))}")
    _refuse_misspelt(os.environ, "the environment")
    if env_file is not None:
        _refuse_misspelt(_env_file_names(env_file), f"--env-file {env_file}")
    given = {
        name: None if value == "" else value
        for name, value in overrides.items()
        if value is not None
    }
    try:
        return Settings(  # type: ignore[call-arg]
            _env_file=env_file,
            _secrets_dir=_credentials_directory(),
            **given,  # type: ignore[arg-type]
        )
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None
    except SettingsError as error:
        # Only files can make a source fail; the exception's own text may quote a secret.
        cause = error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else "a file is not UTF-8 text"
        raise ConfigurationError(f"CREDENTIALS_DIRECTORY: {reason}") from None


def _credentials_directory() -> str | None:
    # A shell may inherit the variable from a service whose credentials it cannot see.
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return directory if directory and Path(directory).is_dir() else None


def _env_file_names(env_file: str | Path) -> list[str]:
    try:
        if not Path(env_file).is_file():  # pydantic-settings would skip it in silence
            raise ConfigurationError(f"--env-file {env_file}: there is no such file")
        with Path(env_file).open(encoding="utf-8") as lines:
            bindings = list(parse_stream(lines))
    except OSError as error:
        raise ConfigurationError(f"--env-file {env_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--env-file {env_file}: not UTF-8 text") from None
    for binding in bindings:
        if binding.error:
            raise ConfigurationError(
                f"--env-file {env_file}: line {binding.original.line} is not NAME=VALUE"
            )
    return [binding.key for binding in bindings if binding.key]


def _refuse_misspelt(names: Iterable[str], source: str) -> None:
    for name in names:
        field = name.lower().removeprefix(PREFIX.lower())
        if field in Settings.model_fields or not name.upper().startswith(PREFIX):
            continue
        if meant := get_close_matches(field, Settings.model_fields, n=1, cutoff=TYPO_RATIO):
            raise ConfigurationError(
                f"{name} in {source}: no such setting; meant {env_name(meant[0])}?"
            )


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_input=False, include_url=False):
        reason = problem.get("ctx", {}).get("error")
        text = str(reason) if isinstance(reason, ValueError) else problem["msg"]
        field, *inside = map(str, problem["loc"] or ("",))
        if inside:
            text = f"{'.'.join(inside)}: {text}"
        name = env_name(field) if field in Settings.model_fields else field
        problems.append(f"{name}: {text}" if name else text)
    return "; ".join(problems)
