"""What a crowd is to the simulation, whoever moves it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERSON_RADIUS_M = 0.3


class People(Protocol):
    """People in the hall; arrays are parallel and may be replaced at every step.

    `ids` (n,) int64; `positions` (n, 2) [m] and `velocities` (n, 2) [m/s] in the frame of the
    layout. `capacity` is the most there can be at once.
    """

    capacity: int
    ids: NDArray[np.int64]
    positions: Floats
    velocities: Floats

    def advance(self, dt: float, robot: Floats) -> None:
        """Move everybody on by `dt` seconds; `robot` is (x, y, vx, vy) of the base."""
