"""`python -m benchmarks [NAME [WORDS ...]]`: one measurement of this folder, or all of them, one after the other, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

scripts = {path.stem: path for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))}
if len(sys.argv) > 1:
    if sys.argv[1] not in scripts:
        sys.exit(f"benchmarks: no measurement {sys.argv[1]!r}; known: {', '.join(scripts)}")
    chosen, words = [sys.argv[1]], sys.argv[2:]
else:
    chosen, words = list(scripts), []
failed = 0
for name in chosen:
    print(f"== {name}", flush=True)
    failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *words], check=False).returncode
sys.exit(failed)
