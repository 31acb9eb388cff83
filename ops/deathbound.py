"""Run a program that must not outlive its parent: `python deathbound.py PARENT PROGRAM [ARGUMENT]...`.

A parent that was killed can end nothing any more, so the kernel does it: SIGTERM, as in an orderly end. The setting
stays over `exec`, so no process is in between. Only Linux can; elsewhere the next start ends what was left behind.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Become the program."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it was gone before we asked
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # no shell is what we want


if __name__ == "__main__":
    main()
