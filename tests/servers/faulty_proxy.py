"""A proxy that fails on purpose: it drops, refuses, stalls and truncates, by a seed, before a real server."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

ERROR_TEXT = "internal error: the flux capacitor is empty"
PAGE = f"<html><body>{ERROR_TEXT}</body></html>"


class FaultyProxy:
    """``http://127.0.0.1:PORT`` in front of another such server; faults are for POST requests alone.

    Args:
        upstream: port of the server.
        shares: share of requests that meet each fault: drop, 429, 500, page (an error page with status 200), stall,
            truncate (part of the answer, then the end of the connection), cut (the same, with a length that fits).
        seed: of what happens to which request.
    """

    def __init__(self, upstream: int, shares: Mapping[str, float], seed: int = 0) -> None:
        self._upstream, self._shares, self._random = upstream, shares, random.Random(seed)
        self.met: Counter[str] = Counter()
        self.up = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            body = await reader.readexactly(length)
            fault = self._fault() if head.startswith(b"POST") and b"lora" not in head.split(b" ")[1] else "none"
            self.met[fault] += 1
            if not self.up or fault == "drop":
                return
            if fault == "stall":
                await asyncio.sleep(3600)
            elif fault in ("429", "500"):
                writer.write(_reply(f"{fault} No", ERROR_TEXT, "Retry-After: 0\r\n" if fault == "429" else ""))
            elif fault == "page":
                writer.write(_reply("200 OK", PAGE, "Content-Type: text/html\r\n"))
            else:
                await self._forward(head, body, writer, fault)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _fault(self) -> str:
        at = self._random.random()
        for fault, share in self._shares.items():
            at -= share
            if at < 0:
                return fault
        return "none"

    async def _forward(self, head: bytes, body: bytes, writer: asyncio.StreamWriter, fault: str) -> None:
        reader, upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
        lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
        upstream.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        answer = await reader.read()
        upstream.close()
        if fault == "truncate":
            answer = answer[: len(answer) * 3 // 4]
        elif fault == "cut":
            _, _, text = answer.partition(b"\r\n\r\n")
            half = text[: len(text) // 2]
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            answer += b"Content-Length: %d\r\n\r\n" % len(half) + half
        writer.write(answer)


def _reply(status: str, text: str, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
