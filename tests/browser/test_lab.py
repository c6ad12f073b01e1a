"""JupyterLab as `make lab` starts it: who may come in, and explorers between browser and Python."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import nbformat
import psutil
import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    # neither news nor a question whether to fetch them: nothing here needs the internet
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/extensionmanager-extension:plugin": {"enabled": False},
}


# what a reader may have in a configuration of their own: everything open
CARELESS = """c.ServerApp.ip = "0.0.0.0"
c.IdentityProvider.token = ""
c.NotebookApp.token = ""
"""
SPEC = importlib.util.spec_from_file_location("run_lab", ROOT / "run.py")
RUN = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(RUN)


def asked(url, *, data=None, token=None):
    """Status of a request, after whatever it is sent on to, and where that is; 0: no answer."""
    headers = {"Authorization": f"token {token}"} if token else {}
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.url
    except urllib.error.HTTPError as error:
        return error.code, error.url
    except OSError:
        return 0, url


def listening(process):
    """Addresses that a process and those it started listen on."""
    family = [process, *process.children(recursive=True)]
    found = [c for one in family for c in one.net_connections("inet") if c.status == "LISTEN"]
    return {(c.laddr.ip, c.laddr.port) for c in found}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab by `make lab` on a port of its own, for a reader whose settings open everything.

    Its address, folder and process, and the token that it has all the same.
    """
    extension = Path(sys.prefix) / "share/jupyter/labextensions/anywidget"
    if not extension.exists():
        pytest.skip(f"no anywidget for JupyterLab at {extension}")
    pytest.importorskip("jupyterlab")
    home = tmp_path_factory.mktemp("lab")
    for name, values in SETTINGS.items():
        folder, file = name.split(":")
        path = home / "config/lab/user-settings" / folder / f"{file}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (home / "config" / "jupyter_server_config.py").write_text(CARELESS)
    (home / "work").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {
        f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in ("config", "data", "runtime")
    }
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_"))},
        **places,
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(ROOT),
        "ACL_CACHE": os.environ.get("ACL_CACHE") or str(ROOT / "cache"),
    }
    environment.pop("ACL_PUBLISH", None)
    command = [sys.executable, "-m", "jupyterlab", *RUN.LAB, "--IdentityProvider.token="]
    command += ["--no-browser", f"--port={port}"]
    command += [f"--ServerApp.root_dir={home / 'work'}", "--ServerApp.allow_root=True"]
    command += ["--LabApp.news_url=None", "--ServerApp.port_retries=0"]
    with (home / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while asked(f"{address}/login")[0] != 200:
            said = (home / "log.txt").read_text()
            assert process.poll() is None and time.monotonic() < end, said
            time.sleep(0.3)
        (told,) = (home / "runtime").glob("jpserver-*.json")
        token = json.loads(told.read_text())["token"]
        assert f"{address}/lab?token={token}" in (home / "log.txt").read_text()
        yield {
            "address": address,
            "token": token,
            "folder": home / "work",
            "process": psutil.Process(process.pid),
        }
    finally:
        process.terminate()  # it ends its kernels
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


HEARD = """() => {
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    window.heard = this.src;
    return play.call(this);
  };
}"""


class Notebook:
    """An open notebook: runs its cells one by one and finds what they put out."""

    def __init__(self, page):
        self.page = page

    def run(self, number):
        """Run a cell, wait for its end, and give its output area."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)
        prompt = cell.locator(".jp-InputPrompt").first
        end = time.monotonic() + 120
        while prompt.inner_text().strip() == "[ ]:":  # keys that come before the kernel are lost
            assert time.monotonic() < end, "the kernel takes no cell"
            cell.locator(".cm-content").first.click()
            self.page.keyboard.press("Control+Enter")
            self.page.wait_for_timeout(2000)
        expect(prompt).to_have_text(re.compile(r"\[\d+\]"))
        return cell.locator(".jp-Cell-outputArea")

    def printed(self, number):
        return self.run(number).locator(".jp-OutputArea-output").last.inner_text()


def sent(server, what, **values):
    """Ask Jupyter for something new; what it tells of it."""
    headers = {"Authorization": f"token {server['token']}"}
    request = urllib.request.Request(
        f"{server['address']}/api/{what}", data=json.dumps(values).encode(), headers=headers
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def kernel(server):
    """The id of one kernel for all notebooks: it imports torch once."""
    return sent(server, "kernels")["id"]


@pytest.fixture(scope="module")
def context(browser):
    """One for all notebooks: it has JupyterLab's own files after the first."""
    with closing(browser.new_context(viewport={"width": 1280, "height": 1000})) as context:
        context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
        yield context


@pytest.fixture
def lab(server, context, kernel):
    """Opens a new notebook with the given cells in JupyterLab."""

    def open_notebook(name, *cells):
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        file = f"{name}.ipynb"
        nbformat.write(notebook, server["folder"] / file)
        sent(server, "sessions", path=file, name=file, type="notebook", kernel={"id": kernel})
        expect.set_options(timeout=120_000)
        page = context.new_page()
        page.elsewhere = []

        def on_request(request):
            if not request.url.startswith((server["address"], "data:", "blob:", "ws:")):
                page.elsewhere.append(request.url)

        page.on("request", on_request)
        page.goto(f"{server['address']}/lab/tree/{file}?token={server['token']}&reset")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.get_by_text("| Idle").wait_for()
        return Notebook(page)

    yield open_notebook
    expect.set_options(timeout=5_000)
    for page in context.pages:
        page.close()


def test_only_who_has_the_token_comes_in(server):
    address, token = server["address"], server["token"]
    assert len(token) >= 32
    assert asked(f"{address}/api/status", token=token)[0] == 200
    for wrong in (None, "0" * len(token)):
        assert asked(f"{address}/api/contents", token=wrong)[0] == 403
        assert asked(f"{address}/api/kernels", data=b"{}", token=wrong)[0] == 403
        status, at = asked(f"{address}/lab", token=wrong)
        assert (status, at.partition("?")[0]) == (200, f"{address}/login")


def test_only_this_machine_hears_jupyterlab_and_its_kernels(server):
    before = listening(server["process"])
    kernels = f"{server['address']}/api/kernels"
    assert asked(kernels, data=b"{}", token=server["token"])[0] == 201
    end = time.monotonic() + 120
    while len(listening(server["process"])) < len(before) + 5:  # the five sockets of a kernel
        assert time.monotonic() < end, "the kernel does not listen"
        time.sleep(0.3)
    assert {ip for ip, _ in listening(server["process"])} <= {"127.0.0.1", "::1"}


def test_a_slider_is_read_in_python_and_moved_from_there(lab):
    notebook = lab(
        "circle",
        "from acl_lib import explorers\nw = explorers.circle()\nw",
        'print("alpha is", w.alpha)',
        "w.alpha = 0.9",
    )
    circle = notebook.run(0).locator(".acl-x[data-explorer=circle]")
    slider = circle.get_by_label("weight of NT-Xent")
    slider.focus()
    for _ in range(4):
        notebook.page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "0.50")
    assert notebook.printed(1).strip() == "alpha is 0.5"
    notebook.run(2)
    expect(slider).to_have_value("0.9")
    expect(slider).to_have_attribute("aria-valuetext", "0.90")
    assert notebook.page.elsewhere == []


def test_a_training_is_steered_from_the_browser_and_kept_in_python(lab):
    notebook = lab(
        "training",
        "from acl_lib import explorers\nfrom acl_lib.config import recipe\n"
        'settings = recipe("acl", corpus="synthetic", width=8, epochs=500)\n'
        "w = explorers.training(settings)\nw",
        "weights = sum(p.numel() for p in w.network.encoder.parameters())\n"
        "print(w.phase, w.temperature, w.error, weights)",
    )
    training = notebook.run(0).locator(".acl-x[data-explorer=training]")
    told = training.locator("[data-status]")
    training.get_by_role("button", name="Start").click()
    expect(training.locator("svg path[data-name=steps]")).to_be_visible()
    slider = training.get_by_label("temperature")
    slider.focus()
    for _ in range(5):
        notebook.page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "0.15")
    expect(training.locator("svg text", has_text="τ 0.15").first).to_be_visible()
    expect(training.locator("p[aria-live]").last).to_contain_text("after epoch")
    training.get_by_role("button", name="Pause", exact=True).click()
    expect(told).to_contain_text("Paused at epoch")
    expect(training.locator("svg path[data-name='same clip']")).to_be_visible()
    at = told.inner_text()
    notebook.page.wait_for_timeout(1000)
    assert told.inner_text() == at
    training.get_by_role("button", name="Resume").click()
    expect(told).to_contain_text(re.compile(r"Step \d+"))
    training.get_by_role("button", name="Stop and keep").click()
    expect(told).to_contain_text(re.compile(r"Stopped at epoch [\d.]+, kept"))
    phase, temperature, error, weights = notebook.printed(1).split()
    assert (phase, float(temperature), error) == ("done", 0.15, "None") and int(weights) > 10_000
    assert notebook.page.elsewhere == []


def test_a_clip_is_seen_and_heard_from_the_kernel(lab):
    notebook = lab(
        "map",
        "from acl_lib import explorers\nw = explorers.sound_map('synthetic')\nw",
        "print(w.clip, w.network)",
    )
    found = notebook.run(0).locator(".acl-x[data-explorer=map]")
    picture = found.locator(".clip img")
    expect(picture).to_have_attribute("src", re.compile("^data:image/webp;base64,"))
    first = picture.get_attribute("src")
    at = found.locator("svg [role=button][tabindex='0']")
    at.focus()
    told = found.locator("p[aria-live]").inner_text()
    for key in ("ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"):
        notebook.page.keyboard.press(key)
        if found.locator("p[aria-live]").inner_text() != told:
            break
    expect(found.locator("p[aria-live]")).not_to_have_text(told)
    expect(picture).not_to_have_attribute("src", first)
    notebook.page.evaluate(HEARD)
    notebook.page.keyboard.press("Enter")
    notebook.page.wait_for_function("window.heard?.startsWith('data:audio/mpeg;base64,')")
    clip, network = notebook.printed(1).split()
    assert network == "NT-Xent" and f"clip {clip}" in found.locator("p[aria-live]").inner_text()
    assert notebook.page.elsewhere == []
