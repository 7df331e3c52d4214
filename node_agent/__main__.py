"""``python -m node_agent``."""

import os
import sys

# First of all: process 1 of a container ignores signals that it has no handler for, and everything
# else takes half a second to import.
from node_agent.signals import Signals, Stopped


def run() -> int:
    """Run this process's command line, and return its exit code."""
    signals = Signals()
    try:
        from node_agent.app import main  # noqa: PLC0415  # after the handlers

        return main(sys.argv[1:], os.environ, signals)
    except Stopped:
        return 0


if __name__ == "__main__":
    sys.exit(run())
