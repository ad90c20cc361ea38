"""Chromium without a window, as far as tests need one: open a page at a width, ask it something, take a picture.

It speaks WebDriver with chromedriver, and DevTools through it, by the standard library alone.
"""

import base64
import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--allow-file-access-from-files", "--disable-features=BackForwardCache",
)  # fmt: skip
DONE = "arguments[arguments.length - 1]"  # what an asynchronous script calls at its end


def missing():
    """Why there is no browser here, or ""."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {' and '.join(names)}" if names else ""


class Browser:
    """One session; use `started`."""

    def __init__(self, address):
        self._address = address
        self._session = ""

    def call(self, method, path, body=None):
        """A request to the driver: its value. Raises RuntimeError with what the driver says."""
        data = None if body is None else json.dumps(body).encode()
        line = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(line, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error

    def begin(self, folder):
        """Start Chromium with an empty profile."""
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={folder}"]}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        self._session = f"/session/{self.call('POST', '/session', wanted)['sessionId']}"

    def end(self):
        """Close it."""
        self.call("DELETE", self._session)

    def tell(self, command, **values):
        """A command of the DevTools protocol."""
        body = {"cmd": command, "params": values}
        return self.call("POST", f"{self._session}/goog/cdp/execute", body)

    def open(self, page, width, height=900):
        """Show a file, or an address, in a window of this size."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        address = page if "://" in str(page) else pathlib.Path(page).resolve().as_uri()
        self.call("POST", f"{self._session}/url", {"url": address})
        body = {"script": f"requestAnimationFrame(() => requestAnimationFrame({DONE}))", "args": []}
        self.call("POST", f"{self._session}/execute/async", body)  # until it has been painted

    def ask(self, script, *arguments):
        """What a piece of JavaScript returns; `arguments[0]` and so on are what it is given."""
        return self.call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def picture(self, path):
        """Write a PNG of what the window shows."""
        shot = self.call("GET", f"{self._session}/screenshot")
        pathlib.Path(path).write_bytes(base64.b64decode(shot))


@contextlib.contextmanager
def started():
    """A browser, which is closed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([shutil.which("chromedriver"), f"--port={port}"], stdout=subprocess.DEVNULL)
    browser = Browser(f"http://127.0.0.1:{port}")
    try:
        _wait(browser)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            browser.begin(folder)
            try:
                yield browser
            finally:
                browser.end()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def _wait(browser):
    """Until the driver answers."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            if browser.call("GET", "/status")["ready"]:
                return
        time.sleep(0.1)
    raise RuntimeError("chromedriver does not answer")
