"""The endpoint as the driver sees it before anything is paid for: its key, what it serves, how much it can read."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from aiohttp import ClientError, InvalidURL

from equal.config import Endpoint
from equal.errors import EndpointError
from equal.io.completions import PERHAPS_AWAY
from equal.io.connections import exchange, open_session

log = logging.getLogger("equal")


class AwayError(EndpointError):
    """There is no answer, or a gateway's that its server gives none."""


def read_key(endpoint: Endpoint, read_secret: Callable[[str, str], str] | None = None) -> str:
    """The endpoint's key: a Databricks secret if one is named, else the environment variable; "" for an open server.

    Args:
        endpoint: names the variable and the secret.
        read_secret: (scope, name) -> value; Databricks' own when None.

    Raises:
        EndpointError: `endpoint.key_secret` is not scope/name, or cannot be read.
    """
    if not endpoint.key_secret:
        return _sendable(os.environ.get(endpoint.key_env, ""), f"environment variable {endpoint.key_env}")
    scope, _, name = endpoint.key_secret.partition("/")
    if not scope or not name:
        raise EndpointError(
            f"endpoint.key_secret: is {endpoint.key_secret!r}, expected scope/name; give both, such as equal/vllm-key"
        )
    try:
        key = (read_secret or _databricks_secret)(scope, name)
    except Exception as error:
        raise EndpointError(
            f"endpoint.key_secret: {endpoint.key_secret} could not be read ({type(error).__name__}); "
            "create it with `databricks secrets put-secret` and let the job's owner read the scope"
        ) from error
    return _sendable(key, f"endpoint.key_secret {endpoint.key_secret}")


def check_servers(endpoint: Endpoint, key: str, *, min_context: int) -> None:
    """`check_endpoint` for every server; of several one may be away, as in a run.

    Raises:
        EndpointError: names the first that serves something else or refuses the key, or says that none answers.
    """
    _check_any(endpoint, endpoint.servers, key, min_context)
    for model, url in ((endpoint.refine_model, endpoint.refine_url), (endpoint.teacher_model, endpoint.teacher_url)):
        if model:
            _check_any(replace(endpoint, model=model), [url] if url else endpoint.servers, key, min_context)


def _check_any(endpoint: Endpoint, urls: Iterable[str], key: str, min_context: int) -> None:
    away: list[AwayError] = []
    serve = False
    for url in urls:
        try:
            check_endpoint(replace(endpoint, url=url), key, min_context=min_context)
            serve = True
        except AwayError as error:
            away.append(error)
    if not serve:
        raise away[0]
    for down in away:
        log.warning("%s; until then the others serve alone", down)


def check_endpoint(endpoint: Endpoint, key: str, *, min_context: int = 0) -> int | None:
    """Ask the server what it serves, before anything is paid for.

    Args:
        endpoint: url and model.
        key: as read by `read_key`.
        min_context: tokens that prompt and reply need at least.

    Returns:
        The model's context length in tokens; None when the server does not say.

    Raises:
        AwayError: down.
        EndpointError: no address, wrong key, unknown model, or a context that is too short.
    """
    try:
        with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has an event loop already
            status, content = thread.submit(asyncio.run, _models(endpoint, key)).result()
    except (ClientError, TimeoutError, ValueError) as error:
        kind = EndpointError if isinstance(error, (InvalidURL, ValueError)) else AwayError
        raise kind(
            f"endpoint.url: no answer from {endpoint.url} ({type(error).__name__}); start the server or correct it"
        ) from error
    if status in PERHAPS_AWAY:
        raise AwayError(f"endpoint.url: {endpoint.url} answers HTTP {status}, as if its server were away; start it")
    if status in (401, 403):
        raise EndpointError(
            f"endpoint: {endpoint.url} refuses the key (HTTP {status}); "
            f"set the environment variable {endpoint.key_env} or endpoint.key_secret"
        )
    models = _served(content)
    if models is None:
        raise EndpointError(
            f"endpoint.url: {endpoint.url}/models answered HTTP {status} without a list of models; "
            "give the base of an OpenAI-compatible API, ending in /v1"
        )
    if endpoint.model not in models:
        raise EndpointError(
            f"endpoint.model: is {endpoint.model!r}, served at {endpoint.url}: {', '.join(sorted(models)) or 'none'}; "
            "set it to one of those served, or serve it there"
        )
    context = models[endpoint.model]
    if context is not None and context < min_context:
        raise EndpointError(
            f"endpoint.model: {endpoint.model} has a context of {context} tokens, prompt and reply need at least "
            f"{min_context}; lower extraction.max_tokens or serve it with a longer context"
        )
    return context


def _sendable(key: str, source: str) -> str:
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise EndpointError(f"{source}: holds characters that no HTTP header can carry; set it again")
    return key


async def _models(endpoint: Endpoint, key: str) -> tuple[int, bytes]:
    async with asyncio.timeout(min(endpoint.timeout_s, 30.0)), open_session(key) as http:
        status, _, content = await exchange(http, "GET", f"{endpoint.url.rstrip('/')}/models")
        return status, content or b""


def _served(content: bytes) -> dict[str, int | None] | None:
    try:
        items = json.loads(content)["data"]
        lengths = {str(item["id"]): item.get("max_model_len") for item in items}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return {name: length if isinstance(length, int) else None for name, length in lengths.items()}


def _databricks_secret(scope: str, name: str) -> str:
    from pyspark.dbutils import DBUtils  # exists on a Databricks cluster only
    from pyspark.sql import SparkSession

    return str(DBUtils(SparkSession.getActiveSession()).secrets.get(scope, name))
