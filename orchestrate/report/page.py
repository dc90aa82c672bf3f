"""The page: one file, no network, no markup from data.

Whatever came from outside (ids, properties, reasons) is JSON in an element that is not executed, and the script puts it
on the page as text. A content security policy names the one script and the one style sheet by their digests, so that
nothing else runs and nothing is fetched, should either fail.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from typing import Any

import numpy as np

from orchestrate.report.values import BoxData, Report, VariableData, pack, squeeze


def render(report: Report) -> str:
    """The whole page as text (UTF-8)."""
    style, script, frame = (_asset(name) for name in ("page.css", "page.js", "page.html"))
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": html.escape(policy, quote=True),
        "TITLE": html.escape(f"geofield: {report.meta['store']}"),
        "STYLE": style,
        "META": _json(report.meta),
        "BOXES": "\n".join(_box(number, box) for number, box in enumerate(report.boxes)),
        "SCRIPT": script,
    }
    # one pass, so that no part is searched for the name of another
    pieces = frame.split("@@")
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _box(number: int, box: BoxData) -> str:
    head = {
        "id": box.id,
        "width": box.width,
        "height": box.height,
        "resolution": box.resolution,
        "first_day": box.first_day,
        "days": box.status.shape[1],
        "fields": squeeze(json.dumps(box.fields, ensure_ascii=False).encode()),
        "status": squeeze(box.status.tobytes()),
        "variables": [_variable(one) for one in box.variables],
    }
    return f'<script type="application/json" id="box-{number}">{_json(head)}</script>'


def _variable(one: VariableData) -> dict[str, Any]:
    layers = {name: getattr(one, name) for name in ("observed", "estimate", "sigma")}
    packed = {name: None if values is None else pack(values) for name, values in layers.items()}
    look = one.quicklook
    shown = None if look is None else {**pack(look.astype(np.float64)), "height": look.shape[0], "width": look.shape[1]}
    return {"name": one.name, "quicklook": shown, "valid_range": one.valid_range, **packed}


def _json(value: Any) -> str:
    """JSON that can stand in an element: nothing in it closes the element or opens a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _asset(name: str) -> str:
    return (resources.files("orchestrate.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
