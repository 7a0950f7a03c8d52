package regular

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// contents are the files of a folder, by name.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil && !e.IsDir() {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

// outputs prepares files with the content "new"; named: as on a file system on which a file needs a name at once.
func outputs(t *testing.T, named bool, paths ...string) []*Output {
	t.Helper()
	var all []*Output
	for _, path := range paths {
		o, err := Create(path)
		if err == nil && named {
			err = o.linkTemporary()
		}
		if err == nil {
			_, err = o.WriteString("new")
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// TestCommitTogether: several files get their names together or not at all.
func TestCommitTogether(t *testing.T) {
	for _, named := range []bool{false, true} {
		folder := t.TempDir()
		a, b, c := filepath.Join(folder, "a"), filepath.Join(folder, "b"), filepath.Join(folder, "c")
		if err := os.WriteFile(a, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		all := outputs(t, named, a, b, c)
		if err := os.Mkdir(c, 0o700); err != nil { // nothing can be renamed to this
			t.Fatal(err)
		}
		var failed *CommitError
		if err := Commit(all...); !errors.As(err, &failed) || failed.Output != all[2] {
			t.Errorf("%v", err)
		}
		for range 2 {
			for _, o := range all {
				if err := o.Discard(); err != nil {
					t.Error(err)
				}
			}
		}
		if got := contents(t, folder); len(got) != 2 || got["a"] != "old" {
			t.Errorf("after a failure: %q", got)
		}

		if err := os.Remove(c); err != nil {
			t.Fatal(err)
		}
		all = outputs(t, named, a, b, c)
		if err := Commit(all...); err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			if err := o.Discard(); err != nil { // does nothing
				t.Error(err)
			}
		}
		if got := contents(t, folder); len(got) != 3 || got["a"] != "new" || got["b"] != "new" || got["c"] != "new" {
			t.Errorf("after all: %q", got)
		}
	}
	if len(temporaryName) > 0 {
		t.Errorf("still remembered: %v", temporaryName)
	}
}

// TestNoOtherName: a file that replaces none never has another name, so that nothing can be left under one; one that was
// made in the meantime is replaced.
func TestNoOtherName(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a")
	for _, old := range []bool{false, true} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		o := outputs(t, false, path)[0]
		if err := o.prepare(); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, folder); len(got) != 0 {
			t.Skipf("this file system has no files without a name: %q", got)
		}
		if old {
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := o.place(false); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, folder); len(got) != 1 || got["a"] != "new" {
			t.Errorf("%q", got)
		}
		_ = o.Discard()
	}
}

// TestAbandon: what has only a temporary name is gone, what is committed stays.
func TestAbandon(t *testing.T) {
	folder := t.TempDir()
	all := outputs(t, true, filepath.Join(folder, "a"), filepath.Join(folder, "b"))
	if err := all[0].Commit(); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, folder); len(got) != 2 {
		t.Errorf("before: %q", got)
	}
	Abandon()
	temporaryLock.Unlock()
	clear(temporaryName)
	if got := contents(t, folder); len(got) != 1 || got["a"] != "new" {
		t.Errorf("after: %q", got)
	}
	_ = all[1].Discard() // closes it
}
