"""A small HTTP server for tests: serves a folder by range requests, and counts what it sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Served:
    """What a server sent: its address, bytes of bodies by file name, and requests as (method, path, status)."""

    url: str
    sent: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    @property
    def names(self) -> set[str]:
        return {urlsplit(path).path.strip("/") for _, path, _ in self.requests}


def _handler(folder: Path, served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            name = unquote(urlsplit(self.path).path).strip("/")
            path = folder / name
            status, content, headers = 404, b"", {}
            if name in served.broken:
                status = 500
            elif path.is_file():
                whole = path.read_bytes()
                status, content = 200, whole
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if asked:
                    first, last = int(asked[1]), min(int(asked[2] or len(whole) - 1), len(whole) - 1)
                    status, content = 206, whole[first : last + 1]
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(whole)}"
            self.send_response(status)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            served.requests.append((self.command, self.path, status))
            if body:
                served.sent[name] = served.sent.get(name, 0) + len(content)
                self.wfile.write(content)

    return Handler


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """Serve a folder on a free local port while the context lasts."""
    served = Served("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder, served))
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
