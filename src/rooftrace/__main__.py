"""`python -m rooftrace`."""

from rooftrace.cli import main

main()
