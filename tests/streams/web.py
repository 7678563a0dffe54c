"""A web server in a thread, which can send parts of files, or not, or nothing at all."""

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `silent` never answers, `in_parts` understands ranges."""

    def __init__(self, *arguments: object, in_parts: bool, silent: threading.Event | None, **others: object) -> None:
        self.in_parts, self.silent = in_parts, silent
        super().__init__(*arguments, **others)  # type: ignore[arg-type]

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        if self.silent is not None:
            self.silent.wait()
            return
        super().do_HEAD()

    def do_GET(self) -> None:
        if self.silent is not None:
            self.silent.wait()
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not self.in_parts or asked is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        start, stop = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes" if self.in_parts else "none")
        super().end_headers()


@contextmanager
def serving(folder: Path, in_parts: bool = False, silent: bool = False) -> Iterator[str]:
    """The address of a folder on a server that lives as long as the `with`."""
    stop = threading.Event() if silent else None
    handler = functools.partial(Handler, directory=str(folder), in_parts=in_parts, silent=stop)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        if stop is not None:
            stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
