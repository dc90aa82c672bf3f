"""What options of the command line that hold YAML, JSON or a file stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geofield.errors import ConfigurationError


def file_text(path: Path) -> str:
    """The text of a file that the caller named."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def mapping_of(text: str, name: str) -> dict[str, Any]:
    """A mapping written in YAML or JSON; `name` is what it is called in a complaint."""
    value = _yaml(text, name)
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name} has to be a mapping, such as {{key: value}}; got {text[:80]!r}.")
    return value


def _yaml(text: str, name: str) -> Any:
    """YAML; JSON is a part of it."""
    import yaml

    try:
        return _as_json(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name} is neither YAML nor JSON: {' '.join(str(error).split())}") from error


def _as_json(value: Any) -> Any:
    """The value with days as text, which is what JSON has: YAML makes dates of them, also of keys."""
    import datetime as dt

    if isinstance(value, dict):
        return {str(name): _as_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value.isoformat() if isinstance(value, dt.date) else value


def source_of(text: str | None, seed: int | None) -> dict[str, Any] | None:
    """`--source` and `--seed` as a box has them; None when nothing is said."""
    value = None if text is None else _yaml(text, "--source")
    if isinstance(value, str):
        value = {"type": value}
    if value is not None and not isinstance(value, dict):
        raise ConfigurationError(f"--source is a type or a mapping such as {{type: simulated}}; got {text!r}.")
    if seed is None:
        return value
    if value is not None and value.get("type") != "simulated":
        raise ConfigurationError(f"--seed belongs to a simulated source; --source is {text!r}.")
    return {**(value or {"type": "simulated"}), "seed": seed}


def variables_of(text: str | None) -> dict[str, Any] | None:
    """`--variables`, a file or what would stand in it."""
    if text is None:
        return None
    is_file = "\n" not in text and "{" not in text and Path(text).is_file()
    return mapping_of(file_text(Path(text)) if is_file else text, "--variables")
