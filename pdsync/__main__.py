"""`python -m pdsync`."""

from pdsync.cli.main import main

main()
