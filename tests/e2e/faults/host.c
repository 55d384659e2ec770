/* Preloaded into a program, this controls its wall clock and name resolution. The files in FAKE_HOST_DIR hold the
   settings, and may change while the program runs. The monotonic clock is real, as on any host. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Reads a file of FAKE_HOST_DIR; empty if there is none. */
static const char *setting(const char *name, char *text, size_t size) {
    char path[PATH_MAX];
    const char *directory = getenv("FAKE_HOST_DIR");
    text[0] = 0;
    if (!directory || snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return text;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return text;
    ssize_t length = read(file, text, size - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    return text;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    char text[32];
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME)
        time->tv_sec += atol(setting("clock-offset", text, sizeof text));
    return result;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    char text[32];
    if (!real)
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    if (atol(setting("no-names", text, sizeof text)))
        return EAI_AGAIN;
    return real(node, service, hints, found);
}
