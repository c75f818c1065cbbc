"""The runs below a folder, on a page that only this machine can ask for."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jinja2 import Environment

from ownlatent import __version__
from ownlatent.errors import OwnlatentError
from ownlatent.reporting.folder import summary
from ownlatent.reporting.page import render

log = logging.getLogger("ownlatent")
_DEEPEST = 6  # folders below the one that is served
_SOURCES = ("recipe.json", "results.json", "metrics.csv", "gallery.npz", "maps.npz")


def serve(folder: Path, port: int) -> None:
    """Answer until Ctrl-C. Raises OwnlatentError if the port is taken."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(folder.resolve()))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise OwnlatentError(f"port {port} cannot be used ({error.strerror}): give another --port") from error
    with server:
        log.info("serving    %s at http://127.0.0.1:%d/ until Ctrl-C", folder, server.server_address[1])
        server.serve_forever()


def runs_below(folder: Path) -> Iterator[Path]:
    """Run folders, the folder itself among them, in the order of their names. Links are not followed."""
    for place, names, found in os.walk(folder):
        names.sort()
        path = Path(place)
        if "recipe.json" in found:
            yield path
            names.clear()
        elif len(path.relative_to(folder).parts) >= _DEEPEST:
            names.clear()
        names[:] = [name for name in names if not name.startswith(".")]


class Pages:
    """The reports of runs, made when they are asked for and again when something in the run has changed.

    A report.html that lies in the run is not handed out: nobody knows who wrote it.
    """

    def __init__(self) -> None:
        self._made: dict[Path, tuple[list[int], bytes]] = {}
        self._lock = Lock()

    def of(self, run: Path) -> bytes:
        """Raises OwnlatentError and OSError."""
        with self._lock:
            state = [(run / name).stat().st_mtime_ns if (run / name).exists() else 0 for name in _SOURCES]
            if run not in self._made or self._made[run][0] != state:
                self._made = {run: (state, render([run], "pca"))}  # of one at a time: they may be large
            return self._made[run][1]


def _handler(root: Path) -> type[BaseHTTPRequestHandler]:
    pages = Pages()

    class Handler(BaseHTTPRequestHandler):
        server_version = "ownlatent"

        def do_GET(self) -> None:
            # A page elsewhere may name this machine by a name of its own: only its usual ones are answered.
            host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
            if host not in ("127.0.0.1", "localhost"):
                return self._say(HTTPStatus.FORBIDDEN, "this address is for this machine alone")
            path = unquote(urlsplit(self.path).path, errors="surrogateescape")
            try:
                run = None if path == "/" else _run_at(root, path)
                if path != "/" and run is None:
                    return self._say(HTTPStatus.NOT_FOUND, "there is no such run")
                content = _index(root) if run is None else pages.of(run)
            except (OSError, OwnlatentError) as error:
                return self._say(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            self._send(content)

        def _send(self, content: bytes, kind: str = "text/html", status: HTTPStatus = HTTPStatus.OK) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            # What a page holds came from a run folder: it gets no access to the other runs' pages.
            self.send_header("Content-Security-Policy", "sandbox allow-scripts allow-top-navigation")
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has gone
                self.wfile.write(content)

        def _say(self, status: HTTPStatus, text: str) -> None:
            self._send(f"{text}\n".encode("utf-8", "backslashreplace"), "text/plain", status)

        def log_message(self, format: str, *arguments: object) -> None:
            log.debug("%s", format % arguments)

    return Handler


def _run_at(root: Path, path: str) -> Path | None:
    """The run that an address names, which has to be one of those that are listed."""
    wanted = path.removeprefix("/run/").strip("/") if path.startswith("/run/") else None
    if wanted is None:
        return None
    return next((run for run in runs_below(root) if str(run.relative_to(root)) == (wanted or ".")), None)


def _index(root: Path) -> bytes:
    rows = []
    for path in runs_below(root):
        name = str(path.relative_to(root))
        address = "/run/" + quote(name, errors="surrogateescape")
        try:
            rows.append({"name": name, "address": address, **_summary(summary(path))})
        except Exception as error:  # one broken run must not hide the others
            rows.append({"name": name, "address": None, "words": [str(error)], "state": "broken", "method": ""})
    page = files("ownlatent.reporting.page")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        page.joinpath("index.html").read_text(encoding="utf-8")
    )
    styles = page.joinpath("report.css").read_text(encoding="utf-8")
    text = template.render(root=str(root), rows=rows, styles=styles, version=__version__)
    return text.encode("utf-8", "backslashreplace")


def _summary(run: dict[str, Any]) -> dict[str, object]:
    recipe, results = run["recipe"], run["results"]
    words = [line for verdict in results.get("verdicts") or [] for line in verdict["words"]]
    state = "finished" if results.get("finished") else "not finished"
    if health := results.get("health"):
        state += f", {health['word']}"
    method = f"{recipe.get('method')}, {recipe.get('backbone')}"
    return {"words": words[:1] or ["not evaluated"], "state": state, "method": method}
