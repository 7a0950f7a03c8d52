package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed doctor.py
var probeScript string

// pythonWait is how long Python may take: PyTorch alone needs many seconds from a cold disk.
const pythonWait = 90 * time.Second

// probe is what doctor.py prints.
type probe struct {
	Python     string            `json:"python"`
	Supported  bool              `json:"supported"`
	Executable string            `json:"executable"`
	Packages   map[string]string `json:"packages"` // versions; a package that is not there is missing
	Specalign  string            `json:"specalign_error"`
	Program    string            `json:"program"`     // that the package would launch, empty where it finds none
	Library    bool              `json:"library"`     // libspecalign.so beside it
	Memory     *string           `json:"memory_note"` // why rows on a GPU do not stay there, empty where they do; nil: not tried
	Torch      string            `json:"torch_error"`
	CUDA       bool              `json:"cuda"`
	Loop       string            `json:"loop"` // "known", "unknown", or "" where it could not be looked at
	LoopDetail string            `json:"loop_detail"`
}

// python looks at one Python and what the package needs from it.
func (e *examination) python(ctx context.Context, path string) {
	s := section{e, "Python"}
	explicit := path != ""
	if !explicit {
		path = defaultPython()
	}
	p, err := askPython(ctx, path)
	if err != nil {
		st := statusWarn
		if explicit {
			st = statusFail
		}
		s.add(st, "python", err.Error(), "give another one with --python PATH; the command line and a Go host need none")
		return
	}
	if !p.Supported {
		s.add(statusWarn, "python", p.Python+" at "+p.Executable, "the package needs Python 3.10 or later")
		return
	}
	s.ok("python", "%s at %s", p.Python, p.Executable)
	p.client(s)
	p.memory(s)
	p.torch(s)
	p.openclip(s)
}

// client checks the Python package and what it imports.
func (p *probe) client(s section) {
	for _, name := range []string{"numpy", "grpcio"} {
		if v := p.Packages[name]; v != "" {
			s.ok(name, "%s", v)
		} else {
			s.add(statusWarn, name, "not installed", "the package specalign needs it: pip install "+name)
		}
	}
	v := p.Packages["specalign"]
	switch {
	case v == "":
		s.add(statusWarn, "specalign", "not installed in this Python", "pip install specalign-*.whl, or choose another Python with --python")
	case p.Specalign != "":
		s.add(statusWarn, "specalign", v+" is installed, but does not work: "+p.Specalign, "install it again, with its dependencies")
	case p.Program == "":
		self, _ := os.Executable()
		s.add(statusWarn, "specalign", v+", which finds no program to launch", "set SPECALIGN_BINARY="+self+", or install a wheel, which has one")
	case v != version:
		s.add(statusWarn, "specalign", fmt.Sprintf("%s, but this program is %s; the package runs %s", v, version, p.Program), "install the same release of both")
	default:
		inProcess := "; isolation none needs libspecalign.so beside it, which is not there"
		if p.Library {
			inProcess = ", or in process libspecalign.so beside it"
		}
		s.ok("specalign", "%s, runs %s%s", v, p.Program, inProcess)
	}
}

// memory says whether rows on a GPU stay there on their way to a sidecar.
func (p *probe) memory(s section) {
	switch {
	case p.Memory == nil:
	case *p.Memory == "":
		s.ok("GPU memory", "shared with the sidecar: rows and gradients that are on the GPU stay there")
	default:
		s.add(statusWarn, "GPU memory", "not shared with the sidecar, so rows on the GPU go through host memory: "+*p.Memory,
			"isolation none needs no such sharing (docs/gpu.md)")
	}
}

func (p *probe) torch(s section) {
	v := p.Packages["torch"]
	switch {
	case v == "":
		s.add(statusWarn, "torch", "not installed", "only specalign.torch and specalign.openclip need it")
	case p.Torch != "":
		s.add(statusWarn, "torch", v+" is installed, but does not work: "+p.Torch, "install it again")
	case p.CUDA:
		s.ok("torch", "%s, with a GPU", v)
	default:
		s.ok("torch", "%s, on the CPU", v)
	}
}

func (p *probe) openclip(s section) {
	v := p.Packages["open-clip-torch"]
	if v == "" {
		s.add(statusWarn, "open_clip", "not installed", "only specalign.openclip needs it: pip install open_clip_torch")
		return
	}
	s.ok("open_clip", "%s", v)
	switch p.Loop {
	case "known":
		s.ok("training loop", "%s", p.LoopDetail)
	case "unknown":
		s.add(statusWarn, "training loop", p.LoopDetail, "specalign.openclip knows that of open_clip_torch 3.3.0")
	default:
		s.add(statusWarn, "training loop", "cannot be looked at: "+p.LoopDetail, "python -m open_clip_train.main -h says more")
	}
	// Later releases give OpenCLIP's loader no file name: KeyError 'fname'.
	if w := p.Packages["webdataset"]; w != "" && w != "0.2.86" {
		s.add(statusWarn, "webdataset", w, "where OpenCLIP fails to load shards with KeyError: 'fname', pip install webdataset==0.2.86; CSV data do not need it")
	}
}

// defaultPython is the Python of the active environment.
func defaultPython() string {
	if env := os.Getenv("VIRTUAL_ENV"); env != "" {
		return filepath.Join(env, "bin", "python3")
	}
	return "python3"
}

// askPython runs doctor.py.
func askPython(ctx context.Context, path string) (*probe, error) {
	ctx, cancel := context.WithTimeout(ctx, pythonWait)
	defer cancel()
	args := []string{"-c", probeScript}
	if _, problem := gpuReady(); problem == nil {
		args = append(args, "gpu")
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second // for what it may have started
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s did not answer within %v", path, pythonWait)
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("there is no %s on PATH", path)
	case err != nil:
		return nil, fmt.Errorf("%s does not run: %w%s", path, err, lastLine(stderr.String()))
	}
	out := strings.TrimSpace(stdout.String()) // packages may print while they are imported: the last line is ours
	p := &probe{}
	if err := json.Unmarshal([]byte(out[strings.LastIndex(out, "\n")+1:]), p); err != nil {
		return nil, fmt.Errorf("%s gave no answer: %w%s", path, err, lastLine(stderr.String()))
	}
	return p, nil
}

// lastLine is the last line of what a program said, for the end of an error.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	return " (" + text[strings.LastIndex(text, "\n")+1:] + ")"
}
