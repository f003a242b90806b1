"""What others must know to use a network that was trained on volumes."""

from __future__ import annotations

from common.shipping import FORMATS, Cargo
from medseg_ssl.bundle import to_bundle
from medseg_ssl.settings import MedsegSettings


def cargo_of(settings: MedsegSettings) -> Cargo:
    """Of a resolved run with these settings."""
    classes = zip(settings.classes, settings.colors, strict=True)
    facts = {
        "axes": ["to the right", "to the front", "to the top"],
        "channels": list(settings.channels),
        "classes": [
            {"name": each.name, "value": each.value, "color": list(color)}
            for each, color in classes
        ],
        "spacing_mm": list(settings.spacing_mm),
        "normalize": settings.normalize.model_dump(mode="json"),
        "window": {"sides": list(settings.patch), **settings.inference.model_dump(mode="json")},
    }
    return Cargo(settings.patch, facts, {**FORMATS, "bundle": to_bundle})
