package regular

import (
	"os"
	"sync"
)

// The temporary names that files have at the moment, for a program that ends at once.
var (
	temporaryLock sync.Mutex
	temporaryName = map[string]bool{}
)

func remember(name string) {
	temporaryLock.Lock()
	defer temporaryLock.Unlock()
	temporaryName[name] = true
}

func forget(name string) {
	temporaryLock.Lock()
	defer temporaryLock.Unlock()
	delete(temporaryName, name)
}

// Abandon removes every file that has only a temporary name, for a program that a signal ends. Nothing is committed
// after it.
func Abandon() {
	temporaryLock.Lock() // for ever
	for name := range temporaryName {
		_ = os.Remove(name)
	}
}
