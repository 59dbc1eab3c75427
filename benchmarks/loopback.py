"""A chat server that costs next to nothing: every request takes the same time, a fixed number are worked on at once.

What it asks about is named by a number that is made of the request, so that no two documents give the same pair: a
client that remembers texts is no faster. One asyncio protocol in a process of its own, so that a client is measured
and not the server; keep-alive, no chunks. `serve()` starts it, run as a script it is it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_PAIRS = [
    {
        "question": f"What is said about sentence number {n} of page @@@@@@?",
        "answer": f"Sentence {n} of the passage speaks of tin.",
    }
    for n in range(3)
]
#: in place of the number, which has as many digits
_NUMBER = b"@@@@@@"
_MODELS = json.dumps({"data": [{"id": "loopback", "max_model_len": 8192}]}).encode()


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class _Slots:
    """Finishes each request `latency_s` after it got a slot."""

    def __init__(self, latency_s: float, slots: int, pairs: int) -> None:
        self.latency_s, self.free = latency_s, slots
        content = json.dumps({"pairs": _PAIRS[:pairs]})
        reply = {
            "choices": [{"index": 0, "message": {"content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 90},
        }
        self.reply = _response(json.dumps(reply).encode())
        self.waiting: deque[tuple[_Connection, bytes]] = deque()

    def take(self, connection: _Connection, body: bytes) -> None:
        if not self.free:
            self.waiting.append((connection, body))
            return
        self.free -= 1
        asyncio.get_running_loop().call_later(self.latency_s, self._done, connection, body)

    def _done(self, connection: _Connection, body: bytes) -> None:
        connection.transport.write(self.reply.replace(_NUMBER, b"%06d" % (zlib.crc32(body) % 10**6)))
        self.free += 1
        if self.waiting:
            self.take(*self.waiting.popleft())


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, slots: _Slots) -> None:
        self.slots, self.data = slots, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.split(b"\r\n")[0] or 0):
            return
        self.data = b""
        if head.startswith(b"GET"):
            self.transport.write(_response(_MODELS))
        else:
            self.slots.take(self, body)


async def _serve(latency_s: float, slots: int, pairs: int) -> None:
    shared = _Slots(latency_s, slots, pairs)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(shared), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serve(latency_s: float, slots: int, pairs: int = 3) -> Iterator[tuple[str, int]]:
    """A running server's URL and process id; each of its replies holds so many pairs."""
    command = [sys.executable, __file__, str(latency_s), str(slots), str(pairs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", process.pid
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
