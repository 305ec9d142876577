// test/counter: counts messages in the stored value `n` and replies the count. One storage.get and one storage.set a
// message; no value counts as 0.
#include "../../../sdk/c/airssys_guest.h"

static uint64_t parsed(airssys_bytes_t text) {
    uint64_t value = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++) value = value * 10 + text.ptr[i] - '0';
    return value;
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    (void)message;
    static uint8_t digits[20];
    airssys_text_t count = {digits, 0, sizeof digits, 0};
    airssys_result_option_bytes_t was;
    airssys_result_t stored;
    airssys_storage_get(SPREAD(BYTES("n")), &was);
    if (was.is_error) return airssys_refuse(BYTES("storage.get"));
    airssys_put_number(&count, (was.ok.some ? parsed(was.ok.value) : 0) + 1);
    airssys_storage_set(SPREAD(BYTES("n")), SPREAD(airssys_text(&count)), &stored);
    return stored.is_error ? airssys_refuse(BYTES("storage.set")) : airssys_reply(airssys_text(&count));
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("test/counter"), BYTES("1.0.0"), BYTES(""), BYTES(""), BYTES("Apache-2.0"), NULL, 0, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
