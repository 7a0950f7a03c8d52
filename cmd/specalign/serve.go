package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
	"github.com/specalign/specalign/plugin"
)

// newServe is `specalign serve`: the sidecar.
func newServe() *cobra.Command {
	var daemon bool
	var attach, prometheus string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the sidecar: launched by a host, or as a daemon to attach to",
		Long: `serve is the sidecar that computes penalties for a training process. A host such as the Python package launches it
by go-plugin's protocol and ends it. With --daemon it serves every process of the same user that reads the attach
file, until it is told to end by SIGTERM or SIGINT.

The log goes to stderr; SPECALIGN_LOG sets its level: off, error, warn, info (the default), debug, trace.
SPECALIGN_ISA (portable, avx2, avx512, amx) and SPECALIGN_THREADS choose how it computes.`,
		Example: `  specalign serve --daemon --attach sidecar.json
  specalign serve --daemon --attach sidecar.json --prometheus 127.0.0.1:9464
  specalign doctor --attach sidecar.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case daemon && attach == "":
				return inputErrorf("serve --daemon needs --attach FILE, the file that tells clients where it listens")
			case !daemon && attach != "":
				return inputErrorf("serve --attach belongs to --daemon")
			case !daemon && prometheus != "":
				return inputErrorf("serve --prometheus belongs to --daemon")
			}
			handOver()
			if _, err := csrc.WantedISA(); err != nil {
				return err
			}
			if _, err := csrc.WantedThreads(); err != nil {
				return err
			}
			log, err := plugin.NewLogger(plugin.NewLogWriter(os.Stderr), os.Getenv("SPECALIGN_LOG"), daemon)
			if err != nil {
				return err
			}
			o := plugin.Options{Version: version, Log: log, Devices: devices(), Prometheus: prometheus}
			if daemon {
				err := plugin.Daemon(cmd.Context(), o, attach)
				if lost := (*align.DeviceError)(nil); errors.As(err, &lost) {
					return errors.Join(err, beginAgain(log))
				}
				return err
			}
			return plugin.Launched(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&daemon, "daemon", false, "serve whoever reads the attach file")
	f.StringVar(&attach, "attach", "", "the attach `FILE` that a daemon writes")
	f.StringVar(&prometheus, "prometheus", "", "`ADDRESS` at which a daemon serves its metrics over HTTP (/metrics)")
	return cmd
}

// beginAgain makes a daemon whose device is lost another one, in the same process: nobody else would start it, and CUDA
// answers again only to a new program. It returns where that cannot be.
func beginAgain(log hclog.Logger) error {
	path, err := exec.LookPath(os.Args[0]) // the program that was called, which looks for a GPU anew
	if err != nil {
		return err
	}
	log.Info("the daemon begins again", "program", path)
	return syscall.Exec(path, os.Args, os.Environ())
}

// noArgs refuses positional arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return inputErrorf("%s takes no argument, but %q is given", cmd.Name(), args[0])
	}
	return nil
}
