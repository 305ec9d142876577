// bench/meter: measures what a component meets, from inside; scripts/bench asks it.
//
//   ping N      N requests to bench/meter/1, one after the other, each sent when the last was answered
//   read N      N whole reads of /data/4k
//   get N       N reads of a stored value
//   result      {"count": N, "nanos": T, "failed": F} of the last ping; N is 0 while it runs
//   spread      {"p50": T, "p99": T, "max": T} of its round trips, nanoseconds (of the first 20,000)
//   echo TEXT   TEXT
//
// read and get answer at once with the same form.
#include "../../../sdk/c/airssys_guest.h"

#define SAMPLES 20000

static uint64_t began, asked, wanted, answered, failed, nanos;
static uint32_t samples[SAMPLES];
static uint8_t reply_buffer[256];

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

static airssys_result_option_bytes_t *told(uint64_t count) {
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    airssys_put(&out, BYTES("{\"count\": "));
    airssys_put_number(&out, count);
    airssys_put(&out, BYTES(", \"nanos\": "));
    airssys_put_number(&out, nanos);
    airssys_put(&out, BYTES(", \"failed\": "));
    airssys_put_number(&out, failed);
    airssys_put(&out, BYTES("}"));
    return airssys_reply(airssys_text(&out));
}

static uint32_t sorted(uint64_t share, uint64_t count) {
    // Shell's sort, over what may be sorted already.
    for (size_t gap = count / 2; gap; gap /= 2)
        for (size_t i = gap; i < count; i++) {
            uint32_t value = samples[i];
            size_t at = i;
            for (; at >= gap && samples[at - gap] > value; at -= gap) samples[at] = samples[at - gap];
            samples[at] = value;
        }
    return samples[count * share / 100 < count ? count * share / 100 : count - 1];
}

static airssys_result_option_bytes_t *spread(void) {
    uint64_t count = answered < SAMPLES ? answered : SAMPLES;
    if (!count || answered < wanted) return airssys_refuse(BYTES("no ping has ended"));
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    airssys_put(&out, BYTES("{\"p50\": "));
    airssys_put_number(&out, sorted(50, count));
    airssys_put(&out, BYTES(", \"p99\": "));
    airssys_put_number(&out, sorted(99, count));
    airssys_put(&out, BYTES(", \"max\": "));
    airssys_put_number(&out, sorted(100, count));
    airssys_put(&out, BYTES("}"));
    return airssys_reply(airssys_text(&out));
}

static void ask(void) {
    airssys_result_correlation_t result;
    asked = now();
    airssys_request(SPREAD(BYTES("bench")), SPREAD(BYTES("meter")), SPREAD(BYTES("1")), SPREAD(BYTES("echo 16 bytes of it")),
                    5000, &result);
    failed += result.is_error;
}

static void read_file(void) {
    airssys_result_bytes_t got;
    airssys_fs_read(SPREAD(BYTES("/data/4k")), &got);
    failed += got.is_error || got.ok.len != 4096;
}

static void get_value(void) {
    airssys_result_option_bytes_t got;
    airssys_storage_get(SPREAD(BYTES("k")), &got);
    failed += got.is_error;
}

static airssys_result_option_bytes_t *repeat(uint64_t count, void (*action)(void)) {
    size_t mark = airssys_top;
    failed = 0;
    began = now();
    for (uint64_t i = 0; i < count; i++) {
        action();
        airssys_top = mark;  // the answer is not looked at again
    }
    nanos = now() - began;
    return told(count);
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (airssys_starts_with(text, BYTES("echo "))) return airssys_reply(airssys_skip(text, 5));
    if (airssys_starts_with(text, BYTES("read "))) return repeat(number(airssys_skip(text, 5)), read_file);
    if (airssys_starts_with(text, BYTES("get "))) return repeat(number(airssys_skip(text, 4)), get_value);
    if (airssys_equal(text, BYTES("result"))) return told(answered == wanted ? answered : 0);
    if (airssys_equal(text, BYTES("spread"))) return spread();
    if (airssys_starts_with(text, BYTES("ping "))) {
        wanted = number(airssys_skip(text, 5));
        answered = failed = 0;
        began = now();
        ask();
        return airssys_reply(BYTES("started"));
    }
    return airssys_refuse(BYTES("expected: ping N, read N, get N, result, spread, or echo TEXT"));
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    uint64_t took = now() - asked;
    if (answered < SAMPLES) samples[answered] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    failed += message->metadata.content_type.some;
    if (++answered < wanted)
        ask();
    else
        nanos = now() - began;
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_bytes_t operations[4];
    static airssys_component_metadata_t about;
    operations[0] = BYTES("ping");
    operations[1] = BYTES("read");
    operations[2] = BYTES("get");
    operations[3] = BYTES("result");
    about = (airssys_component_metadata_t){
        BYTES("bench/meter"), BYTES("1.0.0"), BYTES("Measures what a component meets"), BYTES("airssys"),
        BYTES("Apache-2.0"),  operations,     4,                                        1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
