"""What tests of the data share: batches as arrays, normal laws, archives and small web servers."""

import contextlib
import io
import math
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from mlutils import Episode


def batches(dataset, number=1):
    """The first batches, each an ``Episode`` of arrays."""
    elements = dataset.take(number).as_numpy_iterator()
    return [Episode.from_element(element) for element in elements]


def check_normal(values, mean=0, variance=1):
    """Assert a normal law of independent draws, of this mean and variance.

    Within five standard errors: z, z² and z⁴ have means 0, 1, 3 and variances 1, 2, 105 - 9 = 96.
    """
    z = (np.asarray(values, np.float64) - mean) / np.sqrt(variance)
    for power, expected, spread in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert np.mean(z**power) == pytest.approx(expected, abs=5 * np.sqrt(spread / z.size))


def standard_errors(values):
    """How many standard errors the mean is above 0."""
    return np.mean(values) / (np.std(values) / np.sqrt(len(values)))


def averaged(ink, size):
    """Means over areas in integers: each pixel is repeated until equal blocks make a new pixel."""
    pixels = ink.shape[-1]
    common = math.gcd(pixels, size)
    fine = np.repeat(np.repeat(ink, size // common, axis=-2), size // common, axis=-1)
    block = pixels // common
    sums = fine.reshape(*ink.shape[:-2], size, block, size, block).sum((-3, -1), dtype=int)
    assert block % 2, "an even block would have means that are halfway between two bytes"
    return (2 * 255 * sums + block**2) // (2 * block**2)


def png(ink):
    """A drawing as Omniglot has them: black and white, of one bit."""
    file = io.BytesIO()
    Image.fromarray(~ink).save(file, "PNG")
    assert Image.open(file).mode == "1"
    return file.getvalue()


def packed(files, compression=zipfile.ZIP_DEFLATED):
    """A zip archive of the files, in their order; names and contents may come as pairs too."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as file:
        for name, content in files.items() if isinstance(files, dict) else files:
            file.writestr(name, content)
    return archive.getvalue()


def contents_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


NOWHERE = "http://127.0.0.1:1/"


@contextlib.contextmanager
def serving(answer):
    """A server that only this machine reaches; gives its URL and the list of paths asked for."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.over = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", requests
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def sends(content, status=200, length=None):
    """An answer; ``length`` is what its header says, None for the truth, False for no header."""

    def answer(handler):
        handler.send_response(status)
        if length is not False:
            handler.send_header("Content-Length", len(content) if length is None else length)
        handler.end_headers()
        handler.wfile.write(content)

    return answer
