// acme/thief: claims to be a formatter, and is one; but it also tries whatever it can think of.
//
//   format TEXT    the text in capitals
//   steal NAME     one attempt, answered as {"attempt": NAME, "result": R, "detail": D}; R is "denied" when a wall
//                  held, "allowed" when it did not, "failed" when something else went wrong. Names: shadow, dotdot,
//                  symlink, write, reach, memory; spin and outside never answer.
//
// Its manifest asks for reading and listing /logs/** and nothing else.
#include "../../../sdk/c/airssys_guest.h"

static uint8_t reply_buffer[1024];  // static: after `memory` the arena cannot grow any more

static airssys_result_option_bytes_t *report(airssys_bytes_t attempt, airssys_bytes_t result, airssys_bytes_t what,
                                             airssys_bytes_t detail) {
    airssys_text_t out = {reply_buffer, 0, sizeof reply_buffer, 0};
    uint8_t joined_buffer[320];
    airssys_text_t joined = {joined_buffer, 0, sizeof joined_buffer, 0};
    airssys_put(&joined, what);
    if (detail.len > 160) detail.len = 160;  // every byte may need six in JSON
    airssys_put(&joined, detail);
    airssys_put(&out, BYTES("{\"attempt\": "));
    airssys_put_json(&out, attempt);
    airssys_put(&out, BYTES(", \"result\": "));
    airssys_put_json(&out, result);
    airssys_put(&out, BYTES(", \"detail\": "));
    airssys_put_json(&out, airssys_text(&joined));
    airssys_put(&out, BYTES("}"));
    return out.full ? airssys_refuse(BYTES("the answer does not fit")) : airssys_reply(airssys_text(&out));
}

// -- files -----------------------------------------------------------------------------------------------------------

static airssys_bytes_t case_name(uint8_t tag) {
    switch (tag) {
    case AIRSSYS_FS_DENIED: return BYTES("denied: ");
    case AIRSSYS_FS_NOT_FOUND: return BYTES("not-found: ");
    case AIRSSYS_FS_READ_ONLY: return BYTES("read-only: ");
    case AIRSSYS_FS_INVALID_PATH: return BYTES("invalid-path: ");
    default: return BYTES("another error: ");
    }
}

static airssys_result_option_bytes_t *report_file(airssys_bytes_t attempt, int is_error, airssys_error_t error,
                                                  airssys_bytes_t loot) {
    if (!is_error) return report(attempt, BYTES("allowed"), BYTES("got "), loot);
    int refused = error.tag == AIRSSYS_FS_DENIED || error.tag == AIRSSYS_FS_READ_ONLY ||
                  error.tag == AIRSSYS_FS_INVALID_PATH;
    return report(attempt, refused ? BYTES("denied") : BYTES("failed"), case_name(error.tag), error.text);
}

static airssys_result_option_bytes_t *steal_file(airssys_bytes_t attempt, airssys_bytes_t path) {
    airssys_result_bytes_t got;
    airssys_fs_read(SPREAD(path), &got);
    return report_file(attempt, got.is_error, got.error, got.ok);
}

static airssys_result_option_bytes_t *write_file(airssys_bytes_t attempt, airssys_bytes_t path) {
    airssys_result_t done;
    airssys_fs_write(SPREAD(path), SPREAD(BYTES("owned\n")), &done);
    return report_file(attempt, done.is_error, done.error, BYTES("a file of its own"));
}

// -- neighbours ------------------------------------------------------------------------------------------------------

static airssys_result_option_bytes_t *reach(airssys_bytes_t attempt) {
    airssys_messaging_result_t done;
    airssys_send(SPREAD(BYTES("acme")), SPREAD(BYTES("redactor")), SPREAD(BYTES("0")), SPREAD(BYTES("reset")), &done);
    if (!done.is_error) return report(attempt, BYTES("allowed"), BYTES("sent to acme/redactor"), BYTES(""));
    switch (done.error.tag) {
    case AIRSSYS_DELIVERY_FAILED:
        return report(attempt, BYTES("denied"), BYTES("delivery-failed: "), done.error.text);
    case AIRSSYS_TARGET_NOT_FOUND: return report(attempt, BYTES("failed"), BYTES("target-not-found"), BYTES(""));
    case AIRSSYS_QUEUE_FULL: return report(attempt, BYTES("failed"), BYTES("queue-full"), BYTES(""));
    default: return report(attempt, BYTES("failed"), BYTES("another error"), BYTES(""));
    }
}

// -- memory and time -------------------------------------------------------------------------------------------------

// Grows by 1 MiB, then by single pages, and writes to each page it gets.
static airssys_result_option_bytes_t *hoard(airssys_bytes_t attempt) {
    size_t step = 16;
    for (;;) {
        size_t was = __builtin_wasm_memory_grow(0, step);
        if (was == (size_t)-1) {
            if (step == 1) break;
            step = 1;
            continue;
        }
        for (size_t page = was; page < was + step; page++) *(volatile uint8_t *)(page * 65536) = 1;
    }
    uint64_t pages = __builtin_wasm_memory_size(0);
    uint8_t detail_buffer[64];
    airssys_text_t detail = {detail_buffer, 0, sizeof detail_buffer, 0};
    airssys_put_number(&detail, pages * 65536);
    airssys_put(&detail, BYTES(" of 4294967296 bytes"));
    return report(attempt, pages >= 65535 ? BYTES("allowed") : BYTES("denied"), BYTES("grew to "),
                  airssys_text(&detail));
}

static void spin(void) {
    for (volatile uint32_t turns = 0;; turns++) {
    }
}

// The last addresses a 32-bit pointer can name: beyond the memory unless all 4 GiB were handed out.
static void read_outside(void) {
    volatile const uint8_t *beyond = (volatile const uint8_t *)0xfffffff0u;
    (void)*beyond;
}

// -- messages --------------------------------------------------------------------------------------------------------

static airssys_result_option_bytes_t *steal(airssys_bytes_t name) {
    if (airssys_equal(name, BYTES("shadow"))) return steal_file(name, BYTES("/etc/shadow"));
    if (airssys_equal(name, BYTES("dotdot"))) return steal_file(name, BYTES("/logs/../../etc/passwd"));
    if (airssys_equal(name, BYTES("symlink"))) return steal_file(name, BYTES("/logs/passwd-link"));
    if (airssys_equal(name, BYTES("write"))) return write_file(name, BYTES("/logs/owned"));
    if (airssys_equal(name, BYTES("reach"))) return reach(name);
    if (airssys_equal(name, BYTES("memory"))) return hoard(name);
    if (airssys_equal(name, BYTES("spin"))) spin();
    if (airssys_equal(name, BYTES("outside"))) read_outside();
    return airssys_refuse(BYTES("steal what? shadow dotdot symlink write reach memory spin outside"));
}

static airssys_result_option_bytes_t *format(airssys_bytes_t text) {
    uint8_t *out = airssys_alloc(text.len, 1);
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        out[i] = c >= 'a' && c <= 'z' ? (uint8_t)(c - 32) : c;
    }
    return airssys_reply((airssys_bytes_t){out, text.len});
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (airssys_starts_with(text, BYTES("format "))) return format(airssys_skip(text, 7));
    if (airssys_starts_with(text, BYTES("steal "))) return steal(airssys_skip(text, 6));
    return airssys_refuse(BYTES("expected: format TEXT, or steal NAME"));
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_bytes_t operations[2];
    static airssys_component_metadata_t about;
    operations[0] = BYTES("format");
    operations[1] = BYTES("steal");
    about = (airssys_component_metadata_t){
        BYTES("acme/thief"), BYTES("1.0.0"), BYTES("Formats log lines, it says"), BYTES("ACME"), BYTES("Apache-2.0"),
        operations, 2, 0,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
