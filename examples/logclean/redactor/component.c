// acme/redactor: takes batches of log lines, removes what points at people, and writes the rest below /out. It may
// write there, count in its storage, and take messages from acme/reader; it never sees the logs' directory.
//
//   file NAME, newline, lines    redact, make or replace /out/NAME     answers ok     (only from acme/reader)
//   more NAME, newline, lines    redact, add to /out/NAME              answers ok     (only from acme/reader)
//   done                         the reader has no more                answers ok     (only from acme/reader)
//   report                       {"files", "lines", "ips", "emails", "tokens", "queries"} since the last reset
//   reset                        counts from 0 again                   answers ok
//
// What is redacted, and what is deliberately redacted too often rather than too seldom, stands in redact.h.
#include "../../../sdk/c/airssys_guest.h"
#include "redact.h"

// -- counts, kept in storage as decimal text --------------------------------------------------------------------------

static airssys_bytes_t kind_name(int kind) {
    switch (kind) {
    case FILES: return BYTES("files");
    case LINES: return BYTES("lines");
    case IPS: return BYTES("ips");
    case EMAILS: return BYTES("emails");
    case TOKENS: return BYTES("tokens");
    default: return BYTES("queries");
    }
}

// Returns 0 when storage does not answer.
static int load(int kind, uint64_t *count) {
    airssys_result_option_bytes_t got;
    airssys_storage_get(SPREAD(kind_name(kind)), &got);
    if (got.is_error) return 0;
    *count = 0;
    if (got.ok.some)
        for (size_t i = 0; i < got.ok.value.len; i++) *count = *count * 10 + (got.ok.value.ptr[i] - '0');
    return 1;
}

static int save(int kind, uint64_t count) {
    uint8_t buffer[20];
    airssys_text_t text = {buffer, 0, sizeof buffer, 0};
    airssys_result_t done;
    airssys_put_number(&text, count);
    airssys_storage_set(SPREAD(kind_name(kind)), SPREAD(airssys_text(&text)), &done);
    return !done.is_error;
}

static int add(const uint64_t counts[KINDS]) {
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t old;
        if (counts[kind] && !(load(kind, &old) && save(kind, old + counts[kind]))) return 0;
    }
    return 1;
}

static airssys_result_option_bytes_t *report(void) {
    airssys_text_t out = {airssys_alloc(512, 1), 0, 512, 0};
    airssys_put(&out, BYTES("{"));
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t count;
        if (!load(kind, &count)) return airssys_refuse(BYTES("storage does not answer"));
        if (kind) airssys_put(&out, BYTES(", "));
        airssys_put_json(&out, kind_name(kind));
        airssys_put(&out, BYTES(": "));
        airssys_put_number(&out, count);
    }
    airssys_put(&out, BYTES("}"));
    return airssys_reply(airssys_text(&out));
}

static airssys_result_option_bytes_t *reset(void) {
    for (int kind = 0; kind < KINDS; kind++)
        if (!save(kind, 0)) return airssys_refuse(BYTES("storage does not answer"));
    return airssys_reply(BYTES("ok"));
}

// -- batches ---------------------------------------------------------------------------------------------------------

// A plain file name: no directory can be named, no hidden file made.
static int plain_name(airssys_bytes_t name) {
    if (!name.len || name.len > 255 || name.ptr[0] == '.') return 0;
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] < ' ' || name.ptr[i] == '/') return 0;
    return 1;
}

static airssys_result_option_bytes_t *take_batch(airssys_bytes_t batch, int first) {
    uint64_t counts[KINDS] = {0};
    airssys_bytes_t name = airssys_skip(batch, 5);
    for (name.len = 0; name.len + 5 < batch.len && name.ptr[name.len] != '\n';) name.len++;
    if (name.len + 5 == batch.len || !plain_name(name)) return airssys_refuse(BYTES("not a name for a file"));
    airssys_text_t clean = redact(airssys_skip(batch, 5 + name.len + 1), counts);

    uint8_t path_buffer[5 + 255];
    airssys_text_t path = {path_buffer, 0, sizeof path_buffer, 0};
    airssys_put(&path, BYTES("/out/"));
    airssys_put(&path, name);
    airssys_result_t done;
    if (first)
        airssys_fs_write(SPREAD(airssys_text(&path)), SPREAD(airssys_text(&clean)), &done);
    else
        airssys_fs_append(SPREAD(airssys_text(&path)), SPREAD(airssys_text(&clean)), &done);
    if (done.is_error) return airssys_refuse(done.error.text);
    counts[FILES] = (uint64_t)first;
    if (!add(counts)) return airssys_refuse(BYTES("storage does not answer"));
    return airssys_reply(BYTES("ok"));
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    const airssys_component_id_t *from = &message->sender;
    if (airssys_equal(text, BYTES("report"))) return report();
    if (airssys_equal(text, BYTES("reset"))) return reset();
    if (!airssys_equal(from->ns, BYTES("acme")) || !airssys_equal(from->name, BYTES("reader")))
        return airssys_refuse(BYTES("expected: report, or reset; lines are taken from acme/reader only"));
    if (airssys_starts_with(text, BYTES("file "))) return take_batch(text, 1);
    if (airssys_starts_with(text, BYTES("more "))) return take_batch(text, 0);
    if (airssys_equal(text, BYTES("done"))) return airssys_reply(BYTES("ok"));
    return airssys_refuse(BYTES("expected: file NAME, more NAME, done, report, or reset"));
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_bytes_t operations[2];
    static airssys_component_metadata_t about;
    operations[0] = BYTES("report");
    operations[1] = BYTES("reset");
    about = (airssys_component_metadata_t){
        BYTES("acme/redactor"), BYTES("1.0.0"), BYTES("Removes addresses, e-mail, tokens and queries from log lines"),
        BYTES("ACME"), BYTES("Apache-2.0"), operations, 2, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
