"""An instance metadata service of EC2 with a Spot notice, for tests of the runner."""

from __future__ import annotations

import http.server
import threading
import time
from typing import Any


class MetadataService:
    """Answers on the loopback until `close`.

    Attributes:
        goes_at: Epoch seconds that its Spot notice tells; `None`: there is no notice.
        tokens: How many tokens it gave; all but the last have expired.
        asked: Paths that were asked for.
        environ: Variables by which the runner finds it.
    """

    def __init__(self) -> None:
        self.goes_at: float | None = None
        self.tokens = 0
        self.asked: list[str] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def _say(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self) -> None:
                service.tokens += 1
                self._say(200, b"token-%d" % service.tokens)

            def do_GET(self) -> None:
                service.asked.append(self.path)
                if self.headers.get("X-aws-ec2-metadata-token") != f"token-{service.tokens}":
                    self._say(401)
                elif service.goes_at is not None:
                    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(service.goes_at))
                    self._say(200, b'{"action": "terminate", "time": "%s"}' % at.encode())
                else:
                    self._say(404)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}/at"}

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
