"""What docs/device-protocol.md asks of a device, against an edge that the test plays, and once against a real plane."""

import asyncio
import json
import subprocess
import sys
import threading

import pytest
from push.v1 import message_pb2
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

import device as device_module
from device import Device, delay
from publish import publish

PATIENCE = 30  # seconds for what takes milliseconds: the machine may be busy
SERVER_TIME = 1_700_000_000_000_000


class Edge:
    """Every connection waits in a queue until the test takes it."""

    async def __aenter__(self):
        self._connections = asyncio.Queue()
        self.refusals = []
        self._server = await serve(self._took, "127.0.0.1", 0, subprotocols=["push.v1.json"], process_request=self._judge)
        self.url = "ws://127.0.0.1:%d/v1/connect" % self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    def _judge(self, connection, request):
        self.token = request.headers["Authorization"]
        return connection.respond(self.refusals.pop(0), "no\n") if self.refusals else None

    async def _took(self, socket):
        self._connections.put_nowait(Connection(socket))
        await socket.wait_closed()

    async def connection(self, welcome=True):
        connection = await asyncio.wait_for(self._connections.get(), PATIENCE)
        if welcome:
            await connection.say(type="welcome", session_id="s1", device_id="tv-1", server_time=SERVER_TIME, ping_interval_ms=60_000)
        return connection


class Connection:
    def __init__(self, socket):
        self.socket = socket

    async def say(self, **frame):
        await self.socket.send(json.dumps(frame))

    async def message(self, key, **more):
        frame = {"type": "message", "id": key, "class": "USER", "priority": "NORMAL", "target": "tv-1", "confirm": "ACKNOWLEDGED"}
        await self.say(**{**frame, "accept_time": SERVER_TIME, "expire_time": SERVER_TIME + 3_600_000_000, **more})

    async def heard(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))

    async def acked(self, count):
        ids = []
        while len(ids) < count:
            frame = await self.heard()
            assert frame["type"] == "ack"
            ids += frame["ids"]
        return ids


def played(play):
    """Runs `play(edge, start)`; `start(handle)` starts a device without chance and returns its run."""

    async def main():
        runs = []
        async with Edge() as edge:

            def start(handle):
                runs.append(asyncio.create_task(Device(edge.url, "a.b.c", handle, chance=lambda: 0).run()))
                return runs[-1]

            await play(edge, start)
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 4 * PATIENCE))


def test_each_message_is_handled_once_and_every_copy_of_it_is_acknowledged():
    async def play(edge, start):
        handled = []

        async def handle(message):
            handled.append(message["id"])

        start(handle)
        connection = await edge.connection()
        assert edge.token == "Bearer a.b.c"
        for key in ("m1", "m2", "m1"):
            await connection.message(key)
        assert sorted(await connection.acked(3)) == ["m1", "m1", "m2"]
        await connection.message("m2", redelivered=True)
        assert await connection.acked(1) == ["m2"]
        assert handled == ["m1", "m2"]

    played(play)


def test_a_handler_that_throws_and_a_message_that_has_expired_are_refused():
    async def play(edge, start):
        async def handle(message):
            raise ValueError("no such command")

        start(handle)
        connection = await edge.connection()
        await connection.message("m1")
        assert await connection.heard() == {"type": "nack", "id": "m1", "reason": "ValueError('no such command')"}
        await connection.message("m2", expire_time=SERVER_TIME - 1)
        assert await connection.heard() == {"type": "nack", "id": "m2", "reason": "expired"}

    played(play)


def test_where_a_result_is_wanted_it_acknowledges_at_the_start_and_sends_the_result_at_the_end():
    async def play(edge, start):
        go = asyncio.Event()

        async def handle(message):
            await go.wait()
            return {"files": 3}

        start(handle)
        connection = await edge.connection()
        await connection.message("m1", confirm="RESULT", **{"class": "DIAGNOSTIC"})
        assert await connection.acked(1) == ["m1"]
        # Another class does not wait for it.
        await connection.message("m2", confirm="RESULT")
        assert await connection.acked(1) == ["m2"]
        go.set()
        results = {frame["id"]: frame for frame in [await connection.heard(), await connection.heard()]}
        assert results["m1"] == {"type": "result", "id": "m1", "status": "ok", "data": {"files": 3}}

    played(play)


def test_answers_that_a_broken_connection_may_have_lost_go_with_the_next_one():
    async def play(edge, start):
        handled = []

        async def handle(message):
            handled.append(message["id"])

        start(handle)
        first = await edge.connection()
        await first.message("m1")
        assert await first.acked(1) == ["m1"]
        first.socket.transport.abort()
        second = await edge.connection()
        assert await second.acked(1) == ["m1"]
        assert handled == ["m1"]

    played(play)


def test_told_to_move_it_opens_the_new_session_first():
    async def play(edge, start):
        async def handle(message):
            pass

        start(handle)
        old = await edge.connection()
        await old.say(type="goaway", reason="drain", reconnect_after_ms=50)
        await old.message("m1")
        assert await old.acked(1) == ["m1"]
        young = await edge.connection(welcome=False)
        # Until the new one is open, the old one goes on.
        await old.message("m2")
        assert await old.acked(1) == ["m2"]
        await young.say(type="welcome", session_id="s2", device_id="tv-1", server_time=SERVER_TIME, ping_interval_ms=60_000)
        with pytest.raises(ConnectionClosed):
            await old.heard()
        assert old.socket.close_code == 1000
        await young.message("m3")
        assert await young.acked(1) == ["m3"]

    played(play)


def test_pings_are_answered_and_what_it_does_not_know_is_left_out():
    async def play(edge, start):
        async def handle(message):
            pass

        start(handle)
        connection = await edge.connection()
        await connection.say(type="horoscope", sign="fish")
        await connection.say(type="ping", data="x")
        assert await connection.heard() == {"type": "pong", "data": "x"}

    played(play)


def test_it_comes_back_after_a_passing_end_and_stays_away_after_a_final_one():
    async def play(edge, start):
        async def handle(message):
            pass

        run = start(handle)
        for code in (1012, 4000, 4004):
            await (await edge.connection()).socket.close(code)
        await (await edge.connection()).socket.close(4501)
        assert await asyncio.wait_for(run, PATIENCE) == 4501
        edge.refusals = [500, 401]
        assert await asyncio.wait_for(start(handle), PATIENCE) == 4500
        assert edge.refusals == []

    played(play)


def test_it_waits_as_its_close_code_asks_and_at_random():
    def bounds(code, failures):
        return delay(code, failures, lambda: 0), delay(code, failures, lambda: 1)

    assert [bounds(1006, failures) for failures in (1, 2, 6, 7, 99)] == [(0, 1), (0, 2), (0, 32), (0, 60), (0, 60)]
    assert [bounds(code, 1) for code in (1013, 4000, 4005, 4006)] == [(5, 15), (0, 1), (30, 60), (300, 600)]
    assert bounds(1013, 9) == (5, 60)
    assert len({delay(1006, 7) for _ in range(20)}) > 1


def test_a_real_plane_delivers_to_it(plane):
    process = subprocess.Popen(
        [sys.executable, device_module.__file__, plane.devices, "dev:python-tv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(2 * PATIENCE, process.kill)
    watchdog.start()
    try:
        assert process.stderr.readline().startswith("welcome python-tv")
        answer = publish(plane.address, "python-tv", b'{"n": 1}')
        assert answer.state == message_pb2.MESSAGE_STATE_ACKNOWLEDGED
        assert json.loads(process.stdout.readline()) == {"id": answer.message_id, "payload": {"n": 1}}
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
