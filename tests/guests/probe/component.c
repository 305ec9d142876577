// test/probe: does what a message tells it to, one command a message, so that tests can drive every function of the
// host from outside and see what came of it. Arguments are separated by single spaces; the last one, TEXT, is the rest
// of the message and may hold anything. An id is ns/name or ns/name/instance (instance 0 without it), passed on as it
// is, valid or not.
//
//   echo TEXT   fail TEXT (an error)   none (replies none)   big N (N bytes `x`)   trap   spin   recurse   sleep MS
//   clock (asks the host for the time for ever)
//   grow BYTES (writes to each page; replies the size of the whole memory afterwards)   log LEVEL TEXT
//   get K (`-` without a value)   set K TEXT   del K   has K (true, false)   keys [PREFIX]   usage (USED QUOTA COUNT)
//   read P   range P OFFSET LENGTH   write P TEXT   append P TEXT   delete P   mkdir P   rename A B
//   list P (lines NAME KIND SIZE)   stat P (KIND SIZE SECONDS NANOSECONDS)
//   send ID TEXT   broadcast ID,ID,... TEXT   cancel CORRELATION
//   request ID TIMEOUT_MS TEXT, forward ID TEXT (5000 ms)   reply the correlation id; the callback is kept for `last`
//   last (CORRELATION|CONTENT-TYPE|PAYLOAD of the last callback, nothing before the first)   callbacks (how many came)
//   self   time (SECONDS NANOSECONDS)   millis   components   meta ID (ID NAME VERSION HEALTH)
//   sender   ctype   corr   (of this very message; `-` without)   count (messages handled, this one included)
//
// What has nothing to tell replies `ok`. A host function's error is a reply `error CASE: TEXT`, CASE as in the WIT.
// The storage keys on-initialize, on-health, on-shutdown and on-callback say how the lifecycle calls misbehave.
#include "text.h"

enum { FORWARD_MS = 5000, LONG_SLEEP_MS = 60 * 1000, NAP_MS = 700, KEPT = 256 * 1024 };

static uint64_t messages, callbacks;
static uint8_t last_buffer[KEPT + 256];  // outlives the call that it came in
static airssys_text_t last;

// -- the guest itself --------------------------------------------------------------------------------------------------

static void spin(void) {
    for (volatile uint32_t turns = 0;; turns++) {
    }
}

// Next to no fuel, much processor time: host functions use none of the one and all of the other.
static void clock(void) {
    for (volatile uint64_t sum = 0;;) sum += airssys_current_time_millis();
}

// The addition after the call keeps the compiler from making a loop of it.
static uint32_t recurse(uint32_t depth) {
    static volatile uint32_t bottom;  // 0, which a depth reaches after four thousand million calls
    if (depth == bottom) return 0;
    uint32_t below = recurse(depth + 1);
    return below + bottom;
}

static airssys_result_option_bytes_t *grow(airssys_bytes_t text) {
    uint64_t bytes;
    if (!take_number(&text, &bytes)) return no_number();
    for (uint64_t pages = bytes / 65536 + (bytes % 65536 != 0); pages; pages--) {
        size_t was = __builtin_wasm_memory_grow(0, 1);
        if (was == (size_t)-1) break;
        *(volatile uint8_t *)(was * 65536) = 1;
    }
    return number((uint64_t)__builtin_wasm_memory_size(0) * 65536);
}

static airssys_result_option_bytes_t *big(airssys_bytes_t text) {
    uint64_t size;
    if (!take_number(&text, &size) || size > UINT32_MAX) return no_number();
    uint8_t *out = airssys_alloc((size_t)size, 1);
    __builtin_memset(out, 'x', (size_t)size);
    return airssys_reply((airssys_bytes_t){out, (size_t)size});
}

// -- services ----------------------------------------------------------------------------------------------------------

static airssys_result_option_bytes_t *log_line(airssys_bytes_t text) {
    airssys_bytes_t level = take_word(&text);
    const airssys_bytes_t levels[] = {BYTES("trace"), BYTES("debug"), BYTES("info"), BYTES("warn"), BYTES("error")};
    for (int32_t i = 0; i <= AIRSSYS_ERROR; i++) {
        if (!airssys_equal(level, levels[i])) continue;
        airssys_log(i, SPREAD(text), 0, NULL, 0);
        return ok();
    }
    return airssys_refuse(BYTES("not a log level"));
}

static airssys_result_option_bytes_t *sleep(airssys_bytes_t text) {
    uint64_t duration;
    if (!take_number(&text, &duration)) return no_number();
    airssys_sleep_millis(duration);
    return ok();
}

static airssys_result_option_bytes_t *time_of_day(void) {
    airssys_timestamp_t now;
    airssys_current_time(&now);
    begin();
    put_number(now.seconds);
    put(BYTES(" "));
    put_number(now.nanoseconds);
    return finish();
}

static airssys_result_option_bytes_t *components(void) {
    airssys_list_component_id_t found;
    airssys_list_components(&found);
    begin();
    for (size_t i = 0; i < found.count; i++) {
        if (i) put(BYTES("\n"));
        put_id(&found.items[i]);
    }
    return finish();
}

static airssys_result_option_bytes_t *meta(airssys_bytes_t text) {
    airssys_component_id_t id = take_id(&text);
    airssys_result_info_t info;
    airssys_get_component_metadata(SPREAD_ID(id), &info);
    if (info.is_error) return component_error(info.error);
    begin();
    put_id(&info.ok.id);
    put(BYTES(" "));
    put(info.ok.name);
    put(BYTES(" "));
    put(info.ok.version);
    put(BYTES(" "));
    put(info.ok.health);
    return finish();
}

// -- storage -----------------------------------------------------------------------------------------------------------

static airssys_result_option_bytes_t *stored(airssys_result_t result) {
    return result.is_error ? storage_error(result.error) : ok();
}

static airssys_result_option_bytes_t *get(airssys_bytes_t text) {
    airssys_bytes_t key = take_word(&text);
    airssys_result_option_bytes_t value;
    airssys_storage_get(SPREAD(key), &value);
    return value.is_error ? storage_error(value.error) : optional(value.ok);
}

static airssys_result_option_bytes_t *set(airssys_bytes_t text) {
    airssys_bytes_t key = take_word(&text);
    airssys_result_t result;
    airssys_storage_set(SPREAD(key), SPREAD(text), &result);
    return stored(result);
}

static airssys_result_option_bytes_t *del(airssys_bytes_t text) {
    airssys_bytes_t key = take_word(&text);
    airssys_result_t result;
    airssys_storage_delete(SPREAD(key), &result);
    return stored(result);
}

static airssys_result_option_bytes_t *has(airssys_bytes_t text) {
    airssys_bytes_t key = take_word(&text);
    airssys_result_bool_t found;
    airssys_storage_exists(SPREAD(key), &found);
    if (found.is_error) return storage_error(found.error);
    return airssys_reply(found.ok ? BYTES("true") : BYTES("false"));
}

static airssys_result_option_bytes_t *keys(airssys_bytes_t text) {
    airssys_bytes_t prefix = take_word(&text);
    airssys_result_list_t found;
    airssys_storage_list_keys(prefix.len != 0, SPREAD(prefix), &found);
    if (found.is_error) return storage_error(found.error);
    begin();
    for (size_t i = 0; i < found.ok.count; i++) {
        if (i) put(BYTES("\n"));
        put(found.ok.items[i]);
    }
    return finish();
}

static airssys_result_option_bytes_t *usage(void) {
    airssys_result_usage_t used;
    airssys_storage_usage(&used);
    if (used.is_error) return storage_error(used.error);
    begin();
    put_number(used.ok.used_bytes);
    put(BYTES(" "));
    put_number(used.ok.quota_bytes);
    put(BYTES(" "));
    put_number(used.ok.key_count);
    return finish();
}

// -- files -------------------------------------------------------------------------------------------------------------

static airssys_result_option_bytes_t *filed(airssys_result_t result) {
    return result.is_error ? file_error(result.error) : ok();
}

static airssys_bytes_t kind_name(uint8_t kind) {
    if (kind == AIRSSYS_FILE) return BYTES("file");
    return kind == AIRSSYS_DIRECTORY ? BYTES("directory") : BYTES("other");
}

static airssys_result_option_bytes_t *read_file(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    airssys_result_bytes_t data;
    airssys_fs_read(SPREAD(path), &data);
    return data.is_error ? file_error(data.error) : airssys_reply(data.ok);
}

static airssys_result_option_bytes_t *read_range(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    uint64_t offset, length;
    if (!take_number(&text, &offset) || !take_number(&text, &length)) return no_number();
    airssys_result_bytes_t data;
    airssys_fs_read_range(SPREAD(path), offset, length, &data);
    return data.is_error ? file_error(data.error) : airssys_reply(data.ok);
}

static airssys_result_option_bytes_t *write_file(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    airssys_result_t result;
    airssys_fs_write(SPREAD(path), SPREAD(text), &result);
    return filed(result);
}

static airssys_result_option_bytes_t *append_file(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    airssys_result_t result;
    airssys_fs_append(SPREAD(path), SPREAD(text), &result);
    return filed(result);
}

static airssys_result_option_bytes_t *delete_file(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    airssys_result_t result;
    airssys_fs_delete(SPREAD(path), &result);
    return filed(result);
}

static airssys_result_option_bytes_t *make_directory(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    airssys_result_t result;
    airssys_fs_make_directory(SPREAD(path), &result);
    return filed(result);
}

static airssys_result_option_bytes_t *list_directory(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    airssys_result_entries_t found;
    airssys_fs_list(SPREAD(path), &found);
    if (found.is_error) return file_error(found.error);
    begin();
    for (size_t i = 0; i < found.ok.count; i++) {
        const airssys_dir_entry_t *entry = &found.ok.items[i];
        if (i) put(BYTES("\n"));
        put(entry->name);
        put(BYTES(" "));
        put(kind_name(entry->kind));
        put(BYTES(" "));
        put_number(entry->size);
    }
    return finish();
}

static airssys_result_option_bytes_t *stat_file(airssys_bytes_t text) {
    airssys_bytes_t path = take_word(&text);
    airssys_result_stat_t found;
    airssys_fs_stat(SPREAD(path), &found);
    if (found.is_error) return file_error(found.error);
    begin();
    put(kind_name(found.ok.kind));
    put(BYTES(" "));
    put_number(found.ok.size);
    put(BYTES(" "));
    put_number(found.ok.modified_seconds);
    put(BYTES(" "));
    put_number(found.ok.modified_nanoseconds);
    return finish();
}

static airssys_result_option_bytes_t *rename_file(airssys_bytes_t text) {
    airssys_bytes_t from = take_word(&text), to = take_word(&text);
    airssys_result_t result;
    airssys_fs_rename(SPREAD(from), SPREAD(to), &result);
    return filed(result);
}

// -- messages ----------------------------------------------------------------------------------------------------------

static airssys_result_option_bytes_t *sent(airssys_messaging_result_t result) {
    return result.is_error ? messaging_error(result.error) : ok();
}

static airssys_result_option_bytes_t *send(airssys_bytes_t text) {
    airssys_component_id_t target = take_id(&text);
    airssys_messaging_result_t result;
    airssys_send(SPREAD_ID(target), SPREAD(text), &result);
    return sent(result);
}

static airssys_result_option_bytes_t *ask(airssys_component_id_t target, uint64_t timeout_ms, airssys_bytes_t text) {
    airssys_result_correlation_t asked;
    airssys_request(SPREAD_ID(target), SPREAD(text), timeout_ms, &asked);
    return asked.is_error ? messaging_error(asked.error) : airssys_reply(asked.ok);
}

static airssys_result_option_bytes_t *request(airssys_bytes_t text) {
    airssys_component_id_t target = take_id(&text);
    uint64_t timeout_ms;
    return take_number(&text, &timeout_ms) ? ask(target, timeout_ms, text) : no_number();
}

static airssys_result_option_bytes_t *forward(airssys_bytes_t text) {
    airssys_component_id_t target = take_id(&text);
    return ask(target, FORWARD_MS, text);
}

static airssys_result_option_bytes_t *cancel(airssys_bytes_t text) {
    airssys_bytes_t correlation = take_word(&text);
    airssys_messaging_result_t result;
    airssys_cancel_request(SPREAD(correlation), &result);
    return sent(result);
}

static airssys_result_option_bytes_t *broadcast(airssys_bytes_t text) {
    airssys_bytes_t ids = take_word(&text);
    size_t count = 0;
    airssys_component_id_t *targets = airssys_alloc(0, 4);
    while (ids.len) {
        airssys_component_id_t id = as_id(take(&ids, ','));
        *(airssys_component_id_t *)airssys_alloc(sizeof id, 4) = id;  // directly behind the one before
        count++;
    }
    airssys_messaging_result_t result;
    airssys_broadcast(targets, count, SPREAD(text), &result);
    return sent(result);
}

static airssys_result_option_bytes_t *self(void) {
    airssys_component_id_t id;
    airssys_self_id(&id);
    return identity(&id);
}

// -- commands ----------------------------------------------------------------------------------------------------------

// One word, then what `text` holds behind it.
static airssys_result_option_bytes_t *run(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload, word = take_word(&text);
#define COMMAND(name) if (airssys_equal(word, BYTES(name)))
    COMMAND("echo") return airssys_reply(text);
    COMMAND("fail") return airssys_refuse(text);
    COMMAND("none") {
        airssys_answer_ = (airssys_result_option_bytes_t){.is_error = 0, .ok = {.some = 0}};
        return &airssys_answer_;
    }
    COMMAND("trap") __builtin_trap();
    COMMAND("spin") spin();
    COMMAND("clock") clock();
    COMMAND("recurse") return number(recurse(1));
    COMMAND("sleep") return sleep(text);
    COMMAND("grow") return grow(text);
    COMMAND("big") return big(text);

    COMMAND("log") return log_line(text);
    COMMAND("time") return time_of_day();
    COMMAND("millis") return number(airssys_current_time_millis());
    COMMAND("components") return components();
    COMMAND("meta") return meta(text);

    COMMAND("get") return get(text);
    COMMAND("set") return set(text);
    COMMAND("del") return del(text);
    COMMAND("has") return has(text);
    COMMAND("keys") return keys(text);
    COMMAND("usage") return usage();

    COMMAND("read") return read_file(text);
    COMMAND("range") return read_range(text);
    COMMAND("write") return write_file(text);
    COMMAND("append") return append_file(text);
    COMMAND("delete") return delete_file(text);
    COMMAND("mkdir") return make_directory(text);
    COMMAND("list") return list_directory(text);
    COMMAND("stat") return stat_file(text);
    COMMAND("rename") return rename_file(text);

    COMMAND("send") return send(text);
    COMMAND("request") return request(text);
    COMMAND("forward") return forward(text);
    COMMAND("cancel") return cancel(text);
    COMMAND("broadcast") return broadcast(text);
    COMMAND("self") return self();
    COMMAND("last") return airssys_reply(airssys_text(&last));
    COMMAND("callbacks") return number(callbacks);

    COMMAND("sender") return identity(&message->sender);
    COMMAND("ctype") return optional(message->metadata.content_type);
    COMMAND("corr") return optional(message->metadata.correlation_id);
    COMMAND("count") return number(messages);
#undef COMMAND
    return airssys_refuse(BYTES("unknown command"));
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    messages++;
    return run(message);
}

// -- lifecycle ---------------------------------------------------------------------------------------------------------

// What is stored under `key`; nothing when there is no value, or no right to look.
static airssys_bytes_t wish(airssys_bytes_t key) {
    airssys_result_option_bytes_t value;
    airssys_storage_get(SPREAD(key), &value);
    return !value.is_error && value.ok.some ? value.ok.value : BYTES("");
}

// The misbehaviour that every lifecycle call knows.
static void misbehave(airssys_bytes_t what) {
    if (airssys_equal(what, BYTES("trap"))) __builtin_trap();
    if (airssys_equal(what, BYTES("spin"))) spin();
    if (airssys_equal(what, BYTES("sleep"))) airssys_sleep_millis(LONG_SLEEP_MS);
    if (airssys_equal(what, BYTES("nap"))) airssys_sleep_millis(NAP_MS);
}

static airssys_result_t *done_or(airssys_bytes_t wished, uint8_t tag) {
    int fails = airssys_equal(wished, BYTES("fail"));
    misbehave(wished);
    airssys_result_t *result = airssys_done();
    if (fails) *result = (airssys_result_t){1, {tag, BYTES("asked to")}};
    return result;
}

AIRSSYS_EXPORT("initialize") airssys_result_t *initialize(AIRSSYS_CONFIG_ARGS) {
    (void)env, (void)env_count, (void)has_config, (void)config, (void)config_len;
    (void)max_memory, (void)max_time_ms, (void)has_fuel, (void)max_fuel;
    return done_or(wish(BYTES("on-initialize")), AIRSSYS_INITIALIZATION_FAILED);
}

AIRSSYS_EXPORT("health") int32_t health(void) {
    airssys_bytes_t wished = wish(BYTES("on-health"));
    int32_t status = airssys_equal(wished, BYTES("degraded"))    ? AIRSSYS_DEGRADED
                     : airssys_equal(wished, BYTES("unhealthy")) ? AIRSSYS_UNHEALTHY
                     : airssys_equal(wished, BYTES("unknown"))   ? AIRSSYS_UNKNOWN
                                                                 : AIRSSYS_HEALTHY;
    misbehave(wished);
    airssys_reset();
    return status;
}

AIRSSYS_EXPORT("shutdown") airssys_result_t *shutdown(void) {
    airssys_result_t marked;
    airssys_storage_set(SPREAD(BYTES("shutdown-ran")), SPREAD(BYTES("1")), &marked);
    return done_or(wish(BYTES("on-shutdown")), AIRSSYS_SHUTDOWN_FAILED);
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    const airssys_message_metadata_t *about = &message->metadata;
    callbacks++;
    last = (airssys_text_t){last_buffer, 0, sizeof last_buffer, 0};
    airssys_put(&last, about->correlation_id.some ? about->correlation_id.value : BYTES("-"));
    airssys_put(&last, BYTES("|"));
    airssys_put(&last, about->content_type.some ? about->content_type.value : BYTES("-"));
    airssys_put(&last, BYTES("|"));
    airssys_put(&last, message->payload);
    misbehave(wish(BYTES("on-callback")));
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_bytes_t operations[1];
    static airssys_component_metadata_t about;
    operations[0] = BYTES("one command a message");
    about = (airssys_component_metadata_t){
        BYTES("test/probe"), BYTES("1.0.0"), BYTES("Does what a test tells it to"), BYTES("airssys tests"),
        BYTES("Apache-2.0"), operations, 1, 1,
    };
    return &about;
}
