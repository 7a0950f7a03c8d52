package plugin

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
)

// Options are what the program that serves brings along.
type Options struct {
	Version string       // of the program, for Hello, the attach file and the log
	Devices Devices      // where the engine runs
	Log     hclog.Logger // from NewLogger

	// Prometheus is the address at which a daemon serves its metrics over HTTP (/metrics), such as "127.0.0.1:9464".
	// Empty: nowhere.
	Prometheus string
}

func (o *Options) check() error {
	if o.Devices == nil {
		return fmt.Errorf("plugin: no devices given")
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	return nil
}

// Devices opens the engine's backends. CPU returns the one of a build without GPU support.
type Devices = steps.Devices

// Machine are the Devices of a machine: the CPU and its GPUs.
type Machine = steps.Machine

// CPU returns the Devices of a build that has the CPU only; open opens the backend.
func CPU(open func(threads int) (align.Backend, error)) Devices { return steps.CPU(open) }

// NewLogger returns the sidecar's logger. level is off, error, warn, info (also the empty one), debug or trace, as the
// environment variable SPECALIGN_LOG gives it. Lines begin with their level in brackets, which hosts understand;
// timed puts the time before it, for a daemon whose lines no host stamps.
//
// w should be NewLogWriter's, so that a host that does not drain its pipe cannot stop the sidecar.
func NewLogger(w io.Writer, level string, timed bool) (hclog.Logger, error) {
	l := hclog.Info
	if level != "" {
		if l = hclog.LevelFromString(strings.TrimSpace(level)); l == hclog.NoLevel {
			return nil, &align.InputError{Err: fmt.Errorf(
				"plugin: SPECALIGN_LOG is %q; give off, error, warn, info, debug or trace", level)}
		}
	}
	return hclog.New(&hclog.LoggerOptions{
		Name: "specalign", Level: l, Output: w, DisableTime: !timed, TimeFormat: "2006-01-02T15:04:05.000Z07:00", TimeFn: time.Now,
	}), nil
}
