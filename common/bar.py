"""How far a training is, told while it runs."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from common.clock import News
from common.domain import Watch


def sparsely(say: Watch, seconds: float = 2.0) -> Watch:
    """``say``, but not more often than every so many ``seconds``, and at the end."""
    last = -math.inf

    def told(what: str, number: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if number == total or now >= last + seconds:
            last = now
            say(what, number, total)

    return told


class Bar:
    """Training progress: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, out: Console, steps: int) -> None:
        self._out = out
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[news]}"),
            console=out,
            disable=not out.is_terminal,
        )
        self._task = self._progress.add_task("training", total=steps, news="")
        self._next_line = 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def tell(self, news: News) -> None:
        """Show what the trainer reports."""
        line = _in_a_line(news)
        self._progress.update(self._task, completed=news.step, news=line)
        due = time.monotonic() >= self._next_line or news.step == news.steps
        if not self._out.is_terminal and due:
            self._out.print(f"step {news.step}/{news.steps}  {line}")
            self._next_line = time.monotonic() + 10


def _in_a_line(news: News) -> str:
    parts = [f"loss {news.values['loss/total']:.3f}"]
    if "coverage" in news.values:
        parts.append(f"coverage {news.values['coverage']:.0%}")
    minutes, seconds = divmod(round(news.seconds_left), 60)
    return "  ".join(
        [*parts, f"{news.images_per_second:.1f} images/s", f"{minutes}:{seconds:02d} left"]
    )
