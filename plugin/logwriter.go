package plugin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pipeBuf is what a pipe that poll calls writable takes without blocking (PIPE_BUF), and so what is written at once.
const pipeBuf = 4096

// NewLogWriter returns a writer to f, usually os.Stderr, that never blocks: if f is a pipe that nobody drains, lines
// are dropped, and the next one that gets through says how many. A host that does not read must not be able to stop a
// training run.
func NewLogWriter(f *os.File) io.Writer { return &logWriter{f: f, fd: int(f.Fd())} }

type logWriter struct {
	f  *os.File // kept so that fd stays open
	fd int

	mu      sync.Mutex
	dropped int
}

// Write writes one line, or drops it. It reports success in either case: there is nowhere to complain.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := line
	if w.dropped > 0 {
		text = fmt.Appendf(nil, "[WARN]  specalign: %d lines of the log were lost because nobody read them\n%s", w.dropped, line)
	}
	if w.write(text) {
		w.dropped = 0
	} else {
		w.dropped++
	}
	return len(line), nil
}

func (w *logWriter) write(line []byte) bool {
	for len(line) > 0 {
		piece := line[:min(len(line), pipeBuf)]
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(fds, 0); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil || n == 0 || fds[0].Revents&unix.POLLOUT == 0 {
			return false
		}
		n, err := unix.Write(w.fd, piece)
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return false
		}
		line = line[n:]
	}
	return true
}
