"""A model behind an OpenAI-compatible server, asked by many requests at a time through the official client."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import PurePosixPath
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

import httpx2
import openai

from gazebench.vlm.messages import Backend, EncodedImage, Failure, Message, Reply, Request, VLMError
from gazebench.vlm.parsing import share_of_yes, verdict_token

SCHEMA, LOGPROBS = "schema", "logprobs"
_REFUSED = {SCHEMA: "response_format|schema|json|structured|guided|grammar", LOGPROBS: "logprobs"}
"""What a server names that refuses one of the options that not every server knows."""
_LENGTH = 300
"""Characters of a server's message that are shown."""
_Answer = tuple[Reply | Failure, bool]
"""An answer, and whether it suggests that the server is down."""


class OpenAIServer(Backend):
    """A model behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve`` and the like.

    Requests with a schema are sent with ``response_format``, and those that want the probability of "yes" with
    ``logprobs``. A server that refuses one of the two is asked without it, from then on.

    Args:
        base_url: address of the interface, such as ``http://localhost:8000/v1``.
        model: the server's name of the model.
        api_key: by default the environment variable OPENAI_API_KEY, or ``EMPTY``, which local servers accept.
        revision: revision of the model's weights, where it is known.
        in_flight: requests at a time; at most twice as many are taken ahead.
        timeout: seconds to wait for one answer.
        max_retries: of one request after a timeout, a lost connection, or status 408, 409, 429 or 5xx; the waits in
            between grow, or are as long as the server asks. At least 1, since some servers drop a connection after an
            error, and the next request on it then fails too.
        give_up_after: number of successive requests that fail, with all retries, before the server counts as down.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        revision: str = "",
        in_flight: int = 64,
        timeout: float = 120.0,
        max_retries: int = 6,
        give_up_after: int = 8,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise VLMError(f"{base_url}: not the address of a server; give one like http://HOST:PORT/v1")
        if min(in_flight, max_retries, give_up_after) < 1 or not timeout > 0:
            raise ValueError("in_flight, max_retries and give_up_after are at least 1, timeout is above 0 seconds")
        self.base_url, self.model, self.revision = base_url, model, revision
        self.in_flight, self.timeout, self.max_retries = in_flight, timeout, max_retries
        self.give_up_after = give_up_after
        self._refused: set[str] = set()
        self._api_key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY") or "EMPTY"

    def identity(self) -> dict[str, Any]:
        """Backend, model and revision; of a model that is an absolute path, only the last part."""
        model = PurePosixPath(self.model).name if self.model.startswith("/") else self.model
        return {"backend": "openai", "model": model, "revision": self.revision}

    def check(self) -> tuple[str, ...]:
        """The models that the server lists; empty where it cannot list them.

        Raises:
            VLMError: no server answers, or it refuses the key.
        """
        options: dict[str, Any] = {"timeout": min(self.timeout, 30.0), "max_retries": 1}
        with openai.OpenAI(base_url=self.base_url, api_key=self._api_key, **options) as client:
            try:
                listed = json.loads(client.models.with_raw_response.list().content)
                return tuple(str(model["id"]) for model in listed["data"])
            except openai.APIConnectionError as error:
                raise VLMError(
                    f"{self.base_url}: no server answers ({_why(error)}); start one there, such as"
                    f" `vllm serve {self.model}`, or correct the address"
                ) from error
            except openai.APIStatusError as error:
                if error.status_code in (401, 403):
                    raise self._hopeless(error) from error
                return ()  # a server that cannot list its models may still answer
            except (ValueError, KeyError, TypeError):
                return ()

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Yields answers as they arrive; ``requests`` is consumed in the caller's thread, between the answers.

        An exception from ``requests`` is raised after the answers that have arrived by then; later ones are dropped.

        Raises:
            VLMError: the key or the model is refused, or ``give_up_after`` requests in a row failed.
        """
        drawn: Iterator[Request] | None = iter(requests)
        broken: Exception | None = None
        waiting, failed = 0, 0
        arrived: SimpleQueue[Future[_Answer]] = SimpleQueue()
        client = openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self._api_key, timeout=self.timeout, max_retries=self.max_retries
        )
        slots = asyncio.Semaphore(self.in_flight)
        with _event_loop(client) as loop:
            while True:
                if arrived.empty():
                    if broken is not None:
                        raise broken
                    if drawn is not None and waiting < 2 * self.in_flight:
                        try:
                            request = next(drawn, None)
                        except Exception as error:
                            broken = error
                            continue
                        if request is None:
                            drawn = None
                        else:
                            answer = self._answer(client, slots, request)
                            asyncio.run_coroutine_threadsafe(answer, loop).add_done_callback(arrived.put)
                            waiting += 1
                        continue
                    if not waiting:
                        return
                reply, lost = arrived.get().result()
                waiting -= 1
                failed = failed + 1 if lost else 0
                if isinstance(reply, Failure) and failed >= self.give_up_after:
                    raise VLMError(
                        f"{self.base_url}: {failed} requests in a row failed; the last: {reply.reason}; the server"
                        " seems to be down: look at its log, start it again and repeat the command to continue"
                    )
                yield reply

    async def _answer(self, client: openai.AsyncOpenAI, slots: asyncio.Semaphore, request: Request) -> _Answer:
        key = request.key
        try:
            async with slots:
                return await self._sent(client, request), False
        except openai.APIStatusError as error:
            if self._is_hopeless(error):
                raise self._hopeless(error) from error
            refused = error.status_code < 500 and error.status_code not in (408, 409, 429)  # the server works
            return Failure(key, _why(error)), not refused
        except openai.APITimeoutError:
            reason = (
                f"no answer within {self.timeout:g} s, asked {self.max_retries + 1} times"
                " (a longer timeout or fewer requests in flight may help)"
            )
        except openai.APIConnectionError as error:
            reason = f"connection lost, tried {self.max_retries + 1} times ({_why(error)})"
        except _NoAnswerError as error:
            reason = str(error)
        return Failure(key, reason), True

    async def _sent(self, client: openai.AsyncOpenAI, request: Request) -> Reply:
        """The answer to a request; what a server refuses of its options is left out, now and in later requests."""
        extras = {name: value for name, value in _extras(request).items() if name not in self._refused}
        while True:
            body = _body(self.model, request, extras)
            try:
                # Not chat.completions.create, which takes 2 to 3 times as long (benchmarks/vlm_client.py): it checks
                # the messages, escapes a quarter of a megabyte of base64, and builds objects from the answer.
                response = await client.post("/chat/completions", content=body, cast_to=httpx2.Response)
            except openai.APIStatusError as error:
                if not extras or error.status_code not in (400, 422, 501) or self._is_hopeless(error):
                    raise
                names = [name for name in extras if re.search(_REFUSED[name], _detail(error), re.IGNORECASE)]
                tried = names or list(extras)
                extras = {name: value for name, value in extras.items() if name not in tried}
                continue
            reply = _reply(request, response.content, response.elapsed.total_seconds(), SCHEMA in extras)
            self._refused |= set(_extras(request)) - set(extras)
            return reply

    def _hopeless(self, error: openai.APIStatusError) -> VLMError:
        """The error for a refusal that neither a retry nor another request can avoid."""
        if error.status_code in (401, 403):
            remedy = "give a valid key with the environment variable OPENAI_API_KEY"
        elif error.status_code in (400, 404, 405):
            remedy = (
                f"is the address right (it usually ends in /v1), and is {self.model!r} what the server calls its model"
                f" ({self.base_url.rstrip('/')}/models lists them)?"
            )
        else:
            remedy = "see the server's terms"
        return VLMError(f"{self.base_url}: refused, {_why(error)}; {remedy}")

    def _is_hopeless(self, error: openai.APIStatusError) -> bool:
        if error.status_code != 400:
            return error.status_code in (401, 402, 403, 404, 405)
        # Servers word it differently: a 400 that names the model is about the model, others are about the request.
        named = re.search(rf"(?<![\w./-]){re.escape(self.model)}(?![\w/-])", _detail(error))
        return error.code == "model_not_found" or error.param == "model" or named is not None


@contextmanager
def _event_loop(client: openai.AsyncOpenAI) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in its own thread; at the end, open requests are cancelled."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="gazebench-vlm", daemon=True)
    thread.start()

    async def end() -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await client.close()
        await loop.shutdown_asyncgens()

    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _NoAnswerError(ValueError):
    """A response with status 200 that is no chat completion."""


def _extras(request: Request) -> dict[str, dict[str, Any]]:
    """The options that not every server knows, each with its fields."""
    extras: dict[str, dict[str, Any]] = {}
    if request.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        extras[SCHEMA] = {"response_format": {"type": "json_schema", "json_schema": schema}}
    if request.p_yes:
        extras[LOGPROBS] = {"logprobs": True, "top_logprobs": 20}
    return extras


def _body(model: str, request: Request, extras: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The request as JSON; images are inserted as text, since base64 needs no escaping."""
    decoding = request.decoding
    fields = {
        "model": model,
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed,
    }
    for extra in extras.values():
        fields |= extra
    messages = ",".join(map(_message, request.messages))
    return f'{json.dumps(fields)[:-1]},"messages":[{messages}]}}'.encode()


def _message(message: Message) -> str:
    if len(message.parts) == 1 and isinstance(message.parts[0], str):
        content = json.dumps(message.parts[0])  # some servers take only this for a system message
    else:
        content = f"[{','.join(map(_part, message.parts))}]"
    return f'{{"role":"{message.role}","content":{content}}}'


def _part(part: str | EncodedImage) -> str:
    if isinstance(part, EncodedImage):
        return f'{{"type":"image_url","image_url":{{"url":"{part.url}"}}}}'
    return f'{{"type":"text","text":{json.dumps(part)}}}'


def _reply(request: Request, content: bytes, seconds: float, structured: bool) -> Reply:
    try:
        answer = json.loads(content)
        choices = answer["choices"]
        choice = choices[0] if choices else {}
        message, reason = choice.get("message") or {}, str(choice.get("finish_reason") or "")
        text = message.get("content") or ""
        if not text and message.get("refusal"):
            text, reason = message["refusal"], "refusal"
        if not isinstance(text, str):
            raise TypeError("content is no text")
        usage = answer.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        tokens = cast("tuple[int, int]", counts) if all(isinstance(count, int) for count in counts) else None
        p_yes = _p_yes(choice) if request.p_yes else None
        return Reply(request.key, text, reason, seconds, tokens, structured, p_yes)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _NoAnswerError(f"not a chat completion: {_short(content.decode('utf-8', 'replace'))!r}") from error


def _p_yes(choice: Mapping[str, Any]) -> float | None:
    """The probability of "yes", from the alternatives to the token that says yes or no."""
    steps = (choice.get("logprobs") or {}).get("content") or []
    place = verdict_token([step["token"] for step in steps])
    if place is None:
        return None
    alternatives = [steps[place], *(steps[place].get("top_logprobs") or [])]
    odds = {one["token"]: math.exp(one["logprob"]) for one in alternatives}  # the token itself may be listed again
    return share_of_yes(odds)


def _detail(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):  # OpenAI and vLLM say message, FastAPI says detail
        return str(body.get("message") or body.get("detail") or body)
    return str(body or error.message)


def _why(error: openai.APIError) -> str:
    if isinstance(error, openai.APIStatusError):
        return f"status {error.status_code}: {_short(_detail(error))}"
    return f"{error.message} {_short(str(error.__cause__ or ''))}".strip()


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]} ..."
