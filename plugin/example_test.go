package plugin_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os/exec"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/plugin"
)

// A Go program that launches a sidecar and asks it for one penalty and its gradient.
func Example() {
	ctx := context.Background()
	client, err := plugin.Launch(ctx, exec.Command("specalign", "serve"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	settings := align.DefaultConfig()
	settings.Objective, settings.K = align.ObjectiveKyFan, 2
	session, err := client.Session(ctx, settings)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = session.Close(ctx) }()

	// Four samples: the student sees two groups, the reference others.
	student := rows(2, 1, 0, 1, 0, 0, 1, 0, 1)
	reference := rows(2, 1, 0, 0, 1, 1, 0, 0, 1)
	gradient := make([]float32, student.Rows*student.Cols)
	reply, err := session.Step(ctx, student, reference, gradient)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.GetValue(), gradient)
}

// rows are the values of a row-major float32 matrix.
func rows(cols int, values ...float32) align.Features {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return align.Features{Rows: len(values) / cols, Cols: cols, Type: align.Float32, Data: b}
}
