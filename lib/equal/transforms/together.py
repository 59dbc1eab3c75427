"""Texts of many documents in one call of the encoder: a call for each costs several times what its few texts do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

#: texts of one call, about: whoever waits for few need not wait for many
_TEXTS = 256


class Together:
    """Encodes, off the event loop, all texts that came while the last ones were encoded.

    A text's vector must be the same in any company, as `training.encoder` makes it: then no outcome depends on what
    other documents happen to wait.
    """

    def __init__(self, encode: Callable[[list[str]], np.ndarray]) -> None:
        """Use `encode`, texts -> (n, d), one call at a time."""
        self._encode = encode
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[tuple[list[str], asyncio.Future[np.ndarray]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, texts: list[str]) -> np.ndarray:
        """(n, d) rows of the texts."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, future))
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())
        return await future

    def close(self) -> None:
        """Encode nothing more, for when nobody waits any longer: what is still tried ends with an error."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        try:
            while group := self._next():
                texts = [text for some, _ in group for text in some]
                try:
                    vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, texts)
                except Exception as error:  # of each, as if it had been alone
                    for _, future in group:
                        if not future.done():
                            future.set_exception(error)
                    continue
                start = 0
                for some, future in group:
                    if not future.done():  # else its reading was cancelled
                        future.set_result(vectors[start : start + len(some)])
                    start += len(some)
        finally:
            self._running = None

    def _next(self) -> list[tuple[list[str], asyncio.Future[np.ndarray]]]:
        count, taken = 0, 0
        while taken < len(self._waiting) and count < _TEXTS:
            count += len(self._waiting[taken][0])
            taken += 1
        group, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return group
