"""`python -m benchmarks`: every measurement of this folder, one after the other, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

failed = 0
for script in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    print(f"== {script.name}", flush=True)
    failed |= subprocess.run([sys.executable, str(script)], check=False).returncode
sys.exit(failed)
