/* Kills the program that it is preloaded into at its Nth durable step: just before the Nth call that makes, names,
   flushes or removes something below the path KILL_UNDER. The file KILL_COUNT_FILE holds N, and afterwards how many
   steps are left; 0 kills nothing. So a sweep over N stops at every state that a crash can leave. With KILL_FROM, no step
   counts before the first one whose path has that in it; with KILL_WRITES, each write at a place of a file is a step too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static int begun;

static void step(const char *path) {
    const char *under = getenv("KILL_UNDER"), *count = getenv("KILL_COUNT_FILE"), *from = getenv("KILL_FROM");
    if (!under || !count || !path || strncmp(path, under, strlen(under)) != 0) return;
    pthread_mutex_lock(&turn);
    if (!from || strstr(path, from)) begun = 1;
    char text[32] = {0};
    int file = begun ? (int)syscall(SYS_openat, AT_FDCWD, count, O_RDWR | O_CLOEXEC) : -1;
    if (file >= 0) {
        ssize_t got = read(file, text, sizeof text - 1);
        long left = got > 0 ? atol(text) : 0;
        if (left == 1) kill(getpid(), SIGKILL);
        if (left > 1) {
            int length = snprintf(text, sizeof text, "%-20ld", left - 1);
            if (syscall(SYS_pwrite64, file, text, (size_t)length, 0L) < 0) kill(getpid(), SIGKILL);
        }
        close(file);
    }
    pthread_mutex_unlock(&turn);
}

static void step_file(int file) {
    char link[64], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length <= 0) return;
    path[length] = 0;
    step(path);
}

static void step_at(int folder, const char *name) {
    if (!name || name[0] == '/' || folder == AT_FDCWD) step(name);
    else step_file(folder);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int file) { step_file(file); return REAL(fsync)(file); }
int fdatasync(int file) { step_file(file); return REAL(fdatasync)(file); }

static void step_write(int file) {
    if (getenv("KILL_WRITES")) step_file(file);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    step_write(file);
    return syscall(SYS_pwrite64, file, bytes, count, at);
}

int rename(const char *from, const char *to) { step(to); return REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { step(path); return REAL(mkdir)(path, mode); }
int rmdir(const char *path) { step(path); return REAL(rmdir)(path); }
int unlink(const char *path) { step(path); return REAL(unlink)(path); }
int unlinkat(int folder, const char *name, int flags) {
    step_at(folder, name);
    return REAL(unlinkat)(folder, name, flags);
}

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        if (flags & O_CREAT) step(path);                                  \
        return REAL(name)(path, flags, mode);                             \
    }
OPEN(open)
OPEN(open64)
