// test/hostile: hands the host what no compiler would: results, arguments and allocations that are wrong in the way a
// message names. Its first byte is one of the numbers below, u32 arguments follow, little-endian. Only the worker may
// suffer from it, by an end on the closed list.
#include "../../../sdk/c/airssys.h"

enum {
    ECHO,              // ok(some(payload))
    RESULT_AT,         // ADDRESS: where the result is said to be
    SOME,              // ADDRESS LENGTH: ok(some(that))
    ERROR,             // CASE ADDRESS LENGTH: err(that)
    RESULT_CASE,       // BYTE: discriminant of the result
    OPTION_CASE,       // BYTE: discriminant of the option
    ERROR_TEXT,        // CASE, then bytes: err with them as its text
    REALLOC,           // MODE of the next allocations, below
    POST_RETURN,       // MODE of what follows the replies from now on, below
    RECURSE,           // to the end of the stack
    GROW,              // to the end of memory; ok(some(pages, u32))
    GET_AT,            // ADDRESS LENGTH RESULT: storage.get with those
    SET_AT,            // KEY LENGTH VALUE LENGTH RESULT
    LOG_WITH,          // LEVEL SOME CONTEXT COUNT: discriminants and a list as given
    BROADCAST_AT,      // ADDRESS COUNT
    KEY,               // then bytes: storage.get with them as its key
    LIST_AT,           // ADDRESS LENGTH RESULT: filesystem.list
    CALLBACK_CASE,     // BYTE: discriminant of the next callbacks' results
    HEALTH_CASE,       // NUMBER: what `health` returns from now on
    MEMORY,            // ok(some(memory's size in bytes, u32))
};
enum {  // of REALLOC
    R_GOOD, R_ZERO, R_HIGHEST, R_ODD, R_BEHIND, R_LAST_BYTE, R_SAME, R_GROWS, R_IMPORTS, R_TRAPS, R_SPINS, R_LOW, R_LOGS,
};
enum { P_GOOD, P_TRAPS, P_IMPORTS, P_SPINS, P_GROWS };  // of POST_RETURN

extern uint8_t __heap_base;
static uint32_t allocates, follows, callback_case, health_is, top;
static airssys_result_option_bytes_t answer;
static airssys_result_t done;

static void trap_unless(int good) {
    if (!good) __builtin_trap();
}

static void spin(void) {
    for (volatile uint32_t turns = 0;; turns++) {
    }
}

static void import(void) {
    airssys_result_option_bytes_t value;
    airssys_storage_get((const uint8_t *)"k", 1, &value);
}

static uint32_t allocate(uint32_t align, uint32_t size) {
    if (!top) top = (uint32_t)&__heap_base;
    uint32_t at = (top + align - 1) & ~(align - 1), end = at + size;
    trap_unless(end >= at);
    uint32_t pages = end / 65536 + 1, have = __builtin_wasm_memory_size(0);
    if (pages > have) trap_unless(__builtin_wasm_memory_grow(0, pages - have) != (size_t)-1);
    top = end;
    return at;
}

__attribute__((export_name("cabi_realloc"))) uint32_t cabi_realloc(uint32_t old, uint32_t old_size, uint32_t align, uint32_t size) {
    (void)old, (void)old_size;
    uint32_t end = (uint32_t)__builtin_wasm_memory_size(0) * 65536, at;
    switch (allocates) {
    case R_ZERO: return 0;
    case R_HIGHEST: return 0xffffffff;
    case R_ODD: return allocate(align, size + 1) + 1;
    case R_BEHIND: return end;
    case R_LAST_BYTE: return end - 1;
    case R_SAME: return (uint32_t)&__heap_base + 64;
    case R_GROWS:
        __builtin_wasm_memory_grow(0, 3);
        return allocate(align, size);
    case R_IMPORTS:
        at = allocate(align, size);
        allocates = R_GOOD;  // what the host answers is to be allocated, too
        import();
        allocates = R_IMPORTS;
        return at;
    case R_TRAPS: __builtin_trap();
    case R_SPINS: spin(); return 0;
    case R_LOW: return 16;
    case R_LOGS:
        airssys_log(AIRSSYS_INFO, (const uint8_t *)"realloc", 7, 0, NULL, 0);
        return allocate(align, size);
    default: return allocate(align, size);
    }
}

// The addition after the call keeps the compiler from making a loop of it.
static uint32_t recurse(uint32_t depth) {
    static volatile uint32_t bottom;
    if (depth == bottom) return 0;
    uint32_t below = recurse(depth + 1);
    return below + bottom;
}

// -- reading the message -------------------------------------------------------------------------------------------------

static airssys_bytes_t input;

static uint32_t number(void) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4 && i < input.len; i++) value |= (uint32_t)input.ptr[i] << 8 * i;
    size_t size = input.len < 4 ? input.len : 4;
    input = (airssys_bytes_t){input.ptr + size, input.len - size};
    return value;
}

static const uint8_t *address(void) { return (const uint8_t *)number(); }

static airssys_result_option_bytes_t *some(airssys_bytes_t bytes) {
    answer = (airssys_result_option_bytes_t){.is_error = 0, .ok = {1, bytes}};
    return &answer;
}

static airssys_result_option_bytes_t *some_number(uint32_t value) {
    static uint32_t told;
    told = value;
    return some((airssys_bytes_t){(const uint8_t *)&told, 4});
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    input = message->payload;
    uint8_t what = input.len ? *input.ptr : 0;
    if (input.len) input = (airssys_bytes_t){input.ptr + 1, input.len - 1};
    airssys_result_option_bytes_t value;
    airssys_messaging_result_t sent;
    const uint8_t *at, *second;
    uint32_t len, third;
    switch (what) {
    case RESULT_AT: return (airssys_result_option_bytes_t *)address();
    case SOME:
        at = address();
        return some((airssys_bytes_t){at, number()});
    case ERROR:
        answer.is_error = 1;
        answer.error.tag = (uint8_t)number();
        answer.error.text.ptr = address();
        answer.error.text.len = number();
        return &answer;
    case RESULT_CASE:
        some(message->payload);
        answer.is_error = (uint8_t)number();
        return &answer;
    case OPTION_CASE:
        some(message->payload);
        answer.ok.some = (uint8_t)number();
        return &answer;
    case ERROR_TEXT:
        answer.is_error = 1;
        answer.error.tag = (uint8_t)number();
        answer.error.text = input;
        return &answer;
    case REALLOC: allocates = number(); return some((airssys_bytes_t){NULL, 0});
    case POST_RETURN: follows = number(); return some((airssys_bytes_t){NULL, 0});
    case RECURSE: return some_number(recurse(1));
    case GROW:
        while (__builtin_wasm_memory_grow(0, 1) != (size_t)-1) {
        }
        return some_number((uint32_t)__builtin_wasm_memory_size(0));
    case GET_AT:
        at = address(), len = number();
        airssys_storage_get(at, len, (airssys_result_option_bytes_t *)address());
        return some((airssys_bytes_t){NULL, 0});
    case SET_AT:
        at = address(), len = number(), second = address(), third = number();
        airssys_storage_set(at, len, second, third, (airssys_result_t *)address());
        return some((airssys_bytes_t){NULL, 0});
    case LOG_WITH:
        len = number(), third = number(), at = address();
        airssys_log((int32_t)len, (const uint8_t *)"line", 4, (int32_t)third, (const airssys_pair_t *)at, number());
        return some((airssys_bytes_t){NULL, 0});
    case BROADCAST_AT:
        at = address();
        airssys_broadcast((const airssys_component_id_t *)at, number(), (const uint8_t *)"x", 1, &sent);
        return some((airssys_bytes_t){NULL, 0});
    case KEY:
        airssys_storage_get(input.ptr, input.len, &value);
        return some((airssys_bytes_t){NULL, 0});
    case LIST_AT:
        at = address(), len = number();
        airssys_fs_list(at, len, (airssys_result_entries_t *)address());
        return some((airssys_bytes_t){NULL, 0});
    case CALLBACK_CASE: callback_case = number(); return some((airssys_bytes_t){NULL, 0});
    case HEALTH_CASE: health_is = number(); return some((airssys_bytes_t){NULL, 0});
    case MEMORY: return some_number((uint32_t)__builtin_wasm_memory_size(0) * 65536);
    default: return some(message->payload);
    }
}

AIRSSYS_POST_RETURN("handle-message") void post_handle_message(void *returned) {
    (void)returned;
    top = 0;
    switch (follows) {
    case P_TRAPS: __builtin_trap();
    case P_IMPORTS: import(); return;
    case P_SPINS: spin(); return;
    case P_GROWS: __builtin_wasm_memory_grow(0, 1); return;
    default: return;
    }
}

static airssys_result_t *fine(void) {
    done.is_error = 0;
    return &done;
}

AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    (void)message;
    fine();
    done.is_error = (uint8_t)callback_case;
    return &done;
}

AIRSSYS_EXPORT("initialize")
airssys_result_t *initialize(const airssys_pair_t *env, size_t env_count, int32_t has_config, const uint8_t *config,
                             size_t config_len, uint64_t max_memory, uint64_t max_time_ms, int32_t has_fuel,
                             uint64_t max_fuel) {
    (void)env, (void)env_count, (void)has_config, (void)config, (void)config_len;
    (void)max_memory, (void)max_time_ms, (void)has_fuel, (void)max_fuel;
    return fine();
}

AIRSSYS_EXPORT("health") int32_t health(void) { return (int32_t)health_is; }

AIRSSYS_EXPORT("shutdown") airssys_result_t *shutdown(void) { return fine(); }

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        .name = {(const uint8_t *)"test/hostile", 12}, .version = {(const uint8_t *)"1.0.0", 5}, .stateful = 1,
    };
    return &about;
}
