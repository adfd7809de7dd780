"""Which crop to look at, and which box the response says: one locator for each kind of head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from siammask.engines.base import Response
from siammask.geometry import Box, Crop, Patch
from siammask.variants import SearchSettings, Variant

if TYPE_CHECKING:
    from siammask.tracker import TrackerState


@dataclass(frozen=True, slots=True)
class Found:
    """Where a response says the target is."""

    box: Box  # on the frame
    score: float  # in [0, 1]
    row: int
    col: int
    index: int = 0  # which of the crops looked at


class Locator(Protocol):
    """How one kind of head is searched with. Pure: the same state and response give the same answer."""

    settings: SearchSettings

    def exemplar(self, box: Box) -> Crop:
        """The crop to remember the target by."""

    def crops(self, state: TrackerState) -> tuple[Crop, ...]:
        """The search crops to look at next (more than one only for SiamFC's scales)."""

    def find(self, state: TrackerState, crops: tuple[Crop, ...], responses: tuple[Response, ...]) -> Found:
        """The best cell and the box that its scores say."""

    def settle(self, state: TrackerState, found: Found, patch: Patch | None) -> tuple[Found, Patch | None]:
        """The last word once the mask (on the frame) is drawn: which part of it is the target, and its box."""


def locator_for(variant: Variant) -> Locator:
    raise NotImplementedError
