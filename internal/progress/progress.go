// Package progress shows a person at a terminal how far a long computation is: a bar for each stage, with rate and time
// left, on one line that is cleared when the stage ends. Where no terminal is, there is nothing.
package progress

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Bar is a line on a terminal. The nil Bar shows nothing.
type Bar struct {
	w     io.Writer
	stage string
	total int
	bar   *progressbar.ProgressBar
}

// New returns a Bar on w, nil where that is no terminal.
func New(w io.Writer) *Bar {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &Bar{w: w}
}

// Step tells that done of total units of a stage are done; total 0: nobody knows of how many. A new stage ends the one
// before it.
func (b *Bar) Step(stage string, done, total int) {
	if b == nil {
		return
	}
	if b.bar == nil || b.stage != stage || b.total != total {
		b.Close()
		b.stage, b.total = stage, total
		options := []progressbar.Option{
			progressbar.OptionSetWriter(b.w), progressbar.OptionSetDescription(stage), progressbar.OptionFullWidth(),
			progressbar.OptionThrottle(100 * time.Millisecond), progressbar.OptionUseANSICodes(true), progressbar.OptionClearOnFinish(),
		}
		if total == 0 {
			total = -1 // a spinner
		} else {
			options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				progressbar.OptionSetItsString("rows"), progressbar.OptionSetPredictTime(true))
		}
		b.bar = progressbar.NewOptions(total, options...)
	}
	// What cannot be written to a terminal is not worth ending a computation for.
	_ = b.bar.Set(done)
}

// Close clears the line. It is idempotent.
func (b *Bar) Close() {
	if b == nil || b.bar == nil {
		return
	}
	_ = b.bar.Clear()
	_ = b.bar.Exit()
	b.bar, b.stage = nil, ""
}
