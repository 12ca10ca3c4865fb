package dev.tenantry.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.BadRequest.FieldViolation;
import com.google.rpc.ErrorInfo;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Reads the details of an error. */
public final class Details {
  private Details() {}

  /**
   * Returns the reason of a refused call: the name of a value in error_reason.proto. The reason is
   * empty if the error does not come from Tenantry. Rely on the reason, not on the message.
   */
  public static String reason(StatusRuntimeException error) {
    return detailsOfType(error, ErrorInfo.class)
        .filter(info -> info.getDomain().equals("tenantry"))
        .map(ErrorInfo::getReason)
        .findFirst()
        .orElse("");
  }

  /** Returns the violations of a request's field rules, by the name of the field. */
  public static Map<String, String> violations(StatusRuntimeException error) {
    return detailsOfType(error, BadRequest.class)
        .flatMap(bad -> bad.getFieldViolationsList().stream())
        .collect(
            Collectors.toMap(
                FieldViolation::getField, FieldViolation::getDescription, (first, next) -> first));
  }

  private static <M extends Message> Stream<M> detailsOfType(
      StatusRuntimeException error, Class<M> type) {
    return StatusProto.fromThrowable(error).getDetailsList().stream()
        .filter(detail -> detail.is(type))
        .map(detail -> unpack(detail, type));
  }

  private static <M extends Message> M unpack(Any detail, Class<M> type) {
    try {
      return detail.unpack(type);
    } catch (InvalidProtocolBufferException error) {
      throw new IllegalArgumentException("an error detail is malformed", error);
    }
  }
}
