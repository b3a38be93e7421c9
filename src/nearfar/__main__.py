"""The command ``nearfar``, also as ``python -m nearfar``."""

from __future__ import annotations

import signal
import sys

if sys.argv[1:2] == ["serve"]:
    # A reload may be requested at once, and SIGHUP would end this process while it imports the rest.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

from nearfar.cli.main import main

if __name__ == "__main__":
    main(prog_name="nearfar")
