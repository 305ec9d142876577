// acme/echo: answers every message with what it was sent.
#include "../../../sdk/c/airssys_guest.h"

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    return airssys_reply(message->payload);
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("acme/echo"), BYTES("1.0.0"), BYTES("Answers with what it was sent"), BYTES("ACME"), BYTES("Apache-2.0"),
        NULL, 0, 0,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
