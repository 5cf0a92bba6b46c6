"""Neighbouring simulations of small networks, each with a known result that can be checked, one file each."""

from . import (
    andriushchenko2023sam,
    cohen2021,
    elhage2022,
    even2023,
    haochen2021,
    kramers1940,
    lau2023,
    lewkowycz2020,
    pillaud2022,
    saad1995,
    simsek2023,
    teachers,
    woodworth2020,
)

NEIGHBOURS = {module.NAME: module for module in (
    even2023, woodworth2020, haochen2021, lewkowycz2020, cohen2021, saad1995, elhage2022, andriushchenko2023sam,
    lau2023, kramers1940, pillaud2022, simsek2023, teachers)}
