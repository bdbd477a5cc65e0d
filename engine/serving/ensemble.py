"""Several detectors as one `Predictor`: all of them on every picture, or the cheapest one first.

Pictures come as sheets (`engine.sheet`): members that take the same size share its decoding and resizing. Members in
this process go on from what those before them have computed of the same pictures, where their networks begin alike
(`contract.Member.network`), also between the two steps of a cascade. A tiled member runs its network on tiles, by
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import Bundle
from engine.cascade import Limit
from engine.contract import Member, Precision
from engine.fusion import fuse, resized
from engine.serving.base import Predictor, RawBatch, Screening
from engine.serving.detector import Detector
from engine.serving.network import NOTHING, Array, Network
from engine.types import F32, F64, U8

Look = Callable[[U8, Mapping[str, Array]], RawBatch]
OpenMember = Callable[[Bundle, Member], tuple[Predictor, Look]]


@dataclass(frozen=True, slots=True)
class Part:
    """A member of an ensemble, loaded; `size` is the (height, width) px that it takes.

    `look` gets pictures of that size and what members before this one have in common with it.
    """

    member: Member
    size: tuple[int, int]
    predictor: Predictor
    look: Look


class Ensemble:
    """Runs one precision of an ensemble's bundle; a `Predictor` of sheets. The first part is the cheapest one."""

    def __init__(self, bundle: Bundle, precision: Precision, open_member: OpenMember) -> None:
        manifest, spec = bundle.manifest, bundle.ensemble(precision)
        self.parts = _parts(bundle, spec.members, open_member)
        self._rule = spec.rule
        self._sheet = bundle.sheet
        self._size = (manifest.input.height, manifest.input.width)  # of its maps
        self._precision = precision

    @property
    def backend(self) -> str:
        """See `Predictor.backend`."""
        return self.parts[0].predictor.backend

    @property
    def precision(self) -> str:
        """See `Predictor.precision`."""
        return self._precision

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`: every member runs."""
        return self._run(self.parts, images, NOTHING)

    def screen(self, images: U8) -> RawBatch:
        """The same of the first member alone."""
        return self._run(self.parts[:1], images, NOTHING)

    def complete(self, images: U8, first: RawBatch) -> RawBatch:
        """`predict` of pictures that the first member has screened already."""
        rest = self._run(self.parts[1:], images, first.common)
        weights = [self.parts[0].member.weight, sum(part.member.weight for part in self.parts[1:])]
        return RawBatch(
            scores=fuse([first.scores, rest.scores], weights, self._rule),
            maps=fuse([first.maps, rest.maps], weights, self._rule),
            members={**first.members, **rest.members},
        )

    def close(self) -> None:
        """See `Predictor.close`."""
        for part in self.parts:
            part.predictor.close()

    def _run(self, parts: Sequence[Part], images: U8, common: Mapping[str, Array]) -> RawBatch:
        views: dict[tuple[int, int], U8] = {}
        known = dict(common)
        scores: list[F64] = []
        maps: list[F32] = []
        members: dict[str, F64] = {}
        for part in parts:
            if part.size not in views:
                views[part.size] = self._sheet.view(images, part.size)
            raw = part.look(views[part.size], known)
            known |= raw.common
            members[part.member.name] = raw.scores
            scores.append(part.member.image.of(raw.scores))
            maps.append(resized(part.member.pixel.of(raw.maps), self._size))
        weights = [part.member.weight for part in parts]
        return RawBatch(fuse(scores, weights, self._rule), fuse(maps, weights, self._rule), members, known)


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


def here(whole: Bundle, precision: Precision, open_network: Callable[[Path], Network], threads: int = 0) -> OpenMember:
    """Opens members that run in this process and go on from one another."""

    def open_member(own: Bundle, member: Member) -> tuple[Predictor, Look]:
        network = own.file(own.executable(precision).network) if member.network is None else whole.file(member.network)
        detector = Detector(own, precision, open_network(network), threads)
        return detector, detector.go_on

    return open_member


def by_themselves(open_predictor: Callable[[Bundle], Predictor]) -> OpenMember:
    """Opens members that run wherever their bundles do, each from the picture on."""

    def open_member(own: Bundle, member: Member) -> tuple[Predictor, Look]:
        predictor = open_predictor(own)
        return predictor, lambda images, _: predictor.predict(images)

    return open_member


def _parts(bundle: Bundle, members: Sequence[Member], open_member: OpenMember) -> list[Part]:
    parts = []
    with ExitStack() as stack:
        for member in members:
            own = bundle.members[member.name]
            predictor, look = open_member(own, member)
            stack.callback(predictor.close)
            parts.append(Part(member, own.sheet.sizes[0], predictor, look))
        stack.pop_all()
    return parts
