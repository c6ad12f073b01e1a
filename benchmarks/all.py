"""Every benchmark of speed and size, one after the other; that of a GPU where there is one.

python benchmarks/all.py
"""

import subprocess
import sys
from pathlib import Path

import torch

names = ["step", "log_mel", "augment", "losses", "metrics", "explorers", "large_batches"]
names += ["threads", "several_processes", "long_corpora"]  # these on an otherwise calm machine
for name in names + ["gpu_protocol"] * torch.cuda.is_available():
    print(f"\n== {name}", flush=True)
    script = Path(__file__).with_name(f"{name}.py")
    if code := subprocess.run([sys.executable, script]).returncode:
        sys.exit(code)
