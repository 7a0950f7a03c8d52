#!/bin/sh
# Generates specalign.pb.go and specalign_grpc.pb.go from specalign.proto, with pinned generators.
# PYTHON is an interpreter that has the package grpcio-tools, which brings protoc.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN=$bin GOFLAGS= go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$bin GOFLAGS= go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
PATH=$bin:$PATH "${PYTHON:-python3}" -m grpc_tools.protoc -I . \
	--go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative specalign.proto
