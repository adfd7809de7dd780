"""`python -m siammask` is the command `siammask`."""

from siammask.cli import main

main()
