package tenantry

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// Reason is why a call was refused, by its name in error_reason.proto; empty where
// the error is not the service's. Rely on this, and not on the message.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "tenantry" {
			return info.GetReason()
		}
	}
	return ""
}

// Violations is what is wrong with a request's fields, by the field's name.
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
