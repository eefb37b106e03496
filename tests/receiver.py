"""A receiver of webhooks: an HTTP server in a process of its own that answers as it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Writes each request down before it answers by the next of its answers, the last one for ever:
# a status with headers ("429 Retry-After=3", _ for a space) and after a bar a body, or
# hang (no answer), cut (the connection is closed), drip (a header that never ends), garbage.
_SERVER = r"""
import http.server, json, sys, threading, time
answers, told = sys.argv[2:], open(sys.argv[1], "a")
lock = threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with lock:
            print(json.dumps({"method": self.command, "path": self.path, "headers": dict(self.headers),
                              "body": body}), file=told, flush=True)
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.close_connection = True
        if answer == "hang":
            threading.Event().wait()
        elif answer == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            try:
                while True:
                    self.wfile.write(b"a")
                    time.sleep(0.02)
            except OSError:
                pass
        elif answer == "garbage":
            self.wfile.write(b"\x00nonsense\r\n\r\n")
        elif answer != "cut":
            head, _, text = answer.partition("|")
            status, *more = head.split()
            self.send_response(int(status))
            for header in more:
                self.send_header(*header.replace("_", " ").split("=", 1))
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
    do_GET = do_POST
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
"""


class Receiver:
    """A running server: its base URL, and what it was sent."""

    def __init__(self, base: str, file: Path, process: subprocess.Popen[str]) -> None:
        self.base = base
        self._file = file
        self._process = process

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far: method, path, headers, body."""
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def end(self) -> None:
        """End it; nobody answers at its URL any more."""
        self._process.kill()
        self._process.wait()


@contextmanager
def receiver(folder: Path, answers: Sequence[str]) -> Iterator[Receiver]:
    """A receiver that gives these answers; what it was sent is kept in folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "requests"
    file.touch()
    command = [sys.executable, "-I", "-S", "-c", _SERVER, str(file), *answers]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server = Receiver(f"http://127.0.0.1:{process.stdout.readline().strip()}", file, process)
    try:
        yield server
    finally:
        server.end()
        process.stdout.close()
