package csrc

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/specalign/specalign/align"
)

// OpenWanted opens a backend as SPECALIGN_ISA and SPECALIGN_THREADS say; threads 0 leaves it to them.
func OpenWanted(threads int) (align.Backend, error) {
	isa, err := WantedISA()
	if err != nil {
		return nil, err
	}
	return openAt(isa, threads)
}

// OpenHosted is OpenWanted in a process that is another program's. AMX is taken there only where SPECALIGN_ISA names it.
// Its permission is the whole process's and stays: from then on the kernel refuses alternate signal stacks that cannot
// hold 8 KiB more, such as a host's that reserves SIGSTKSZ bytes, and every signal to a thread that has used the
// registers needs as much more stack. That is the host's to decide.
func OpenHosted(threads int) (align.Backend, error) {
	isa, err := WantedISA()
	if err != nil {
		return nil, err
	}
	if levels := Levels(); isa == "" && len(levels) > 1 && levels[0] == amx {
		isa = levels[1]
	}
	return openAt(isa, threads)
}

func openAt(isa string, threads int) (_ align.Backend, err error) {
	if threads == 0 {
		if threads, err = WantedThreads(); err != nil {
			return nil, err
		}
	}
	return Open(Options{ISA: isa, Threads: threads})
}

// Note says why OpenWanted does not take AMX where the CPU has it and SPECALIGN_ISA names no level; "" otherwise.
func Note() string {
	if why := AMXMissing(); why != "" && os.Getenv("SPECALIGN_ISA") == "" {
		return "this CPU has AMX, but " + why
	}
	return ""
}

// HostedNote is Note for OpenHosted.
func HostedNote() string {
	if os.Getenv("SPECALIGN_ISA") == "" && slices.Contains(Levels(), amx) {
		return "this CPU has AMX, which is used in another program's process only with SPECALIGN_ISA=amx"
	}
	return Note()
}

// amx is the name of AMX's level.
const amx = "amx"

// WantedISA reads SPECALIGN_ISA: empty for the best level.
func WantedISA() (string, error) {
	isa, levels := os.Getenv("SPECALIGN_ISA"), Levels()
	if why := AMXMissing(); isa == amx && why != "" {
		return "", inputErrorf("SPECALIGN_ISA is %q, and this CPU has it, but %s; unset it for the best level", isa, why)
	}
	if isa != "" && !slices.Contains(levels, isa) && !HasOnRequest(isa) {
		return "", inputErrorf("SPECALIGN_ISA is %q, but this CPU has %s; unset it for the best level", isa, strings.Join(levels, ", "))
	}
	return isa, nil
}

// WantedThreads reads SPECALIGN_THREADS: 0 where it is not set.
func WantedThreads() (int, error) {
	text := os.Getenv("SPECALIGN_THREADS")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > align.MaxThreads {
		return 0, inputErrorf("SPECALIGN_THREADS is %q; give 0 (the default) to %d", text, align.MaxThreads)
	}
	return n, nil
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}
