// test/wasi-libc: C with libc, so with WASI: what a message names, the C library does. Arguments follow the command after one
// space; TEXT is the rest of the message.
//
//   print TEXT   eprint TEXT (a line to stdout, stderr)   part TEXT (stdout, without its end)   flood N (N lines)
//   sleep MS (nanosleep; replies what the clock says it took, ms)   poll MS (poll(2) of stdin, with a timeout; replies
//   its result and how long it took)   random N (hex)   clock (ns; -1 if it ever went back)   time (s since 1970)
//   env NAME   environ   args   cwd   open PATH (`opened`, or the error)   stdin   tty
//   exit N   abort   assert   eprint-abort TEXT (without a line's end)   echo TEXT   alloc BYTES
#undef NDEBUG  // `assert` is here to fail
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

#include "../../../sdk/c/airssys.h"

extern char **environ;

enum { REPLY_MAX = 128 * 1024 };

static char reply[REPLY_MAX];
static airssys_result_t done;
static airssys_result_option_bytes_t answer;

// The library needs its heap for itself, and so do the host's arguments.
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)old_size;
    void *at = old ? realloc(old, size) : aligned_alloc(align, (size + align - 1) / align * align);
    if (!at) abort();
    return at;
}

static uint64_t now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static const char *failed(void) {
    return strerror(errno);
}

static void say(const char *text) {
    snprintf(reply, sizeof reply, "%s", text);
}

static void nap(long ms) {
    struct timespec length = {ms / 1000, ms % 1000 * 1000000};
    uint64_t before = now(CLOCK_MONOTONIC);
    nanosleep(&length, NULL);
    snprintf(reply, sizeof reply, "%llu", (unsigned long long)(now(CLOCK_MONOTONIC) - before) / 1000000);
}

static void wait_for_input(int ms) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    uint64_t before = now(CLOCK_MONOTONIC);
    int ready = poll(&input, 1, ms);
    snprintf(reply, sizeof reply, "%d %llu", ready, (unsigned long long)(now(CLOCK_MONOTONIC) - before) / 1000000);
}

static void random_bytes(size_t count) {
    static unsigned char bytes[4096];
    if (count > sizeof bytes) count = sizeof bytes;
    for (size_t at = 0; at < count; at += 256)
        if (getentropy(bytes + at, count - at < 256 ? count - at : 256)) return say(failed());
    for (size_t i = 0; i < count; i++) snprintf(reply + 2 * i, 3, "%02x", bytes[i]);
}

static void steady_clock(void) {
    uint64_t first = now(CLOCK_MONOTONIC), last = first;
    for (int i = 0; i < 100; i++) {
        uint64_t next = now(CLOCK_MONOTONIC);
        if (next < last) return say("-1");
        last = next;
    }
    snprintf(reply, sizeof reply, "%llu", (unsigned long long)last);
}

static void arguments(void) {
    size_t count = 0, size = 0, at = 0;
    if (__wasi_args_sizes_get(&count, &size)) return say("error");
    uint8_t **pointers = calloc(count + 1, sizeof *pointers);
    uint8_t *bytes = calloc(size + 1, 1);
    if (__wasi_args_get(pointers, bytes)) return say("error");
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(reply + at, sizeof reply - at, "%s%s", i ? "|" : "", (char *)pointers[i]);
}

static void environment(void) {
    size_t at = 0;
    for (char **each = environ; each && *each; each++)
        at += (size_t)snprintf(reply + at, sizeof reply - at, "%s%s", at ? "|" : "", *each);
}

static void act(const char *command, const char *text) {
    static char directory[64];
    long number = atol(text);
    say("ok");
    if (!strcmp(command, "print")) printf("%s\n", text);
    else if (!strcmp(command, "eprint")) fprintf(stderr, "%s\n", text);
    else if (!strcmp(command, "part")) fputs(text, stdout), fflush(stdout);
    else if (!strcmp(command, "eprint-abort")) fputs(text, stderr), abort();
    else if (!strcmp(command, "flood")) for (long i = 0; i < number; i++) printf("line %ld of a flood of lines\n", i);
    else if (!strcmp(command, "sleep")) nap(number);
    else if (!strcmp(command, "poll")) wait_for_input((int)number);
    else if (!strcmp(command, "random")) random_bytes((size_t)number);
    else if (!strcmp(command, "clock")) steady_clock();
    else if (!strcmp(command, "time")) snprintf(reply, sizeof reply, "%lld", (long long)time(NULL));
    else if (!strcmp(command, "env")) say(getenv(text) ? getenv(text) : "(none)");
    else if (!strcmp(command, "environ")) reply[0] = 0, environment();
    else if (!strcmp(command, "args")) arguments();
    else if (!strcmp(command, "cwd")) say(getcwd(directory, sizeof directory) ? directory : failed());
    else if (!strcmp(command, "open")) say(open(text, O_RDONLY) < 0 ? failed() : "opened");
    else if (!strcmp(command, "stdin")) snprintf(reply, sizeof reply, "%d", getchar());
    else if (!strcmp(command, "tty")) snprintf(reply, sizeof reply, "%d%d%d", isatty(0), isatty(1), isatty(2));
    else if (!strcmp(command, "exit")) exit((int)number);
    else if (!strcmp(command, "abort")) abort();
    else if (!strcmp(command, "assert")) assert(!"a reason to end");
    else if (!strcmp(command, "echo")) say(text);
    else if (!strcmp(command, "alloc")) say(malloc((size_t)number) ? "ok" : "no memory");
    else say("unknown command");
    // The library keeps what it is given to print until its buffer is full; a line of the log should not wait for that.
    if (strcmp(command, "part")) fflush(stdout);
}

AIRSSYS_EXPORT("initialize") airssys_result_t *initialize(
    const airssys_pair_t *env, size_t env_count, int32_t has_config, const uint8_t *config, size_t config_len,
    uint64_t max_memory, uint64_t max_time_ms, int32_t has_fuel, uint64_t max_fuel) {
    (void)env, (void)has_config, (void)config, (void)config_len;
    (void)max_memory, (void)max_time_ms, (void)has_fuel, (void)max_fuel;
    printf("initialized with %zu variables\n", env_count);
    fflush(stdout);
    return &done;
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    char *command = calloc(message->payload.len + 2, 1);
    memcpy(command, message->payload.ptr, message->payload.len);
    char *text = command + strcspn(command, " ");
    if (*text) *text++ = 0;
    act(command, text);
    free(command);
    answer = (airssys_result_option_bytes_t){.ok = {1, {(const uint8_t *)reply, strlen(reply)}}};
    return &answer;
}

AIRSSYS_POST_RETURN("handle-message") void post_handle_message(void *value) {
    (void)value;
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    (void)message;
    return &done;
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about.name = (airssys_bytes_t){(const uint8_t *)"test/wasi-libc", 14};
    about.version = (airssys_bytes_t){(const uint8_t *)"1.0.0", 5};
    return &about;
}

AIRSSYS_EXPORT("health") int32_t health(void) {
    return AIRSSYS_HEALTHY;
}

AIRSSYS_EXPORT("shutdown") airssys_result_t *shutdown_(void) {
    return &done;
}
