"""Say in one sentence why Aperta cannot be installed with this interpreter, or say nothing.

Kept to the syntax of old Python versions, so that those can say it too.
"""

import os
import platform
import sys

REMEDY = "install one (Debian 12+, Ubuntu 24.04+: apt-get install python3-venv) or name another: make PYTHON=python3.12"


def find_obstacle():
    """Return what is wrong and what to do about it, or None."""
    version = platform.python_version()
    if sys.version_info < (3, 11):
        return "Aperta needs Python 3.11 or newer, and %s is %s: %s" % (sys.executable, version, REMEDY)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "Python %s cannot create virtual environments: apt-get install python3-venv" % version
    return find_library_obstacle()


def find_library_obstacle():
    """Return what is wrong with the C library: the speech engine's wheel needs glibc 2.34, or None."""
    try:
        name, _, release = os.confstr("CS_GNU_LIBC_VERSION").partition(" ")
    except (AttributeError, OSError, ValueError):
        name, release = "", ""
    if name != "glibc":
        return "Aperta's speech engine needs Linux with glibc 2.34 or newer, which is not here: use Debian 12+"
    if tuple(int(part) for part in release.split(".")[:2]) < (2, 34):
        return "Aperta's speech engine needs glibc 2.34 or newer, and this system has %s: use Debian 12+" % release
    return None


if __name__ == "__main__":
    sys.exit(find_obstacle())
