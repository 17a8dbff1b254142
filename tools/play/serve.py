"""Serve the built book on this machine, with the headers that let the page that draws use threads.

python tools/play/serve.py [--port 8000]
"""

from __future__ import annotations

import argparse
import functools
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BOOK = Path(__file__).resolve().parents[2] / "_build" / "html"


class Threaded(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        # Threads share memory, which browsers allow only where no other site is let in.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


class Quiet(SimpleHTTPRequestHandler):
    """As any host of pages serves it, so with one thread; for tests and measurements."""

    def log_message(self, format: str, *args: object) -> None: ...


def server(
    folder: Path, port: int = 0, handler: type[SimpleHTTPRequestHandler] = Threaded
) -> ThreadingHTTPServer:
    """Of a folder, for this machine alone; port 0 takes a free one."""
    return ThreadingHTTPServer(
        ("127.0.0.1", port), functools.partial(handler, directory=str(folder))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if not (BOOK / "index.html").is_file():
        sys.exit("there is no built book: make book")
    try:
        made = server(BOOK, port)
    except OSError as error:
        sys.exit(f"port {port}: {error.strerror}; python tools/play/serve.py --port {port + 1}")
    with made as served:
        print(f"The book: http://127.0.0.1:{port}/ (Ctrl-C ends it)")
        try:
            served.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
