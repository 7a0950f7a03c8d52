package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
	"github.com/specalign/specalign/plugin"
)

// version of the program.
const version = "0.1.0"

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "specalign: %v\n", err)
		var input *align.InputError
		if errors.As(err, &input) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// serve runs `specalign serve` and `specalign serve --daemon --attach FILE`.
func serve(args []string) error {
	daemon := len(args) == 4 && args[1] == "--daemon" && args[2] == "--attach"
	if len(args) == 0 || args[0] != "serve" || (len(args) != 1 && !daemon) {
		return &align.InputError{Err: errors.New("usage: specalign serve [--daemon --attach FILE]")}
	}
	log, err := plugin.NewLogger(plugin.NewLogWriter(os.Stderr), os.Getenv("SPECALIGN_LOG"), daemon)
	if err != nil {
		return err
	}
	o := plugin.Options{Version: version, Log: log, Devices: plugin.CPU(func(threads int) (align.Backend, error) {
		if threads == 0 {
			threads, _ = strconv.Atoi(os.Getenv("SPECALIGN_THREADS"))
		}
		return csrc.Open(csrc.Options{ISA: os.Getenv("SPECALIGN_ISA"), Threads: threads})
	})}
	if daemon {
		return plugin.Daemon(context.Background(), o, args[3])
	}
	return plugin.Launched(context.Background(), o)
}
