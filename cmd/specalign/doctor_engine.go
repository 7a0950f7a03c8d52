package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
	"github.com/specalign/specalign/plugin"
)

// The batch by which the doctor tries an engine: small, and the same everywhere.
const (
	trialRows = 64
	trialCols = 24
)

// trial returns features (trialRows, trialCols) of normal numbers.
func trial(seed uint64) align.Features {
	rng := rand.New(rand.NewPCG(seed, 0))
	f := align.Features{Rows: trialRows, Cols: trialCols, Type: align.Float32}
	for range trialRows * trialCols {
		f.Data = binary.LittleEndian.AppendUint32(f.Data, math.Float32bits(float32(rng.NormFloat64())))
	}
	return f
}

// tryBackend computes the trial's penalty on a backend, which it closes.
func tryBackend(ctx context.Context, b align.Backend) (value float64, err error) {
	defer func() { err = errors.Join(err, b.Close()) }()
	s, err := align.NewSession(align.DefaultConfig(), b)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r, err := s.Step(ctx, trial(1), trial(2), make([]float32, trialRows*trialCols))
	if err != nil {
		return 0, err
	}
	return r.Value, nil
}

// trialTolerance is how far two engines in float32 may be apart, relative: far above their rounding, far below what a
// kernel that goes wrong would give.
const trialTolerance = 1e-5

// engine tries every level of the CPU against the plain Go engine.
func (e *examination) engine(ctx context.Context) {
	s := section{e, "Engine"}
	levels := csrc.Levels()
	if len(levels) == 0 {
		s.add(statusFail, "CPU", cpuName()+": this program has no kernels for it", "use a build with cgo for Linux on x86-64 or arm64")
		return
	}
	want, err := tryBackend(ctx, align.NewGo(1))
	s.verdict(err, "report this; the plain Go engine needs nothing of the machine", "CPU", "%s", cpuName())
	for _, level := range levels {
		b, err := csrc.Open(csrc.Options{ISA: level})
		var got float64
		if err == nil {
			got, err = tryBackend(ctx, b)
		}
		if err == nil && !(math.Abs(got-want) <= trialTolerance*math.Abs(want)) {
			err = fmt.Errorf("its penalty of a small batch is %v, the plain engine's %v", got, want)
		}
		s.verdict(err, "set SPECALIGN_ISA to another level, and report this", "level "+level, "agrees with the plain Go engine")
	}
	if why := csrc.AMXMissing(); why != "" {
		s.add(statusWarn, "level amx", "this CPU has it, but "+why, "Linux gives them since 5.16, unless an option such as noxsaves or a virtual machine withholds them; or go on with the levels above")
	}
	isa, err := csrc.WantedISA()
	if err != nil || isa != "" {
		s.verdict(err, "unset SPECALIGN_ISA, or give one of the levels above", "SPECALIGN_ISA", "%s is used", isa)
	}
	threads(s)
}

// threads compares what the process may run on with what a container grants it.
func threads(s section) {
	wanted, err := csrc.WantedThreads()
	if err != nil {
		s.verdict(err, "unset SPECALIGN_THREADS, or give a number", "threads", "")
		return
	}
	b, err := csrc.Open(csrc.Options{})
	if err != nil {
		s.verdict(err, "", "threads", "")
		return
	}
	used := b.Info().Threads
	b.Close()
	cpus, granted := runtime.NumCPU(), runtime.GOMAXPROCS(0)
	switch {
	case wanted > 0:
		s.ok("threads", "%d by SPECALIGN_THREADS, on %s", wanted, count(cpus, "CPU"))
	case granted < used && os.Getenv("GOMAXPROCS") == "":
		s.add(statusWarn, "threads", fmt.Sprintf("up to %d on %s, but the container is granted the time of %d", used, count(cpus, "CPU"), granted),
			fmt.Sprintf("set SPECALIGN_THREADS=%d, or less to leave the trainer its cores", granted))
	default:
		s.ok("threads", "up to %d on %s, which leaves the others to the trainer; SPECALIGN_THREADS says otherwise", used, count(cpus, "CPU"))
	}
}

// cpuName is the CPU's own name.
func cpuName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// gpu says whether there is one, and why it is not used.
func (e *examination) gpu(ctx context.Context) {
	s := section{e, "Engine"}
	ready, problem := gpuReady()
	if problem == nil {
		s.ok("GPU", "%s", ready)
		return
	}
	loaded, err := os.ReadFile("/proc/driver/nvidia/version")
	if err != nil && !problem.driver {
		s.ok("GPU", "none: no NVIDIA driver is loaded; steps run on the CPU (%s)", problem.reason)
		return
	}
	detail := problem.reason
	if name, _, _ := strings.Cut(string(loaded), "\n"); name != "" {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").Output(); err == nil {
			name = strings.TrimSpace(string(out))
		}
		detail = name + " is here, but " + detail
	}
	s.add(statusWarn, "GPU", detail+"; steps run on the CPU", problem.advice)
}

// sidecar launches one as a host does and asks it for a step through shared memory.
func (e *examination) sidecar(ctx context.Context) {
	s := section{e, "Sidecar"}
	took, hello, err := trySidecar(ctx)
	s.verdict(err, "the checks of memory below may say why; SPECALIGN_LOG=debug makes the sidecar say more", "launched",
		"protocol %d.%d on %s, a step through shared memory took %v", plugin.ProtocolMajor, plugin.ProtocolMinor, hello, elapsed(took.Seconds()))
}

func trySidecar(ctx context.Context) (took time.Duration, device string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return 0, "", err
	}
	c, err := plugin.Launch(ctx, exec.Command(self, "serve"), nil)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	h, err := c.Hello(ctx)
	if err != nil {
		return 0, "", err
	}
	session, err := c.Session(ctx, align.DefaultConfig())
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, session.Close(ctx)) }()
	grad := make([]float32, trialRows*trialCols)
	for range 2 { // the first one also allocates
		begin := time.Now()
		if _, err := session.Step(ctx, trial(1), trial(2), grad); err != nil {
			return 0, "", err
		}
		took = time.Since(begin)
	}
	return took, fmt.Sprintf("%s (%s)", h.GetDevice(), h.GetIsa()), nil
}
