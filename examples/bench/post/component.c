// bench/post: posts messages, takes them, and measures when the failures of its requests come; scripts/bench asks it.
//
//   blast N R COUNT   N messages of 64 bytes to bench/post/R, bench/post/R+1, ... by turns; answers
//                     {"count": N, "began": T, "ended": T, "failed": F}, F of them refused
//   counted           {"count": N, "first": T, "last": T} of the messages of 64 bytes that came; forgets them
//   hold MS           sleeps
//   open N R MS US    N requests to bench/post/R with timeouts of MS milliseconds and US microseconds more for each
//   late              {"count": N, "p50": T, "p99": T, "max": T, "early": T} nanoseconds that their failures came after
//                     (or, early, before) their time; forgets them
//
// T otherwise is nanoseconds since 1970. All clocks are this component's.
#include "../../../sdk/c/airssys_guest.h"

#define SIZE 64
#define OPEN 1024

static uint64_t taken, first, last;
static uint64_t keys[OPEN], due[OPEN], opened, answered, early;
static uint32_t late[OPEN];
static uint8_t reply_buffer[256];
static uint8_t body[SIZE];

static uint64_t now(void) {
    airssys_timestamp_t time;
    airssys_current_time(&time);
    return time.seconds * 1000000000u + time.nanoseconds;
}

// The next decimal number of a text, which is left behind it.
static uint64_t number(airssys_bytes_t *text) {
    uint64_t value = 0;
    while (text->len && *text->ptr == ' ') *text = airssys_skip(*text, 1);
    for (; text->len && *text->ptr >= '0' && *text->ptr <= '9'; *text = airssys_skip(*text, 1))
        value = value * 10 + *text->ptr - '0';
    return value;
}

static airssys_bytes_t decimal(uint64_t value, uint8_t *digits) {
    airssys_text_t text = {digits, 0, 20, 0};
    airssys_put_number(&text, value);
    return airssys_text(&text);
}

static void field(airssys_text_t *to, airssys_bytes_t name, uint64_t value) {
    airssys_put(to, to->len ? BYTES(", \"") : BYTES("{\""));
    airssys_put(to, name);
    airssys_put(to, BYTES("\": "));
    airssys_put_number(to, value);
}

static airssys_result_option_bytes_t *told(airssys_text_t *text) {
    airssys_put(text, BYTES("}"));
    return airssys_reply(airssys_text(text));
}

static airssys_result_option_bytes_t *blast(airssys_bytes_t text) {
    uint64_t count = number(&text), base = number(&text), targets = number(&text), failed = 0;
    if (!targets) return airssys_refuse(BYTES("no targets"));
    size_t mark = airssys_top;
    uint64_t began = now();
    for (uint64_t i = 0; i < count; i++) {
        uint8_t digits[20];
        airssys_messaging_result_t result;
        airssys_send(SPREAD(BYTES("bench")), SPREAD(BYTES("post")), SPREAD(decimal(base + i % targets, digits)), body,
                     SIZE, &result);
        failed += result.is_error;
        airssys_top = mark;  // the answer is not looked at again
    }
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    field(&out, BYTES("count"), count);
    field(&out, BYTES("began"), began);
    field(&out, BYTES("ended"), now());
    field(&out, BYTES("failed"), failed);
    return told(&out);
}

static airssys_result_option_bytes_t *counted(void) {
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    field(&out, BYTES("count"), taken);
    field(&out, BYTES("first"), first);
    field(&out, BYTES("last"), last);
    taken = first = last = 0;
    return told(&out);
}

// The first 16 digits of a correlation id, which are random.
static uint64_t key(airssys_bytes_t id) {
    uint64_t value = 0;
    for (size_t i = 0; i < 16 && i < id.len; i++) value = value << 4 | ((id.ptr[i] & 15) + 9 * (id.ptr[i] >> 6));
    return value;
}

static airssys_result_option_bytes_t *open_requests(airssys_bytes_t text) {
    uint64_t count = number(&text), target = number(&text), millis = number(&text), step = number(&text);
    size_t mark = airssys_top;
    opened = answered = early = 0;
    for (uint64_t i = 0; i < count && opened < OPEN; i++) {
        uint8_t digits[20];
        airssys_result_correlation_t result;
        uint64_t timeout = millis + i * step / 1000;
        uint64_t asked = now();
        airssys_request(SPREAD(BYTES("bench")), SPREAD(BYTES("post")), SPREAD(decimal(target, digits)), body, SIZE,
                        timeout, &result);
        if (result.is_error) return airssys_refuse(BYTES("a request was refused"));
        // The router's clock for it starts between here and `asked`.
        due[opened] = asked + timeout * 1000000u;
        keys[opened++] = key(result.ok);
        airssys_top = mark;
    }
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    field(&out, BYTES("count"), opened);
    return told(&out);
}

static airssys_result_option_bytes_t *lateness(void) {
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    for (size_t gap = answered / 2; gap; gap /= 2)
        for (size_t i = gap; i < answered; i++) {
            uint32_t value = late[i];
            size_t at = i;
            for (; at >= gap && late[at - gap] > value; at -= gap) late[at] = late[at - gap];
            late[at] = value;
        }
    field(&out, BYTES("count"), answered);
    field(&out, BYTES("p50"), answered ? late[answered / 2] : 0);
    field(&out, BYTES("p99"), answered ? late[answered * 99 / 100] : 0);
    field(&out, BYTES("max"), answered ? late[answered - 1] : 0);
    field(&out, BYTES("early"), early);
    return told(&out);
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (text.len == SIZE && !text.ptr[0]) {
        last = now();
        if (!taken++) first = last;
        airssys_answer_ = (airssys_result_option_bytes_t){.is_error = 0};
        return &airssys_answer_;
    }
    if (airssys_starts_with(text, BYTES("blast "))) return blast(airssys_skip(text, 6));
    if (airssys_equal(text, BYTES("counted"))) return counted();
    if (airssys_starts_with(text, BYTES("open "))) return open_requests(airssys_skip(text, 5));
    if (airssys_equal(text, BYTES("late"))) return lateness();
    if (airssys_starts_with(text, BYTES("hold "))) {
        text = airssys_skip(text, 5);
        airssys_sleep_millis(number(&text));
        return airssys_reply(BYTES("held"));
    }
    return airssys_refuse(BYTES("expected: blast N R COUNT, counted, hold MS, open N R MS US, late"));
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    uint64_t at = now();
    if (message->metadata.correlation_id.some) {
        uint64_t id = key(message->metadata.correlation_id.value);
        for (size_t i = 0; i < opened; i++)
            if (keys[i] == id && answered < OPEN) {
                uint64_t by = at < due[i] ? 0 : at - due[i];
                if (at < due[i] && due[i] - at > early) early = due[i] - at;
                late[answered++] = by < UINT32_MAX ? (uint32_t)by : UINT32_MAX;
                keys[i] = 0;
                break;
            }
    }
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("bench/post"), BYTES("1.0.0"), BYTES("Posts and takes messages"), BYTES("airssys"), BYTES("Apache-2.0"),
        NULL,                0,              1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
