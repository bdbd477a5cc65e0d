"""The sink of outcomes: publish, acknowledge and delete in one script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine import codec
from engine.config import Config
from engine.errors import StreamError
from engine.streams import scripts
from engine.streams.base import Ending, Outcome
from engine.streams.groups import reopen_groups
from engine.streams.keys import GROUP, LineKeys
from engine.streams.link import Call, GroupLostError, Link


class RedisSink:
    """Publishes outcomes; see `OutcomeSink`. Use from one thread."""

    def __init__(self, link: Link, keys: Mapping[str, LineKeys], settings: Config) -> None:
        self._link = link
        self._keys = keys
        self._maxlen = (settings.publish.results_maxlen, settings.publish.dead_maxlen)
        self._keep = int(settings.delivery.keep_frames)

    def publish(self, outcomes: Sequence[Outcome]) -> list[Ending]:
        """See `OutcomeSink.publish`."""
        endings: list[Ending] = []
        try:
            self._link.open()
            endings = self._publish(outcomes)
            lost = [i for i, ending in enumerate(endings) if isinstance(ending, GroupLostError)]
            if lost:
                lines = {outcomes[i].delivery.line for i in lost}
                reopen_groups(self._link, {line: self._keys[line] for line in lines})
                for i, ending in zip(lost, self._publish([outcomes[i] for i in lost]), strict=True):
                    endings[i] = ending
        except StreamError as error:
            return endings or [error] * len(outcomes)
        return endings

    def _publish(self, outcomes: Sequence[Outcome]) -> list[Ending]:
        replies = self._link.run(scripts.END, [self._call(outcome) for outcome in outcomes])
        return [reply if isinstance(reply, StreamError) else reply == 1 for reply in replies]

    def _call(self, outcome: Outcome) -> Call:
        delivery, keys = outcome.delivery, self._keys[outcome.delivery.line]
        if outcome.result is not None:
            out, maxlen = keys.results, self._maxlen[0]
            fields = {**codec.encode_result(outcome.result), **outcome.pictures}
        elif outcome.dead is not None:
            out, maxlen = keys.dead, self._maxlen[1]
            fields = codec.encode_dead(
                outcome.dead, frame=delivery.entry, line=delivery.line, meta=delivery.meta, data=delivery.data
            )
        else:
            raise ValueError(f"{delivery.line} {delivery.entry}: an outcome needs a result or a dead letter")
        flat = [part for pair in fields.items() for part in pair]
        return Call((keys.frames, keys.ended, out), (GROUP, delivery.entry, maxlen, self._keep, *flat))
