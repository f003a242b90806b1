"""What others must know to use a network that was trained on scenes."""

from __future__ import annotations

from common.shipping import FORMATS, Cargo
from rsseg_ssl.settings import RssegSettings


def cargo_of(settings: RssegSettings) -> Cargo:
    """Of a resolved run with these settings."""
    classes = zip(settings.classes, settings.colors, strict=True)
    facts = {
        "axes": ["rows", "columns"],
        "bands": list(settings.bands),
        "classes": [
            {"name": each.name, "value": each.value, "color": list(color)}
            for each, color in classes
        ],
        "normalize": {"name": "bands", **settings.measured.model_dump(mode="json")},
        "window": {
            "sides": [settings.tile, settings.tile],
            **settings.inference.model_dump(mode="json"),
        },
    }
    return Cargo((settings.tile, settings.tile), facts, FORMATS)
