"""A connection pooler in transaction mode, as small as the protocol allows: several clients, one server process.

It answers the start of a connection itself, with a process id of its own making, and lends the server to a client
until the server says that no transaction is open (PostgreSQL manual, 55.2 "Message Flow").
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg import pq

_SSL_REQUEST = 80877103
_OWN_PID = 424242


@contextmanager
def transaction_pooler(server_url: str) -> Iterator[int]:
    """Pool the server at *server_url*, which must let us in; yield the port to connect to."""
    backend = pq.PGconn.connect(server_url.encode())
    assert backend.status == pq.ConnStatus.OK, backend.error_message
    raw = socket.socket(fileno=socket.dup(backend.socket))
    raw.setblocking(True)
    lock = threading.Lock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, raw, lock), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    raw.close()
    backend.finish()


def _accept(listener: socket.socket, raw: socket.socket, lock: threading.Lock) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, raw, lock), daemon=True).start()


def _serve(client: socket.socket, raw: socket.socket, lock: threading.Lock) -> None:
    with client, suppress(ConnectionError):
        _greet(client)
        held = False
        try:
            while True:
                kind, body = _message(client)
                if kind == b"X":
                    return
                if not held:
                    lock.acquire()
                    held = True
                raw.sendall(kind + struct.pack("!I", len(body) + 4) + body)
                if kind in b"QS" and _answer(raw, client) == b"I":
                    lock.release()
                    held = False
        finally:
            if held:
                lock.release()


def _greet(client: socket.socket) -> None:
    (length,) = struct.unpack("!I", _exactly(client, 4))
    start = _exactly(client, length - 4)
    if struct.unpack("!I", start[:4])[0] == _SSL_REQUEST:
        client.sendall(b"N")
        _greet(client)
        return
    parameters = b"".join(
        b"S" + struct.pack("!I", 4 + len(pair)) + pair
        for pair in (b"server_version\x0015.0\0", b"client_encoding\0UTF8\0", b"standard_conforming_strings\0on\0")
    )
    key = b"K" + struct.pack("!III", 12, _OWN_PID, 1)
    client.sendall(b"R" + struct.pack("!II", 8, 0) + parameters + key + b"Z" + struct.pack("!I", 5) + b"I")


def _answer(raw: socket.socket, client: socket.socket) -> bytes:
    """Pass on all that the server says until it is ready; return the state of its transaction."""
    while True:
        kind, body = _message(raw)
        client.sendall(kind + struct.pack("!I", len(body) + 4) + body)
        if kind == b"Z":
            return body


def _message(peer: socket.socket) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!cI", _exactly(peer, 5))
    return kind, _exactly(peer, length - 4)


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data
