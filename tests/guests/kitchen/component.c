// test/kitchen: calls any one function of the host with any arguments, as a message tells it, and replies what it was
// answered; or replies what it was itself given. The first byte of a message is one of the numbers below, the arguments
// follow as wire.h writes them; the reply is the function's result in the same writing.
#include "wire.h"
#include "../../../sdk/c/airssys_messaging.h"

enum {
    GET, SET, DELETE, EXISTS, LIST_KEYS, USAGE,                                              // storage
    SEND, REQUEST, CANCEL_REQUEST, BROADCAST, SELF_ID,                                       // host-messaging
    LOG, CURRENT_TIME, CURRENT_TIME_MILLIS, SLEEP_MILLIS, LIST_COMPONENTS, GET_COMPONENT_METADATA,   // host-services
    FS_READ, FS_READ_RANGE, FS_WRITE, FS_APPEND, FS_DELETE, FS_MAKE_DIRECTORY, FS_LIST, FS_STAT, FS_RENAME,  // files
    MAIL_SEND, MAIL_REQUEST, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, DEFER, REPLY, FAIL_LATER, CURRENT,             // messaging
    SEND_AFTER, SEND_EVERY, CANCEL,                                                                          // timers
    MESSAGE = 64,   // replies this whole message
    CALLBACK,       // replies the last callback's, or publication's, whole message; of a publication after its topic
    FAIL,           // CASE TEXT: that wasm-error
    NONE,           // replies none
    REFUSE_NEXT,    // CASE TEXT: the next callback or publication returns that wasm-error
    INFO,           // replies what CURRENT was in that callback or publication
};

static airssys_result_t result;

static void put_result(airssys_result_t value, int bare) {
    put_u8(value.is_error);
    if (value.is_error) put_error(value.error, bare);
}

// -- storage -----------------------------------------------------------------------------------------------------------

static void get(void) {
    airssys_result_option_bytes_t value;
    airssys_bytes_t key = take_bytes();
    airssys_storage_get(SPREAD(key), &value);
    begin();
    put_u8(value.is_error);
    if (value.is_error) put_error(value.error, AIRSSYS_STORAGE_QUOTA_EXCEEDED);
    else put_option(value.ok);
}

static void set(void) {
    airssys_bytes_t key = take_bytes(), value = take_bytes();
    airssys_storage_set(SPREAD(key), SPREAD(value), &result);
    begin();
    put_result(result, AIRSSYS_STORAGE_QUOTA_EXCEEDED);
}

static void delete(void) {
    airssys_bytes_t key = take_bytes();
    airssys_storage_delete(SPREAD(key), &result);
    begin();
    put_result(result, AIRSSYS_STORAGE_QUOTA_EXCEEDED);
}

static void exists(void) {
    airssys_result_bool_t found;
    airssys_bytes_t key = take_bytes();
    airssys_storage_exists(SPREAD(key), &found);
    begin();
    put_u8(found.is_error);
    if (found.is_error) put_error(found.error, AIRSSYS_STORAGE_QUOTA_EXCEEDED);
    else put_u8(found.ok);
}

static void list_keys(void) {
    airssys_result_list_t found;
    airssys_bytes_t prefix = {NULL, 0};
    uint8_t some = take_u8();
    if (some) prefix = take_bytes();
    airssys_storage_list_keys(some, SPREAD(prefix), &found);
    begin();
    put_u8(found.is_error);
    if (found.is_error) {
        put_error(found.error, AIRSSYS_STORAGE_QUOTA_EXCEEDED);
        return;
    }
    put_u32((uint32_t)found.ok.count);
    for (size_t i = 0; i < found.ok.count; i++) put_bytes(found.ok.items[i]);
}

static void usage(void) {
    airssys_result_usage_t used;
    airssys_storage_usage(&used);
    begin();
    put_u8(used.is_error);
    if (used.is_error) {
        put_error(used.error, AIRSSYS_STORAGE_QUOTA_EXCEEDED);
        return;
    }
    put_u64(used.ok.used_bytes);
    put_u64(used.ok.quota_bytes);
    put_u64(used.ok.key_count);
}

// -- messages ----------------------------------------------------------------------------------------------------------

static void put_sent(const airssys_messaging_result_t *sent) {
    begin();
    put_u8(sent->is_error);
    if (sent->is_error) put_messaging_error(&sent->error);
}

static void send(void) {
    airssys_messaging_result_t sent;
    airssys_component_id_t target = take_id();
    airssys_bytes_t payload = take_bytes();
    airssys_send(SPREAD_ID(target), SPREAD(payload), &sent);
    put_sent(&sent);
}

static void request(void) {
    airssys_result_correlation_t asked;
    airssys_component_id_t target = take_id();
    airssys_bytes_t payload = take_bytes();
    uint64_t timeout = take_u64();
    airssys_request(SPREAD_ID(target), SPREAD(payload), timeout, &asked);
    begin();
    put_u8(asked.is_error);
    if (asked.is_error) put_messaging_error(&asked.error);
    else put_bytes(asked.ok);
}

static void cancel_request(void) {
    airssys_messaging_result_t sent;
    airssys_bytes_t id = take_bytes();
    airssys_cancel_request(SPREAD(id), &sent);
    put_sent(&sent);
}

static void broadcast(void) {
    airssys_messaging_result_t sent;
    uint32_t count = take_u32();
    airssys_component_id_t *targets = airssys_alloc(count * sizeof *targets, 4);
    for (uint32_t i = 0; i < count; i++) targets[i] = take_id();
    airssys_bytes_t payload = take_bytes();
    airssys_broadcast(targets, count, SPREAD(payload), &sent);
    put_sent(&sent);
}

static void self_id(void) {
    airssys_component_id_t id;
    airssys_self_id(&id);
    begin();
    put_id(&id);
}

// -- messages beyond the core ------------------------------------------------------------------------------------------

typedef struct {
    int32_t priority, has_type;
    uint64_t ttl;
    airssys_bytes_t key, type;
} options_t;

#define SPREAD_OPTIONS(o) (o).priority, (o).ttl, SPREAD((o).key), (o).has_type, SPREAD((o).type)

static options_t take_options(void) {
    options_t given = {0};
    given.priority = take_u8();
    given.ttl = take_u64();
    given.key = take_bytes();
    given.has_type = take_u8();
    if (given.has_type) given.type = take_bytes();
    return given;
}

static void put_failure(const airssys_failure_t *failure) {
    put_u8(failure->reason);
    put_bytes(failure->text);
}

static void put_failed(const airssys_failed_t *done) {
    begin();
    put_u8(done->is_error);
    if (done->is_error) put_failure(&done->error);
}

static void put_failed_text(const airssys_failed_text_t *text) {
    begin();
    put_u8(text->is_error);
    if (text->is_error) put_failure(&text->error);
    else put_bytes(text->ok);
}

static void mail_send(void) {
    airssys_failed_t done;
    airssys_component_id_t target = take_id();
    airssys_bytes_t payload = take_bytes();
    options_t options = take_options();
    airssys_mail_send(SPREAD_ID(target), SPREAD(payload), SPREAD_OPTIONS(options), &done);
    put_failed(&done);
}

static void mail_request(void) {
    airssys_failed_text_t asked;
    airssys_component_id_t target = take_id();
    airssys_bytes_t payload = take_bytes();
    uint64_t timeout = take_u64();
    options_t options = take_options();
    airssys_mail_request(SPREAD_ID(target), SPREAD(payload), timeout, SPREAD_OPTIONS(options), &asked);
    put_failed_text(&asked);
}

static void publish(void) {
    airssys_failed_count_t count;
    airssys_bytes_t topic = take_bytes(), payload = take_bytes();
    options_t options = take_options();
    airssys_publish(SPREAD(topic), SPREAD(payload), SPREAD_OPTIONS(options), &count);
    begin();
    put_u8(count.is_error);
    if (count.is_error) put_failure(&count.error);
    else put_u32(count.ok);
}

static void with_text(void (*function)(const uint8_t *, size_t, airssys_failed_t *)) {
    airssys_failed_t done;
    airssys_bytes_t text = take_bytes();
    function(SPREAD(text), &done);
    put_failed(&done);
}

static void defer(void) {
    airssys_failed_text_t token;
    airssys_defer(&token);
    put_failed_text(&token);
}

static void later(void (*function)(const uint8_t *, size_t, const uint8_t *, size_t, airssys_failed_t *)) {
    airssys_failed_t done;
    airssys_bytes_t token = take_bytes(), payload = take_bytes();
    function(SPREAD(token), SPREAD(payload), &done);
    put_failed(&done);
}

static void set_timer(void (*function)(uint64_t, const uint8_t *, size_t, airssys_failed_text_t *)) {
    airssys_failed_text_t timer;
    uint64_t delay = take_u64();
    airssys_bytes_t payload = take_bytes();
    function(delay, SPREAD(payload), &timer);
    put_failed_text(&timer);
}

static void put_current(void) {
    airssys_current_t info;
    airssys_current(&info);
    begin();
    put_u8(info.some);
    if (!info.some) return;
    put_u64(info.value.id);
    put_u8(info.value.priority);
    put_u32(info.value.deliveries);
    put_u8(info.value.failure.some);
    if (info.value.failure.some) put_failure(&info.value.failure.value);
}

// -- services ----------------------------------------------------------------------------------------------------------

static void log_line(void) {
    uint8_t level = take_u8();
    airssys_bytes_t message = take_bytes();
    uint8_t some = take_u8();
    uint32_t count = some ? take_u32() : 0;
    airssys_pair_t *context = airssys_alloc(count * sizeof *context, 4);
    for (uint32_t i = 0; i < count; i++) {
        context[i].key = take_bytes();
        context[i].value = take_bytes();
    }
    airssys_log(level, SPREAD(message), some, context, count);
    begin();
}

static void current_time(void) {
    airssys_timestamp_t now;
    airssys_current_time(&now);
    begin();
    put_u64(now.seconds);
    put_u32(now.nanoseconds);
}

static void list_components(void) {
    airssys_list_component_id_t found;
    airssys_list_components(&found);
    begin();
    put_u32((uint32_t)found.count);
    for (size_t i = 0; i < found.count; i++) put_id(&found.items[i]);
}

static void get_component_metadata(void) {
    airssys_result_info_t info;
    airssys_component_id_t id = take_id();
    airssys_get_component_metadata(SPREAD_ID(id), &info);
    begin();
    put_u8(info.is_error);
    if (info.is_error) {
        // Two of the cases carry nothing.
        put_u8(info.error.tag);
        if (info.error.tag != AIRSSYS_ALREADY_INITIALIZED && info.error.tag != AIRSSYS_NOT_INITIALIZED) put_bytes(info.error.text);
        return;
    }
    put_id(&info.ok.id);
    put_bytes(info.ok.name);
    put_bytes(info.ok.version);
    put_bytes(info.ok.health);
}

// -- files -------------------------------------------------------------------------------------------------------------

static void put_data(const airssys_result_bytes_t *data) {
    begin();
    put_u8(data->is_error);
    if (data->is_error) put_error(data->error, -1);
    else put_bytes(data->ok);
}

static void fs_read(void) {
    airssys_result_bytes_t data;
    airssys_bytes_t path = take_bytes();
    airssys_fs_read(SPREAD(path), &data);
    put_data(&data);
}

static void fs_read_range(void) {
    airssys_result_bytes_t data;
    airssys_bytes_t path = take_bytes();
    uint64_t offset = take_u64(), length = take_u64();
    airssys_fs_read_range(SPREAD(path), offset, length, &data);
    put_data(&data);
}

static void fs_with_data(void (*function)(const uint8_t *, size_t, const uint8_t *, size_t, airssys_result_t *)) {
    airssys_bytes_t path = take_bytes(), data = take_bytes();
    function(SPREAD(path), SPREAD(data), &result);
    begin();
    put_result(result, -1);
}

static void fs_with_path(void (*function)(const uint8_t *, size_t, airssys_result_t *)) {
    airssys_bytes_t path = take_bytes();
    function(SPREAD(path), &result);
    begin();
    put_result(result, -1);
}

static void fs_list(void) {
    airssys_result_entries_t found;
    airssys_bytes_t path = take_bytes();
    airssys_fs_list(SPREAD(path), &found);
    begin();
    put_u8(found.is_error);
    if (found.is_error) {
        put_error(found.error, -1);
        return;
    }
    put_u32((uint32_t)found.ok.count);
    for (size_t i = 0; i < found.ok.count; i++) {
        put_bytes(found.ok.items[i].name);
        put_u8(found.ok.items[i].kind);
        put_u64(found.ok.items[i].size);
    }
}

static void fs_stat(void) {
    airssys_result_stat_t found;
    airssys_bytes_t path = take_bytes();
    airssys_fs_stat(SPREAD(path), &found);
    begin();
    put_u8(found.is_error);
    if (found.is_error) {
        put_error(found.error, -1);
        return;
    }
    put_u8(found.ok.kind);
    put_u64(found.ok.size);
    put_u64(found.ok.modified_seconds);
    put_u32(found.ok.modified_nanoseconds);
}

// -- lifecycle ---------------------------------------------------------------------------------------------------------

static uint8_t kept[512 * 1024], info[32 * 1024];  // the last callback outlives its call
static size_t kept_len, info_len;
static airssys_result_t refusal;
static uint8_t refusal_text[4096];

static airssys_bytes_t text_of(uint8_t tag) { return tag == AIRSSYS_TIMEOUT ? BYTES("") : take_bytes(); }

static airssys_result_option_bytes_t *failed(void) {
    uint8_t tag = take_u8();
    airssys_answer_ = (airssys_result_option_bytes_t){.is_error = 1, .error = {tag, text_of(tag)}};
    return &airssys_answer_;
}

static void refuse_next(void) {
    refusal.is_error = 1;
    refusal.error.tag = take_u8();
    airssys_bytes_t text = text_of(refusal.error.tag);
    if (text.len > sizeof refusal_text) __builtin_trap();
    __builtin_memcpy(refusal_text, text.ptr, text.len);
    refusal.error.text = (airssys_bytes_t){refusal_text, text.len};
    begin();
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    input = message->payload;
    switch (take_u8()) {
    case GET: get(); break;
    case SET: set(); break;
    case DELETE: delete(); break;
    case EXISTS: exists(); break;
    case LIST_KEYS: list_keys(); break;
    case USAGE: usage(); break;
    case SEND: send(); break;
    case REQUEST: request(); break;
    case CANCEL_REQUEST: cancel_request(); break;
    case BROADCAST: broadcast(); break;
    case SELF_ID: self_id(); break;
    case LOG: log_line(); break;
    case CURRENT_TIME: current_time(); break;
    case CURRENT_TIME_MILLIS:
        begin();
        put_u64(airssys_current_time_millis());
        break;
    case SLEEP_MILLIS:
        airssys_sleep_millis(take_u64());
        begin();
        break;
    case LIST_COMPONENTS: list_components(); break;
    case GET_COMPONENT_METADATA: get_component_metadata(); break;
    case FS_READ: fs_read(); break;
    case FS_READ_RANGE: fs_read_range(); break;
    case FS_WRITE: fs_with_data(airssys_fs_write); break;
    case FS_APPEND: fs_with_data(airssys_fs_append); break;
    case FS_DELETE: fs_with_path(airssys_fs_delete); break;
    case FS_MAKE_DIRECTORY: fs_with_path(airssys_fs_make_directory); break;
    case FS_LIST: fs_list(); break;
    case FS_STAT: fs_stat(); break;
    case FS_RENAME: fs_with_data(airssys_fs_rename); break;
    case MAIL_SEND: mail_send(); break;
    case MAIL_REQUEST: mail_request(); break;
    case PUBLISH: publish(); break;
    case SUBSCRIBE: with_text(airssys_subscribe); break;
    case UNSUBSCRIBE: with_text(airssys_unsubscribe); break;
    case DEFER: defer(); break;
    case REPLY: later(airssys_reply_later); break;
    case FAIL_LATER: later(airssys_fail_later); break;
    case CURRENT: put_current(); break;
    case SEND_AFTER: set_timer(airssys_send_after); break;
    case SEND_EVERY: set_timer(airssys_send_every); break;
    case CANCEL: with_text(airssys_cancel_timer); break;
    case MESSAGE:
        begin();
        put_message(message);
        break;
    case CALLBACK:
        begin();
        put(kept, kept_len);
        break;
    case INFO:
        begin();
        put(info, info_len);
        break;
    case FAIL: return failed();
    case NONE:
        airssys_answer_ = (airssys_result_option_bytes_t){.is_error = 0, .ok = {.some = 0}};
        return &airssys_answer_;
    case REFUSE_NEXT: refuse_next(); break;
    default: return airssys_refuse(BYTES("unknown number"));
    }
    return finish();
}

static size_t keep(uint8_t *where, size_t size) {
    size_t length = airssys_top - start;
    if (length > size) __builtin_trap();
    __builtin_memcpy(where, (const uint8_t *)start, length);
    return length;
}

static airssys_result_t *noted(void) {
    kept_len = keep(kept, sizeof kept);
    put_current();
    info_len = keep(info, sizeof info);
    airssys_result_t *answer = airssys_done();
    *answer = refusal;
    refusal.is_error = 0;
    return answer;
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    begin();
    put_message(message);
    return noted();
}

AIRSSYS_TOPIC_HANDLER airssys_result_t *handle_topic(const airssys_publication_t *publication) {
    begin();
    put_bytes(publication->topic);
    put_message(&publication->message);
    return noted();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("test/kitchen"), BYTES("1.0.0"), BYTES(""), BYTES(""), BYTES("Apache-2.0"), NULL, 0, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
