"""An HTTP server that speaks just enough S3 to misbehave on purpose, which a real one will not."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

Fault = Callable[["Request"], None]
"""Answers one request, badly."""


class TinyS3(ThreadingHTTPServer):
    """Holds `objects` by path. Each of `faults` answers one request in place of the server, oldest first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.objects: dict[str, bytes] = {}
        self.faults: deque[Fault] = deque()
        self.requests: list[str] = []
        self.ignores_conditions = False
        self.closing = Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about."""


@contextmanager
def tiny_s3() -> Iterator[TinyS3]:
    with TinyS3() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TinyS3  # type: ignore[mutable-override]  # no other server makes these

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def handle_one(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self.command)
        if self.server.faults:
            self.server.faults.popleft()(self)
        else:
            self.serve()

    do_GET = do_PUT = do_DELETE = handle_one  # noqa: N815 - the names that http.server looks for

    def serve(self) -> None:
        """Do what was asked, and answer."""
        self.answer(*self.act())

    def act(self) -> tuple[int, dict[str, str], bytes]:
        path = urlsplit(self.path).path
        if "list-type" in parse_qs(urlsplit(self.path).query):
            return 200, {}, self.listing()
        if self.command == "PUT":
            return self._put(path)
        if self.command == "DELETE":
            self.server.objects.pop(path, None)
            return 204, {}, b""
        return self._get(path)

    def _put(self, path: str) -> tuple[int, dict[str, str], bytes]:
        conditional = self.headers.get("If-None-Match") == "*" and not self.server.ignores_conditions
        if conditional and path in self.server.objects:
            return 412, {}, error("PreconditionFailed")
        self.server.objects[path] = self.body
        return 200, {"ETag": '"tag"'}, b""

    def _get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path not in self.server.objects:
            return 404, {}, error("NoSuchKey")
        content = self.server.objects[path]
        modified = {"Last-Modified": self.date_time_string()}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return 200, modified, content
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        return 206, {"Content-Range": f"bytes {first}-{last}/{len(content)}", **modified}, content[first : last + 1]

    def listing(self, extra: str = "<IsTruncated>false</IsTruncated>") -> bytes:
        keys = sorted(path.split("/", 2)[2] for path in self.server.objects)
        items = "".join(f"<Contents><Key>{escape(key)}</Key><Size>1</Size></Contents>" for key in keys)
        return f"<ListBucketResult>{extra}{items}</ListBucketResult>".encode()

    def answer(self, status: int, headers: dict[str, str], body: bytes, *, date: bool = True) -> None:
        self.send_response_only(status)
        if date:
            self.send_header("Date", self.date_time_string())
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()


def refuse(status: int, code: str = "") -> Fault:
    return lambda request: request.answer(status, {}, error(code) if code else b"")


def lose_answer(request: Request) -> None:
    """Do what was asked, and hang up."""
    request.act()
    request.close_connection = True


def hang_up(request: Request) -> None:
    """Do nothing, and hang up."""
    request.close_connection = True


def stall(request: Request) -> None:
    """Never answer."""
    request.server.closing.wait()
    request.close_connection = True


def truncate(keep: int) -> Fault:
    """Announce the whole answer, send *keep* bytes of it, and hang up."""

    def fault(request: Request) -> None:
        status, headers, body = request.act()
        request.answer(status, {"Content-Length": str(len(body)), **headers}, body[:keep])
        request.close_connection = True

    return fault


def stall_within(keep: int) -> Fault:
    """Announce the whole answer, send *keep* bytes of it, and no more."""

    def fault(request: Request) -> None:
        truncate(keep)(request)
        request.wfile.flush()
        request.server.closing.wait()

    return fault


def answer_with(status: int, headers: dict[str, str], body: bytes, *, date: bool = True) -> Fault:
    return lambda request: request.answer(status, headers, body, date=date)
