// test/wasi-probe: calls WASI by itself, without a library between, so that a message can ask for what no library would.
//
//   write N, zeroes N (one call with N bytes; `write` is of `x` and no line's end)   print TEXT (a line to stdout)
//   err TEXT (stderr, no line's end)   lines N (N lines `line`)   bytes N (N bytes in the largest writes)   check
//   flush   input (what reading, skipping and splicing standard input come to)   ready (of all three streams)
//   sleep NS, until NS (block; replies what the clock says it took, us)   now   wall (SECONDS NANOSECONDS)
//   poll MS,MS,... (the ready ones' indexes)   poll-same N (one pollable N times; how many are ready)   poll-none
//   hold N, hold-streams N (pollables, streams, kept)   drop (all that is held)   churn N (made and dropped)
//   random N, insecure N (replies the length)   numbers (of random, insecure, the seed; all different: `ok`)
//   environ, args (with `|` between)   cwd   dirs   terminals   tcp, udp, lookup TEXT (the error's number)   exit 0|1
#include "../probe/text.h"

typedef int32_t handle;

typedef struct {
    uint8_t is_error;
    uint8_t pad[3];
    struct {
        uint8_t tag;
        handle error;
    } error;
} stream_result;  // result<_, stream-error>

typedef struct {
    _Alignas(8) uint8_t is_error;
    _Alignas(8) union {
        uint64_t ok;
        uint8_t tag;
    } value;
} stream_u64;  // result<u64, stream-error>

typedef struct {
    uint8_t is_error;
    union {
        airssys_bytes_t ok;
        uint8_t tag;
    } value;
} stream_bytes;  // result<list<u8>, stream-error>

typedef struct {
    uint8_t is_error;
    union {
        handle ok;
        uint8_t code;
    } value;
} socket_result;  // result<own<...>, error-code>

typedef struct {
    const void *ptr;
    size_t len;
} list;

#define WASI(interface, function) AIRSSYS_IMPORT("wasi:" interface "@0.2.12", function)

WASI("io/streams", "[method]output-stream.check-write") void check_write(handle, stream_u64 *);
WASI("io/streams", "[method]output-stream.write") void stream_write(handle, const uint8_t *, size_t, stream_result *);
WASI("io/streams", "[method]output-stream.blocking-write-and-flush")
void write_and_flush(handle, const uint8_t *, size_t, stream_result *);
WASI("io/streams", "[method]output-stream.flush") void stream_flush(handle, stream_result *);
WASI("io/streams", "[method]output-stream.blocking-flush") void blocking_flush(handle, stream_result *);
WASI("io/streams", "[method]output-stream.write-zeroes") void write_zeroes(handle, uint64_t, stream_result *);
WASI("io/streams", "[method]output-stream.blocking-write-zeroes-and-flush")
void zeroes_and_flush(handle, uint64_t, stream_result *);
WASI("io/streams", "[method]output-stream.splice") void splice(handle, handle, uint64_t, stream_u64 *);
WASI("io/streams", "[method]output-stream.blocking-splice") void blocking_splice(handle, handle, uint64_t, stream_u64 *);
WASI("io/streams", "[method]output-stream.subscribe") handle output_subscribe(handle);
WASI("io/streams", "[method]input-stream.subscribe") handle input_subscribe(handle);
WASI("io/streams", "[method]input-stream.read") void stream_read(handle, uint64_t, stream_bytes *);
WASI("io/streams", "[method]input-stream.blocking-read") void blocking_read(handle, uint64_t, stream_bytes *);
WASI("io/streams", "[method]input-stream.skip") void stream_skip(handle, uint64_t, stream_u64 *);
WASI("io/streams", "[method]input-stream.blocking-skip") void blocking_skip(handle, uint64_t, stream_u64 *);
WASI("io/streams", "[resource-drop]output-stream") void drop_output(handle);
WASI("io/streams", "[resource-drop]input-stream") void drop_input(handle);
WASI("io/poll", "[method]pollable.ready") int32_t is_ready(handle);
WASI("io/poll", "[method]pollable.block") void block(handle);
WASI("io/poll", "poll") void poll(const handle *, size_t, list *);
WASI("io/poll", "[resource-drop]pollable") void drop_pollable(handle);
WASI("clocks/monotonic-clock", "now") uint64_t now(void);
WASI("clocks/monotonic-clock", "resolution") uint64_t resolution(void);
WASI("clocks/monotonic-clock", "subscribe-instant") handle at_instant(uint64_t);
WASI("clocks/monotonic-clock", "subscribe-duration") handle after_duration(uint64_t);
WASI("clocks/wall-clock", "now") void wall_now(airssys_timestamp_t *);
WASI("clocks/wall-clock", "resolution") void wall_resolution(airssys_timestamp_t *);
WASI("random/random", "get-random-bytes") void random_bytes(uint64_t, airssys_bytes_t *);
WASI("random/random", "get-random-u64") uint64_t random_u64(void);
WASI("random/insecure", "get-insecure-random-bytes") void insecure_bytes(uint64_t, airssys_bytes_t *);
WASI("random/insecure", "get-insecure-random-u64") uint64_t insecure_u64(void);
WASI("random/insecure-seed", "insecure-seed") void insecure_seed(uint64_t *);
WASI("cli/environment", "get-environment") void get_environment(list *);
WASI("cli/environment", "get-arguments") void get_arguments(list *);
WASI("cli/environment", "initial-cwd") void initial_cwd(airssys_option_bytes_t *);
WASI("cli/exit", "exit") void exit_(int32_t);
WASI("cli/stdin", "get-stdin") handle get_stdin(void);
WASI("cli/stdout", "get-stdout") handle get_stdout(void);
WASI("cli/stderr", "get-stderr") handle get_stderr(void);
WASI("cli/terminal-stdin", "get-terminal-stdin") void terminal_stdin(handle *);
WASI("cli/terminal-stdout", "get-terminal-stdout") void terminal_stdout(handle *);
WASI("cli/terminal-stderr", "get-terminal-stderr") void terminal_stderr(handle *);
WASI("filesystem/preopens", "get-directories") void get_directories(list *);
WASI("sockets/instance-network", "instance-network") handle instance_network(void);
WASI("sockets/tcp-create-socket", "create-tcp-socket") void create_tcp(int32_t, socket_result *);
WASI("sockets/udp-create-socket", "create-udp-socket") void create_udp(int32_t, socket_result *);
WASI("sockets/ip-name-lookup", "resolve-addresses")
void resolve(handle, const uint8_t *, size_t, socket_result *);
WASI("sockets/network", "[resource-drop]network") void drop_network(handle);

enum { HELD = 4096, LARGEST = 4096 };

static handle held_pollables[HELD], held_streams[HELD];
static size_t pollables, streams;
static handle out, err;  // made by the first call, kept

static airssys_result_option_bytes_t *stream_answer(stream_result result) {
    return !result.is_error ? ok() : result.error.tag ? bare("closed") : bare("last-operation-failed");
}

static airssys_result_option_bytes_t *elapsed(uint64_t since) { return number((now() - since) / 1000); }

static const uint8_t *letters(size_t size) {
    uint8_t *bytes = airssys_alloc(size, 1);
    __builtin_memset(bytes, 'x', size);
    return bytes;
}

static airssys_result_option_bytes_t *print_lines(uint64_t count) {
    stream_result result = {0};
    while (count--) stream_write(out, (const uint8_t *)"line\n", 5, &result);
    return stream_answer(result);
}

static airssys_result_option_bytes_t *print_bytes(uint64_t count) {
    const uint8_t *bytes = letters(LARGEST);
    stream_result result = {0};
    for (; count > LARGEST; count -= LARGEST) write_and_flush(out, bytes, LARGEST, &result);
    write_and_flush(out, bytes, (size_t)count, &result);
    return stream_answer(result);
}

static airssys_result_option_bytes_t *print_text(handle to, airssys_bytes_t text, airssys_bytes_t end) {
    stream_result result;
    stream_write(to, SPREAD(text), &result);
    stream_write(to, SPREAD(end), &result);
    return stream_answer(result);
}

static airssys_result_option_bytes_t *check(void) {
    stream_u64 room;
    check_write(out, &room);
    return room.is_error ? bare("closed") : number(room.value.ok);
}

static airssys_result_option_bytes_t *flush(void) {
    stream_result result;
    stream_flush(out, &result);
    if (result.is_error) return stream_answer(result);
    blocking_flush(err, &result);
    return stream_answer(result);
}

static airssys_result_option_bytes_t *input(void) {
    handle in = get_stdin();
    stream_bytes read[2];
    stream_u64 other[4];
    stream_read(in, 10, &read[0]);
    blocking_read(in, 10, &read[1]);
    stream_skip(in, 10, &other[0]);
    blocking_skip(in, 10, &other[1]);
    splice(out, in, 10, &other[2]);
    blocking_splice(out, in, 10, &other[3]);
    drop_input(in);
    int closed = 0;
    for (size_t i = 0; i < 2; i++) closed += read[i].is_error && read[i].value.tag == 1;
    for (size_t i = 0; i < 4; i++) closed += other[i].is_error && other[i].value.tag == 1;
    return closed == 6 ? bare("closed") : ok();
}

static airssys_result_option_bytes_t *stream_readiness(void) {
    handle in = get_stdin(), waits[3] = {input_subscribe(in), output_subscribe(out), output_subscribe(err)};
    list ready;
    poll(waits, 3, &ready);
    for (size_t i = 0; i < 3; i++) drop_pollable(waits[i]);
    drop_input(in);
    return number(ready.len);
}

static airssys_result_option_bytes_t *wait_for(handle pollable) {
    uint64_t before = now();
    if (!is_ready(pollable)) block(pollable);
    int ready = is_ready(pollable);
    drop_pollable(pollable);
    return ready ? elapsed(before) : bare("not ready");
}

static airssys_result_option_bytes_t *poll_several(airssys_bytes_t text) {
    handle waits[64];
    size_t count = 0;
    while (text.len && count < 64) {
        airssys_bytes_t word = take(&text, ',');
        uint64_t ms;
        if (!take_number(&word, &ms)) return no_number();
        waits[count++] = after_duration(ms * 1000000);
    }
    list ready;
    poll(waits, count, &ready);
    for (size_t i = 0; i < count; i++) drop_pollable(waits[i]);
    begin();
    for (size_t i = 0; i < ready.len; i++) {
        if (i) put(BYTES(","));
        put_number(((const uint32_t *)ready.ptr)[i]);
    }
    return finish();
}

static airssys_result_option_bytes_t *poll_same(size_t count) {
    handle *waits = airssys_alloc(count * sizeof *waits, 4), one = after_duration(0);
    for (size_t i = 0; i < count; i++) waits[i] = one;
    list ready;
    poll(waits, count, &ready);
    drop_pollable(one);
    return number(ready.len);
}

static airssys_result_option_bytes_t *hold(uint64_t count, size_t *have, handle *kept, int pollable) {
    while (count-- && *have < HELD) kept[(*have)++] = pollable ? after_duration(0) : get_stdout();
    return number(pollables + streams);
}

static airssys_result_option_bytes_t *drop_all(void) {
    while (pollables) drop_pollable(held_pollables[--pollables]);
    while (streams) drop_output(held_streams[--streams]);
    return ok();
}

static airssys_result_option_bytes_t *churn(uint64_t count) {
    while (count--) drop_pollable(after_duration(0));
    return ok();
}

static airssys_result_option_bytes_t *several_numbers(void) {
    uint64_t seed[2], found[4] = {random_u64(), insecure_u64(), 0, 0};
    insecure_seed(seed);
    found[2] = seed[0], found[3] = seed[1];
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < i; j++)
            if (found[i] == found[j]) return bare("the same twice");
    return ok();
}

static airssys_result_option_bytes_t *texts(const airssys_bytes_t *each, size_t count, airssys_bytes_t between) {
    begin();
    for (size_t i = 0; i < count; i++) {
        if (i) put(i % 2 ? between : BYTES("|"));
        put(each[i]);
    }
    return finish();
}

static airssys_result_option_bytes_t *terminals(void) {
    handle found[2];
    int some = 0;
    terminal_stdin(found), some += found[0] & 0xff;
    terminal_stdout(found), some += found[0] & 0xff;
    terminal_stderr(found), some += found[0] & 0xff;
    return number((uint64_t)some);
}

static airssys_result_option_bytes_t *socket_answer(socket_result result) {
    return result.is_error ? number(result.value.code) : bare("a socket");
}

static airssys_result_option_bytes_t *lookup(airssys_bytes_t name) {
    handle network = instance_network();
    socket_result result;
    resolve(network, SPREAD(name), &result);
    drop_network(network);
    return socket_answer(result);
}

static airssys_result_option_bytes_t *made(int tcp) {
    socket_result result;
    if (tcp) create_tcp(0, &result);
    else create_udp(1, &result);
    return socket_answer(result);
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload, command = take_word(&text), copy = text, random;
    uint64_t value = 0, since = now();
    airssys_timestamp_t time = {0, 0};
    airssys_option_bytes_t directory;
    stream_result result;
    list found;
    take_number(&copy, &value);
    if (!out) out = get_stdout(), err = get_stderr();
#define IS(name) airssys_equal(command, BYTES(name))
    if (IS("write")) return stream_write(out, letters((size_t)value), (size_t)value, &result), stream_answer(result);
    if (IS("zeroes")) return write_zeroes(out, value, &result), stream_answer(result);
    if (IS("zeroes-flush")) return zeroes_and_flush(out, value, &result), stream_answer(result);
    if (IS("print")) return print_text(out, text, BYTES("\n"));
    if (IS("err")) return print_text(err, text, BYTES(""));
    if (IS("lines")) return print_lines(value);
    if (IS("bytes")) return print_bytes(value);
    if (IS("check")) return check();
    if (IS("flush")) return flush();
    if (IS("input")) return input();
    if (IS("ready")) return stream_readiness();
    if (IS("sleep")) return wait_for(after_duration(value));
    if (IS("until")) return wait_for(at_instant(since + value));
    if (IS("now")) return resolution() == 1 ? number(since) : bare("resolution");
    if (IS("wall")) {
        wall_resolution(&time);
        if (time.seconds || time.nanoseconds != 1) return bare("resolution");
        wall_now(&time);
        begin(), put_number(time.seconds), put(BYTES(" ")), put_number(time.nanoseconds);
        return finish();
    }
    if (IS("poll")) return poll_several(text);
    if (IS("poll-same")) return poll_same((size_t)value);
    if (IS("poll-none")) return poll(NULL, 0, &found), ok();
    if (IS("hold")) return hold(value, &pollables, held_pollables, 1);
    if (IS("hold-streams")) return hold(value, &streams, held_streams, 0);
    if (IS("drop")) return drop_all();
    if (IS("churn")) return churn(value);
    if (IS("random")) return random_bytes(value, &random), number(random.len);
    if (IS("insecure")) return insecure_bytes(value, &random), number(random.len);
    if (IS("numbers")) return several_numbers();
    if (IS("environ")) return get_environment(&found), texts(found.ptr, 2 * found.len, BYTES("="));
    if (IS("args")) return get_arguments(&found), texts(found.ptr, found.len, BYTES("|"));
    if (IS("cwd")) return initial_cwd(&directory), optional(directory);
    if (IS("dirs")) return get_directories(&found), number(found.len);
    if (IS("terminals")) return terminals();
    if (IS("tcp")) return made(1);
    if (IS("udp")) return made(0);
    if (IS("lookup")) return lookup(text);
    if (IS("exit")) return exit_((int32_t)value), ok();
    if (IS("trap")) __builtin_trap();
    return airssys_refuse(BYTES("unknown command"));
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("test/wasi-probe"), BYTES("1.0.0"), BYTES("Asks WASI for what a test tells it to"), BYTES(""), BYTES(""),
        NULL, 0, 0,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
