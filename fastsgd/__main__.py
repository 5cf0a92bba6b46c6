"""`python -m fastsgd` is the command `fastsgd`."""

from .cli import main

main()
