"""The command ``medseg-ssl``."""

from __future__ import annotations

from common.cli import build


def main() -> None:
    """Entry point of the console script."""
    build(
        "medseg-ssl",
        "medseg_ssl.adapter:medseg",
        "Segment MRI and CT volumes (NIfTI) from a few labeled and many unlabeled cases.",
    )()
