"""JSON text from untrusted files: std json, plus what it lets pass without a word.

Keys given twice, NaN and Infinity, deep nesting, text that is not UTF-8, pages of HTML, files cut off half way.
"""

from __future__ import annotations

import codecs
import datetime as dt
import json
import math
from typing import Any

from geofield.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class TextError(InputError):
    """The text cannot be read; the message lacks the file's name, which the caller adds."""

    kind = "text"


class RepeatedKeys(dict[str, Any]):
    """An object in which a key is given more than once; `repeated` says which, with the first and last value."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        first: dict[str, Any] = {}
        self.repeated: dict[str, tuple[Any, Any]] = {}
        for key, value in pairs:
            if key in first:
                self.repeated[key] = (first[key], value)
            first.setdefault(key, value)


def decode(data: bytes) -> str:
    """UTF-8 text, without a byte order mark; `TextError` says where it is not."""
    check_marks(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TextError(
            f"byte 0x{data[error.start]:02X} at position {error.start} (line {line}) is not UTF-8 text: save as UTF-8"
        ) from error
    if "\0" in text[:64]:
        raise TextError("the file is not UTF-8 text: it holds zero bytes")
    return text


def check_marks(data: bytes) -> None:
    """`TextError` when the text begins with the mark of another encoding."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            raise TextError(f"the file is not UTF-8 text: it begins with the byte order mark of {name}. Save as UTF-8")


def check_text(text: str) -> None:
    """`TextError` for an empty file, a blank one, and a page of HTML."""
    if not text:
        raise TextError("the file is empty")
    start = text[:4096].lstrip() or text.lstrip()[:4096]
    if not start:
        raise TextError("the file is empty but for blanks")
    lower = start.lower()
    if lower.startswith("<") and ("<!doctype html" in lower or "<html" in lower):
        raise TextError("the file is an HTML page (a login or error page, perhaps), not data")


def parse(text: str) -> tuple[Any, bool]:
    """The JSON value of a text, NaN and Infinity as floats, and whether any key is given twice (`RepeatedKeys`)."""
    repeats = []

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        repeats.append(True)
        return RepeatedKeys(pairs)

    try:
        return json.loads(text, object_pairs_hook=hook), bool(repeats)
    except json.JSONDecodeError as error:
        raise TextError(_syntax(text, error)) from error
    except RecursionError as error:
        raise TextError("the file is not complete JSON, or is nested too deeply") from error
    except ValueError as error:  # a whole number of more than 4300 digits
        raise TextError(f"a number in the file is too long to be read ({error})") from error


def repeated_keys(value: Any) -> dict[str, tuple[Any, Any]]:
    """Every key that is given twice somewhere in a value."""
    found: dict[str, tuple[Any, Any]] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            found |= getattr(item, "repeated", {})
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(part for part in item if isinstance(part, (dict, list)))
    return found


def dump(value: Any) -> tuple[str, bool]:
    """JSON text of a value, and whether numbers that are not finite were written as null.

    Raises
    ------
    TextError
        It is nested too deeply.
    """
    try:
        try:
            text, mended = _DUMP.encode(value), False
        except ValueError:
            text, mended = _DUMP.encode(_finite(value)), True
        if text.isascii() or _encodable(text):
            return text, mended
        return _DUMP_ASCII.encode(_finite(value)), mended  # half a surrogate pair stays an escape
    except RecursionError as error:
        raise TextError("a property is nested too deeply") from error


def _syntax(text: str, error: json.JSONDecodeError) -> str:
    end = len(text.rstrip())
    if error.pos >= end or error.msg.startswith("Unterminated"):
        lines = text.count("\n", 0, end) + 1
        return f"the file ends in the middle, on line {lines}: it is not complete JSON"
    return f"line {error.lineno}, column {error.colno}: not JSON ({error.msg})"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    """What column formats hold beside JSON's types, as text."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


_DUMP = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain)
_DUMP_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=_plain)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
