package features

import (
	"errors"
	"fmt"
	"os"
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

// identity tells a file from one that was put in its place, and from itself with other contents.
type identity struct{ info os.FileInfo }

// changed is an error where something else than the file, as it was then, is at the path now.
func (id identity) changed(path string) error {
	now, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("the file was there when it was opened, but is no more (%w); compute from a finished copy", cause(err))
	case !os.SameFile(id.info, now):
		return errors.New("the file was replaced by another one while it was read; compute from a finished copy")
	case now.Size() != id.info.Size() || !now.ModTime().Equal(id.info.ModTime()):
		return errors.New("the file was changed while it was read; compute from a finished copy")
	}
	return nil
}
