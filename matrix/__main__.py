"""C{python -m matrix} is the C{matrix} command."""

from matrix.cli import main

main(prog_name="matrix")
