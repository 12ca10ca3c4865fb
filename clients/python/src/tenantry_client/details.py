"""What an error says beside its code."""

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def reason(error: grpc.RpcError) -> str:
    """Why a call was refused, by its name in error_reason.proto.

    Empty where the error is not the service's. Rely on this, and not on the message.
    """
    for info in _details(error, error_details_pb2.ErrorInfo):
        if info.domain == "tenantry":
            return info.reason
    return ""


def violations(error: grpc.RpcError) -> dict[str, str]:
    """What is wrong with a request's fields, by the field's name."""
    return {
        violation.field: violation.description
        for bad in _details(error, error_details_pb2.BadRequest)
        for violation in bad.field_violations
    }


def _details(error, message):
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(message.DESCRIPTOR):
            unpacked = message()
            detail.Unpack(unpacked)
            yield unpacked
