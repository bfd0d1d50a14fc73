"""Takes the screenshots of docs/reading-results.md from studies that were run on this machine.

    python docs/figures/screenshots.py WORKSPACE quickstart.yaml another.yaml [--live running.yaml]

Both studies have ended in WORKSPACE; ``--live`` names one that runs there now. Needs the dev extra and Debian's
Chromium. Every picture is reduced to 128 colours, which keeps each under 150 kB.
"""

from __future__ import annotations

import argparse
import html
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from analysis.saved_views import saved_views
from scaling.cli.publishing import ui_command
from sweeps.ledger.ledger import Ledger
from sweeps.study import load_study
from sweeps.workspace import Workspace

HERE = Path(__file__).parent
SCALING = (sys.executable, "-m", "scaling.cli.main")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
TERMINAL = "<body style='margin:0;background:#14171a;color:#e8eaed'><pre style='padding:16px;font:14px/1.4 monospace'>"


class Camera:
    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def take(self, name: str, address: str, *, seconds: float = 3, height: int = 800, anchor: str = "") -> None:
        page = self._browser.new_page(viewport={"width": 1280, "height": height})
        page.goto(address)
        page.wait_for_timeout(seconds * 1000)
        if "127.0.0.1" in address:  # MLflow's assistant covers a quarter of its page until it is closed
            page.evaluate("document.querySelectorAll('button[aria-label=Close]').forEach(button => button.click())")
            page.wait_for_timeout(min(seconds, 6) * 500)
        if anchor:
            page.locator(anchor).first.scroll_into_view_if_needed()
        shot = Image.open(BytesIO(page.screenshot())).convert("RGB")
        page.close()
        path = HERE / f"screen-{name}.png"
        shot.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)

    def type(self, name: str, *command: str, height: int) -> None:
        """What a command prints."""
        said = subprocess.run([*SCALING, *command], capture_output=True, text=True).stdout
        text = html.escape(f"$ scaling {' '.join(command)}\n{said}")
        path = HERE / "terminal.html"
        path.write_text(f"{TERMINAL}{text}</pre>", encoding="utf-8")
        self.take(name, path.as_uri(), seconds=0.2, height=height)
        path.unlink()


@contextmanager
def serving(command: list[str], address: str) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(180):
            try:
                urllib.request.urlopen(address, timeout=2).close()
                break
            except OSError:
                time.sleep(1)
        yield
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def mlflow_pages(camera: Camera, space: Workspace, study: str, uri: str) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    known = Ledger(space.ledger_url).mlflow_run(uri, study, "")
    mode = "&workflowType=machine_learning"
    with serving(ui_command(uri, space, port), base):
        run = f"{base}/#/experiments/{known.experiment_id}/runs/{known.mlflow_run_id}"
        camera.take("mlflow-study", f"{run}?{mode[1:]}", seconds=30)  # the first page of a server takes longest
        views = {view.key: view.address(known.experiment_id) for view in saved_views()}
        camera.take("mlflow-runs", f"{base}/{views['scaling2best']}{mode}", seconds=12, height=640)
        camera.take("mlflow-curves", f"{base}/{views['scaling4curves']}{mode}", seconds=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("study", type=Path)
    parser.add_argument("another", type=Path)
    parser.add_argument("--live", type=Path)
    parser.add_argument("--only", choices=("pages", "mlflow", "live"))
    given = parser.parse_args()
    space, settings = Workspace(given.workspace), load_study(given.study)
    folder = space.root / "studies" / settings.name
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        camera = Camera(browser)
        if given.live is not None and given.only in (None, "live"):
            port = free_port()
            watch = [*SCALING, "watch", str(given.live), "--workspace", str(space.root), "--port", str(port),
                     "--no-browser"]  # fmt: skip
            with serving(watch, f"http://127.0.0.1:{port}/"):
                camera.take("live", f"http://127.0.0.1:{port}/", seconds=10, height=1000)
        if given.only in (None, "pages"):
            camera.take("report", (folder / "report.html").as_uri())
            camera.take("explorer", (folder / "explorer.html").as_uri(), height=1000)
            compared = space.root / "compared.html"
            report = ["report", str(given.study), str(given.another), "--workspace", str(space.root)]
            subprocess.run([*SCALING, *report, "--out", str(compared)], check=True)
            camera.take("comparison", compared.as_uri(), height=1000)
            camera.type("forecasts", "forecasts", "--workspace", str(space.root), height=320)
        if given.only in (None, "mlflow"):
            assert settings.track.mlflow is not None
            mlflow_pages(camera, space, settings.name, space.tracking_uri(settings.track.mlflow))
        browser.close()


if __name__ == "__main__":
    main()
