package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestTheExampleAllowsOneCheckAndDeniesTheOther(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), "go", "run", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, line := range []string{
		"invoice:read in eu: allowed (DECISION_REASON_GRANTED)",
		"invoice:read in asia: denied (DECISION_REASON_SCOPE_MISMATCH)",
		"refused (INVALID_FIELDS): email:",
	} {
		if !strings.Contains(string(output), line) {
			t.Errorf("%q is not in %s", line, output)
		}
	}
}
