package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/python/bench"
)

//go:embed bench.py
var benchScript string

// rivals is a Python process with the contestants of rivals.py.
type rivals struct {
	about  rivalsAbout
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// rivalsAbout is the process's first answer.
type rivalsAbout struct {
	Names []string `json:"names"`
	Note  string   `json:"note"` // what could not be measured, and why
	Torch string   `json:"torch"`
	CPU   string   `json:"torch_cpu"`
	BLAS  string   `json:"torch_blas"`
}

// startRivals starts the Python at path, gives it the features, and waits until it has warmed up. The process ends with
// ctx.
func startRivals(ctx context.Context, path string, k, threads int, student, reference align.Features) (*rivals, error) {
	r := &rivals{cmd: exec.CommandContext(ctx, path, "-c", bench.Rivals+benchScript)}
	r.cmd.WaitDelay = time.Second
	r.cmd.Stderr = &r.stderr
	if program, err := os.Executable(); err == nil {
		r.cmd.Env = append(os.Environ(), "SPECALIGN_BINARY="+program)
	}
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s does not run: %w", path, reason(err))
	}
	late := time.AfterFunc(pythonWait, func() { _ = r.cmd.Process.Kill() })
	defer late.Stop()
	ask := map[string]int{"rows": student.Rows, "student_dim": student.Cols, "reference_dim": reference.Cols, "k": k, "threads": threads}
	if err := r.ask(ask, append(bytes.Clone(student.Data), reference.Data...), &r.about); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// ask sends a request, with data behind it, and reads the answer.
func (r *rivals) ask(request any, data []byte, answer any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err = r.in.Write(append(append(line, '\n'), data...)); err == nil {
		if line, err = r.out.ReadBytes('\n'); err == nil {
			err = json.Unmarshal(line, answer)
		}
	}
	if err != nil {
		r.close() // so that all that it said is there
		if r.cmd.ProcessState != nil && r.cmd.ProcessState.ExitCode() == -1 {
			return fmt.Errorf("%s was killed, or did not answer within %v", r.cmd.Path, pythonWait)
		}
		if said := lastLine(r.stderr.String()); said != "" {
			return fmt.Errorf("%s gave no answer%s", r.cmd.Path, said)
		}
		return fmt.Errorf("%s gave no answer: %w", r.cmd.Path, err)
	}
	return nil
}

// turn lets one contestant make its calls; it returns their seconds.
func (r *rivals) turn(name string) ([]float64, error) {
	var answer struct{ Seconds []float64 }
	err := r.ask(map[string]string{"turn": name}, nil, &answer)
	return answer.Seconds, err
}

// errors returns everybody's relative error of the gradient against float64; the engine's is grad.
func (r *rivals) errors(grad []float32) (map[string]float64, error) {
	data := make([]byte, 0, 4*len(grad))
	for _, x := range grad {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	var answer struct{ Errors map[string]float64 }
	err := r.ask(map[string]bool{"errors": true}, data, &answer)
	return answer.Errors, err
}

// close ends the process.
func (r *rivals) close() {
	_ = r.in.Close()
	_ = r.cmd.Wait()
}

// without says in a few words why there are no rivals.
func without(err error) string {
	text := strings.TrimSpace(bare(err).Error())
	if strings.Contains(text, "No module named 'torch'") {
		return "PyTorch is not installed in this Python; give one that has it with --python PATH"
	}
	return text
}
