"""A program with a database in use: C{python -I -S writer.py PATH}, commands on its input."""

from __future__ import annotations

import hashlib
import os
import select
import sqlite3
import sys

ROW = 65536
"""Bytes of a row that fills."""
TRICKLE = 100
"""Bytes of those that are written all the time."""
PAUSE = 0.05
"""Seconds between two of them."""
BATCH = 64
"""Rows in one transaction."""


def main() -> None:
    """Write until the end of the input."""
    base = sqlite3.connect(sys.argv[1])
    base.execute("PRAGMA journal_mode = WAL")
    base.execute(
        "CREATE TABLE IF NOT EXISTS notes"
        " (id INTEGER PRIMARY KEY, version INTEGER, digest BLOB, text BLOB)"
    )
    base.commit()
    while True:
        ready, _, _ = select.select([0], [], [], PAUSE)
        if ready:
            # Unbuffered: what a buffer holds already select(2) does not see.
            words = read_line().split()
            if not words:
                return
            obey(base, words[0], [int(word) for word in words[1:]])
            [last] = base.execute("SELECT max(id) FROM notes").fetchone()
            sys.stdout.write(f"{last or 0}\n")
            sys.stdout.flush()
        else:
            add(base, TRICKLE)
            base.commit()


def read_line() -> bytes:
    """One line of standard input; nothing at its end."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def obey(base: sqlite3.Connection, what: bytes, numbers: list[int]) -> None:
    """Carry out a command; it is committed then."""
    if what == b"fill":
        for count in range(numbers[0] // ROW):
            add(base, ROW)
            if count % BATCH == BATCH - 1:
                base.commit()
    elif what == b"alter":
        text = os.urandom(ROW)
        base.execute(
            "UPDATE notes SET version = version + 1, digest = ?, text = ? WHERE id = ?",
            (hashlib.sha256(text).digest(), text, numbers[0]),
        )
    base.commit()


def add(base: sqlite3.Connection, size: int) -> None:
    """One row more."""
    text = os.urandom(size)
    digest = hashlib.sha256(text).digest()
    base.execute("INSERT INTO notes (version, digest, text) VALUES (0, ?, ?)", (digest, text))


if __name__ == "__main__":
    main()
