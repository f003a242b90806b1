"""What is told while something takes its time."""

from __future__ import annotations

import pytest

from common import bar


@pytest.mark.parametrize("step_s", [0.0, 0.7, 5.0])
def test_news_come_at_most_so_often_and_the_first_and_last_always(monkeypatch, step_s):
    times = (step_s * count for count in range(100))
    monkeypatch.setattr(bar.time, "monotonic", lambda: next(times))
    seen = []
    say = bar.sparsely(lambda *said: seen.append(said), seconds=2.0)
    for number in range(1, 11):
        say(f"c{number}", number, 10)
    numbers = [number for _, number, _ in seen]
    assert numbers == {0.0: [1, 10], 0.7: [1, 4, 7, 10], 5.0: [*range(1, 11)]}[step_s]
    assert seen[-1] == ("c10", 10, 10)
