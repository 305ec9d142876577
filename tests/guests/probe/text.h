// Commands and replies of the probe as text: taking a message apart, and writing what a host function answered, its
// error cases by their names in the WIT. Included by component.c only.
#ifndef TEXT_H
#define TEXT_H

#include "../../../sdk/c/airssys_guest.h"

// -- replies: written to the end of the arena, once the host functions of the command have been called ----------------

static size_t reply_start;

static void begin(void) { reply_start = (size_t)airssys_alloc(0, 1); }

static void put(airssys_bytes_t bytes) {
    uint8_t *to = airssys_alloc(bytes.len, 1);
    if (bytes.len) __builtin_memcpy(to, bytes.ptr, bytes.len);
}

static void put_number(uint64_t value) {
    uint8_t digits[20];
    airssys_text_t text = {digits, 0, sizeof digits, 0};
    airssys_put_number(&text, value);
    put(airssys_text(&text));
}

static void put_id(const airssys_component_id_t *id) {
    put(id->ns);
    put(BYTES("/"));
    put(id->name);
    put(BYTES("/"));
    put(id->instance);
}

static airssys_result_option_bytes_t *finish(void) {
    return airssys_reply((airssys_bytes_t){(const uint8_t *)reply_start, airssys_top - reply_start});
}

static airssys_result_option_bytes_t *ok(void) { return airssys_reply(BYTES("ok")); }

static airssys_result_option_bytes_t *number(uint64_t value) {
    begin();
    put_number(value);
    return finish();
}

static airssys_result_option_bytes_t *identity(const airssys_component_id_t *id) {
    begin();
    put_id(id);
    return finish();
}

static airssys_result_option_bytes_t *optional(airssys_option_bytes_t value) {
    return airssys_reply(value.some ? value.value : BYTES("-"));
}

// -- errors of host functions ------------------------------------------------------------------------------------------

static void begin_error(const char *name) {
    size_t len = 0;
    while (name[len]) len++;
    begin();
    put(BYTES("error "));
    put((airssys_bytes_t){(const uint8_t *)name, len});
}

static airssys_result_option_bytes_t *named(const char *name, airssys_bytes_t text) {
    begin_error(name);
    put(BYTES(": "));
    put(text);
    return finish();
}

static airssys_result_option_bytes_t *bare(const char *name) {
    begin_error(name);
    return finish();
}

static airssys_result_option_bytes_t *storage_error(airssys_error_t error) {
    switch (error.tag) {
    case AIRSSYS_STORAGE_NOT_FOUND: return named("not-found", error.text);
    case AIRSSYS_STORAGE_ALREADY_EXISTS: return named("already-exists", error.text);
    case AIRSSYS_STORAGE_QUOTA_EXCEEDED: return bare("quota-exceeded");
    case AIRSSYS_STORAGE_INVALID_KEY: return named("invalid-key", error.text);
    default: return named("io-error", error.text);
    }
}

static airssys_result_option_bytes_t *file_error(airssys_error_t error) {
    switch (error.tag) {
    case AIRSSYS_FS_DENIED: return named("denied", error.text);
    case AIRSSYS_FS_NOT_FOUND: return named("not-found", error.text);
    case AIRSSYS_FS_ALREADY_EXISTS: return named("already-exists", error.text);
    case AIRSSYS_FS_NOT_A_DIRECTORY: return named("not-a-directory", error.text);
    case AIRSSYS_FS_IS_A_DIRECTORY: return named("is-a-directory", error.text);
    case AIRSSYS_FS_NOT_EMPTY: return named("not-empty", error.text);
    case AIRSSYS_FS_READ_ONLY: return named("read-only", error.text);
    case AIRSSYS_FS_INVALID_PATH: return named("invalid-path", error.text);
    case AIRSSYS_FS_TOO_LARGE: return named("too-large", error.text);
    case AIRSSYS_FS_NO_SPACE: return named("no-space", error.text);
    default: return named("io-error", error.text);
    }
}

static airssys_result_option_bytes_t *messaging_error(airssys_messaging_error_t error) {
    switch (error.tag) {
    case AIRSSYS_DELIVERY_FAILED: return named("delivery-failed", error.text);
    case AIRSSYS_CORRELATION_TIMEOUT: return named("correlation-timeout", error.text);
    case AIRSSYS_INVALID_MESSAGE: return named("invalid-message", error.text);
    case AIRSSYS_QUEUE_FULL: return bare("queue-full");
    default:
        begin_error("target-not-found: ");
        put_id(&error.target);
        return finish();
    }
}

static airssys_result_option_bytes_t *component_error(airssys_error_t error) {
    switch (error.tag) {
    case AIRSSYS_INITIALIZATION_FAILED: return named("initialization-failed", error.text);
    case AIRSSYS_ALREADY_INITIALIZED: return bare("already-initialized");
    case AIRSSYS_NOT_INITIALIZED: return bare("not-initialized");
    case AIRSSYS_SHUTDOWN_FAILED: return named("shutdown-failed", error.text);
    default: return named("invalid-state", error.text);
    }
}

// -- reading a command -------------------------------------------------------------------------------------------------

// Everything up to the next `separator`, which is skipped; all that is left when there is none.
static airssys_bytes_t take(airssys_bytes_t *text, uint8_t separator) {
    size_t len = 0;
    while (len < text->len && text->ptr[len] != separator) len++;
    airssys_bytes_t taken = {text->ptr, len};
    *text = airssys_skip(*text, len < text->len ? len + 1 : len);
    return taken;
}

static airssys_bytes_t take_word(airssys_bytes_t *text) { return take(text, ' '); }

// Returns 0 when the next word is no number below 2^64.
static int take_number(airssys_bytes_t *text, uint64_t *value) {
    airssys_bytes_t word = take_word(text);
    *value = 0;
    for (size_t i = 0; i < word.len; i++) {
        uint64_t digit = (uint64_t)word.ptr[i] - '0';
        if (digit > 9 || *value > (UINT64_MAX - digit) / 10) return 0;
        *value = *value * 10 + digit;
    }
    return word.len != 0;
}

static airssys_component_id_t as_id(airssys_bytes_t text) {
    airssys_component_id_t id;
    id.ns = take(&text, '/');
    id.name = take(&text, '/');
    id.instance = text.len ? text : BYTES("0");
    return id;
}

static airssys_component_id_t take_id(airssys_bytes_t *text) { return as_id(take_word(text)); }

static airssys_result_option_bytes_t *no_number(void) { return airssys_refuse(BYTES("not a number")); }

#endif
