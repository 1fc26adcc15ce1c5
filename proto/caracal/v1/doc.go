// Package caracalv1 is the gRPC API of a running caracald, generated from caracal.proto by proto/generate.sh.
//
// The .proto file is the documentation of the API; internal/inspect implements it and cmd/caracal speaks it. The
// generated code is checked in so that a build needs neither protoc nor the network; "proto/generate.sh -check", also run
// as a test of the directory above, fails when the two differ.
package caracalv1
