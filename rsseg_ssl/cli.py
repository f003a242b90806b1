"""The command ``rsseg-ssl``."""

from __future__ import annotations

from common.cli import build


def main() -> None:
    """Entry point of the console script."""
    build(
        "rsseg-ssl",
        "rsseg_ssl.adapter:rsseg",
        "Segment satellite and aerial scenes (GeoTIFF) from a few labeled and many unlabeled ones.",
    )()
