"""The golden records themselves; what becomes of them is tested with the decoder."""

from __future__ import annotations

import json

from schemas import samples


def test_every_file_is_in_the_index_once() -> None:
    """No sample is forgotten, and none is listed without its file."""
    indexed = [entry["file"] for entry in json.loads((samples.HERE / "index.json").read_text("utf-8"))]
    listed = sorted(name for name in indexed if name)
    stored = sorted(path.relative_to(samples.HERE).as_posix() for path in samples.HERE.glob("*/*.*"))
    assert listed == [name for name in stored if not name.endswith((".pyc", ".py"))]


def test_the_samples_cover_every_kind_of_message() -> None:
    """Each direction of each origin has a sample."""
    plain = [
        json.loads(one.value or b"") for one in samples.load() if one.name.endswith(("chat", "campaign", "webhook"))
    ]
    kinds = {(event["direction"], event["origin"]) for event in plain}
    assert kinds == {(way, origin) for way in ("inbound", "outbound") for origin in ("campaign", "webhook", "chat")}
