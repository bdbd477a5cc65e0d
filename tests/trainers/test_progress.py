"""What long work shows, without waiting for it."""

import io

from rich.console import Console

from trainers.progress import BarProgress, LineProgress


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_lines_come_every_five_seconds_and_at_the_end():
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    with progress.task("learn", 100) as task:
        for second in range(1, 11):
            clock.now_s = float(second)
            task.advance(10, note=f"loss {second}")
    progress.say("done")
    assert stream.getvalue().splitlines() == [
        "learn: 50/100 5 s left loss 5",
        "learn: 100/100 10.0 s loss 10",
        "done",
    ]


def test_a_terminal_gets_a_bar_with_time_left_and_loss():
    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=100))
    with progress.task("learn", 10) as task:
        task.advance(5, note="loss 0.25")
    progress.say("[kept as it is]")
    shown = stream.getvalue()
    assert "learn" in shown
    assert "5/10" in shown
    assert "loss 0.25" in shown
    assert "[kept as it is]" in shown
