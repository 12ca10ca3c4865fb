"""Reads the details of an error."""

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def reason(error: grpc.RpcError) -> str:
    """Returns the reason of a refused call: the name of a value in error_reason.proto.

    The reason is empty if the error does not come from Tenantry. Rely on the reason, not on
    the message.
    """
    for info in _details(error, error_details_pb2.ErrorInfo):
        if info.domain == "tenantry":
            return info.reason
    return ""


def violations(error: grpc.RpcError) -> dict[str, str]:
    """Returns the violations of a request's field rules, by the name of the field."""
    return {
        violation.field: violation.description
        for bad in _details(error, error_details_pb2.BadRequest)
        for violation in bad.field_violations
    }


def _details(error, message_type):
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(message_type.DESCRIPTOR):
            unpacked = message_type()
            detail.Unpack(unpacked)
            yield unpacked
