"""A device in Python, written from docs/device-protocol.md alone. Needs only the package websockets:

    python device.py ws://127.0.0.1:7480/v1/connect dev:my-tv
"""

import asyncio
import base64
import json
import random
import sys
import time
from collections import OrderedDict, defaultdict

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

SUBPROTOCOL = "push.v1.json"
SEEN_MAX = 10_000  # ids that are remembered, so that no message is handled twice
ACK_IDS_MAX = 100
STABLE_SECONDS = 30  # after a session this long the back-off begins anew
WELCOME_SECONDS = 15


def delay(code: int, failures: int, chance=random.random) -> float:
    """Seconds to wait after the `failures`th end in a row, by its close code. At random: all devices of an edge lose it at once."""
    bound = min(60, 2 ** (failures - 1))
    least, most = {1013: (5, max(15, bound)), 4005: (30, 60), 4006: (300, 600)}.get(code, (0, bound))
    return least + chance() * (most - least)


def payload_of(message: dict):
    """What the publisher sent: a JSON value, or bytes."""
    return base64.b64decode(message["data_base64"]) if "data_base64" in message else message.get("data")


class Session:
    """One connection from its welcome on."""

    def __init__(self, socket, server_time: int):
        self.socket = socket
        self.unproven: list[dict] = []  # answers sent since something was last heard
        self._ahead = server_time - time.monotonic() * 1e6

    def server_time(self) -> float:
        """The edge's clock in microseconds. The device's own may be set at any time."""
        return time.monotonic() * 1e6 + self._ahead


class Device:
    """Stays connected and hands each message once to `handle`, an async function; what it returns is the result where one is wanted."""

    def __init__(self, url: str, token: str, handle, log=lambda *words: None, chance=random.random):
        self.url, self.token, self.handle, self.log, self.chance = url, token, handle, log, chance
        self._answers: OrderedDict[str, dict | None] = OrderedDict()  # by message; None while its handler runs
        self._owed: list[dict] = []  # answers that are still to be sent
        self._session: Session | None = None  # the newest one
        self._turns = defaultdict(asyncio.Lock)  # a slow handler of one class does not hold up the others
        self._tasks: set[asyncio.Task] = set()
        self._flushing = False

    async def run(self) -> int:
        """Returns the close code that says not to come back."""
        failures = 0
        while True:
            (code, open_seconds, retry_after), following = await self._stay(self.url)
            while following and code < 4500:  # in the slot that goaway gave, not sooner
                (code, open_seconds, retry_after), following = await following
            if 4500 <= code <= 4999:
                return code
            failures = 1 if open_seconds >= STABLE_SECONDS else failures + 1
            seconds = max(retry_after, delay(code, failures, self.chance))
            self.log("disconnected", code, f"back in {seconds:.1f} s")
            await asyncio.sleep(seconds)

    async def _stay(self, url: str, wait: float = 0, before: Session | None = None) -> tuple[tuple[int, float, float], asyncio.Task | None]:
        """One session. Returns its close code, how long it was open, and when to come back at the earliest; and the session that it moves on to."""
        await asyncio.sleep(wait)
        session, opened_at, following = None, time.monotonic(), None
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            async with connect(url, subprotocols=[SUBPROTOCOL], additional_headers=headers, compression=None, proxy=None) as socket:
                if socket.subprotocol != SUBPROTOCOL:
                    return (1006, 0, 0), None
                try:
                    welcome = json.loads(await asyncio.wait_for(socket.recv(), WELCOME_SECONDS))
                    if welcome["type"] != "welcome":  # a browser is told so why it is refused; `close` follows
                        await socket.wait_closed()
                        return (socket.close_code, 0, 0), None
                    session, opened_at = Session(socket, welcome["server_time"]), time.monotonic()
                    self._session = session
                    self.log("welcome", welcome["device_id"], welcome["session_id"])
                    self._flush_soon()
                    if before:  # make before break: the newer session is open
                        self._spawn(before.socket.close(1000))
                    async for text in socket:
                        session.unproven.clear()
                        frame = json.loads(text)
                        if frame["type"] == "message":
                            self._spawn(self._receive(frame, session))
                        elif frame["type"] == "goaway" and following is None:
                            self.log("goaway", frame["reason"], frame["reconnect_after_ms"])
                            to = frame.get("endpoint", self.url)
                            to = to if to.startswith("wss:") or self.url.startswith("ws:") else self.url  # never from TLS to plain text
                            following = asyncio.create_task(self._stay(to, frame["reconnect_after_ms"] / 1000, session))
                        elif frame["type"] == "ping":
                            await socket.send(json.dumps({**frame, "type": "pong"}))
                        elif frame["type"] == "error":
                            self.log("error", frame["reason"], frame["message"])
                except ConnectionClosed:
                    pass
            end = socket.close_code, (time.monotonic() - opened_at if session else 0), 0
        except InvalidStatus as refused:
            status, after = refused.response.status_code, refused.response.headers.get("Retry-After", "0")
            end = {401: 4500, 429: 1013, 503: 1013}.get(status, 1006), 0, float(after) if after.isdigit() else 0
        except (OSError, InvalidHandshake, TimeoutError, EOFError):
            end = 1006, 0, 0
        if session:
            if end[0] != 1000:  # an edge that answers our close has read all that went before it
                self._owed = session.unproven + self._owed
            self._session = None if self._session is session else self._session
            self._flush_soon()
        return end, following

    async def _receive(self, message: dict, session: Session):
        key = message["id"]
        if key in self._answers:  # a repeat: not handled again, only answered
            return self._answers[key] and self._answer(self._answers[key])
        self._answers[key] = None
        if len(self._answers) > SEEN_MAX:
            self._answers.popitem(last=False)
        ack, wants_result = {"type": "ack", "ids": [key]}, message["confirm"] == "RESULT"
        async with self._turns[message["class"]]:
            if session.server_time() > message["expire_time"]:
                answer = {"type": "nack", "id": key, "reason": "expired"}
            else:
                if wants_result:
                    self._answer(ack)
                try:
                    data = await self.handle(message)
                    answer = {"type": "result", "id": key, "status": "ok", "data": data} if wants_result else ack
                except Exception as error:  # whatever the app's handler throws is its answer
                    words = repr(error)[:1000]
                    failed = {"type": "result", "id": key, "status": "failed", "message": words}
                    answer = failed if wants_result else {"type": "nack", "id": key, "reason": words}
        self._answers[key] = answer
        self._answer(answer)

    def _answer(self, answer: dict):
        self._owed.append(answer)
        self._flush_soon()

    def _flush_soon(self):
        if not self._flushing:
            self._flushing = True
            self._spawn(self._flush())

    async def _flush(self):
        """Sends what is owed, all acknowledgements in one frame. What a session that breaks has not proven to have sent is owed again."""
        await asyncio.sleep(0.01)
        while self._owed and (session := self._session):
            answer = self._owed.pop(0)
            if answer["type"] == "ack":
                more = [other for other in self._owed if other["type"] == "ack" and len(other["ids"]) == 1][: ACK_IDS_MAX - len(answer["ids"])]
                self._owed = [other for other in self._owed if not any(other is one for one in more)]
                answer = {"type": "ack", "ids": answer["ids"] + [one["ids"][0] for one in more]}
            session.unproven.append(answer)
            try:
                await session.socket.send(json.dumps(answer))
            except ConnectionClosed:
                break
        self._flushing = False

    def _spawn(self, work):
        task = asyncio.create_task(work)
        self._tasks.add(task)  # else it might be collected before it is done
        task.add_done_callback(self._tasks.discard)


async def main(url: str, token: str) -> int:
    async def show(message: dict):
        print(json.dumps({"id": message["id"], "payload": payload_of(message)}, default=repr), flush=True)
        return {"shown": True}

    return await Device(url, token, show, log=lambda *words: print(*words, file=sys.stderr, flush=True)).run()


if __name__ == "__main__":
    sys.exit(f"stopped with {asyncio.run(main(sys.argv[1], sys.argv[2]))}")
