// selftest/hostile: an interpreter of attack programs. A message is a program, the reply its results.
//
// `native` is where the attack happens. What is written here only makes room: `supervisor.selftest.patch` finds the
// function in the compiled component by MARK and overwrites all of it with machine code (`supervisor.selftest.machine`)
// that jumps to the routine at offset `routine` with the absolute address of the eight words at `block`.
//
// A program, little endian:
//   u32 magic, u32 steps, u32 data offset, u32 data length, u32 reply offset, u32 reply length   (within the data)
//   steps: u32 routine, u32 times, u32 until, u32 0, u8 kind[8], u64 word[8]
//   data
// A step runs `times` times, or until its result says what `until` wants. Each word is passed as its kind says. The
// reply: u32 steps run, u32 0, i64 result of each step run, then the wanted part of the data.
#include "../../../sdk/c/airssys_guest.h"

enum {
    MAGIC = 0x41545441,
    LITERAL = 0,  // the word
    DATA = 1,     // absolute address of data + word
    RESULT = 2,   // result of step number (low 32 bits of word) + (high 32 bits of word, signed)
    MEMORY = 3,   // absolute address of linear memory + word
    CODE = 4,     // absolute address of `native` + word
    ALWAYS = 0,
    UNTIL_ERROR = 1,
    UNTIL_SUCCESS = 2,
    OR_GIVE_UP = 3,  // an error ends the program
    ROUTINE_MEMORY = 64,  // offsets of two routines, the same in `machine.py`
    ROUTINE_CODE = 72
};

typedef struct {
    uint32_t magic, steps, data_offset, data_length, reply_offset, reply_length;
} program_t;

typedef struct {
    uint32_t routine, times, until, zero;
    uint8_t kind[8];
    uint64_t word[8];
} step_t;

#define MARK 0xa1550c0de5e1f7e5u
#define LINE x = (x ^ (x >> 7) ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u + block;
#define LINES LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE

__attribute__((noinline, optnone)) static uint64_t native(uint64_t routine, uint64_t block) {
    uint64_t x = routine ^ MARK;
    LINES LINES LINES LINES LINES LINES LINES LINES
    return x;
}

// One load from an address that appears nowhere else: shows in the compiled code where linear memory is found.
__attribute__((noinline, optnone)) static uint64_t landmark(void) { return *(volatile uint32_t *)0xfedc; }

static uint64_t block[8];

static uint64_t call(uint32_t routine) {
    __asm__ volatile("" ::: "memory");
    uint64_t result = native(routine, (uint64_t)(size_t)block);
    __asm__ volatile("" ::: "memory");
    return result;
}

static int failed(int64_t result) { return result < 0 && result >= -4095; }

static uint64_t value(uint8_t kind, uint64_t word, const uint8_t *data, const int64_t *results) {
    if (kind == LITERAL) return word;
    if (kind == RESULT) return (uint64_t)(results[(uint32_t)word] + (int32_t)(word >> 32));
    if (kind == CODE) return call(ROUTINE_CODE) + word;
    uint64_t memory = call(ROUTINE_MEMORY);
    return memory + word + (kind == DATA ? (uint64_t)(size_t)data : 0);
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    const uint8_t *body = message->payload.ptr;
    program_t program;
    if (message->payload.len < sizeof program) return airssys_refuse(BYTES("no program"));
    __builtin_memcpy(&program, body, sizeof program);
    if (program.magic != MAGIC) return airssys_refuse(BYTES("no program"));
    // Room for everything first: linear memory moves when it grows.
    uint64_t *reply = airssys_alloc(8 + 8 * (size_t)program.steps + program.reply_length, 8);
    uint8_t *data = airssys_alloc(program.data_length, 4096);
    __builtin_memcpy(data, body + program.data_offset, program.data_length);
    int64_t *results = (int64_t *)reply + 1;
    uint32_t done = 0, over = 0;
    for (; done < program.steps && !over; done++) {
        step_t step;
        __builtin_memcpy(&step, body + sizeof program + done * sizeof step, sizeof step);
        int64_t result = 0;
        for (uint32_t times = 0; times < step.times; times++) {
            uint64_t words[8];
            for (int i = 0; i < 8; i++) words[i] = value(step.kind[i], step.word[i], data, results);
            __builtin_memcpy(block, words, sizeof words);
            result = (int64_t)call(step.routine);
            if (failed(result) ? step.until == UNTIL_ERROR : step.until == UNTIL_SUCCESS) break;
        }
        results[done] = result;
        over = step.until == OR_GIVE_UP && failed(result);
    }
    reply[0] = done;
    uint8_t *end = (uint8_t *)(results + done);
    __builtin_memcpy(end, data + program.reply_offset, program.reply_length);
    return airssys_reply((airssys_bytes_t){(const uint8_t *)reply, (size_t)(end - (uint8_t *)reply) + program.reply_length});
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_bytes_t operations[1];
    static airssys_component_metadata_t about;
    landmark();
    operations[0] = BYTES("attack programs");
    about = (airssys_component_metadata_t){
        BYTES("selftest/hostile"), BYTES("1.0.0"), BYTES("Runs attack programs"), BYTES("airssys"),
        BYTES("Apache-2.0"), operations, 1, 0,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
