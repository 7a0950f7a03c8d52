package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// status is the verdict of one check.
type status string

const (
	statusOK   status = "ok"
	statusWarn status = "warn" // something works less well, or not for every use
	statusFail status = "fail" // the sidecar does not work
)

// check is one line of the doctor's.
type check struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Status  status `json:"status"`
	Detail  string `json:"detail"`
	Advice  string `json:"advice,omitempty"` // what to do
}

// examination is the document of `specalign doctor --json`.
type examination struct {
	SchemaVersion int     `json:"schema_version"`
	Version       string  `json:"version"`
	OK            bool    `json:"ok"` // nothing failed
	Checks        []check `json:"checks"`
	Daemon        *health `json:"daemon,omitempty"` // with --attach
}

// section adds checks under one heading.
type section struct {
	e    *examination
	name string
}

func (s section) add(st status, name, detail, advice string) {
	s.e.Checks = append(s.e.Checks, check{s.name, name, st, oneLine(detail), advice})
	s.e.OK = s.e.OK && st != statusFail
}

func (s section) ok(name, format string, args ...any) {
	s.add(statusOK, name, fmt.Sprintf(format, args...), "")
}

// verdict adds an error as a failure, or what is well.
func (s section) verdict(err error, advice, name, format string, args ...any) {
	if err != nil {
		s.add(statusFail, name, bare(err).Error(), advice)
		return
	}
	s.ok(name, format, args...)
}

func newDoctor() *cobra.Command {
	var asJSON bool
	var attach, python string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "what works here, what does not, and why",
		Long: `doctor tries what the sidecar needs: the CPU's kernels against the plain engine, a sidecar launched and asked for one
step, the limits of memory and descriptors, Python with what the package uses, OpenCLIP's training loop, a GPU.
With --attach it asks a running daemon instead: version, uptime, sessions, steps, failures, latency and memory, within
milliseconds, for a monitor to call.

Exit code 1 where something failed; a warning is no failure.`,
		Example: `  specalign doctor
  specalign doctor --python .venv/bin/python
  specalign doctor --attach sidecar.json --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if attach != "" && cmd.Flags().Changed("python") {
				return inputErrorf("--python is given, but --attach asks a daemon and looks at no Python; leave one of them out")
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			e, err := examine(ctx, attach, python, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			err = new(outputs).publish(ctx, out, func(w io.Writer) error {
				if asJSON {
					return printJSON(w, e)
				}
				_, err := io.WriteString(w, e.text(terminal(out) && os.Getenv("NO_COLOR") == ""))
				return err
			})
			if err == nil && !e.OK {
				err = fmt.Errorf("doctor: %s failed", count(e.number(statusFail), "check"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().StringVar(&attach, "attach", "", "ask the daemon that wrote `FILE`, and nothing else")
	cmd.Flags().StringVar(&python, "python", "", "`PATH` of the Python to look at (default: that of the active environment, else python3)")
	return cmd
}

// examine makes all checks. What takes its time is announced on progress where that is a terminal.
func examine(ctx context.Context, attach, python string, progress io.Writer) (*examination, error) {
	e := &examination{SchemaVersion: schemaVersion, Version: version, OK: true}
	tell := func(what string) {
		if terminal(progress) {
			fmt.Fprintf(progress, "\r\x1b[K%s", what)
		}
	}
	if attach != "" {
		e.daemon(ctx, attach)
	} else {
		tell("trying the engine ...")
		e.engine(ctx)
		e.gpu(ctx)
		tell("launching a sidecar ...")
		e.sidecar(ctx)
		e.machine()
		tell("looking at Python ...")
		e.python(ctx, python)
		tell("")
	}
	if ctx.Err() != nil {
		return nil, errInterrupted
	}
	return e, nil
}

func (e *examination) number(st status) (n int) {
	for _, c := range e.Checks {
		if c.Status == st {
			n++
		}
	}
	return n
}

// text lays the checks out for a person.
func (e *examination) text(colour bool) string {
	paint := func(code, s string) string {
		if !colour {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	codes := map[status]string{statusOK: "32", statusWarn: "33", statusFail: "31"}
	var b strings.Builder
	fmt.Fprintf(&b, "specalign %s\n", versionLine())
	last := ""
	for _, c := range e.Checks {
		if c.Section != last {
			fmt.Fprintf(&b, "\n%s\n", paint("1", c.Section))
			last = c.Section
		}
		fmt.Fprintf(&b, "  %s %-16s %s\n", paint(codes[c.Status], fmt.Sprintf("%-4s", c.Status)), c.Name, c.Detail)
		if c.Advice != "" {
			fmt.Fprintf(&b, "  %4s %-16s -> %s\n", "", "", c.Advice)
		}
	}
	warned, failed := e.number(statusWarn), e.number(statusFail)
	switch {
	case e.Daemon != nil && failed == 0:
		fmt.Fprintf(&b, "\nThe daemon works; %s.\n", count(warned, "warning"))
	case failed > 0 && last == "Daemon":
		b.WriteString("\nThe daemon does not work.\n")
	case failed > 0:
		fmt.Fprintf(&b, "\n%s, %s: what failed keeps the sidecar from working.\n", count(failed, "failure"), count(warned, "warning"))
	case warned > 0:
		fmt.Fprintf(&b, "\nThe sidecar works here; %s.\n", count(warned, "warning"))
	default:
		b.WriteString("\nAll is well.\n")
	}
	return b.String()
}

// terminal tells whether w is a terminal.
func terminal(w any) bool {
	if checked, ok := w.(*checkedWriter); ok {
		w = checked.w
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
