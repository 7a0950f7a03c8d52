// Package plugin is the sidecar: a process of its own that computes penalties and gradients for a training process,
// the host. It has the server in its two modes, Launched and Daemon, and a Go client.
//
// # One step
//
// Bulk data never travels over a connection. Each session has one arena: a memfd that the host makes, fills with pages,
// seals against shrinking, and maps; the sidecar maps the same pages. The host writes the rows there and sends a Step,
// a small gRPC message over a unix socket, with their places; the reply comes when the gradient has been written there,
// too. The call is the memory barrier.
//
// # Whom it trusts
//
// Processes of its own user, and those only as far as it must: whatever a message or an arena holds, the sidecar
// answers with an error and lives on.
//
//   - The kernel says who is at the other end of a connection (SO_PEERCRED). Other users are refused. An arena is found
//     by that process number, never by one from a message, so that nobody can name another's memory.
//   - An arena is mapped only if it cannot shrink and has no holes. A host may punch holes later, which no seal forbids;
//     reading one gives zeros and memory anew, and kills the sidecar (SIGBUS) only where there is no memory left. Its
//     size is the kernel's. Places are checked once a step, by arithmetic that cannot wrap; a gradient overlaps nothing else.
//   - Nothing in an arena is trusted as a size or a place, because it may change at any moment.
//   - A session's name is random and bound to the process that opened it.
//   - Messages have 1 MiB at most. A panic in a handler is that call's error.
//
// A Go host that asks go-plugin for AutoMTLS gets it. The certificates take the place of SO_PEERCRED then: go-plugin
// makes them for the launching process, and the sidecar takes every caller for that process.
//
// # Who ends when
//
// A launched sidecar watches the launching process through a pidfd and ends with it, socket and directory removed,
// within milliseconds of its end, whatever that was. It also ends on go-plugin's Shutdown, which only the launching
// process may call, and on SIGTERM and SIGHUP. A daemon ends on SIGTERM, SIGINT and SIGHUP.
// SIGHUP is ignored where it was when the sidecar began, as nohup has it.
//
// A session ends when it is closed, when its process ends (a pidfd again), and a minute after its process closed its
// last connection. A step that runs then is cancelled and waited for before the arena is unmapped.
//
// # When the sidecar dies
//
// After each step it leaves the engine's state in the arena, which is the host's and lives on, in one of two slots in
// turns. A new sidecar opens the same arena with the number of the last step that the host knows of, and continues with
// the same bits. Steps are numbered so that a step whose reply was lost can be repeated, and that a late reply is never
// taken for another's: the last step repeated is computed again from the state before it, any other number out of turn
// is refused.
//
// # Who computes when
//
// Sessions share one machine, so their steps run one at a time, in the order in which they came, each with all threads.
// A session has one step under way at most, so none can starve another. Hello, Status and health answer meanwhile. A
// caller's deadline and cancellation reach into the step.
//
// # Versions
//
// Client and sidecar of the same major version of the protocol work together; others refuse each other with both
// versions in the message. What that means for messages is stated in proto/specalign.proto. The attach file, the
// handshake line and Hello all carry the major version, so that a client can tell before it opens anything. State slots
// have a version of their own: a sidecar that finds another one says so, and the host starts a new session.
//
// # Linux
//
// memfd, seals, pidfd and SO_PEERCRED are what make this safe, so the package builds on Linux only (5.4 or later).
package plugin
