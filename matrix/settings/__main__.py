"""C{python -m matrix.settings}: prints C{.env.example}, or with C{--table} the guide's table."""

import sys

from matrix.settings import example, table

sys.stdout.write(table() if sys.argv[1:] == ["--table"] else example())
