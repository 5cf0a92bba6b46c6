"""Owns what measuring a metric on a card takes: a Task, and what kernels read of networks."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Given:
    """What a kernel reads of networks: `reads` doubles each.

    made: function of weights [M, P] that makes them on the host, [M, ...]
    factors: they are the product of so many parts of a network's weights [factors, reads], 1 for the weights
        themselves; None where only the host can make them
    """

    made: object
    reads: int
    factors: int | None


@dataclass(frozen=True)
class Task:
    """How one metric is measured on a card.

    program; points: what is the same for all networks, one array; n, stride, number: of the launch
    given: what the kernel reads of networks; width: doubles of its answer a network
    finish: function of (answers [M, width], function of positions that gives weights [m, P]) that gives the records
    how: for people
    """

    program: object
    points: np.ndarray
    n: int
    stride: int
    number: float
    given: Given
    width: int
    finish: object
    how: str


def first(answers, read):
    """The one number that a kernel answers."""
    return answers[:, 0]


def task(program, points, n, stride, given, width, how, number=0.0, finish=first):
    """A Task; points become float64."""
    points = np.ascontiguousarray(points, dtype=np.float64)
    return Task(program, points, n, stride, number, given, width, finish, how)


def staged(program, count, stages):
    """The program with shared memory for `count` doubles, if it stages them there."""
    return replace(program, shared=8 * count if stages else 0)


def weights(work):
    """Given of a kernel that reads weights as they are."""
    return Given(lambda weights: weights, work.P, 1)


def parts(work):
    """Given of a kernel that reads `parts` of a linear form; those of two factors are its weights."""
    return Given(lambda weights: work.form.parts(np.asarray(weights, np.float64)), scales(work) * work.d,
                 1 if work.form.factors == 2 else None)


def beta(work):
    """Given of a kernel that reads beta [d]: a product of vectors, or powers of them, which only the host makes."""
    return Given(lambda weights: work.form.beta(np.asarray(weights, np.float64)), work.d, work.form.factors)


def scales(work):
    """Parts of which the scales of a linear form's Jacobian are made."""
    return work.form.parts(np.zeros((1, work.P))).shape[1]
