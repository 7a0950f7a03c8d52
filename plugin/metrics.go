package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc/status"

	pb "github.com/specalign/specalign/plugin/proto"
)

// metrics are what Prometheus is told. Status counts for itself, in tally.
type metrics struct {
	registry *prometheus.Registry
	latency  prometheus.Histogram
	engine   prometheus.Counter
	failed   *prometheus.CounterVec
}

// Gauges that are read when they are asked for.
var (
	infoDesc     = prometheus.NewDesc("specalign_info", "What runs here; always 1.", []string{"version", "device", "isa"}, nil)
	sessionsDesc = prometheus.NewDesc("specalign_sessions", "Sessions that are open.", nil, nil)
	underWayDesc = prometheus.NewDesc("specalign_steps_under_way", "Steps that run or wait for their turn.", nil, nil)
	arenaDesc    = prometheus.NewDesc("specalign_arena_bytes", "Memory of the sessions' arenas, shared with their processes.", nil, nil)
)

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "specalign_step_duration_seconds", Help: "Time of steps done, from request to reply, the wait for a turn included.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 2, 18), // 0.1 ms to 13 s
		}),
		engine: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "specalign_engine_seconds_total", Help: "Time that the engine spent in steps done.",
		}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "specalign_failed_steps_total", Help: "Steps that ended in an error, by the status code that the caller got.",
		}, []string{"code"}),
	}
	m.registry.MustRegister(m.latency, m.engine, m.failed, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// count takes in one Step that took so long.
func (m *metrics) count(took time.Duration, r *pb.StepReply, err error) {
	if err != nil {
		m.failed.WithLabelValues(status.Code(err).String()).Inc()
		return
	}
	m.latency.Observe(took.Seconds())
	m.engine.Add(r.GetSeconds())
}

// Describe implements prometheus.Collector.
func (s *server) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{infoDesc, sessionsDesc, underWayDesc, arenaDesc} {
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
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(infoDesc, 1, h.GetVersion(), h.GetDevice(), h.GetIsa())
	gauge(sessionsDesc, float64(st.GetSessions()))
	gauge(underWayDesc, float64(st.GetStepsUnderWay()))
	gauge(arenaDesc, float64(st.GetArenaBytes()))
}

// scrapers is how many connections are open at a time for metrics: whoever opens more waits, and takes no descriptors
// from the sessions. scrapeTime is how long each request, answer and pause between requests may take.
const (
	scrapers   = 8
	scrapeTime = 5 * time.Second
)

// serveMetrics serves /metrics over HTTP at address, until done is called. An empty address is served nowhere.
func (s *server) serveMetrics(address string) (done func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, inputErrorf("plugin: metrics at %q: %v", address, err)
	}
	s.metrics.registry.MustRegister(s)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	h := &http.Server{
		Handler: mux, ReadTimeout: scrapeTime, WriteTimeout: scrapeTime, IdleTimeout: scrapeTime, MaxHeaderBytes: 1 << 14,
	}
	go func() {
		if err := h.Serve(netutil.LimitListener(listener, scrapers)); !errors.Is(err, http.ErrServerClosed) {
			s.opts.Log.Error("metrics", "error", err)
		}
	}()
	s.opts.Log.Info("metrics", "url", fmt.Sprintf("http://%s/metrics", listener.Addr()))
	if a, ok := listener.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		s.opts.Log.Warn("whoever reaches this machine over the network can read the metrics; give 127.0.0.1 to keep them here")
	}
	return func() { _ = h.Close() }, nil
}
