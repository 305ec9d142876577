// bench/noise: a neighbour that makes noise for a while, and a piece of arithmetic; scripts/bench asks it.
//
//   spin MS      compute
//   eat MS       take all the memory there is and touch every page of it, again and again
//   log MS       log lines
//   flood MS     send messages to bench/noise/1
//   sieve N      primes below 2,000,000, N times; the time it took: {"count": N, "nanos": T, "failed": 0}
//
// The first four answer with how often they did it.
#include "../../../sdk/c/airssys_guest.h"

#define LIMIT 2000000

static uint8_t reply_buffer[128];
static uint8_t composite[LIMIT];

static uint64_t now(void) {
    airssys_timestamp_t time;
    airssys_current_time(&time);
    return time.seconds * 1000000000u + time.nanoseconds;
}

static uint64_t number(airssys_bytes_t text) {
    uint64_t value = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++) value = value * 10 + text.ptr[i] - '0';
    return value;
}

static airssys_result_option_bytes_t *told(uint64_t count, uint64_t nanos) {
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    airssys_put(&out, BYTES("{\"count\": "));
    airssys_put_number(&out, count);
    airssys_put(&out, BYTES(", \"nanos\": "));
    airssys_put_number(&out, nanos);
    airssys_put(&out, BYTES(", \"failed\": 0}"));
    return airssys_reply(airssys_text(&out));
}

static void spin(void) {
    for (volatile uint32_t turns = 0; turns < 20000; turns++) {
    }
}

static void eat(void) {
    while (__builtin_wasm_memory_grow(0, 16) != (size_t)-1) {
    }
    size_t end = (size_t)__builtin_wasm_memory_size(0) * 65536;
    for (size_t at = (size_t)__builtin_wasm_memory_size(0) / 2 * 65536; at < end; at += 4096) ++*(volatile uint8_t *)at;
}

static void log_line(void) {
    airssys_log(AIRSSYS_INFO, SPREAD(BYTES("a line that says nothing, as long as such lines are")), 0, NULL, 0);
}

static void flood(void) {
    airssys_messaging_result_t result;
    airssys_send(SPREAD(BYTES("bench")), SPREAD(BYTES("noise")), SPREAD(BYTES("1")), SPREAD(BYTES("none")), &result);
}

static airssys_result_option_bytes_t *keep_at(airssys_bytes_t millis, void (*action)(void)) {
    size_t mark = airssys_top;
    uint64_t began = now(), wanted = number(millis) * 1000000u, count = 0;
    for (; now() - began < wanted; count++) {
        action();
        airssys_top = mark;  // the answer is not looked at again
    }
    return told(count, now() - began);
}

static void sieve(void) {
    for (size_t i = 0; i < LIMIT; i++) composite[i] = 0;
    for (size_t i = 2; i * i < LIMIT; i++)
        if (!composite[i])
            for (size_t k = i * i; k < LIMIT; k += i) composite[k] = 1;
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (airssys_starts_with(text, BYTES("spin "))) return keep_at(airssys_skip(text, 5), spin);
    if (airssys_starts_with(text, BYTES("eat "))) return keep_at(airssys_skip(text, 4), eat);
    if (airssys_starts_with(text, BYTES("log "))) return keep_at(airssys_skip(text, 4), log_line);
    if (airssys_starts_with(text, BYTES("flood "))) return keep_at(airssys_skip(text, 6), flood);
    if (airssys_equal(text, BYTES("none"))) return airssys_reply(text);
    if (airssys_starts_with(text, BYTES("sieve "))) {
        uint64_t began = now(), count = number(airssys_skip(text, 6));
        for (uint64_t i = 0; i < count; i++) sieve();
        return told(count, now() - began);
    }
    return airssys_refuse(BYTES("expected: spin MS, eat MS, log MS, flood MS, sieve N, or none"));
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    (void)message;
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("bench/noise"), BYTES("1.0.0"), BYTES("Makes noise"), BYTES("airssys"), BYTES("Apache-2.0"), NULL, 0, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
