package plugin

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/specalign/specalign/align"
)

func TestPrometheus(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "attach")
	_, log := daemon(t, file, "SPECALIGN_TEST_PROMETHEUS=127.0.0.1:0")
	c, err := Dial(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s := open(t, c, align.DefaultConfig())
	step(t, s, 8, 1)
	if _, err := s.Step(t.Context(), nan(8, 6), features(8, 9, 1), nil); !isInput(err) {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://[^" \n]*`).FindString(log)
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`specalign_info{device="cpu",isa="go",version="test"} 1`, "specalign_sessions 1\n", "specalign_steps_under_way 0\n",
		"specalign_step_duration_seconds_count 1\n", "specalign_step_duration_seconds_sum ", "specalign_engine_seconds_total ",
		`specalign_failed_steps_total{code="InvalidArgument"} 1`, "process_resident_memory_bytes ", "process_open_fds ", "go_goroutines ",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if strings.Contains(log, "WARN") {
		t.Error("a warning though only this machine is served")
	}
	cmd := self("daemon", "SPECALIGN_TEST_ATTACH="+filepath.Join(dir, "other"), "SPECALIGN_TEST_PROMETHEUS=nowhere:x", "TMPDIR="+dir)
	if text, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(text), `metrics at "nowhere:x"`) {
		t.Errorf("%v: %s", err, text)
	}
	if exists(filepath.Join(dir, "other")) {
		t.Error("an attach file is left")
	}
}

// TestPrometheusLint: promtool's rules for names, units and help texts.
func TestPrometheusLint(t *testing.T) {
	s, socket := serve(t, goDevices())
	step(t, open(t, dial(t, socket), align.DefaultConfig()), 8, 1)
	s.metrics.count(time.Second, nil, os.ErrInvalid)
	s.metrics.registry.MustRegister(s)
	problems, err := testutil.GatherAndLint(s.metrics.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%+v, %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(s.metrics.registry); err != nil || n < 10 {
		t.Errorf("%d metrics, %v", n, err)
	}
}

// TestPrometheusDocumented: docs/daemon.md lists the metrics of ours, with labels and types, and no others.
func TestPrometheusDocumented(t *testing.T) {
	s, _ := serve(t, goDevices())
	s.metrics.count(time.Second, nil, os.ErrInvalid)
	s.metrics.registry.MustRegister(s)
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "specalign_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		name := f.GetName()
		if labels != nil {
			name += "{" + strings.Join(labels, ",") + "}"
		}
		told = append(told, fmt.Sprintf("| `%s` | %s |", name, strings.ToLower(f.GetType().String())))
	}
	page, err := os.ReadFile("../docs/daemon.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile("(?m)^\\| `specalign_[^|]*\\| \\w+ \\|").FindAllString(string(page), -1)
	slices.Sort(listed)
	slices.Sort(told)
	if !slices.Equal(listed, told) {
		t.Errorf("docs/daemon.md lists\n%s\nand there are\n%s", strings.Join(listed, "\n"), strings.Join(told, "\n"))
	}
}

// TestPrometheusOpen: whoever lets the network read the metrics is told so.
func TestPrometheusOpen(t *testing.T) {
	if _, log := daemon(t, filepath.Join(shortDir(t), "attach"), "SPECALIGN_TEST_PROMETHEUS=:0"); !strings.Contains(log, "over the network") {
		t.Error(log)
	}
}

// TestStatus: what a daemon says of its work.
func TestStatus(t *testing.T) {
	f, d := newFaulty()
	s, socket := serve(t, d)
	c := dial(t, socket)
	session := open(t, c, align.DefaultConfig())
	for i := range 1100 {
		step(t, session, 4, uint64(i))
	}
	f.set(func() { panic("boom") })
	if _, err := session.Step(t.Context(), features(8, 6, 1), features(8, 9, 1), nil); err == nil {
		t.Fatal("no panic")
	}
	f.set(nil)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.GetSteps() != 1100 || st.GetFailedSteps() != 1 || st.GetStepsUnderWay() != 0 || st.GetSessions() != 1 || len(s.tally.took) != recent {
		t.Errorf("%v", st)
	}
	if m, p := st.GetLatencyMedian(), st.GetLatencyP99(); m <= 0 || p < m || p > 10 || st.GetStepSeconds() <= 0 {
		t.Errorf("latency %v and %v", m, p)
	}
	if a, r, d := st.GetArenaBytes(), st.GetResidentBytes(), st.GetOpenDescriptors(); a < 4*(6+9+6)*4 || r < 1<<20 || d < 5 || d > 1000 {
		t.Errorf("arenas %d, resident %d bytes, %d descriptors", a, r, d)
	}
}

// TestPrometheusFlood: connections that say nothing take a few descriptors and no more, and sessions go on.
func TestPrometheusFlood(t *testing.T) {
	file := filepath.Join(shortDir(t), "attach")
	_, log := daemon(t, file, "SPECALIGN_TEST_PROMETHEUS=127.0.0.1:0")
	address := regexp.MustCompile(`http://([^" \n/]*)`).FindStringSubmatch(log)[1]
	c, err := Dial(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	before, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var flood []net.Conn
	for range 10 * scrapers {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		flood = append(flood, conn)
	}
	s := open(t, c, align.DefaultConfig())
	for i := range 20 {
		step(t, s, 8, uint64(i))
	}
	st, err := c.Status(t.Context())
	if err != nil || st.GetOpenDescriptors() > before.GetOpenDescriptors()+scrapers+8 {
		t.Errorf("%d descriptors, %d before, %v", st.GetOpenDescriptors(), before.GetOpenDescriptors(), err)
	}
	for _, conn := range flood {
		_ = conn.Close()
	}
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s, %v", resp.Status, err)
	}
}
