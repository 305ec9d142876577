"""`python -m supervisor.cli` is `airssys`."""

from supervisor.cli import main

main()
