// test/storm: makes many requests, a number of them at a time, and accounts for every answer.
//
//   start N WINDOW TIMEOUT_MS NS/NAME/INSTANCE TEXT
//                 N requests, at most WINDOW of them open; the payload of the K-th is "TEXT K\n"; replies `started`
//   result        {"asked", "refused", "ok", "timeout", "ended", "full", "other", "open", "unknown"}: how many were
//                 answered and how; `unknown` callbacks are those of requests that are not open: answered twice, or
//                 not this worker's
//   echo TEXT     TEXT
//
// Each worker begins with nothing asked.
#include "../../../sdk/c/airssys_guest.h"

#define WINDOW 1024

static uint64_t keys[WINDOW];  // of open requests; 0 is free
static uint64_t wanted, window, timeout_ms, asked, refused, ok, timed_out, ended, full, other, open_now, unknown;
static uint8_t kept[512], reply_buffer[320];
static size_t kept_len, top;
static airssys_bytes_t ns, name, instance, body;

static airssys_bytes_t word(airssys_bytes_t *text, uint8_t end) {
    airssys_bytes_t found = {text->ptr, 0};
    while (found.len < text->len && text->ptr[found.len] != end) found.len++;
    *text = airssys_skip(*text, found.len < text->len ? found.len + 1 : found.len);
    return found;
}

static uint64_t number(airssys_bytes_t text) {
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) value = value * 10 + text.ptr[i] - '0';
    return value;
}

// The first 16 digits of a correlation id, which are random; never 0.
static uint64_t key(airssys_bytes_t id) {
    uint64_t value = 0;
    for (size_t i = 0; i < 16 && i < id.len; i++) value = value << 4 | ((id.ptr[i] & 15) + 9 * (id.ptr[i] >> 6));
    return value ? value : 1;
}

static void fill(void) {
    top = airssys_top;
    while (asked < wanted && open_now < window) {
        uint8_t buffer[600];
        airssys_text_t text = {buffer, 0, sizeof buffer, 0};
        airssys_put(&text, body);
        airssys_put(&text, BYTES(" "));
        airssys_put_number(&text, asked);
        airssys_put(&text, BYTES("\n"));
        airssys_result_correlation_t result;
        asked++;
        airssys_request(SPREAD(ns), SPREAD(name), SPREAD(instance), SPREAD(airssys_text(&text)), timeout_ms, &result);
        if (result.is_error) {
            refused++;
        } else {
            size_t at = 0;
            while (keys[at]) at++;
            keys[at] = key(result.ok);
            open_now++;
        }
        airssys_top = top;  // the answer is not looked at again
    }
}

static void field(airssys_text_t *to, airssys_bytes_t label, uint64_t value) {
    airssys_put(to, to->len ? BYTES(", \"") : BYTES("{\""));
    airssys_put(to, label);
    airssys_put(to, BYTES("\": "));
    airssys_put_number(to, value);
}

static airssys_result_option_bytes_t *result(void) {
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    field(&out, BYTES("asked"), asked);
    field(&out, BYTES("refused"), refused);
    field(&out, BYTES("ok"), ok);
    field(&out, BYTES("timeout"), timed_out);
    field(&out, BYTES("ended"), ended);
    field(&out, BYTES("full"), full);
    field(&out, BYTES("other"), other);
    field(&out, BYTES("open"), open_now);
    field(&out, BYTES("unknown"), unknown);
    airssys_put(&out, BYTES("}"));
    return airssys_reply(airssys_text(&out));
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (airssys_equal(text, BYTES("result"))) return result();
    if (airssys_starts_with(text, BYTES("echo "))) return airssys_reply(airssys_skip(text, 5));
    if (!airssys_starts_with(text, BYTES("start ")) || text.len > sizeof kept)
        return airssys_refuse(BYTES("expected: start N WINDOW TIMEOUT_MS ID TEXT, result, echo TEXT"));
    __builtin_memcpy(kept, text.ptr, kept_len = text.len);
    body = airssys_skip((airssys_bytes_t){kept, kept_len}, 6);
    wanted = number(word(&body, ' '));
    window = number(word(&body, ' '));
    if (window > WINDOW) window = WINDOW;
    timeout_ms = number(word(&body, ' '));
    ns = word(&body, '/');
    name = word(&body, '/');
    instance = word(&body, ' ');
    asked = refused = ok = timed_out = ended = full = other = open_now = unknown = 0;
    for (size_t i = 0; i < WINDOW; i++) keys[i] = 0;
    fill();
    return airssys_reply(BYTES("started"));
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    airssys_bytes_t failure = message->payload;
    uint64_t id = message->metadata.correlation_id.some ? key(message->metadata.correlation_id.value) : 0;
    size_t at = 0;
    while (at < WINDOW && keys[at] != id) at++;
    if (!id || at == WINDOW) {
        unknown++;
        return airssys_done();
    }
    keys[at] = 0;
    open_now--;
    if (!message->metadata.content_type.some) ok++;
    else if (airssys_starts_with(failure, BYTES("{\"error\":\"timeout\""))) timed_out++;
    else if (airssys_starts_with(failure, BYTES("{\"error\":\"target-ended\""))) ended++;
    else if (airssys_starts_with(failure, BYTES("{\"error\":\"queue-full\""))) full++;
    else other++;
    fill();
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("test/storm"), BYTES("1.0.0"), BYTES("Makes many requests"), BYTES("airssys tests"),
        BYTES("Apache-2.0"), NULL,           0,                            1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
