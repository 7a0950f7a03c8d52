// Command specalign computes the SPEC-align penalty of two embeddings, as a command and as the sidecar of a training
// process.
//
// Exit codes: 0 done, 1 failed while running, 2 usage or bad input. An error is one line on stderr.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
	release "github.com/specalign/specalign/internal/version"
)

const version = release.Number

// commit is what the program was built from; the Makefile sets it.
var commit string

func main() {
	catchPipe()
	var stdout io.Writer = os.Stdout
	if csrc.StdoutClosed() {
		stdout = closedWriter{}
	}
	code := run(os.Args[1:], stdout, os.Stderr)
	if code == brokenPipe {
		endOfPipe()
	}
	os.Exit(code)
}

// run is the program: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "specalign: internal error: %v; please report it together with the command line\n", oneLine(fmt.Sprint(p)))
			code = 1
		}
	}()
	started := false // whether the command line was understood, so that an error is not one of usage
	root := newRoot()
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := noneEmpty(cmd); err != nil {
			return err
		}
		started = true
		return nil
	}
	root.SetArgs(args)
	out := &checkedWriter{w: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if errors.Is(out.err, syscall.EPIPE) {
		return brokenPipe
	}
	if out.err != nil { // cobra does not look whether its help was written
		fmt.Fprintf(stderr, "specalign: cannot write the output: %s\n", message(out.err))
		return 1
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "specalign: %s\n", message(err))
	var input *align.InputError
	if !started || errors.As(err, &input) {
		return 2
	}
	return 1
}

// checkedWriter remembers the first error of a writer.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// closedWriter is a standard output that was closed when the program began.
type closedWriter struct{}

func (closedWriter) Write([]byte) (int, error) { return 0, errors.New("standard output is closed") }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "specalign VERB",
		Short: "make one embedding model see the groups another one sees",
		Long: `specalign compares how two embeddings of the same samples group them, and computes the SPEC-align penalty: a number
that is zero where they agree, and its gradient with respect to the first embedding, the student. The other one is
the reference.`,
		Example: `  specalign penalty student.npy reference.npy
  specalign compare student.npy reference.npy --top 5
  specalign doctor
  specalign serve --daemon --attach sidecar.json`,
		Version:           versionLine(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("there is no verb %q", args[0])
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 && args[0] != "" {
				text += "; did you mean " + strings.Join(s, " or ") + "?"
			}
			return errors.New(text + "; specalign -h lists them")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [VERB]",
		Short: "help about a verb",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return inputErrorf("there is no verb %q; specalign -h lists them", strings.Join(args, " "))
			}
			return cmd.Help()
		},
	})
	root.SetVersionTemplate("specalign {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newPenalty(), newCompare(), newMetrics(), newShards(), newTrain(), newServe(), newDoctor(), newBench(), newProbe())
	decimalFlags(root)
	return root
}

// versionLine is what --version prints behind the name.
func versionLine() string {
	from := commit
	if info, ok := debug.ReadBuildInfo(); ok && from == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				from = s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	if from == "" {
		from = "unknown commit"
	}
	return fmt.Sprintf("%s (%s, %s, %s/%s)", version, from, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// message is an error's text for a person: one line.
func message(err error) string { return oneLine(bare(err).Error()) }

// bare returns an error without the name of a package of ours in front of its text.
func bare(err error) error {
	for _, prefix := range []string{"align: ", "compare: ", "csrc: ", "cuda: ", "plugin: ", "features: ", "metrics: ", "report: ", "trainer: ", "experiment: ", "shards: "} {
		if text, ok := strings.CutPrefix(err.Error(), prefix); ok {
			return &bareError{text, err}
		}
	}
	return err
}

type bareError struct {
	text string
	err  error
}

func (e *bareError) Error() string { return e.text }
func (e *bareError) Unwrap() error { return e.err }

func oneLine(s string) string {
	return printable(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
}

// printable writes what a terminal would obey instead of showing, such as an escape in a hostile file's name, as Go
// does in a string.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// inputErrorf is an error of what the user gave: exit code 2.
func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}
