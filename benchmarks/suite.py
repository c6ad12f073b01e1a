"""How long the whole suite takes: runs `python3 run.py test` and writes down what it says.

The book is to be built before, as continuous integration does: pages that it has executed as they
are now are not executed again. Writes book/results/suite.json, also where tests fail.

    python benchmarks/suite.py
"""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from timing import write_record

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "book" / "results" / "suite.json"


def counted(line: str) -> dict[str, int]:
    """What pytest's last line counts: `2 failed, 10 passed, 1 skipped in 3.10s`."""
    return {
        kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", line)
    }


def main() -> int:
    begun, last = time.monotonic(), ""
    command = [sys.executable, str(ROOT / "run.py"), "test"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        **counted(last),
        "wall_seconds": round(time.monotonic() - begun),
        "cpu_seconds": round(spent.ru_utime + spent.ru_stime),
        "cores": os.cpu_count(),
        "n": 1,
    }
    write_record(RECORD, found)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
