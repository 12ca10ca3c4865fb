package tenantry

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// Reason returns the reason of a refused call: the name of a value in error_reason.proto. The
// reason is empty if the error does not come from Tenantry. Rely on the reason, not on the message.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "tenantry" {
			return info.GetReason()
		}
	}
	return ""
}

// Violations returns the violations of a request's field rules, by the name of the field.
func Violations(err error) map[string]string {
	violations := map[string]string{}
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.GetFieldViolations() {
				violations[violation.GetField()] = violation.GetDescription()
			}
		}
	}
	return violations
}
