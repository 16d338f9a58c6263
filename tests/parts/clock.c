/* A wall clock that a test sets: preloaded into a program, it adds the seconds in the file that CLOCK_OFFSET_FILE names
   to CLOCK_REALTIME. Every other clock stays as it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t which, struct timespec *at) {
    long done = syscall(SYS_clock_gettime, which, at);
    const char *path = getenv("CLOCK_OFFSET_FILE");
    if (done == 0 && which == CLOCK_REALTIME && path) {
        char text[32] = {0};
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) at->tv_sec += atol(text);
            close(file);
        }
    }
    return (int)done;
}
