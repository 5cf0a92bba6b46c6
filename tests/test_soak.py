"""A slice of the soak, by count: runs made at random give the same bits in every way of doing them; kills lose none."""

import pytest
from soak import kills, soak
from tiers import some

SEED = 20261126


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_random_runs_have_the_same_bits_in_every_way(first):
    assert soak(SEED, first, 10, reference=False) == []


@pytest.mark.parametrize("first", some((1000, 1004), 2, 1))
def test_random_runs_are_near_the_reference(first):
    assert soak(SEED, first, 4) == []


def test_kills_lose_no_bit():
    assert kills(SEED, kinds=2, each=3, seconds=0.15) == []
