package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// TestAttachFile: a daemon writes over nothing that it does not know, and never half a file.
func TestAttachFile(t *testing.T) {
	file := filepath.Join(shortDir(t), "attach")
	self, err := describe("/run/specalign-daemon-1/socket", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := writeAttachFile(file, self); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadAttachFile(file); err != nil || *got != *self || !got.Alive() {
		t.Errorf("%+v, %v", got, err)
	}
	if err := writeAttachFile(file, self); !isInput(err) {
		t.Errorf("a live daemon's: %v", err)
	}
	for name, change := range map[string]func(*AttachFile){
		"another process now": func(a *AttachFile) { a.StartTime++ },
		"no process":          func(a *AttachFile) { a.Pid = 1 << 30 },
		"another boot":        func(a *AttachFile) { a.Boot = "x" },
	} {
		stale := *self
		change(&stale)
		if stale.Alive() {
			t.Errorf("%s: alive", name)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(writeAttachFile(file, &stale), writeAttachFile(file, self)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := *self
	other.Socket = "/run/specalign-daemon-2/socket"
	if err := removeAttachFile(file, &other); err != nil || !exists(file) {
		t.Errorf("another daemon's file: %v", err)
	}
	if err := removeAttachFile(file, self); err != nil || exists(file) {
		t.Errorf("its own file: %v", err)
	}
	for _, text := range []string{"", "notes of mine", `{"pid": 1}`, `{"pid": 1, "socket": "here", "protocol_major": 1}`} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := writeAttachFile(file, self); !isInput(err) || !strings.Contains(err.Error(), "not overwritten") {
			t.Errorf("%q: %v", text, err)
		}
		if b, _ := os.ReadFile(file); string(b) != text {
			t.Errorf("%q became %q", text, b)
		}
	}
	if err := writeAttachFile("/nonexistent/attach", self); !isInput(err) {
		t.Errorf("no directory: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Dir(file) + "/.*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAttachFile(file); !isInput(err) || !strings.Contains(err.Error(), "another user's") {
			t.Errorf("another user's file: %v", err)
		}
	}
	other = *self
	other.ProtocolMajor = 7
	_ = os.Remove(file)
	if err := writeAttachFile(file, &other); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), file); err == nil || !strings.Contains(err.Error(), "version 1") || !strings.Contains(err.Error(), "version 7") {
		t.Errorf("%v", err)
	}
}

// TestAttachDirectoryLocked: in a directory that is everybody's anybody may hold the lock; that is said, not waited
// for.
func TestAttachDirectoryLocked(t *testing.T) {
	dir := shortDir(t)
	holder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close() }()
	if err := unix.Flock(int(holder.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "attach")
	self, err := describe("/run/specalign-daemon-1/socket", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { // ten seconds at once
		if err := writeAttachFile(file, self); !isInput(err) || !strings.Contains(err.Error(), "put the attach file into a directory of your own") {
			t.Errorf("%v", err)
		}
	})
	if exists(file) {
		t.Error("it was written")
	}
	if err := unix.Flock(int(holder.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := writeAttachFile(file, self); err != nil {
		t.Error(err)
	}
}

// TestAttachDirectoryGone: a daemon whose attach file went with its directory has nothing to remove, and ends well.
func TestAttachDirectoryGone(t *testing.T) {
	if err := removeAttachFile(filepath.Join(shortDir(t), "gone", "attach"), &AttachFile{}); err != nil {
		t.Error(err)
	}
}
