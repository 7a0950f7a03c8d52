// Package proto is the Go form of specalign.proto, the protocol between a training process and the sidecar. Package
// plugin says how it is used.
package proto

//go:generate ./generate.sh
