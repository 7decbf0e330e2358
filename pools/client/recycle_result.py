"""The result of a recycle on several nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeRecycle:
    """What a node answered to a recycle."""

    node: str
    planned: int  # workers to replace
    error: str = ""  # why there is no answer, or a refusal


@dataclass(frozen=True, slots=True)
class PoolRecycle:
    """A recycle on all its nodes."""

    planned: int
    nodes: tuple[NodeRecycle, ...]

    @property
    def failures(self) -> tuple[NodeRecycle, ...]:
        return tuple(one for one in self.nodes if one.error)
