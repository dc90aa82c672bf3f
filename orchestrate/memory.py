"""Amounts of memory as Kubernetes writes them."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of a quantity such as `4Gi`; `ValueError` when it is none."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no amount of memory; write it as Kubernetes does, such as 4Gi")
    return int(float(found[1]) * _UNITS[found[2] or ""])
