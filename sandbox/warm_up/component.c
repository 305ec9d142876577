// The zygote's warm-up: calls what guests call, so that a worker finds it warm. Trusted, built from this file.
//
//   go      one call of each kind of host function, answered with the payload
//   trap    traps
#include "../../sdk/c/airssys_guest.h"
#include "../../sdk/c/airssys_messaging.h"

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    if (airssys_equal(message->payload, BYTES("trap"))) __builtin_trap();
    airssys_result_option_bytes_t value;
    airssys_result_t done;
    airssys_result_bytes_t bytes;
    airssys_messaging_result_t sent;
    airssys_failed_t posted;
    airssys_timestamp_t time;
    airssys_pair_t context = {BYTES("k"), BYTES("v")};
    airssys_log(AIRSSYS_INFO, SPREAD(BYTES("warm")), 1, &context, 1);
    airssys_storage_get(SPREAD(BYTES("k")), &value);
    airssys_storage_set(SPREAD(BYTES("k")), SPREAD(BYTES("v")), &done);
    airssys_fs_read(SPREAD(BYTES("/data/k")), &bytes);
    airssys_send(SPREAD(BYTES("warm")), SPREAD(BYTES("up")), SPREAD(BYTES("0")), SPREAD(message->payload), &sent);
    airssys_mail_send(SPREAD(BYTES("warm")), SPREAD(BYTES("up")), SPREAD(BYTES("0")), SPREAD(message->payload),
                      AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &posted);
    airssys_current_time(&time);
    return airssys_reply(message->payload);
}

AIRSSYS_TOPIC_HANDLER airssys_result_t *handle_topic(const airssys_publication_t *publication) {
    airssys_current_t current;
    (void)publication;
    airssys_current(&current);
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){BYTES("warm/up"), BYTES("1.0.0"), BYTES(""), BYTES(""), BYTES(""), NULL, 0, 0};
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
