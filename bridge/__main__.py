"""`python -m bridge` is `parley`."""

from bridge.cli import main

main()
