//go:build cgo && linux && (amd64 || arm64)

package csrc

// int sa_stdout_closed(void);
import "C"

// StdoutClosed tells whether standard output was closed when the program began. os.Stdout does not know: Go's runtime
// has put /dev/null in its place.
func StdoutClosed() bool { return C.sa_stdout_closed() != 0 }
