// bench/topic: publishes, and takes what is published; scripts/bench asks it.
//
//   publish N   N publications of 64 bytes under bench.tick, one after the other; answers
//               {"count": N, "began": T, "reached": R, "failed": F}, R deliveries promised, F of N refused
//   counted     {"count": N, "first": T, "last": T} of the publications that came; forgets them
//
// T is nanoseconds since 1970, by this component's clock. Each subscribes to bench.* in its manifest, the publisher too.
#include "../../../sdk/c/airssys_guest.h"
#include "../../../sdk/c/airssys_messaging.h"

static uint64_t taken, first, last;
static uint8_t reply_buffer[256];
static uint8_t body[64];

static uint64_t now(void) {
    airssys_timestamp_t time;
    airssys_current_time(&time);
    return time.seconds * 1000000000u + time.nanoseconds;
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

static airssys_result_option_bytes_t *publish(airssys_bytes_t text) {
    uint64_t count = 0, reached = 0, failed = 0;
    for (size_t i = 0; i < text.len; i++) count = count * 10 + text.ptr[i] - '0';
    size_t mark = airssys_top;
    uint64_t began = now();
    for (uint64_t i = 0; i < count; i++) {
        airssys_failed_count_t result;
        airssys_publish(SPREAD(BYTES("bench.tick")), body, sizeof body, AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &result);
        if (result.is_error) failed++;
        else reached += result.ok;
        airssys_top = mark;  // the answer is not looked at again
    }
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    field(&out, BYTES("count"), count);
    field(&out, BYTES("began"), began);
    field(&out, BYTES("reached"), reached);
    field(&out, BYTES("failed"), failed);
    return told(&out);
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (airssys_starts_with(text, BYTES("publish "))) return publish(airssys_skip(text, 8));
    if (!airssys_equal(text, BYTES("counted"))) return airssys_refuse(BYTES("expected: publish N, counted"));
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    field(&out, BYTES("count"), taken);
    field(&out, BYTES("first"), first);
    field(&out, BYTES("last"), last);
    taken = first = last = 0;
    return told(&out);
}

AIRSSYS_TOPIC_HANDLER airssys_result_t *handle_topic(const airssys_publication_t *publication) {
    (void)publication;
    last = now();
    if (!taken++) first = last;
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("bench/topic"), BYTES("1.0.0"), BYTES("Publishes and subscribes"), BYTES("airssys"), BYTES("Apache-2.0"),
        NULL,                 0,              1,
    };
    return &about;
}

AIRSSYS_NO_CALLBACKS
AIRSSYS_PLAIN_LIFECYCLE
