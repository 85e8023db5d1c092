"""A small HTTP server that speaks the OpenAI API, with answers that a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[Any, ...]]
"""Body of a request -> status, what to say (text is HTML), and headers if any."""


class Api:
    """An API whose answers a test decides; it keeps what it was asked.

    Args:
        owner: of its model; ``vllm`` is taken for a vLLM.
    """

    def __init__(self, owner: str) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Answer = lambda body: (200, completion(body))
        self.models = [{"id": "m", "owned_by": owner, "root": None, "parent": None, "max_model_len": 64}]
        self.list_status = 200
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(api.list_status, {"object": "list", "data": api.models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                api.asked.append({"path": self.path, **body})
                api.headers.append({name.lower(): value for name, value in self.headers.items()})
                self._say(*api.answer(body))

            def _say(self, status: int, what: Any, headers: dict[str, str] | None = None) -> None:
                text = (what if isinstance(what, str) else json.dumps(what)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if isinstance(what, str) else "application/json")
                self.send_header("Content-Length", str(len(text)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Take no further connection."""
        self._server.shutdown()
        self._server.server_close()


def completion(body: dict[str, Any], text: str = "sure", ids: tuple[int, ...] = (700, 8, 5), **choice: Any) -> Any:
    """What a server answers to a request; ``choice`` are further fields of its only choice."""
    is_chat = "messages" in body
    said = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text, "token_ids": list(ids)}
    counted = {"prompt_tokens": 3 if is_chat else len(body["prompt"]), "completion_tokens": len(ids)}
    return {
        "id": "x",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", **said, **choice}],
        "usage": counted | {"total_tokens": 0},
    }


def log_probabilities(body: dict[str, Any]) -> Any:
    """A vLLM's answer to a prompt: -id / 1000 nats a token, whatever stands before it."""
    rows: list[Any] = [None, *({str(token): {"logprob": -token / 1000}} for token in body["prompt"][1:])]
    return completion(body, prompt_logprobs=rows)


BUSY = 400, {"error": {"message": "busy"}}
"""An answer that no further attempt is made after."""
