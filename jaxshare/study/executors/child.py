"""Becomes the command that follows, which is told to end when the process that began it dies.

Run by its path, so that nothing is imported first: python child.py PARENT ARGUMENTS...
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel, make sure that the parent still lives, and become the command."""
    parent, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before the kernel was asked
            sys.exit(128 + signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
