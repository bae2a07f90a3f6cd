"""Publishes one message to a device. Needs only grpcio and the stubs that grpcio-tools makes from proto/:

    python -m grpc_tools.protoc -I ../../proto --python_out=stubs --grpc_python_out=stubs \\
        push/v1/message.proto push/v1/publish.proto google/rpc/status.proto google/rpc/error_details.proto
    PYTHONPATH=stubs python publish.py 127.0.0.1:7400 demo '{"hello": "from Python"}'
"""

import sys

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from push.v1 import message_pb2, publish_pb2, publish_pb2_grpc


def publish(address: str, device_id: str, payload: bytes, *, direct: bool = True, ttl_seconds: int = 60):
    """Returns the PublishResponse. Raises grpc.RpcError; `reason_of` tells why."""
    with grpc.insecure_channel(address) as channel:
        return publish_pb2_grpc.PublishServiceStub(channel).Publish(
            publish_pb2.PublishRequest(
                message=message_pb2.Message(
                    device_id=device_id,
                    payload=payload,
                    ttl=Duration(seconds=ttl_seconds),
                ),
                mode=publish_pb2.PUBLISH_MODE_DIRECT if direct else publish_pb2.PUBLISH_MODE_QUEUED,
            ),
            timeout=10,
        )


def reason_of(error: grpc.RpcError) -> tuple[str, list[str]]:
    """The reason of a refusal, and the fields that are wrong."""
    reason, fields = "", []
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
                reason = info.reason
            if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
                fields = [violation.field for violation in bad.field_violations]
    return reason, fields


if __name__ == "__main__":
    answer = publish(sys.argv[1], sys.argv[2], sys.argv[3].encode())
    print(answer.message_id, message_pb2.MessageState.Name(answer.state))
