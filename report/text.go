package report

import (
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is shown of a text and of an id or label, in characters.
const (
	maxText = 400
	maxID   = 80
)

// clean makes a text of others fit to be shown: one line of at most `most` characters, without invalid bytes and
// control characters. Characters that set the writing direction are dropped too, because they would reorder what stands
// beside the text; what HTML would read as mark-up is the template's concern.
func clean(s string, most int) string {
	var b strings.Builder
	space, count := false, 0
	for _, r := range s {
		switch {
		case r == utf8.RuneError, unicode.Is(unicode.Bidi_Control, r):
			continue
		case unicode.IsSpace(r), unicode.IsControl(r):
			space = true
			continue
		}
		if space && count > 0 {
			b.WriteByte(' ')
			count++
		}
		space = false
		if count >= most {
			return b.String() + "…"
		}
		b.WriteRune(r)
		count++
	}
	return b.String()
}

// Names makes short names of two embeddings from their files' names: the last part of the path without its extension,
// with as many folders before it as tell the two apart.
func Names(student, reference string) [2]string {
	a, b := nameParts(student), nameParts(reference)
	name := [2]string{a[len(a)-1], b[len(b)-1]}
	for depth := 2; name[0] == name[1] && (depth <= len(a) || depth <= len(b)); depth++ {
		name = [2]string{strings.Join(a[max(0, len(a)-depth):], "/"), strings.Join(b[max(0, len(b)-depth):], "/")}
	}
	if name[0] == name[1] {
		name = [2]string{a[len(a)-1] + " (A)", b[len(b)-1] + " (B)"}
	}
	return [2]string{clean(name[0], maxID), clean(name[1], maxID)}
}

// nameParts splits PATH.ext or PATH.ext:KEY at its slashes; a key is part of the name.
func nameParts(file string) []string {
	parts := strings.Split(filepath.ToSlash(filepath.Clean(file)), "/")
	last := parts[len(parts)-1]
	stem, key, keyed := strings.Cut(last, ":")
	if ext := filepath.Ext(stem); ext != stem {
		stem = strings.TrimSuffix(stem, ext)
	}
	if keyed {
		stem += ":" + key
	}
	parts[len(parts)-1] = stem
	return parts
}
