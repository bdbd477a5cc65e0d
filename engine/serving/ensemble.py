"""Several detectors as one `Predictor`: all of them on every picture, or the cheapest one first.

Pictures come as sheets (`engine.sheet`): members that take the same size share its decoding and resizing, and members
with the same network file share the network and its run. A member that is tiled runs its network on tiles, by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.bundle import Bundle
from engine.cascade import Limit
from engine.contract import Member, Precision
from engine.fusion import fuse, resized
from engine.serving.base import RawBatch, Screening
from engine.serving.detector import Detector
from engine.serving.network import Array, Network
from engine.types import F32, F64, U8

OpenNetwork = Callable[[Bundle, Precision], Network]


@dataclass(frozen=True, slots=True)
class Part:
    """A member of an ensemble, loaded; `size` is the (height, width) px that it takes."""

    member: Member
    detector: Detector
    size: tuple[int, int]
    tiled: bool


class Ensemble:
    """Runs one precision of an ensemble's bundle; a `Predictor` of sheets. The first part is the cheapest one."""

    def __init__(self, bundle: Bundle, precision: Precision, open_network: OpenNetwork, threads: int = 0) -> None:
        manifest, spec = bundle.manifest, bundle.ensemble(precision)
        self.parts = _parts(bundle, precision, open_network, threads)
        self._rule = spec.rule
        self._sheet = bundle.sheet
        self._size = (manifest.input.height, manifest.input.width)  # of its maps
        self._precision = precision

    @property
    def backend(self) -> str:
        """See `Predictor.backend`."""
        return self.parts[0].detector.backend

    @property
    def precision(self) -> str:
        """See `Predictor.precision`."""
        return self._precision

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`: every member runs."""
        return self._run(self.parts, images)

    def screen(self, images: U8) -> RawBatch:
        """The same of the first member alone."""
        return self._run(self.parts[:1], images)

    def complete(self, images: U8, first: RawBatch) -> RawBatch:
        """`predict` of pictures that the first member has screened already."""
        rest = self._run(self.parts[1:], images)
        weights = [self.parts[0].member.weight, sum(part.member.weight for part in self.parts[1:])]
        return RawBatch(
            scores=fuse([first.scores, rest.scores], weights, self._rule),
            maps=fuse([first.maps, rest.maps], weights, self._rule),
            members={**first.members, **rest.members},
        )

    def close(self) -> None:
        """See `Predictor.close`."""
        for network in {id(part.detector.network): part.detector.network for part in self.parts}.values():
            network.close()

    def _run(self, parts: Sequence[Part], images: U8) -> RawBatch:
        outputs: dict[int, dict[str, Array]] = {}
        scores: list[F64] = []
        maps: list[F32] = []
        members: dict[str, F64] = {}
        for part in parts:
            network, pictures = part.detector.network, self._sheet.view(images, part.size)
            if part.tiled:
                raw = part.detector.predict(pictures)
            else:
                if id(network) not in outputs:
                    outputs[id(network)] = dict(network.run(pictures))
                raw = part.detector.judge(outputs[id(network)])
            members[part.member.name] = raw.scores
            scores.append(part.member.image.of(raw.scores))
            maps.append(resized(part.member.pixel.of(raw.maps), self._size))
        weights = [part.member.weight for part in parts]
        return RawBatch(fuse(scores, weights, self._rule), fuse(maps, weights, self._rule), members)


class Cascade:
    """An ensemble whose first member decides alone where the verdict is good up to a limit."""

    def __init__(self, ensemble: Ensemble, limit: Limit) -> None:
        self._ensemble = ensemble
        self.limit = limit

    def screen(self, images: U8) -> Screening:
        """See `engine.serving.base.Screen.screen`."""
        raw = self._ensemble.screen(images)
        return Screening(raw, raw.scores <= self.limit.surprise)

    def complete(self, images: U8, first: RawBatch) -> RawBatch:
        """See `engine.serving.base.Screen.complete`."""
        return self._ensemble.complete(images, first)


def _parts(bundle: Bundle, precision: Precision, open_network: OpenNetwork, threads: int) -> list[Part]:
    networks: dict[str, Network] = {}
    parts = []
    for member in bundle.ensemble(precision).members:
        own = bundle.members[member.name]
        digest = own.executable(precision).network.sha256
        if digest not in networks:
            networks[digest] = open_network(own, precision)
        detector = Detector(own, precision, networks[digest], threads)
        parts.append(Part(member, detector, own.sheet.sizes[0], own.tiled))
    return parts
