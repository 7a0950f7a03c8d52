package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/specalign/specalign/internal/regular"
)

// errInterrupted is the error of a command that a signal ended before it had written something.
var errInterrupted = errors.New("interrupted; nothing was written")

// dying is held while files get their names, so that a signal does not end the program in the middle of that.
var dying sync.Mutex

// interruptible returns a context that ends with SIGINT, SIGTERM and SIGHUP, the last unless nohup told to ignore it. A
// second signal ends the program at once, and leaves nothing behind either.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	if signal.Ignored(syscall.SIGHUP) {
		signals = slices.DeleteFunc(signals, func(s os.Signal) bool { return s == syscall.SIGHUP })
	}
	c := make(chan os.Signal, 2)
	signal.Notify(c, signals...)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-c:
			cancel()
		case <-done:
			return
		}
		select {
		case s := <-c:
			die(s.(syscall.Signal))
		case <-done:
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(c)
		close(done)
		cancel()
	})
}

// die ends the program as a signal does that nobody handles.
func die(s syscall.Signal) {
	dying.Lock()
	regular.Abandon()
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s)
	time.Sleep(time.Second) // it was ignored when the program began
	os.Exit(128 + int(s))
}

// brokenPipe is the exit code of a program whose output nobody reads any more, as shells count it.
const brokenPipe = 128 + int(syscall.SIGPIPE)

// catchPipe makes writing to a pipe that nobody reads an error, so that the program can clean up. Programs that it
// starts are not concerned.
func catchPipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// endOfPipe ends the program as SIGPIPE does.
func endOfPipe() {
	signal.Reset(syscall.SIGPIPE)
	_, _ = os.Stdout.Write([]byte("\n"))
	os.Exit(brokenPipe)
}
