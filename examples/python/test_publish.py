import grpc
import pytest
from push.v1 import message_pb2

from publish import publish, reason_of


def test_a_direct_message_is_acknowledged_by_the_device(plane):
    answer = publish(plane.address, "demo", b'{"said": "directly"}')
    assert answer.state == message_pb2.MESSAGE_STATE_ACKNOWLEDGED
    assert answer.outcome.hops.answered.seconds > 0
    assert "directly" in plane.printed("demo received")


def test_a_queued_message_is_accepted_and_then_reaches_the_device(plane):
    answer = publish(plane.address, "demo", b'{"said": "through the queue"}', direct=False)
    assert answer.state == message_pb2.MESSAGE_STATE_ACCEPTED
    assert "through the queue" in plane.printed("demo received")


def test_a_message_for_a_device_that_is_away_waits_for_it(plane):
    answer = publish(plane.address, "nobody", b"{}")
    assert answer.state == message_pb2.MESSAGE_STATE_STORED
    assert answer.outcome.reason == message_pb2.STATE_REASON_OFFLINE


def test_now_or_never_is_not_stored(plane):
    answer = publish(plane.address, "nobody", b"{}", ttl_seconds=0)
    assert answer.state == message_pb2.MESSAGE_STATE_DROPPED
    assert answer.outcome.reason == message_pb2.STATE_REASON_OFFLINE


def test_a_bad_message_is_refused_with_reason_and_field(plane):
    with pytest.raises(grpc.RpcError) as refused:
        publish(plane.address, "demo", b"{not JSON")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == ("INVALID_MESSAGE", ["message.payload"])
