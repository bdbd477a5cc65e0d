"""An audit of a line at work, and of one whose consumers were killed."""

from __future__ import annotations

import pytest

from engine.audit import audit
from engine.config import Redis
from engine.streams.link import Link


@pytest.mark.parametrize("keep", [False, True])
def test_a_line_at_work_never_looks_wrong(line, fleet, make_config, wait_until, tmp_path, keep):
    config = make_config(line, keep_frames=keep, claim_idle_ms=300, max_size=2, max_deliveries=20)
    link = Link(Redis(url=line.url, prefix=line.prefix), None, "test")
    entries = [line.push() for _ in range(150)]
    journal = tmp_path / "sent.tsv"
    journal.write_text("".join(f"{entry}\t-\n" for entry in entries))
    found = []

    def look():
        found.extend(audit(link, line.keys, by) for by in (None, journal))
        return found[-1].waiting

    for _ in range(2):
        fleet.start(config, batch_s=0.05)  # so slowly that there is time to look
    wait_until(lambda: look() < 100)
    fleet.running()[0].kill()
    wait_until(lambda: look() == 0)
    assert all(verdict.holds for verdict in found), [verdict for verdict in found if not verdict.holds]
    assert len({verdict.waiting for verdict in found}) > 3  # it was looked at while it worked
    final = audit(link, line.keys, None)
    assert (final.frames, final.results, final.waiting) == (150, 150, 0)
    link.close()
