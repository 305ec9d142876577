// Calls every import there is and does nothing sensible with them: the source of osl-host.wasm, the template for
// components that may use all of the world airssys:osl/osl-host. A component for review wants a template of its own
// that holds only what it calls (scripts/make-template).
#include "../airssys_guest.h"
#include "../airssys_messaging.h"

static union {
    airssys_messaging_result_t messaging;
    airssys_result_correlation_t correlation;
    airssys_component_id_t id;
    airssys_timestamp_t time;
    airssys_list_component_id_t components;
    airssys_result_info_t info;
    airssys_result_t unit;
    airssys_result_option_bytes_t value;
    airssys_result_bool_t truth;
    airssys_result_list_t keys;
    airssys_result_usage_t usage;
    airssys_result_bytes_t bytes;
    airssys_result_entries_t entries;
    airssys_result_stat_t stat;
    airssys_failed_t failed;
    airssys_failed_text_t failed_text;
    airssys_failed_count_t failed_count;
    airssys_current_t current;
} result;

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    const airssys_component_id_t *id = &message->sender;

    airssys_send(SPREAD_ID(*id), SPREAD(text), &result.messaging);
    airssys_request(SPREAD_ID(*id), SPREAD(text), 1, &result.correlation);
    airssys_cancel_request(SPREAD(text), &result.messaging);
    airssys_broadcast(id, 1, SPREAD(text), &result.messaging);
    airssys_self_id(&result.id);

    airssys_log(AIRSSYS_INFO, SPREAD(text), 0, NULL, 0);
    airssys_current_time(&result.time);
    airssys_sleep_millis(airssys_current_time_millis());
    airssys_list_components(&result.components);
    airssys_get_component_metadata(SPREAD_ID(*id), &result.info);

    airssys_storage_get(SPREAD(text), &result.value);
    airssys_storage_set(SPREAD(text), SPREAD(text), &result.unit);
    airssys_storage_delete(SPREAD(text), &result.unit);
    airssys_storage_exists(SPREAD(text), &result.truth);
    airssys_storage_list_keys(1, SPREAD(text), &result.keys);
    airssys_storage_usage(&result.usage);

    airssys_fs_read(SPREAD(text), &result.bytes);
    airssys_fs_read_range(SPREAD(text), 0, 1, &result.bytes);
    airssys_fs_write(SPREAD(text), SPREAD(text), &result.unit);
    airssys_fs_append(SPREAD(text), SPREAD(text), &result.unit);
    airssys_fs_delete(SPREAD(text), &result.unit);
    airssys_fs_make_directory(SPREAD(text), &result.unit);
    airssys_fs_list(SPREAD(text), &result.entries);
    airssys_fs_stat(SPREAD(text), &result.stat);
    airssys_fs_rename(SPREAD(text), SPREAD(text), &result.unit);
#ifdef TOPIC_HOST
    airssys_mail_send(SPREAD_ID(*id), SPREAD(text), AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &result.failed);
    airssys_mail_request(SPREAD_ID(*id), SPREAD(text), 1, AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &result.failed_text);
    airssys_publish(SPREAD(text), SPREAD(text), AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &result.failed_count);
    airssys_subscribe(SPREAD(text), &result.failed);
    airssys_unsubscribe(SPREAD(text), &result.failed);
    airssys_defer(&result.failed_text);
    airssys_reply_later(SPREAD(text), SPREAD(text), &result.failed);
    airssys_fail_later(SPREAD(text), SPREAD(text), &result.failed);
    airssys_current(&result.current);
    airssys_send_after(1, SPREAD(text), &result.failed_text);
    airssys_send_every(1, SPREAD(text), &result.failed_text);
    airssys_cancel_timer(SPREAD(text), &result.failed);
#endif
    return airssys_reply(text);
}

#ifdef TOPIC_HOST
AIRSSYS_TOPIC_HANDLER airssys_result_t *handle_topic(const airssys_publication_t *publication) {
    (void)publication;
    return airssys_done();
}
#endif

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
