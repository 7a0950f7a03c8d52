// graph.cu: what operations enqueue, as one graph of CUDA's, captured once and replayed.
#include <stdlib.h>

#include "device.h"
#include "specalign_cuda.h"

struct sa_graph {
  cudaGraphExec_t exec;
  int device;
};

extern "C" sa_status SA_API(record_begin)(sa_context *c) {
  sa_begin(c, "record");
  return sa_check(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

extern "C" sa_status SA_API(record_end)(sa_context *c, sa_graph **out) {
  *out = NULL;
  sa_begin(c, "record");
  cudaGraph_t graph = NULL;
  SA_TRY(sa_check(c, cudaStreamEndCapture(c->stream, &graph), "cudaStreamEndCapture"));
  cudaGraphExec_t exec = NULL;
  const sa_status status = sa_check(c, cudaGraphInstantiateWithFlags(&exec, graph, 0), "cudaGraphInstantiate");
  cudaGraphDestroy(graph);
  SA_TRY(status);
  *out = (sa_graph *)malloc(sizeof **out);
  if (!*out) cudaGraphExecDestroy(exec);
  SA_MEMORY(c, *out);
  **out = sa_graph{exec, c->device};
  return SA_OK;
}

extern "C" sa_status SA_API(replay)(sa_context *c, sa_graph *g) {
  sa_begin(c, "replay");
  return sa_check(c, cudaGraphLaunch(g->exec, c->stream), "cudaGraphLaunch");
}

extern "C" void SA_API(graph_free)(sa_graph *g) {
  if (!g) return;
  cudaSetDevice(g->device);
  cudaGraphExecDestroy(g->exec);
  free(g);
}
