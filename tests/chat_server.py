"""A real HTTP server on the loopback interface that speaks the chat API, well or with one of many faults.

with ChatServer() as server:                       # every reply is a good one
    server.fault = once("busy", "reset")           # the next two requests fail so, the third is served
    server.fault = lambda body: "hang" if "slow" in passage_of(body) else ""
    server.bodies                                  # what was asked, in order of arrival
    server.endpoint()                              # the settings under which the library finds it
"""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]

#: fault -> status, headers, body
_ANSWERS: dict[str, tuple[int, dict[str, str], str]] = {
    "busy": (429, {"Retry-After": "0"}, '{"error": {"message": "slow down"}}'),
    "busy_for_a_second": (429, {"Retry-After": "1"}, '{"error": {"message": "slow down"}}'),
    "broken": (500, {}, '{"error": {"message": "internal"}}'),
    "unavailable": (503, {}, '{"error": {"message": "The engine is currently busy"}}'),
    "unauthorised": (401, {}, '{"error": "Unauthorized"}'),
    "unknown_model": (404, {}, '{"error": {"message": "The model `x` does not exist."}}'),
    "bad_request": (400, {}, '{"error": {"message": "Grammar error: no"}}'),
    "too_long": (400, {}, '{"error": {"message": "This model\'s maximum context length is 512 tokens."}}'),
    "html": (200, {"Content-Type": "text/html"}, "<html><body>Sign in</body></html>"),
    "no_body": (200, {}, ""),
    "cut_body": (200, {}, '{"choices": [{"message": {"content": "abc'),
    "no_choices": (200, {}, '{"choices": []}'),
    "deep_body": (200, {}, "[" * 200_000),
}  # fmt: skip
#: fault -> what the model says, finish_reason
_SAYINGS: dict[str, tuple[str | None, str]] = {
    "says_nothing": ("", "stop"),
    "says_null": (None, "stop"),
    "says_prose": ("I would rather not write JSON today.", "stop"),
    "says_other_json": ('{"answer": 42}', "stop"),
    "says_half": ('{"questions": ["What is the', "length"),
    "says_the_same": ('{"questions": ["' + "what is the mean of the " * 40, "length"),
    "says_void": ('{"questions": [], "pairs": []}', "stop"),
    "says_surrogates": ('{"questions": ["What is \\ud800 the mean of it?"], "pairs": []}', "stop"),
}
FAULTS = (*_ANSWERS, *_SAYINGS, "hang", "drip", "reset", "huge")


class ChatServer:
    """Serves on a free port, or on a given one, from `with` to its end; then every connection breaks.

    Attributes:
        key: the bearer key it wants; "" wants none.
        answer: body -> what the model says.
        fault: body -> name of a fault, or "" to serve it well.
        size: body -> tokens of the prompt.
        length: body and what is said -> tokens of the reply; called when it goes out whole.
        bodies: chat requests as they arrived, whatever became of them.
        counted: requests to count a prompt, likewise.
        tokenizes: whether it has the address that counts prompts.
        count_faults: what the next counts meet; taken from the front.
        most_in_flight: the largest number of requests that were open at once.
        delay_s: before each good reply.
        works_on: requests at once, the others wait, and it tells how many, with metrics_status; 0: all, untold.
    """

    def __init__(
        self, *, key: str = "", model: str = "test-model", max_model_len: int | None = 4096, port: int = 0
    ) -> None:
        self.key, self.model, self.max_model_len = key, model, max_model_len
        self.answer: Callable[[Body], str] = good_answer
        self.fault: Callable[[Body], str] = lambda body: ""
        self.size: Callable[[Body], int] = prompt_tokens_of
        self.length: Callable[[Body, str], int] = lambda body, said: len(said.split())
        self.bodies: list[Body] = []
        self.counted: list[Body] = []
        self.tokenizes, self.count_faults = True, list[str]()
        self.most_in_flight, self.delay_s, self.works_on, self.metrics_status = 0, 0.0, 0, 200
        self._in_flight, self._lock = 0, threading.Lock()
        self._closing = threading.Event()
        self.connections: list[socket.socket] = []
        self._http = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"chat": self}))
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._closing.set()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def endpoint(self, **changes: Any) -> Any:
        """The `endpoint` section that points here."""
        return endpoint_at(**{"url": self.url, "model": self.model, **changes})

    def enter(self, body: Body) -> None:
        with self._lock:
            self.bodies.append(body)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)

    def leave(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def models(self) -> str:
        """The one it serves."""
        size = {} if self.max_model_len is None else {"max_model_len": self.max_model_len}
        return json.dumps({"object": "list", "data": [{"id": self.model, "object": "model", **size}]})

    def metrics(self) -> str:
        """As vLLM tells them."""
        running = min(self._in_flight, self.works_on)
        gauges = {"running": running, "waiting": self._in_flight - running}
        return "# TYPE gauge\n" + "".join(f'vllm:num_requests_{k}{{engine="0"}} {v}.0\n' for k, v in gauges.items())


def endpoint_at(url: str, **changes: Any) -> Any:
    """An `endpoint` section for a url, impatient as tests are."""
    from equal.config import load

    impatient = {"model": "test-model", "in_flight": 8, "timeout_s": 5.0, "max_attempts": 3, "restart_wait_s": 0.0}
    return dataclasses.replace(load().endpoint, **{"url": url, **impatient, **changes})


def once(*faults: str) -> Callable[[Body], str]:
    """Give each named fault once, in order, then none."""
    left, lock = list(faults), threading.Lock()

    def fault(body: Body) -> str:
        with lock:
            return left.pop(0) if left else ""

    return fault


def always(fault: str) -> Callable[[Body], str]:
    """Give the named fault every time."""
    return lambda body: fault


def passage_of(body: Body) -> str:
    """The passage of a request, from its last turn."""
    return body["messages"][-1]["content"].partition("<passage>")[2].partition("</passage>")[0].strip()


def prompt_tokens_of(body: Body) -> int:
    """The size of a prompt to this server: its words."""
    return sum(len(message["content"].split()) for message in body["messages"])


def good_answer(body: Body) -> str:
    """One pair about the passage's opening words in the request's form; of a later pass its draft with a mark."""
    opening = " ".join(re.findall(r"\w+", passage_of(body))[:8])
    question, answer = f"What is said about {opening}?", f"It is said that {passage_of(body)[:80]}"
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {})
    if "questions" in schema:
        return json.dumps({"questions": [question]})
    if "number" in json.dumps(schema):
        shown = body["messages"][-1]["content"]
        question, answer = re.findall(r"(?s)Q1: (.*?)\nA1: (.*?)(?:\nQ2:|\n</drafts>)", shown)[0]
        answer += "!"
    if "pairs" in schema:
        pair = {"number": 1, "question": question, "answer": answer}
        return json.dumps({"pairs": [{name: pair[name] for name in schema["pairs"]["items"]["required"]}]})
    return f"Q: {question}\nA: {answer}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # that clients go away is what many tests are about
            super().handle_error(request, client_address)

    request_queue_size = 128  # of five, the connections of a burst beyond them would wait a second


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version, open = "HTTP/1.1", False
    disable_nagle_algorithm = True  # header and body go out apart; else each reply waits 40 ms for an acknowledgement

    def setup(self) -> None:
        super().setup()
        self.chat.connections.append(self.connection)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.chat._closing.is_set():  # a connection that was kept open outlives the end by a moment
            self.close_connection = True
        elif self.path == "/metrics" and self.chat.works_on:
            self._send(self.chat.metrics_status, {}, self.chat.metrics().encode())
        elif self._allowed():
            self._send(200, {}, self.chat.models().encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self._count(body)
            return
        self.chat.enter(body)
        self.open = True
        with suppress(BrokenPipeError, ConnectionResetError):
            if self._allowed():
                self._serve(body)
        self._leave()

    def _count(self, body: Body) -> None:
        self.chat.counted.append(body)
        if not self.chat.tokenizes:
            self._send(404, {}, b'{"detail": "Not Found"}')
        elif self.chat.count_faults:
            status, headers, text = _ANSWERS[self.chat.count_faults.pop(0)]
            self._send(status, headers, text.encode())
        elif self._allowed():
            self._send(200, {}, json.dumps({"count": self.chat.size(body), "max_model_len": 4096}).encode())

    def _serve(self, body: Body) -> None:
        fault = self.chat.fault(body)
        if fault in _ANSWERS:
            status, headers, text = _ANSWERS[fault]
            self._send(status, headers, text.encode())
        elif fault == "hang":
            self.chat.wait(60)
            self.close_connection = True
        elif fault == "drip":
            self._drip()
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "huge":
            self._complete(body, "x" * 10_000_000, "stop")
        elif fault in _SAYINGS:
            self._complete(body, *_SAYINGS[fault])
        else:
            assert not fault, f"no such fault: {fault}"
            self.chat.wait(self.chat.delay_s)
            self._complete(body, self.chat.answer(body), "stop")

    def _drip(self) -> None:
        """A byte now and then: no read ever waits long, yet the reply never ends."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and not self.chat._closing.is_set():
            self.wfile.write(b" ")
            self.chat.wait(0.05)

    def _complete(self, body: Body, text: str | None, finish_reason: str) -> None:
        size = self.chat.size(body)
        usage = {
            "prompt_tokens": size, "completion_tokens": self.chat.length(body, text or ""),
            # all but the last turn; `size` may be a test's own
            "prompt_tokens_details": {"cached_tokens": max(0, size - len(body["messages"][-1]["content"].split()))},
        }  # fmt: skip
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        self._send(200, {}, json.dumps({"choices": [choice], "usage": usage}).encode())

    def _allowed(self) -> bool:
        if self.chat.key and self.headers.get("Authorization") != f"Bearer {self.chat.key}":
            self._send(401, {}, b'{"error": "Unauthorized"}')
            return False
        return True

    def _leave(self) -> None:
        if self.open:
            self.chat.leave()
        self.open = False

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self._leave()  # before the client knows, which may ask the next at once
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
