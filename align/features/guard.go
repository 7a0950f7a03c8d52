package features

import (
	"errors"
	"runtime/debug"
)

var errShrunk = errors.New("the file cannot be read to its end any more: it became shorter meanwhile, or its disk failed; compute from a finished copy")

// guarded runs read, which reads mapped files on this goroutine, and gives errShrunk where the system has no page
// behind a mapping any more (SIGBUS), which would otherwise end the program.
func guarded(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if _, fault := p.(interface{ Addr() uintptr }); !fault {
			panic(p)
		}
		err = errShrunk
	}()
	return read()
}
