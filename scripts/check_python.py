"""Say in one sentence why Aperta cannot be installed with this interpreter, or say nothing.

Kept to the syntax of old Python versions, so that those can say it too.
"""

import os
import platform
import sys

MACHINES = ("x86_64", "aarch64")

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
    return find_machine_obstacle(platform.machine(), sys.maxsize) or find_library_obstacle()


def find_machine_obstacle(machine, maxsize):
    """Return what is wrong with the processor, or with a Python of 32 bits on it, or None."""
    if machine not in MACHINES:
        return "Aperta's speech engine runs on x86-64 and arm64, and this machine is %s" % machine
    if maxsize <= 2**32:
        return "Aperta's speech engine needs a Python of 64 bits, and %s has 32" % sys.executable
    return None


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
