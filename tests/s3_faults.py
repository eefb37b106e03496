"""Storage that misbehaves: a proxy before a real S3 server that does to chosen requests what storage does
on a bad day, and passes everything else on unchanged.

Signatures stay valid: the client signs the proxy's own host and port, and the server verifies the Host header
that it is given. So a client needs only the proxy's endpoint in place of the server's.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from s3_server import S3Server, User

Kind = Literal["slow", "answer", "cut", "short", "reset", "hide", "break"]

_WORDS = {
    400: "Bad Request", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error", 503: "Slow Down",
}  # fmt: skip
_SAID = {
    "ExpiredToken": "The provided token has expired.",
    "AccessDenied": "Access Denied",
    "SlowDown": "Please reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
}
_USER = re.compile(r"Credential=([^/]+)/")


class Asked(NamedTuple):
    """A request as the proxy saw it: S3's name of it, bucket and key (of a listing: the prefix), whose."""

    operation: str
    where: str
    user: str


@dataclass
class Fault:
    """What is done to which requests.

    `operation` and `where` are patterns of the whole operation and of `bucket/key`; `user` is an access key,
    None anybody's. The first `after` that fit are left alone, the next `times` (None: all) are not.

    slow waits `seconds` before the request is passed on; answer says `status` and `code` itself; cut passes
    `share` of the body on and closes the connection, while short does so in good order, under a length that
    is too small; break alters a byte; reset closes it before any answer; hide leaves keys that match
    `hidden` out of a listing.
    """

    kind: Kind
    operation: str = ".*"
    where: str = ".*"
    user: str | None = None
    after: int = 0
    times: int | None = None
    seconds: float = 0.0
    status: int = 500
    code: str = "InternalError"
    share: float = 0.5
    hidden: str = ".*"
    seen: int = 0
    done: int = 0

    def fits(self, asked: Asked) -> bool:
        """Whether it is done to this request, which counts as seen."""
        if not re.fullmatch(self.operation, asked.operation) or not re.fullmatch(self.where, asked.where):
            return False
        if self.user is not None and self.user != asked.user:
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.done >= self.times):
            return False
        self.done += 1
        return True


@dataclass
class Proxy:
    """A running proxy: its endpoint, what it is to do, what it was asked."""

    server: S3Server
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, user: User | None = None) -> dict[str, str]:
        """As `S3Server.environment`, by way of the proxy."""
        return self.server.environment(user) | {"AWS_ENDPOINT_URL_S3": self.endpoint}

    def does(self, *faults: Fault) -> None:
        """From now on do these and nothing else; forget what was asked."""
        with self._lock:
            self.faults[:] = faults
            self.asked.clear()

    def count(self, operation: str = ".*", where: str = ".*") -> int:
        """How many such requests there were."""
        with self._lock:
            asked = list(self.asked)
        return sum(
            bool(re.fullmatch(operation, one.operation) and re.fullmatch(where, one.where)) for one in asked
        )

    def decide(self, asked: Asked) -> Fault | None:
        """Take a request down, and what is to be done to it."""
        with self._lock:
            self.asked.append(asked)
            return next((fault for fault in self.faults if fault.fits(asked)), None)


@contextmanager
def faulty(server: S3Server) -> Iterator[Proxy]:
    """A proxy before the server, which does nothing until it is told to."""
    proxy = Proxy(server)

    class Handler(_Handler):
        pass

    Handler.proxy = proxy
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    proxy.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: one must not wait for the other to be acknowledged.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.behind: HTTPConnection | None = None

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        if self.behind:
            self.behind.close()

    def do_GET(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pass_on()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.decide(_asked(self.command, self.path, self.headers.get("Authorization", "")))
        kind = fault.kind if fault else None
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        if fault and kind == "answer":
            self._answer(fault.status, fault.code)
            return
        if kind == "reset":
            self._close()
            return
        answer = self._ask(body)
        text = answer.read()
        if fault and kind == "hide":
            text = _without(text, fault.hidden)
        elif kind == "break" and text:
            middle = len(text) // 2
            text = text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :]
        sent = text[: int(len(text) * fault.share)] if fault and kind in ("cut", "short") else text
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if self.command == "HEAD":
            if length := answer.getheader("Content-Length"):
                self.send_header("Content-Length", length)
        elif answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(sent if kind == "short" else text)))
        self.end_headers()
        self.wfile.write(sent)
        if kind == "cut":
            self._close()

    def _ask(self, body: bytes) -> HTTPResponse:
        for last in (False, True):
            if self.behind is None:
                self.behind = HTTPConnection("127.0.0.1", self.proxy.server.port, timeout=120)
            try:
                self.behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "expect"):
                        self.behind.putheader(name, value)
                self.behind.endheaders(body or None)
                return self.behind.getresponse()
            except OSError:  # the server has closed what was idle
                self.behind.close()
                self.behind = None
                if last:
                    raise
        raise AssertionError

    def _answer(self, status: int, code: str) -> None:
        said = f"<Code>{code}</Code><Message>{_SAID.get(code, code)}</Message>"
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{said}<RequestId>1</RequestId></Error>'
        self.send_response_only(status, _WORDS.get(status))
        self.send_header("Content-Type", "application/xml")
        self.send_header("x-amz-request-id", "1")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def _close(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


def _asked(method: str, path: str, authorization: str) -> Asked:
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    if key:
        name = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}.get(
            method, "PostObject"
        )
        if {"uploads", "uploadId"} & query.keys():
            name = "Multipart"
    elif "list-type" in query:
        name, key = "ListObjectsV2", query.get("prefix", [""])[0]
    elif "delete" in query:
        name = "DeleteObjects"
    else:
        name = f"{method.title()}Bucket"
    found = _USER.search(authorization)
    return Asked(name, f"{bucket}/{key}", found[1] if found else "")


def _without(listing: bytes, hidden: str) -> bytes:
    """A listing's XML without the keys that match; what is a folder only for their sake stays."""

    def keep(entry: re.Match[bytes]) -> bytes:
        key = re.search(rb"<Key>(.*?)</Key>", entry[0])
        return b"" if key and re.fullmatch(hidden, unquote(key[1].decode())) else entry[0]

    return re.sub(rb"<Contents>.*?</Contents>", keep, listing, flags=re.DOTALL)
