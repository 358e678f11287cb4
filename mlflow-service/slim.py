"""Delete below a folder what a running cell or operator can never read: `slim.py FOLDER`.

Source maps of MLflow's UI, sources of compiled modules, packages' own tests, the descriptions of
some four hundred AWS services of which only S3 (and STS and sign-on, for its credentials) are
called, the asynchronous twin of the Kubernetes client. For a whole system: package managers, Perl,
manuals, and parts of Python's library that only developers use.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

AWS_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
PACKAGES = ("**/*.map", "**/*.pyx", "**/*.pxd", "**/*.c", "**/*.h", "*/tests", "*/test")
MORE_PACKAGES = ("kubernetes/aio", "kubernetes/e2e_test", "kubernetes/docs")
LIBRARY = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")
TOOLS = ("pip", "setuptools", "pkg_resources", "wheel", "_distutils_hack", "distutils-precedence")
SYSTEM = (
    "usr/bin/*perl*",
    "usr/lib/*/perl*",
    "usr/lib/*/libperl*",
    "usr/share/perl*",
    "usr/bin/apt*",
    "usr/lib/apt",
    "usr/lib/*/libapt*",
    "usr/lib/*/gconv",
    "usr/share/python-wheels",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "var/cache/debconf/*",
)


def useless(folder: Path) -> Iterator[Path]:
    """Yield the files and folders to delete below a virtual environment or a whole system."""
    for pattern in SYSTEM if (folder / "usr").is_dir() else ():
        yield from folder.glob(pattern)
    for prefix in ("usr", "usr/local"):
        for name in LIBRARY:
            yield folder / prefix / "lib" / "python3.11" / name
        for name in TOOLS:
            yield from (folder / prefix / "lib").glob(f"python3*/*-packages/{name}*")
    sites = [folder] if (folder / "kopf").is_dir() else folder.glob("lib/python3*/site-packages")
    for site in sites:
        for pattern in PACKAGES + MORE_PACKAGES:
            yield from site.glob(pattern)
        services = (path for path in site.glob("botocore/data/*") if path.is_dir())
        yield from (path for path in services if path.name not in AWS_SERVICES)


def delete(path: Path) -> int:
    """Delete a file or folder; return its bytes."""
    if path.is_dir() and not path.is_symlink():
        saved = sum(file.lstat().st_size for file in path.rglob("*"))
        shutil.rmtree(path)
        return saved
    saved = path.lstat().st_size
    path.unlink()
    return saved


def main() -> None:
    """Delete, and say how much that was."""
    paths = list(useless(Path(sys.argv[1])))
    saved = sum(delete(path) for path in paths if path.exists() or path.is_symlink())
    print(f"slim: {saved / 1e6:.0f} MB deleted")


if __name__ == "__main__":
    main()
