//go:build programs

// Package programs names what the conformance tests run, so that go.mod and go.sum pin the programs and all that they are made of.
package programs

import (
	_ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
	_ "github.com/summerwind/h2spec/cmd/h2spec"
)
