package plugin

import (
	"io"
	"sync"
)

// conns are the connections that are open, by the kernel's word of who made them. They end with the sidecar: gRPC would
// wait two minutes for one whose client has not said yet what it wants.
type conns struct {
	mu      sync.Mutex
	open    map[io.Closer]bool
	direct  map[int]int // those for steps alone, by process
	ended   bool
	working sync.WaitGroup // goroutines of those
}

func newConns() *conns { return &conns{open: map[io.Closer]bool{}, direct: map[int]int{}} }

// add takes a connection in; once the sidecar ends it does not.
func (cs *conns) add(c io.Closer) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if !cs.ended {
		cs.open[c] = true
	}
	return !cs.ended
}

// remove forgets a connection.
func (cs *conns) remove(c io.Closer) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
}

// serve takes in a connection for steps alone of process pid, each of which needs a thread, and calls work in a goroutine
// of its own, unless there are as many as there may be sessions.
func (cs *conns) serve(c io.Closer, pid int, work func()) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := 0
	for _, n := range cs.direct {
		all += n
	}
	if cs.ended || all >= maxSessions || cs.direct[pid] >= maxSessionsOfProcess {
		return false
	}
	cs.open[c] = true
	cs.direct[pid]++
	cs.working.Go(func() {
		work()
		cs.mu.Lock()
		defer cs.mu.Unlock()
		delete(cs.open, c)
		if cs.direct[pid]--; cs.direct[pid] == 0 {
			delete(cs.direct, pid)
		}
	})
	return true
}

// end closes them all.
func (cs *conns) end() {
	cs.mu.Lock()
	cs.ended = true
	var open []io.Closer
	for c := range cs.open {
		open = append(open, c)
	}
	cs.mu.Unlock()
	for _, c := range open { // which may remove itself
		_ = c.Close()
	}
}
