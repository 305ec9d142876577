// acme/counter: counts its messages. The count is stored, so it outlives the worker; the manifest asks for delivery at
// least once, so a message whose worker died is delivered again.
//
//   add      counts, and answers the count
//   again    how many of the messages counted had been delivered before, to a worker that died with them in hand
#include "../../../sdk/c/airssys_guest.h"
#include "../../../sdk/c/airssys_messaging.h"

static uint64_t stored(airssys_bytes_t key) {
    airssys_result_option_bytes_t value;
    airssys_storage_get(SPREAD(key), &value);
    uint64_t number = 0;
    if (!value.is_error && value.ok.some)
        for (size_t i = 0; i < value.ok.value.len; i++) number = 10 * number + (value.ok.value.ptr[i] - '0');
    return number;
}

static airssys_bytes_t digits(uint64_t number) {
    airssys_text_t text = {airssys_alloc(20, 1), 0, 20, 0};
    airssys_put_number(&text, number);
    return airssys_text(&text);
}

// 0, or the store refused.
static int store(airssys_bytes_t key, uint64_t number) {
    airssys_result_t done;
    airssys_bytes_t value = digits(number);
    airssys_storage_set(SPREAD(key), SPREAD(value), &done);
    return done.is_error;
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    if (airssys_equal(message->payload, BYTES("again"))) return airssys_reply(digits(stored(BYTES("again"))));
    if (!airssys_equal(message->payload, BYTES("add"))) return airssys_refuse(BYTES("expected: add, or again"));
    airssys_current_t current;
    airssys_current(&current);
    if (current.some && current.value.deliveries > 1 && store(BYTES("again"), stored(BYTES("again")) + 1))
        return airssys_refuse(BYTES("the count could not be stored"));
    uint64_t count = stored(BYTES("count")) + 1;
    if (store(BYTES("count"), count)) return airssys_refuse(BYTES("the count could not be stored"));
    return airssys_reply(digits(count));
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_bytes_t operations[2];
    static airssys_component_metadata_t about;
    operations[0] = BYTES("add");
    operations[1] = BYTES("again");
    about = (airssys_component_metadata_t){
        BYTES("acme/counter"), BYTES("1.0.0"), BYTES("Counts its messages"), BYTES("ACME"), BYTES("Apache-2.0"),
        operations, 2, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
