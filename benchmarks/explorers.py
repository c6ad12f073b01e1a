"""How long the browser takes for one frame of the circle explorer: a step downhill, drawn.

Opens the explorer as the book prints it, on the circle and the sphere, with 16 and 32 points, alone
and beside alpha = 1, in headless Chromium; 300 clicks on Step each. A frame is the script and the
layout that it asks for; the screen gives 16.7 ms for it at 60 Hz. Prints a table and writes
book/results/benchmark_explorers.json.

    python benchmarks/explorers.py
"""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

from timing import write_record

os.environ["ACL_PUBLISH"] = "1"  # the printed form

from acl_lib import explorers

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_explorers.json"
STEPS = 300
FRAMES = """steps => {
  const step = [...document.querySelectorAll("button")].find(b => b.textContent === "Step");
  const board = document.querySelector(".acl-x"), taken = [];
  for (let k = 0; k < steps; k++) {
    const start = performance.now();
    step.click();
    board.getBoundingClientRect(); // asks for the layout
    taken.push(performance.now() - start);
  }
  return taken.sort((a, b) => a - b);
}"""


def main():
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    rows = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for sphere, clips, compare in itertools.product((False, True), (8, 16), (False, True)):
            html = explorers.circle(sphere=sphere, clips=clips, compare=compare).data
            path = Path(folder) / "circle.html"
            path.write_text(f"<!doctype html><meta charset=utf-8><body>{html}</body>")
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(path.as_uri())
            page.get_by_role("button", name="Step").wait_for()
            frames = page.evaluate(FRAMES, STEPS)
            page.close()
            rows.append(
                {
                    "points": 2 * clips,
                    "sphere": sphere,
                    "boards": 1 + compare,
                    "median_ms": round(frames[STEPS // 2], 2),
                    "p95_ms": round(frames[STEPS * 95 // 100], 2),
                    "share_of_a_frame_at_60_hz": round(frames[STEPS // 2] * 60 / 1000, 3),
                }
            )
            print(
                f"{'sphere' if sphere else 'circle'}, {2 * clips} points, {1 + compare} boards: "
                f"{rows[-1]['median_ms']:5.2f} ms, 95 % below {rows[-1]['p95_ms']:5.2f} ms",
                flush=True,
            )
        version = browser.version
        browser.close()
    write_record(RECORD, {"frames": STEPS, "browser": f"Chromium {version}", "rows": rows})
    print(f"written to {RECORD}")


if __name__ == "__main__":
    main()
