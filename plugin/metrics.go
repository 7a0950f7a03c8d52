package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	pb "github.com/specalign/specalign/plugin/proto"
)

// metrics count what a sidecar has done.
type metrics struct {
	mu      sync.Mutex
	steps   uint64
	failed  uint64
	seconds float64 // of the engine, summed
}

// count takes in one Step.
func (m *metrics) count(r *pb.StepReply, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.failed++
		return
	}
	m.steps++
	m.seconds += r.GetSeconds()
}

func (m *metrics) read() (steps, failed uint64, seconds float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steps, m.failed, m.seconds
}

// The metrics as Prometheus names them.
var (
	infoDesc     = prometheus.NewDesc("specalign_info", "What runs here; always 1.", []string{"version", "device", "isa"}, nil)
	sessionsDesc = prometheus.NewDesc("specalign_sessions", "Sessions that are open.", nil, nil)
	stepsDesc    = prometheus.NewDesc("specalign_steps_total", "Steps computed.", nil, nil)
	failedDesc   = prometheus.NewDesc("specalign_failed_steps_total", "Steps that ended in an error, the caller's included.", nil, nil)
	secondsDesc  = prometheus.NewDesc("specalign_step_seconds_total", "Time that the engine spent in steps.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *server) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{infoDesc, sessionsDesc, stepsDesc, failedDesc, secondsDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector with the numbers that Status gives.
func (s *server) Collect(out chan<- prometheus.Metric) {
	st, err := s.Status(context.Background(), nil)
	if err != nil {
		return
	}
	h := st.GetHello()
	out <- prometheus.MustNewConstMetric(infoDesc, prometheus.GaugeValue, 1, h.GetVersion(), h.GetDevice(), h.GetIsa())
	out <- prometheus.MustNewConstMetric(sessionsDesc, prometheus.GaugeValue, float64(st.GetSessions()))
	out <- prometheus.MustNewConstMetric(stepsDesc, prometheus.CounterValue, float64(st.GetSteps()))
	out <- prometheus.MustNewConstMetric(failedDesc, prometheus.CounterValue, float64(st.GetFailedSteps()))
	out <- prometheus.MustNewConstMetric(secondsDesc, prometheus.CounterValue, st.GetStepSeconds())
}

// serveMetrics serves /metrics over HTTP at address, until done is called. An empty address is served nowhere.
func (s *server) serveMetrics(address string) (done func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, inputErrorf("plugin: metrics at %q: %v", address, err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := h.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.opts.Log.Error("metrics", "error", err)
		}
	}()
	s.opts.Log.Info("metrics", "url", fmt.Sprintf("http://%s/metrics", listener.Addr()))
	return func() { _ = h.Close() }, nil
}
