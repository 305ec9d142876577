// acme/reader: reads log files and hands them, line by line, to acme/redactor. It may read logs and can write nothing.
//
//   clean [DIRECTORY]   start with every *.log file of DIRECTORY (default /logs); answers {"started": true, "files": N}
//   status              {"state": "idle|running|done|failed", "files", "lines", "bytes", "cut", "error"}
//
// One batch is on its way at a time: it is sent with `request`, and the redactor's answer, which comes to
// handle-callback, starts the next. A batch is the line `file NAME` (the first of a file) or `more NAME`, then whole
// lines, at most 256 KiB together; after the last file comes the message `done`. Where a batch ends in the middle of
// a line, the next one reads that line again, so nothing but the offset is carried over.
#include "../../../sdk/c/airssys_guest.h"

enum { CHUNK = 64 * 1024, BATCH = 256 * 1024, MAX_FILES = 1024, MAX_NAMES = 32 * 1024, TIMEOUT_MS = 20 * 1000 };

static enum { IDLE, RUNNING, FINISHING, DONE, FAILED } state;
static uint8_t directory_buffer[1024], names[MAX_NAMES], batch_buffer[BATCH], error_buffer[256], waiting_buffer[128];
static airssys_text_t directory, failure, waiting_for;  // waiting_for: correlation id of the batch on its way
static airssys_bytes_t files[MAX_FILES];
static size_t file_count, current;  // `current` files are finished
static uint64_t offset;             // next byte of the current file
static int begun;                   // its first batch has been sent
static int in_long_line;            // the rest of a line that was cut is being skipped
static uint64_t lines, bytes, cut;

// -- failing ---------------------------------------------------------------------------------------------------------

static void fail(airssys_bytes_t what, airssys_bytes_t detail) {
    failure = (airssys_text_t){error_buffer, 0, sizeof error_buffer, 0};
    size_t room = sizeof error_buffer - what.len;
    if (detail.len > room) detail.len = room;
    airssys_put(&failure, what);
    airssys_put(&failure, detail);
    state = FAILED;
}

// -- batches ---------------------------------------------------------------------------------------------------------

// Takes the whole lines of `data`, read at `offset`, into `batch`. A line longer than a chunk is cut at its last
// space, so that the redactor never sees half an address, and the rest of it is skipped. Returns 0 at the file's end.
static int take_lines(airssys_text_t *batch, airssys_bytes_t data) {
    if (in_long_line) {
        size_t skip = 0;
        while (skip < data.len && data.ptr[skip] != '\n') skip++;
        in_long_line = skip == data.len;
        skip += !in_long_line;
        offset += skip;
        return data.len != 0;
    }
    size_t end = data.len;
    while (end && data.ptr[end - 1] != '\n') end--;
    if (!end && data.len) {  // no line ends here: the last line of the file, or one that is too long
        end = data.len;
        if (data.len == CHUNK) {
            while (end && data.ptr[end - 1] != ' ') end--;
            if (!end) end = data.len;
            in_long_line = 1;
            cut++;
        }
        airssys_put(batch, (airssys_bytes_t){data.ptr, end});
        airssys_put(batch, BYTES("\n"));
        lines++;
    } else {
        airssys_put(batch, (airssys_bytes_t){data.ptr, end});
        for (size_t i = 0; i < end; i++) lines += data.ptr[i] == '\n';
    }
    offset += end;
    bytes += end;
    return data.len == CHUNK || data.ptr[data.len - 1] == '\n' || end < data.len;
}

// Fills `batch` from the current file. Returns 1 when there is more, 0 at its end, -1 when reading failed.
static int fill(airssys_text_t *batch) {
    uint8_t path_buffer[1536];
    airssys_text_t path = {path_buffer, 0, sizeof path_buffer, 0};
    airssys_put(&path, airssys_text(&directory));
    airssys_put(&path, BYTES("/"));
    airssys_put(&path, files[current]);
    airssys_put(batch, begun ? BYTES("more ") : BYTES("file "));
    airssys_put(batch, files[current]);
    airssys_put(batch, BYTES("\n"));
    while (batch->capacity - batch->len > CHUNK) {
        size_t before = airssys_top;
        airssys_result_bytes_t got;
        airssys_fs_read_range(SPREAD(airssys_text(&path)), offset, CHUNK, &got);
        if (got.is_error) {
            fail(BYTES("cannot read a log file: "), got.error.text);
            return -1;
        }
        int more = got.ok.len && take_lines(batch, got.ok);
        airssys_top = before;
        if (!more) return 0;
    }
    return 1;
}

static void send(airssys_bytes_t payload) {
    airssys_result_correlation_t asked;
    airssys_request(SPREAD(BYTES("acme")), SPREAD(BYTES("redactor")), SPREAD(BYTES("0")), SPREAD(payload), TIMEOUT_MS,
                    &asked);
    if (asked.is_error) {
        airssys_bytes_t why = asked.error.tag == AIRSSYS_QUEUE_FULL ? BYTES("its mailbox is full")
                              : asked.error.tag == AIRSSYS_TARGET_NOT_FOUND ? BYTES("it is not there")
                                                                            : asked.error.text;
        fail(BYTES("cannot reach acme/redactor: "), why);
        return;
    }
    waiting_for = (airssys_text_t){waiting_buffer, 0, sizeof waiting_buffer, 0};
    airssys_put(&waiting_for, asked.ok);
}

// Sends the next batch, or `done` after the last.
static void advance(void) {
    while (current < file_count) {
        airssys_text_t batch = {batch_buffer, 0, BATCH, 0};
        int more = fill(&batch);
        if (more < 0) return;
        int empty = begun && batch.len == files[current].len + sizeof "more \n" - 1;
        begun = more;
        if (!more) {
            current++;
            offset = 0;
            in_long_line = 0;
        }
        if (!empty) {
            send(airssys_text(&batch));
            return;
        }
    }
    state = FINISHING;
    send(BYTES("done"));
}

// -- messages --------------------------------------------------------------------------------------------------------

static int is_log(const airssys_dir_entry_t *entry) {
    airssys_bytes_t name = entry->name, end = BYTES(".log");
    if (entry->kind != AIRSSYS_FILE || name.len <= end.len || name.len > 255) return 0;
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] < ' ') return 0;
    return airssys_equal(airssys_skip(name, name.len - end.len), end);
}

// Remembers the log files of `directory`. Returns 0 when that failed.
static int find_files(void) {
    airssys_result_entries_t listed;
    airssys_text_t kept = {names, 0, sizeof names, 0};
    airssys_fs_list(SPREAD(airssys_text(&directory)), &listed);
    if (listed.is_error) {
        fail(BYTES("cannot list the directory: "), listed.error.text);
        return 0;
    }
    for (size_t i = 0; i < listed.ok.count; i++) {
        const airssys_dir_entry_t *entry = &listed.ok.items[i];
        if (!is_log(entry)) continue;
        size_t at = kept.len;
        airssys_put(&kept, entry->name);
        if (kept.full || file_count == MAX_FILES) {
            fail(BYTES("more log files than can be remembered"), BYTES(""));
            return 0;
        }
        files[file_count++] = (airssys_bytes_t){names + at, entry->name.len};
    }
    return 1;
}

static airssys_result_option_bytes_t *clean(airssys_bytes_t where) {
    if (state == RUNNING || state == FINISHING) return airssys_refuse(BYTES("already running"));
    file_count = current = offset = lines = bytes = cut = 0;
    begun = in_long_line = 0;
    failure.len = 0;
    directory = (airssys_text_t){directory_buffer, 0, sizeof directory_buffer, 0};
    airssys_put(&directory, where);
    if (directory.full) return airssys_refuse(BYTES("the directory's name is too long"));
    state = RUNNING;
    if (find_files()) advance();
    if (state == FAILED) return airssys_refuse(airssys_text(&failure));
    airssys_text_t out = {airssys_alloc(64, 1), 0, 64, 0};
    airssys_put(&out, BYTES("{\"started\": true, \"files\": "));
    airssys_put_number(&out, file_count);
    airssys_put(&out, BYTES("}"));
    return airssys_reply(airssys_text(&out));
}

static void put_member(airssys_text_t *out, airssys_bytes_t name, uint64_t value) {
    airssys_put(out, BYTES(", "));
    airssys_put_json(out, name);
    airssys_put(out, BYTES(": "));
    airssys_put_number(out, value);
}

static airssys_result_option_bytes_t *status(void) {
    airssys_text_t out = {airssys_alloc(2048, 1), 0, 2048, 0};
    airssys_put(&out, BYTES("{\"state\": "));
    airssys_put_json(&out, state == IDLE     ? BYTES("idle")
                           : state == DONE   ? BYTES("done")
                           : state == FAILED ? BYTES("failed")
                                             : BYTES("running"));
    put_member(&out, BYTES("files"), current);
    put_member(&out, BYTES("lines"), lines);
    put_member(&out, BYTES("bytes"), bytes);
    put_member(&out, BYTES("cut"), cut);
    airssys_put(&out, BYTES(", \"error\": "));
    airssys_put_json(&out, airssys_text(&failure));
    airssys_put(&out, BYTES("}"));
    return airssys_reply(airssys_text(&out));
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (airssys_equal(text, BYTES("status"))) return status();
    if (airssys_equal(text, BYTES("clean"))) return clean(BYTES("/logs"));
    if (airssys_starts_with(text, BYTES("clean /"))) return clean(airssys_skip(text, 6));
    return airssys_refuse(BYTES("expected: clean [DIRECTORY], or status"));
}

// The answer to the batch on its way; anything else is late and of no interest.
AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    const airssys_message_metadata_t *about = &message->metadata;
    int expected = (state == RUNNING || state == FINISHING) && about->correlation_id.some &&
                   airssys_equal(about->correlation_id.value, airssys_text(&waiting_for));
    if (!expected) return airssys_done();
    if (about->content_type.some &&
        airssys_equal(about->content_type.value, BYTES("application/vnd.airssys.error+json")))
        fail(BYTES("acme/redactor did not do it: "), message->payload);
    else if (!airssys_equal(message->payload, BYTES("ok")))
        fail(BYTES("acme/redactor answered something else: "), message->payload);
    else if (state == FINISHING)
        state = DONE;
    else
        advance();
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_bytes_t operations[2];
    static airssys_component_metadata_t about;
    operations[0] = BYTES("clean");
    operations[1] = BYTES("status");
    about = (airssys_component_metadata_t){
        BYTES("acme/reader"), BYTES("1.0.0"), BYTES("Reads log files and hands their lines to acme/redactor"),
        BYTES("ACME"), BYTES("Apache-2.0"), operations, 2, 0,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
