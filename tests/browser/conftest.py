"""A browser, and the built book on a server of this machine."""

import functools
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import sync_playwright

from tools.browser import BOOK, chromium


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, which a page of 30 files notices

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def serve():
    """A function that serves a folder on the loopback address and returns its address."""
    servers = []

    def start(folder):
        handler = functools.partial(Quiet, directory=folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def site(serve):
    """The address of the built book: _build/html, or the folder that MLUTILS_BOOK names."""
    assert (BOOK / "index.html").exists(), f"There is no book in {BOOK}: make book"
    return serve(BOOK)


@pytest.fixture(scope="session")
def browser():
    if not (path := chromium()):
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("No chromium here, so no page was looked at: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path)
