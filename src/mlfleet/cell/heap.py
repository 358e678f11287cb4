"""Put the zygote's heap in order, so that an instance copies few of the pages that all share.

CPython puts a new object into any page that has room. After the warm-up some ten thousand places
are free, strewn over the pages that all instances share; an instance that fills them copies a page
for each. Filling them once before the first fork, for ever, costs the zygote 1.5 MB and saved each
instance about 3 MiB of 21 (measured, Python 3.11).

Interned strings are in one table, in which each newly interned one takes a new place, also where
the last one is gone again; pathlib interns the parts of every path. A table that is used up is
built anew. What the warm-up leaves free is taken up by some thousand artifacts, and then an
instance has a table of its own, 3 MiB. Built anew before the first fork it has five times as many.
"""

import ctypes
import os
import re
import sys
import tempfile

# Class, size of an object, pools, blocks in use, blocks available: `sys._debugmallocstats`.
_CLASS = re.compile(r"^ *\d+ +(\d+) +\d+ +\d+ +(\d+) *$", re.MULTILINE)

INTERNED = 1 << 15
"""As many strings use up what the warm-up leaves free."""


def free_places(statistics: str) -> dict[int, int]:
    """Return how many objects of each size (bytes) fit into pages already in use."""
    return {int(size): int(places) for size, places in _CLASS.findall(statistics)}


def fill_holes() -> int:
    """Occupy every free place of the small-object heap for good; return the bytes taken."""
    allocate = ctypes.pythonapi.PyObject_Malloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    taken = 0
    for size, places in free_places(_statistics()).items():
        for _ in range(places):
            allocate(size)
        taken += size * places
    return taken


def renew_interned() -> None:
    """Use the table of interned strings up, so that it is built anew with many free places."""
    for number in range(INTERNED):
        sys.intern(f"{__name__} {number}")


def _statistics() -> str:
    """Return what `sys._debugmallocstats` prints; it knows no other way than standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            sys._debugmallocstats()
            os.dup2(kept, 2)
            file.seek(0)
            return file.read().decode()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
