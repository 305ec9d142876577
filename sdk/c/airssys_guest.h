// What a freestanding component in C needs beside airssys.h: an arena, byte helpers, a text builder, and the four
// lifecycle exports that are the same in every small component. No libc, no WASI. Include it in one source file only:
// it defines functions.
//
// Memory. Everything the host passes in, and everything `airssys_alloc` gives, lies in one arena that is emptied when
// a call is over: after the reply to handle-message has been copied (post-return), and at the end of the other calls.
// State that outlives a call belongs in static variables.
#ifndef AIRSSYS_GUEST_H
#define AIRSSYS_GUEST_H

#include "airssys.h"

#define BYTES(literal) ((airssys_bytes_t){(const uint8_t *)(literal), sizeof(literal) - 1})
#define SPREAD(bytes) (bytes).ptr, (bytes).len
#define SPREAD_ID(id) SPREAD((id).ns), SPREAD((id).name), SPREAD((id).instance)

// -- arena -----------------------------------------------------------------------------------------------------------

extern uint8_t __heap_base;  // placed by the linker behind static data
static size_t airssys_top;   // first free address; 0 before the first allocation

static void airssys_reset(void) {
    airssys_top = (size_t)&__heap_base;
}

// Traps when the memory cannot grow: the host set that limit, and a component without memory cannot go on.
static void *airssys_alloc(size_t size, size_t align) {
    if (!airssys_top) airssys_reset();
    size_t at = (airssys_top + align - 1) & ~(align - 1);
    if (at < airssys_top || at + size < at) __builtin_trap();
    size_t end = at + size, have = __builtin_wasm_memory_size(0);
    size_t need = end / 65536 + (end % 65536 != 0);
    if (need > have && __builtin_wasm_memory_grow(0, need - have) == (size_t)-1) __builtin_trap();
    airssys_top = end;
    return (void *)at;
}

// The host asks for room for its arguments and results here. It never shrinks or frees.
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    uint8_t *new = airssys_alloc(size, align);
    if (old_size) __builtin_memcpy(new, old, old_size < size ? old_size : size);
    return new;
}

// -- bytes -----------------------------------------------------------------------------------------------------------

static int airssys_equal(airssys_bytes_t a, airssys_bytes_t b) {
    if (a.len != b.len) return 0;
    for (size_t i = 0; i < a.len; i++)
        if (a.ptr[i] != b.ptr[i]) return 0;
    return 1;
}

static int airssys_starts_with(airssys_bytes_t text, airssys_bytes_t start) {
    return text.len >= start.len && airssys_equal((airssys_bytes_t){text.ptr, start.len}, start);
}

static airssys_bytes_t airssys_skip(airssys_bytes_t text, size_t n) {
    return (airssys_bytes_t){text.ptr + n, text.len - n};
}

// -- building text ---------------------------------------------------------------------------------------------------

// Appends to a buffer of fixed size; what does not fit is dropped and `full` says so.
typedef struct {
    uint8_t *data;
    size_t len, capacity;
    int full;
} airssys_text_t;

static void airssys_put(airssys_text_t *to, airssys_bytes_t bytes) {
    if (bytes.len > to->capacity - to->len) {
        to->full = 1;
        return;
    }
    __builtin_memcpy(to->data + to->len, bytes.ptr, bytes.len);
    to->len += bytes.len;
}

static void airssys_put_number(airssys_text_t *to, uint64_t value) {
    uint8_t digits[20];
    size_t at = sizeof digits;
    do digits[--at] = (uint8_t)('0' + value % 10);
    while (value /= 10);
    airssys_put(to, (airssys_bytes_t){digits + at, sizeof digits - at});
}

// A JSON string with its quotes.
static void airssys_put_json(airssys_text_t *to, airssys_bytes_t text) {
    airssys_put(to, BYTES("\""));
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i], escaped[6] = {'\\', 'u', '0', '0', 0, 0};
        if (c >= 0x20 && c != '"' && c != '\\') {
            airssys_put(to, (airssys_bytes_t){text.ptr + i, 1});
            continue;
        }
        escaped[4] = "0123456789abcdef"[c >> 4];
        escaped[5] = "0123456789abcdef"[c & 15];
        airssys_put(to, (airssys_bytes_t){escaped, 6});
    }
    airssys_put(to, BYTES("\""));
}

static airssys_bytes_t airssys_text(const airssys_text_t *text) {
    return (airssys_bytes_t){text->data, text->len};
}

// -- answers of the lifecycle functions ------------------------------------------------------------------------------

static airssys_result_option_bytes_t airssys_answer_;
static airssys_result_t airssys_done_;

// handle-message: ok(some(bytes)).
static airssys_result_option_bytes_t *airssys_reply(airssys_bytes_t bytes) {
    airssys_answer_ = (airssys_result_option_bytes_t){.is_error = 0, .ok = {1, bytes}};
    return &airssys_answer_;
}

// handle-message: err(runtime-error(text)).
static airssys_result_option_bytes_t *airssys_refuse(airssys_bytes_t text) {
    airssys_answer_ = (airssys_result_option_bytes_t){.is_error = 1, .error = {AIRSSYS_RUNTIME_ERROR, text}};
    return &airssys_answer_;
}

// ok for the calls without a value. They carry nothing out of the arena, so it can be emptied at once.
static airssys_result_t *airssys_done(void) {
    airssys_reset();
    airssys_done_.is_error = 0;
    return &airssys_done_;
}

AIRSSYS_POST_RETURN("handle-message") void airssys_post_handle_message(void *answer) {
    (void)answer;
    airssys_reset();
}

// `initialize(component-config)`, flattened.
#define AIRSSYS_CONFIG_ARGS                                                                                          \
    const airssys_pair_t *env, size_t env_count, int32_t has_config, const uint8_t *config, size_t config_len,       \
        uint64_t max_memory, uint64_t max_time_ms, int32_t has_fuel, uint64_t max_fuel

// A component that needs no configuration, is always healthy and has nothing to save.
#define AIRSSYS_PLAIN_LIFECYCLE                                                                                      \
    AIRSSYS_EXPORT("initialize") airssys_result_t *airssys_initialize(AIRSSYS_CONFIG_ARGS) {                         \
        (void)env, (void)env_count, (void)has_config, (void)config, (void)config_len;                                \
        (void)max_memory, (void)max_time_ms, (void)has_fuel, (void)max_fuel;                                         \
        return airssys_done();                                                                                       \
    }                                                                                                                \
    AIRSSYS_EXPORT("health") int32_t airssys_health(void) {                                                          \
        return AIRSSYS_HEALTHY;                                                                                      \
    }                                                                                                                \
    AIRSSYS_EXPORT("shutdown") airssys_result_t *airssys_shutdown(void) {                                            \
        return airssys_done();                                                                                       \
    }

// `handle-callback` for a component that never asks anyone.
#define AIRSSYS_NO_CALLBACKS                                                                                         \
    AIRSSYS_EXPORT("handle-callback") airssys_result_t *airssys_handle_callback(const airssys_message_t *message) {  \
        (void)message;                                                                                               \
        return airssys_done();                                                                                       \
    }

#endif
