"""``python -m webhooks``."""

import os
import signal
import sys
import threading

# First of all: process 1 of a container ignores signals that it has no handler for, and everything
# else takes half a second to import.
STOP = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: STOP.set())

if __name__ == "__main__":
    from webhooks.app import main

    sys.exit(main(sys.argv[1:], os.environ, STOP))
