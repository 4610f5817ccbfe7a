"""The similarity (shift, growth, turn) that explains the displacements of points best, where up to two fifths of them move on
their own.

Many fits over the same points are done at once, since a call of numpy costs as much as its work on one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROUNDS = 8  # Rounds of reweighting at most. Most fits stand still after 4 to 8.
# In units of the displacements. A round that changes a fit by less is its last one: with speeds in long sides per second, the
# change is a thousandth of the slowest motion that counts as one.
SETTLED = 1e-5
SPREAD = 2.25  # Cauchy's scale, squared, over the median of the squares that a fit leaves.
LEAST_SCALE = 1e-6  # In squared units of the displacements.

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Points:
    """Where the points lie: float64 [k] each, to the right of and below the origin. square: of their distance to it."""

    x: Floats
    y: Floats
    square: Floats

    @classmethod
    def at(cls, x: Floats, y: Floats) -> Points:
        return cls(x, y, x * x + y * y)

    def only(self, kept: npt.NDArray[np.bool_]) -> Points:
        return Points(self.x[kept], self.y[kept], self.square[kept])


def fit_similarities(
    points: Points, u: Floats, v: Floats, weight: Floats, rounds: int = ROUNDS
) -> tuple[Floats, Floats]:
    """For each of n fits (shift x, shift y, growth, turn) with u ≈ shift_x + growth·x − turn·y, v ≈ shift_y + turn·x + growth·y,
    float64 [n, 4], and the squares of what is left at each point, float64 [n, k].

    u, v: the displacements, float64 [n, k]; weight: float64 [n, k], ≥ 0. Least squares with Cauchy weights, repeated from a
    start at the weighted medians, with a scale that follows the median of the squares. Where nothing has a weight, all is zero.
    """
    # The weighted medians are a better start than the mean when much moves by itself.
    fitted = np.zeros((len(u), 4))
    fitted[:, 0], fitted[:, 1] = weighted_medians(u, weight), weighted_medians(v, weight)
    squares = squares_left(points, fitted, u, v)
    moving = np.arange(len(u))  # The fits that do not stand still yet; the arrays named `its` are of these.
    its_u, its_v, its_weight, its_squares = u, v, weight, squares
    for _ in range(rounds):
        scale = np.maximum(SPREAD * weighted_medians(its_squares, its_weight), LEAST_SCALE)
        fits = _least_squares(points, its_u, its_v, its_weight / (1 + its_squares / scale[:, None]))
        its_squares = squares_left(points, fits, its_u, its_v)
        goes_on = np.abs(fits - fitted[moving]).max(axis=1) >= SETTLED
        fitted[moving], squares[moving] = fits, its_squares
        if not goes_on.all():
            moving = moving[goes_on]
            its_u, its_v, its_weight, its_squares = (
                array[goes_on] for array in (its_u, its_v, its_weight, its_squares)
            )
        if not len(moving):
            break
    return fitted, squares


def squares_left(points: Points, motions: Floats, u: Floats, v: Floats) -> Floats:
    """How far each displacement is from the one of a motion, squared: float64 [n, k]. motions: float64 [n, 4]."""
    shift_x, shift_y, growth, turn = motions.T[..., None]
    right = u - shift_x - growth * points.x + turn * points.y
    down = v - shift_y - turn * points.x - growth * points.y
    return np.asarray(right * right + down * down)


def _least_squares(points: Points, u: Floats, v: Floats, weight: Floats) -> Floats:
    """The weighted least-squares solutions. Where the points lie on one spot, they neither grow nor turn."""
    total = np.maximum(weight.sum(axis=1), np.finfo(np.float64).tiny)
    place = np.stack([points.x, points.y], axis=1)
    right, down = weight * u, weight * v
    x, y = (weight @ place).T / total
    mean_u, mean_v = right.sum(axis=1) / total, down.sum(axis=1) / total
    (u_x, u_y), (v_x, v_y) = (right @ place).T, (down @ place).T
    # About the means, growth and turn are two quotients.
    spread = weight @ points.square - total * (x * x + y * y)
    along = u_x + v_y - total * (mean_u * x + mean_v * y)
    across = v_x - u_y - total * (mean_v * x - mean_u * y)
    firm = spread > 1e-9 * total
    growth, turn = (np.divide(part, spread, out=np.zeros_like(part), where=firm) for part in (along, across))
    return np.stack([mean_u - growth * x + turn * y, mean_v - turn * x - growth * y, growth, turn], axis=1)


def weighted_medians(values: Floats, weight: Floats) -> Floats:
    """Of each row of float64 [n, k] the least value up to which half of the row's weight lies, float64 [n]."""
    order = np.argsort(values, axis=1)
    total = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
    place = np.minimum((total < total[:, -1:] / 2).sum(axis=1), values.shape[1] - 1)
    return np.asarray(np.take_along_axis(values, np.take_along_axis(order, place[:, None], axis=1), axis=1)[:, 0])
