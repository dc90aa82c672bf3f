"""A namespace of a real Kubernetes, and stores that pods and the test both reach.

Pods have to see the store and the project's code: where `LOCAL_KUBE` is set they are processes of this machine and do.
Elsewhere `GEOFIELD_TEST_STORE` names a place such as s3://bucket/prefix, `GEOFIELD_KUBE_IMAGE` the image, and
`GEOFIELD_TEST_KUBE_ENV` variables of the pods as JSON.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import yaml

import geofield
from geofield import Store
from orchestrate import demo

Value = TypeVar("Value")

ROOT = Path(__file__).resolve().parent.parent.parent
IS_LOCAL = "LOCAL_KUBE" in os.environ
WORKER = "dask.org/component=worker"
SCHEDULER = "dask.org/component=scheduler"


def kubectl(*words: str, given: object = None, check: bool = True) -> str:
    """What kubectl prints; `given` is handed to it as JSON."""
    text = None if given is None else json.dumps(given)
    done = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, check=False, timeout=120)
    if check and done.returncode:
        raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr}")
    return done.stdout if done.returncode == 0 or not check else ""


def until(ask: Callable[[], Value], seconds: float, what: str) -> Value:
    """The first true answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = ask()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass(frozen=True)
class Namespace:
    """One of a test's own."""

    name: str
    folder: Path

    def kubectl(self, *words: str, given: object = None, check: bool = True) -> str:
        """kubectl in it."""
        return kubectl("-n", self.name, *words, given=given, check=check)

    def names(self, kind: str, selector: str = "") -> list[str]:
        """What there is of a kind."""
        return self.kubectl("get", kind, *(("-l", selector) if selector else ()), "-o", "name").split()

    def running(self, selector: str) -> list[str]:
        """Pods that run and are not on their way out."""
        found = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return [
            one["metadata"]["name"]
            for one in found
            if one["status"].get("phase") == "Running" and "deletionTimestamp" not in one["metadata"]
        ]

    def settings(self, **changes: Any) -> Path:
        """A file of settings for small clusters."""
        small = {"memory": "1Gi", "cpu": "100m", **({"scratch": None} if IS_LOCAL else {"scratch": "1Gi"})}
        values = {
            "image": os.environ.get("GEOFIELD_KUBE_IMAGE", "any"),
            "namespace": self.name,
            "env": json.loads(os.environ.get("GEOFIELD_TEST_KUBE_ENV", "{}")),
            "scheduler": small,
            "worker": small,
            "runner_does_s": 0,
            "target_duration_s": 1,
            "start_timeout_s": 120,
            "port_forward": not IS_LOCAL,
            **changes,
        }
        path = self.folder / f"kube-{uuid.uuid4().hex[:6]}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def store(self) -> str:
        """A place for a store that pods reach."""
        base = os.environ.get("GEOFIELD_TEST_STORE")
        name = f"store-{uuid.uuid4().hex[:8]}"
        return f"{base}/{name}" if base else str(self.folder / name)


def command(settings: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of geofield on Kubernetes."""
    return [sys.executable, "-m", "orchestrate.cli", *words], {
        **os.environ,
        "GEOFIELD_KUBE_FILE": str(settings),
        "PYTHONPATH": str(ROOT),
    }


def start(settings: Path, *words: str) -> subprocess.Popen[str]:
    """geofield as a process; its output is piped."""
    line, environment = command(settings, *words)
    return subprocess.Popen(
        line, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, dict[str, Any], str]:
    """Status, the JSON on stdout, stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        raise AssertionError(f"not done within {seconds} s:\n{err}") from None
    return process.returncode, json.loads(out) if out.strip() else {}, err


# --- work ------------------------------------------------------------------------------------------------------------


def make_store(url: str, *, late: bool = False) -> Store:
    """The demo's boxes and the fields that come on time."""
    store = geofield.create_store(url)
    demo._add_boxes(store)
    hand_in(store, demo._make_fields(18))
    if late:
        hand_in(store, demo._make_fields(6, first=18))
    return store


def hand_in(store: Store, fields: Sequence[Mapping[str, Any]]) -> None:
    """Put fields into the inbox."""
    features = [
        {
            "type": "Feature",
            "properties": {"field_id": one["id"], "planting_date": str(one["planted"])},
            "geometry": {"type": "Polygon", "coordinates": [one["ring"]]},
        }
        for one in fields
    ]
    data = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    store.location.write(f"inbox/fields/{uuid.uuid4().hex[:8]}.geojson", data)


def rows_as_bytes(store: Store) -> bytes:
    """Every row, every bit of it, in an order of its own."""
    rows = store.rows().sort_values(["box", "field_id", "date"]).reset_index(drop=True)
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    data: bytes = sink.getvalue().to_pybytes()
    assert table.num_rows
    return data


def days_done(url: str, box: str = "north") -> int:
    """Days that the cube of a box holds now."""
    from geofield.errors import GeofieldError

    try:
        return len(geofield.open_store(url).cube(box).head().days)
    except (GeofieldError, OSError, LookupError):
        return 0


def last_day(days: int) -> dt.date:
    """The last day of a backfill of so many days."""
    return demo.START + dt.timedelta(days=days - 1)
