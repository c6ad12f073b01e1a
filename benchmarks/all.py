"""Every benchmark of speed, one after the other: step, log-mel, augmentation, losses, explorers.

python benchmarks/all.py
"""

import subprocess
import sys
from pathlib import Path

for name in ("step", "log_mel", "augment", "losses", "explorers"):
    print(f"\n== {name}", flush=True)
    script = Path(__file__).with_name(f"{name}.py")
    if code := subprocess.run([sys.executable, script]).returncode:
        sys.exit(code)
