// Package memory knows how much memory a process may take.
package memory

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// share is the part of the memory that steps may take: the trainer, or the files they read, have some, too.
const share = 0.9

// Available returns how many bytes steps may take: a share of what the machine has, or the control groups of this
// process allow, whichever is less. MaxUint64 where nothing is known.
func Available() uint64 {
	memory := uint64(math.MaxUint64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		memory = uint64(info.Totalram) * uint64(info.Unit)
	}
	if groups, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		memory = min(memory, groupLimit("/sys/fs/cgroup", string(groups)))
	}
	if memory == math.MaxUint64 {
		return memory
	}
	return uint64(share * float64(memory))
}

// groupLimit returns the least limit of the control groups that /proc/self/cgroup names, and of those above them, below
// root: memory.max of version 2, memory.limit_in_bytes of version 1.
func groupLimit(root, groups string) uint64 {
	limit := uint64(math.MaxUint64)
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number:controllers:path
		if len(parts) < 3 {
			continue
		}
		base, file := root, "memory.max"
		switch parts[1] {
		case "":
		case "memory":
			base, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for path := filepath.Join("/", parts[2]); ; path = filepath.Dir(path) {
			b, err := os.ReadFile(filepath.Join(base, path, file))
			if n, bad := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && bad == nil {
				limit = min(limit, n)
			}
			if path == "/" {
				break
			}
		}
	}
	return limit
}
