"""Temporary folders of instances, and what is left of them when nobody could clean up.

A zygote removes an instance's folder when it collects the instance. Instances outlive a zygote that
is killed, and then nobody is left to do it; so each holds a lock on its folder for as long as it
lives, and the next zygote removes those that nobody holds.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "mlfleet-instance-"
YOUNG_S = 60.0
"""A folder younger than this may belong to an instance that is about to lock it."""


def make(uid: int | None) -> str:
    """Make a folder for an instance that runs as this user, or as the zygote's own."""
    folder = tempfile.mkdtemp(prefix=PREFIX)
    if uid is not None:
        os.chown(folder, uid, uid)
    return folder


def hold(folder: Path) -> None:
    """Hold a folder until this process ends."""
    # NFS locks no folder; there a sweep finds out nothing either, and removes none.
    with contextlib.suppress(OSError):
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)


def sweep() -> None:
    """Remove the folders of instances that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > YOUNG_S and not _is_held(folder):
                shutil.rmtree(folder)


def _is_held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
