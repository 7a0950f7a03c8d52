package plugin

import (
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
)

// TestSequence walks through the numbers a client may and may not send.
func TestSequence(t *testing.T) {
	_, socket := serve(t, goDevices())
	s := open(t, dial(t, socket), align.DefaultConfig())
	first := step(t, s, 16, 1)
	second := step(t, s, 16, 2)
	third := step(t, s, 16, 3)

	again := func(seq uint64, seed uint64) (outcome, error) {
		s.seq = seq - 1
		grad := make([]float32, 16*6)
		r, err := s.Step(t.Context(), features(16, 6, seed), features(16, 9, seed+1000), grad)
		if err != nil {
			return outcome{}, err
		}
		return result(r, grad), nil
	}
	for range 3 {
		got, err := again(3, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got != third {
			t.Errorf("step 3 repeated: %v, want %v", got.reply, third.reply)
		}
	}
	for _, seq := range []uint64{1, 2, 5, 1 << 63, math.MaxUint64} {
		_, err := again(seq, 1)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "after step 3") {
			t.Errorf("step %d after 3: %v", seq, err)
		}
	}
	// A repetition that fails leaves the step that was done as it was.
	bad := features(16, 6, 3)
	copy(bad.Data, []byte{0, 0, 0xc0, 0x7f}) // NaN
	s.seq = 2
	if _, err := s.Step(t.Context(), bad, features(16, 9, 3), nil); !isInput(err) || !strings.Contains(err.Error(), "row 0 of the student") {
		t.Errorf("NaN: %v", err)
	}
	fourth, err := again(4, 4)
	if err != nil {
		t.Fatal(err)
	}
	// The same steps without any of that.
	s = open(t, dial(t, socket), align.DefaultConfig())
	for i, want := range []outcome{first, second, third, fourth} {
		if got := step(t, s, 16, uint64(i+1)); got != want {
			t.Errorf("step %d: %v, want %v", i+1, got.reply, want.reply)
		}
	}
}

func isInput(err error) bool {
	var input *align.InputError
	return errors.As(err, &input)
}

// TestResume moves a session to another sidecar after each of its steps, and once more after its first.
func TestResume(t *testing.T) {
	cfg := align.DefaultConfig()
	cfg.Kernel = align.KernelGaussian
	_, one := serve(t, goDevices())
	_, two := serve(t, goDevices())
	whole := open(t, dial(t, one), cfg)
	moving := open(t, dial(t, one), cfg)
	others := []*Client{dial(t, two), dial(t, one)}
	for i := range 6 {
		seed := uint64(i)
		want, got := step(t, whole, 12, seed), step(t, moving, 12, seed)
		if got != want {
			t.Fatalf("step %d: %v, want %v", i, got.reply, want.reply)
		}
		if err := moving.Resume(t.Context(), others[i%2]); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue
		}
		moving.seq-- // the reply was lost: once more
		if got := step(t, moving, 12, seed); got != want {
			t.Fatalf("step %d repeated after a resume: %v, want %v", i, got.reply, want.reply)
		}
	}
}

// TestResumeRefused lists states that cannot be gone on from.
func TestResumeRefused(t *testing.T) {
	_, socket := serve(t, goDevices())
	c := dial(t, socket)
	for _, tt := range []struct {
		name, want string
		damage     func(*ClientSession)
	}{
		{"other step", "holds the state after step 1", func(s *ClientSession) { s.seq = 3 }},
		{"no state", "there is none in its slot", func(s *ClientSession) { s.seq = 2 }},
		{"damaged", "checksum does not match", func(s *ClientSession) { s.arena.data[s.slot+steps.SlotHeader+3] ^= 1 }},
		{"no slots", "has no state slots", func(s *ClientSession) { s.slot = 0 }},
		{"other settings", "with other settings", func(s *ClientSession) { s.request = `{"k": 2}` }},
		{"other version", "version 7", func(s *ClientSession) { s.arena.data[s.slot+8] = 7 }},
		{"too long", "bytes in a slot of", func(s *ClientSession) { s.arena.data[s.slot+14] = 9 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, c, align.DefaultConfig())
			step(t, s, 8, 1)
			tt.damage(s)
			err := s.Resume(t.Context(), c)
			if !isInput(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	// Where it runs is not among the settings that a state depends on.
	s := open(t, c, align.DefaultConfig())
	step(t, s, 8, 1)
	s.request = `{"device": "cpu", "threads": 2}`
	if err := s.Resume(t.Context(), c); err != nil {
		t.Error(err)
	}
}

// TestSlotTooSmall: the step is refused with the size that is needed, and does not count.
func TestSlotTooSmall(t *testing.T) {
	_, socket := serve(t, goDevices())
	s := open(t, dial(t, socket), align.DefaultConfig())
	step(t, s, 8, 1)
	l := s.layout(features(8, 6, 1), features(8, 9, 1)).behind(s.slot)
	r, err := s.c.rpc.OpenSession(t.Context(), &pb.OpenSessionRequest{
		ProtocolMajor: ProtocolMajor, SettingsJson: "{}", ArenaFd: int32(s.arena.file.Fd()),
		ArenaSize: uint64(len(s.arena.data)), StateSlotSize: steps.SlotHeader,
	})
	if err != nil {
		t.Fatal(err)
	}
	req := &pb.StepRequest{
		Session: r.GetSession(), Seq: 1, Rows: 8, GradientOffset: l.gradient,
		Student:   &pb.Region{Offset: l.student, Cols: 6, Dtype: pb.DType_DTYPE_FLOAT32},
		Reference: &pb.Region{Offset: l.reference, Cols: 9, Dtype: pb.DType_DTYPE_FLOAT32},
	}
	for range 2 {
		_, err = s.c.rpc.Step(t.Context(), req)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "too small for this session, which needs") {
			t.Errorf("%v", err)
		}
	}
}
