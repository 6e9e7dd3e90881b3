"""`python -m triorelay` is `triorelay`."""

from .cli import main

main()
