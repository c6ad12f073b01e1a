"""A class on one server: every student has a kernel that stays, and runs some notebooks in turn.

Starts JupyterLab as `make lab` does, on the loopback address with a token, and works through the
server's own interface: REST to start and to end kernels, a websocket to run the cells. One student
after another runs the notebooks in `quick`, each in a kernel of its own as in JupyterLab; that of
the notebook before is ended, as by *Shut Down Kernel*, and the last one stays to the end of the
class. After every notebook: the memory of the server with all kernels, what the machine has left,
and what the notebook took. The line through the students' totals says what one more costs. The run
that notebook 12 shows is made before, as in the book, and found by all. Prints a line a notebook,
writes book/results/classroom.json as it goes.

    python benchmarks/classroom.py [--students 30] [--notebooks 07_acl 12_embedding_analysis]
"""

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import nbformat
import numpy as np
import psutil
import websocket
from processes import Watch, family, memory_mb, proportional_mb, total_mb
from timing import write_record

from acl_lib import publish

RECORD = publish.RESULTS / "classroom.json"
EVERY_SECONDS = 0.5


class CellError(RuntimeError):
    """A cell of a student's notebook failed."""


class KernelDiedError(RuntimeError):
    """A kernel ended in the middle of a cell."""


class Server:
    """A JupyterLab that was started; its process, and requests to it."""

    def __init__(self, process: subprocess.Popen, port: int, token: str) -> None:
        self.process, self.port, self.token = process, port, token

    def ask(self, method: str, path: str, body: dict | None = None):
        """The server's answer, if it has one."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read() or "null")


@contextlib.contextmanager
def lab(home: Path, *, wait_seconds: float = 120):
    """JupyterLab in the project's folder, with settings of its own below `home`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", "--no-browser"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--ServerApp.allow_root=True"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={publish.ROOT}"]
    environment = {**os.environ, **places, "IPYTHONDIR": str(home / "ipython")}
    environment.pop("ACL_PUBLISH", None)  # as students see it, not as the book prints it
    log = home / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    server, end = Server(process, port, token), time.monotonic() + wait_seconds
    try:
        while True:
            try:
                server.ask("GET", "status")
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(
                        f"no JupyterLab on port {port}:\n{log.read_text()}"
                    ) from None
                time.sleep(0.3)
        yield server
    finally:
        pids = family(process.pid)
        process.send_signal(signal.SIGTERM)  # it ends its kernels
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:  # it waits for a kernel that does not answer
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


class Kernel:
    """A kernel of the server, as a browser reaches it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.id = server.ask("POST", "kernels", {"name": "python3", "path": "notebooks"})["id"]
        self.session = uuid.uuid4().hex
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}/api/kernels/{self.id}/channels?session_id={self.session}",
            header={"Authorization": f"token {server.token}"},
            timeout=600,
        )
        (self.pid,) = (
            pid
            for pid in family(server.process.pid)[1:]
            if self.id in " ".join(psutil.Process(pid).cmdline())
        )

    def run(self, source: str) -> None:
        """Run one cell to its end.

        Raises:
            CellError: if it fails.
            KernelDiedError: if its kernel dies in it, as where memory ends.
        """
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        header |= {"session": self.session, "username": "student", "date": ""}
        content = {"code": source, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": True}
        message = {"channel": "shell", "header": header, "content": content}
        self.socket.send(json.dumps({**message, "parent_header": {}, "metadata": {}}))
        error = None
        while True:
            received = self.socket.recv()
            if isinstance(received, bytes):
                continue  # a widget's bytes
            reply = json.loads(received)
            state = reply["content"].get("execution_state")
            if state in ("restarting", "dead"):
                left = f"{available_gb():.1f} GB of memory left"
                raise KernelDiedError(f"the kernel died with {left}, in the cell\n{source}")
            if reply["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if reply["msg_type"] == "error":
                error = f"{reply['content']['ename']}: {reply['content']['evalue']}"
            if state == "idle":
                break
        if error:
            raise CellError(f"{error}\nin the cell\n{source}")

    def end(self) -> None:
        self.socket.close()
        self.server.ask("DELETE", f"kernels/{self.id}")

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return sum((times.user, times.system, times.children_user, times.children_system))


def code_cells(path: Path) -> list[tuple[str, bool]]:
    """Text of the code cells, and which may fail."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [(c.source, "raises-exception" in c.metadata.get("tags", [])) for c in cells]


def run_notebook(kernel: Kernel, cells: list[tuple[str, bool]]) -> dict:
    """Run all cells, as *Run All Cells* does; a failure ends the notebook and is kept."""
    wall, cpu, failed = time.monotonic(), kernel.cpu_seconds(), None
    for source, may_fail in cells:
        try:
            kernel.run(source)
        except CellError as error:
            if not may_fail:
                failed = str(error)
                break
    return {
        "wall_seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(kernel.cpu_seconds() - cpu, 1),
        "failed": failed,
    }


def available_gb() -> float:
    return psutil.virtual_memory().available / 1e9


def at_rest(server: Server) -> dict[str, float]:
    """The server with all its kernels, and what the machine has left."""
    pids = family(server.process.pid)
    return {
        "total_gb": round(sum(map(proportional_mb, pids)) / 1e3, 3),
        "anonymous_gb": round(total_mb(pids, "anonymous") / 1e3, 3),
        "available_gb": round(available_gb(), 3),
    }


def summary(before: dict, rows: list[dict], most: dict[str, float], last: str) -> dict:
    """What follows from the rows: the peak, the line over the students, first against last.

    Args:
        before: of the server without kernels, as `at_rest`.
        rows: a row a notebook of a student.
        most: anonymous memory of all at its most, machine's memory in use likewise.
        last: the notebook that ends a student's work.
    """
    files = max(row["total_gb"] - row["anonymous_gb"] for row in [before, *rows])
    done = [row for row in rows if row["notebook"] == last]
    found = {
        # the anonymous part is sampled all the time, the part of files after each notebook
        "peak_gb": round(most["anonymous_gb"] + files, 2),
        "least_available_gb": round(-most["minus_available_gb"], 2),
        "most_for_one_kernel_mb": max(row["kernel_peak_mb"] for row in rows),
        "failed": sum(row["failed"] is not None for row in rows),
    }
    if len(done) > 1:
        students, totals = zip(*((row["student"], row["total_gb"]) for row in done), strict=True)
        slope, intercept = np.polyfit(students, totals, 1)
        apart = np.abs(np.polyval((slope, intercept), students) - totals).max()
        found["line"] = {
            "gb_for_server": round(float(intercept), 3),
            "gb_for_each_student": round(float(slope), 3),
            "largest_distance_gb": round(float(apart), 3),
            "n": len(done),
        }
    found["kernel_anonymous_mb"], found["seconds"] = {}, {}
    for name in dict.fromkeys(row["notebook"] for row in rows):
        mine = [row for row in rows if row["notebook"] == name]
        some = max(len(mine) // 3, 1)
        middle = statistics.median(row["kernel_anonymous_mb"] for row in mine)
        found["kernel_anonymous_mb"][name] = round(middle)
        found["seconds"][name] = {
            kind: {
                "median": round(statistics.median(row[kind] for row in mine), 1),
                "first_third": round(statistics.median(row[kind] for row in mine[:some]), 1),
                "last_third": round(statistics.median(row[kind] for row in mine[-some:]), 1),
            }
            for kind in ("cpu_seconds", "wall_seconds")
        }
    return found


def attend(server: Server, students: int, notebooks: dict[str, list]) -> Iterator[dict]:
    """Let every student run all notebooks; what has been found so far, after each of them."""
    before, rows, kernels = at_rest(server), [], {}

    def ask() -> dict[str, float]:
        anonymous = total_mb(family(server.process.pid), "anonymous") / 1e3
        return {"anonymous_gb": anonymous, "minus_available_gb": -available_gb()}

    with Watch(ask, every_seconds=EVERY_SECONDS) as watch:
        for student in range(1, students + 1):
            for name, cells in notebooks.items():
                if student in kernels:
                    kernels[student].end()
                kernel = kernels[student] = Kernel(server)
                row = {"student": student, "notebook": name, **run_notebook(kernel, cells)}
                watch.look()
                row |= at_rest(server)
                mine = memory_mb(kernel.pid)
                row["kernel_anonymous_mb"] = round(mine["anonymous"])
                row["kernel_peak_mb"] = round(mine["peak"])
                rows.append(row)
                yield {
                    "students": student,
                    "n": len(rows),
                    "kernels_alive": sum(
                        memory_mb(kernel.pid)["resident"] > 0 for kernel in kernels.values()
                    ),
                    "server_alone": before,
                    **summary(before, rows, watch.most, name),
                    "rows": rows,
                }
    for kernel in kernels.values():
        kernel.socket.close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--notebooks", nargs="+", default=["07_acl", "12_embedding_analysis"])
    parser.add_argument(
        "--leave-gb", type=float, default=2.0, help="of memory; else the class ends"
    )
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    notebooks = {n: code_cells(publish.SOURCES / f"{n}.ipynb") for n in options.notebooks}
    shared = {publish.RUNS[name] for name in notebooks if name in publish.RUNS}
    if publish.share_runs(shared, "synthetic", "quick"):
        parser.exit(1, "a run that all share failed, see above\n")
    conditions = {
        "profile": "quick",
        "corpus": "synthetic",
        "seed": 0,
        "threads_per_kernel": os.environ.get("OMP_NUM_THREADS"),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 2),
        "conditions": "other programs ran on the machine too: available_gb counts them, and "
        "wall_seconds hold for that day only",
        "versions": {name: version(name) for name in ("jupyterlab", "ipykernel")},
    }
    with tempfile.TemporaryDirectory() as home, lab(Path(home)) as server:
        for found in attend(server, options.students, notebooks):
            print(
                *(f"{key} {value}" for key, value in found["rows"][-1].items()),
                sep=", ",
                flush=True,
            )
            write_record(options.out, {**conditions, **found})
            if available_gb() < options.leave_gb:
                parser.exit(1, f"{available_gb():.1f} GB of memory left: the class ends early\n")


if __name__ == "__main__":
    main()
