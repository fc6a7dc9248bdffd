"""Servers on this machine for the golden: a language model that is a function, and a Hugging Face hub that is a folder.

They have the same port whenever a scene runs, for the address is in what trainer records and in the hashes of that.
"""
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_):
        pass  # a client that went away


@contextlib.contextmanager
def serving(port, handler):
    server = Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two wait 40 ms for each other

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response_only(status)
        for name, value in [*headers, ("content-length", len(body))]:
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)


def language_model(port, says):
    """Answers /v1/chat/completions; `says(messages)` is the answer, or the status of a refusal."""

    class Handler(Quiet):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = says(body["messages"])
            if isinstance(text, int):
                return self.answer(text, b'{"error": "no"}')
            reply = {
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }
            self.answer(200, json.dumps(reply).encode(), [("content-type", "application/json")])

    return serving(port, Handler)


def hub(port, root):
    """Serves the models ROOT/org/name and the data sets ROOT/datasets/org/name."""

    def found(path):
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        _, _, file = rest.partition("/")
        return root / unquote(repo) / unquote(file)

    class Handler(Quiet):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.split("?")[0]
            if path.startswith("/api/"):
                return self.describe(path.removeprefix("/api/"))
            file = found(path)
            if not file.is_file():
                return self.answer(404)
            data = file.read_bytes()
            begin, end = 0, len(data) - 1
            if (asked := self.headers.get("range", "")).startswith("bytes="):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                begin, end = int(first), min(int(last or end), end)
            if begin >= len(data):
                return self.answer(416, headers=[("content-range", f"bytes */{len(data)}")])
            self.answer(206, data[begin:end + 1], [
                ("etag", f'"{len(data)}-{file.name}"'), ("x-repo-commit", COMMIT), ("accept-ranges", "bytes"),
                ("content-range", f"bytes {begin}-{end}/{len(data)}"),
            ])

        def describe(self, path):
            repo, _, revision = path.partition("/revision/")
            folder = root / repo
            if not folder.is_dir() or revision not in ["main", COMMIT]:
                return self.answer(404)
            files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".card.json")
            card = folder / ".card.json"
            self.answer(200, json.dumps({
                "id": repo.partition("/")[2], "sha": COMMIT,
                "cardData": json.loads(card.read_text()) if card.exists() else {},
                "siblings": [{"rfilename": file.relative_to(folder).as_posix()} for file in files],
            }).encode())

    return serving(port, Handler)
