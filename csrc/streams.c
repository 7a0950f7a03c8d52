// What became of the program's standard output before it began.
#include <fcntl.h>
#include <unistd.h>

int sa_stdout_closed(void);

static int closed;

// Go's runtime opens /dev/null in place of a stream that is closed, before any line of Go runs: what is written then is
// lost without an error. A constructor runs before the runtime.
__attribute__((constructor)) static void look(void) { closed = fcntl(STDOUT_FILENO, F_GETFD) < 0; }

int sa_stdout_closed(void) { return closed; }
