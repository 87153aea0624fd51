"""The client of every OpenAI-compatible endpoint: one request in, one committed reply out.

Over the openai SDK's Chat Completions, whose own retries are off: retries, pauses, concurrency, the budget and
the ledger are here, in one place. Keys come from the environment and are handed to the SDK only.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import openai

from agents.ledger import Ledger, call_key, upper_bound
from agents.rate import LONGEST_WAIT, Limiter, backoff, retry_after
from agents.wire import Call, read_key, read_reply, request_body, table
from curriculum.addresses import is_loopback
from curriculum.errors import BudgetReached, TeacherUnavailable, TutelageError, UserError
from curriculum.teacher_config import Endpoint, TeacherConfig
from curriculum.teacher_records import FailureKind, Reply

MOST_REPLY_BYTES = 4_000_000
"""Of a reply's body; one that is longer is not read to its end."""
MOST_LOST_IN_A_ROW = 8
"""Items whose every attempt failed, one after another, that stop the run: the endpoint is down."""
OVERLOADED = (429, 503, 529)
RETRIED = (408, 409, *OVERLOADED)
FATAL = {401: "the key was not accepted", 403: "access was refused", 404: "there is no such model or address"}


class NoReply(Exception):
    """A call ended without a reply: a failure of its item."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class ChatClient:
    """Asks models, within the budget, and never twice for the same reply."""

    def __init__(self, ledger: Ledger, config: TeacherConfig, seed: int, check_stop: Callable[[], None]) -> None:
        self.ledger = ledger
        self._seed = seed
        self._timeout, self._attempts = config.timeout_seconds, config.attempts
        self._first_wait = config.backoff_seconds
        self._check_stop = check_stop
        self._clients: dict[tuple[str, str | None], openai.AsyncOpenAI] = {}
        self._limiters: dict[tuple[str, str, int], Limiter] = {}
        self._asking: dict[str, asyncio.Task[Reply]] = {}
        self._settled = asyncio.Condition()
        self._lost = 0
        self._halt: TutelageError | None = None
        self._luck = random.Random(seed)

    def halt(self, reason: TutelageError) -> TutelageError:
        """What stops the run: nothing is sent any more, and whoever wants to send gets it raised."""
        self._halt = self._halt or reason
        return self._halt

    def _check(self) -> None:
        if self._halt is not None:
            raise self._halt
        self._check_stop()

    async def close(self) -> None:
        """Closes all connections."""
        for client in self._clients.values():
            await client.close()

    async def ask(self, endpoint: Endpoint, call: Call) -> tuple[str, Reply]:
        """The key of a call and its reply, from the ledger if it was bought before.

        Raises:
            NoReply: every attempt failed, or the server refuses this request; the run can go on without.
            BudgetReached: the request does not fit into the budget.
            StopRequested: a stop was asked for before it was sent.
            TeacherUnavailable: the endpoint is down, or asks to wait too long.
            UserError: no key, or the endpoint refuses the key or the model.
        """
        body = request_body(endpoint, call, self._seed)
        key = call_key(endpoint, body, call.what, call.sample)
        known = self.ledger.find(key)
        if known is not None:
            return key, known
        if key not in self._asking:
            task = asyncio.create_task(self._buy(endpoint, body, key, call))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return key, await self._asking[key]

    async def _buy(self, endpoint: Endpoint, body: Mapping[str, Any], key: str, call: Call) -> Reply:
        at = (endpoint.base_url, endpoint.model, endpoint.concurrency)
        limiter = self._limiters.setdefault(at, Limiter(endpoint.concurrency))
        for attempt in range(1, self._attempts + 1):
            async with limiter.slot(self._check) as started:
                number = await self._intend(endpoint, body, key, call)
                since = time.monotonic()
                try:
                    reply, headers = await self._send(endpoint, body, call)
                except _Fault as error:
                    fault = error
                    self.ledger.fail(number, fault.reason, fault.billed)
                except UserError as error:
                    self.ledger.fail(number, "the endpoint refused the key or the model", billed=False)
                    await self._wake()
                    raise self.halt(error) from None
                except BaseException:
                    self.ledger.abandon(number)  # nobody will see its end
                    await self._wake()
                    raise
                else:
                    reply = reply.model_copy(update={"seconds": round(time.monotonic() - since, 3)})
                    self.ledger.commit(number, reply, endpoint.prices)
                    self._lost = 0
                    limiter.succeeded()
                    limiter.heed(headers)
                    await self._wake()
                    return reply
            await self._wake()
            if fault.final:
                raise NoReply(fault.kind, fault.reason)
            if fault.overload:
                limiter.overloaded(started)
            await self._wait(limiter, endpoint, fault, attempt)
        self._lost += 1
        if self._lost >= MOST_LOST_IN_A_ROW:
            raise self.halt(
                TeacherUnavailable(
                    f"{endpoint.base_url}: {self._lost} items in a row got no reply in {self._attempts} attempts each; "
                    f"the last: {fault.reason}. See whether the server is up, and resume"
                )
            )
        raise NoReply(fault.kind, f"{fault.reason}, the last of {self._attempts} attempts")

    async def _wait(self, limiter: Limiter, endpoint: Endpoint, fault: "_Fault", attempt: int) -> None:
        """What a server asks for holds for all its requests; without being asked only this one waits."""
        asked = fault.retry_after
        if asked is not None and asked > LONGEST_WAIT:
            raise self.halt(
                TeacherUnavailable(f"{endpoint.base_url}: asks to wait {asked:.0f} s. Resume the run after that")
            )
        if asked is not None:
            limiter.pause(asked)
        elif attempt < self._attempts:
            await asyncio.sleep(backoff(self._first_wait, attempt, self._luck.random()))

    async def _intend(self, endpoint: Endpoint, body: Mapping[str, Any], key: str, call: Call) -> int:
        """Reserves a request's cost and writes its intent, after waiting for what open requests give back."""
        need = upper_bound(endpoint, body)
        async with self._settled:
            await self._settled.wait_for(lambda: self.ledger.fits(need) or not self.ledger.in_flight)
            self._check()
            try:
                return self.ledger.intend(key, call.purpose, need)
            except BudgetReached as reached:
                raise self.halt(reached) from None

    async def _wake(self) -> None:
        async with self._settled:
            self._settled.notify_all()

    async def _send(self, endpoint: Endpoint, body: Mapping[str, Any], call: Call) -> tuple[Reply, Mapping[str, str]]:
        client = self._client(endpoint)
        try:
            async with (
                asyncio.timeout(self._timeout),
                # As `extra_body` it is sent as it is; the SDK would walk through the schema for each request.
                client.chat.completions.with_streaming_response.create(
                    model=endpoint.model, messages=(), extra_body=body
                ) as response,
            ):
                content = bytearray()
                async for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MOST_REPLY_BYTES:
                        raise _Fault("too_large", f"the reply has more than {MOST_REPLY_BYTES} bytes", final=True)
                headers = {name.lower(): value for name, value in response.headers.items()}
        except openai.APIStatusError as error:
            raise self._refused(endpoint, error) from None
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise self._broken(error) from None
        key = read_key(endpoint).encode()  # a server that repeats it does not get it into our files
        text = bytes(content) if endpoint.key_variable is None else bytes(content).replace(key, b"[key]")
        try:
            return read_reply(text, headers, call.prompt_hash), headers
        except ValueError as error:
            raise _Fault("no_reply", str(error)) from None

    def _broken(self, error: Exception) -> "_Fault":
        """A request without a reply. The SDK calls every lost connection a timeout; the causes know better."""
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return _Fault("no_reply", f"no reply within {self._timeout:g} s", overload=True)
        sent = not isinstance(causes[-1], ConnectionRefusedError)
        return _Fault("no_reply", f"the connection broke: {type(causes[-1]).__name__}", billed=sent)

    def _refused(self, endpoint: Endpoint, error: openai.APIStatusError) -> "Exception":
        status, headers = error.status_code, {k.lower(): v for k, v in error.response.headers.items()}
        if status in FATAL:
            variable = f" (key from {endpoint.key_variable})" if endpoint.key_variable else " (no key was sent)"
            return UserError(
                f"{endpoint.base_url}, model {endpoint.model}, role {endpoint.role}: {FATAL[status]}, status "
                f"{status}{variable}. Mend teacher.base_url, teacher.model or the key, and resume"
            )
        if status in RETRIED or status >= 500:
            overload, wait = status in OVERLOADED, retry_after(headers)
            return _Fault("no_reply", f"status {status}", billed=False, overload=overload, retry_after=wait)
        return _Fault("refused_request", f"status {status}: {_said(error)}", billed=False, final=True)

    def _client(self, endpoint: Endpoint) -> openai.AsyncOpenAI:
        at = (endpoint.base_url, endpoint.key_variable)
        if at not in self._clients:
            self._clients[at] = openai.AsyncOpenAI(
                base_url=endpoint.base_url,
                api_key=read_key(endpoint),
                max_retries=0,
                timeout=self._timeout,
                # Over aiohttp, which takes less of a core for a request. A redirect could lead anywhere; and what is on
                # this machine needs no proxy.
                http_client=openai.DefaultAioHttpClient(
                    follow_redirects=False, trust_env=not is_loopback(endpoint.base_url)
                ),
            )
        return self._clients[at]


class _Fault(Exception):
    """One request failed."""

    def __init__(
        self,
        kind: FailureKind,
        reason: str,
        *,
        billed: bool = True,
        overload: bool = False,
        final: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.billed, self.overload = kind, reason, billed, overload
        self.final, self.retry_after = final, retry_after


def _said(error: openai.APIStatusError) -> str:
    """The beginning of a server's message; the key is never in what we sent as text, but a server may repeat it."""
    message = " ".join(str(table(error.body).get("message", ""))[:300].split())
    key = error.request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    return (message.replace(key, "[key]") if key and key != "none" else message)[:200]
