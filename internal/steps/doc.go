// Package steps is what the sidecar and the library in a process share: the backends that sessions run on, and sessions
// whose steps are numbered, so that one can be repeated and another process can go on with the same bits.
package steps
