"""A TCP proxy before PostgreSQL that cuts a connection at a chosen word, before or after the server has it."""

import contextlib
import socket
import threading
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

CHUNK = 1 << 16


class Proxy:
    """Forwards connections; one at a time may be told where to end. A context manager."""

    def __init__(self, dsn):
        known = conninfo_to_dict(dsn)
        self._server = (known.pop("host", "127.0.0.1"), int(known.pop("port", 5432)))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        user, database = known.pop("user", "postgres"), known.pop("dbname", "postgres")
        known |= {"sslmode": "disable", "gssencmode": "disable"}  # else there is no word to look for
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in known.items())
        self.dsn = f"postgresql://{user}@127.0.0.1:{self._listener.getsockname()[1]}/{database}?{query}"
        self.seen = []
        """What clients sent, in chunks."""
        self._plan = None
        self.left = 0
        """Connections still to be cut."""
        self._hung = []
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self, word, *, deliver=False, answer=0, times=1, hang=False, down=False):
        """Cut the connections that send a word.

        Args:
            word: what to wait for.
            deliver: let the server have it, and answer it.
            answer: bytes of the answer to pass on before the cut; means `deliver`.
            times: how many connections to cut.
            hang: leave the server's side open, so that it waits for more.
            down: cut all the others too, and take no more.
        """
        self._plan = (word, deliver or bool(answer), answer, hang, down)
        self.left = times

    def release(self):
        """Close what was left to hang."""
        for server in self._hung:
            _close(server)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.down()

    def down(self):
        """Cut all connections and take no more."""
        for each in self._sockets:
            _close(each)

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _connect(self):
        host, port = self._server
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _forward(self, client, server):
        back = _Answers(server, client)
        with contextlib.suppress(OSError):
            while chunk := client.recv(CHUNK):
                self.seen.append(chunk)
                if self._plan is None or self.left < 1 or self._plan[0] not in chunk:
                    server.sendall(chunk)
                    continue
                _, deliver, answer, hang, down = self._plan
                self.left -= 1
                if deliver:
                    back.stop_after(answer)
                    server.sendall(chunk)
                    back.stopped.wait(20)
                if down:
                    self.down()
                _close(client)
                if hang:
                    self._hung.append(server)
                    return
                break
        _close(server)


class _Answers:
    """Passes on what a server says, until it has said so many bytes more."""

    def __init__(self, server, client):
        self._server, self._client, self._left = server, client, None
        self.stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def stop_after(self, n):
        self._left = n

    def _run(self):
        with contextlib.suppress(OSError):
            while chunk := self._server.recv(CHUNK):
                if self._left is not None:
                    chunk = chunk[: self._left]
                    self._left -= len(chunk)
                    self._client.sendall(chunk)
                    if self._left == 0:
                        break
                else:
                    self._client.sendall(chunk)
        if self._left is None:
            _close(self._client)
        self.stopped.set()


def _close(each):
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
