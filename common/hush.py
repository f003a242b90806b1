"""Which warnings a terminal shows."""

from __future__ import annotations

import logging
import warnings

from rich.console import Console
from rich.markup import escape


def hush_libraries(err: Console) -> None:
    """Let only our own warnings through: those of the libraries are not for the user to mend."""
    warnings.filterwarnings("ignore")
    fabric = ("lightning", "lightning.fabric", "lightning.pytorch")
    for name in (*fabric, "torch", "monai", "rasterio", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Speak(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level, text = record.levelname.title(), escape(record.getMessage())
            err.print(f"[yellow]{level}[/]: {text}", soft_wrap=True)

    own = logging.getLogger("seg_ssl")
    own.handlers = [Speak()]
    own.setLevel(logging.INFO)
