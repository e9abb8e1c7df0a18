"""`python -m search ...`"""

import os
import sys
from contextlib import suppress

from search.cli import main

status = main()
if status > 128:  # ended by a signal: all is written and closed, and threads of Ray may yet make the interpreter's own end a crash
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)
sys.exit(status)
