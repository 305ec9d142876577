// The kitchen's own writing of values, in messages and replies: numbers are little-endian, a string or list<u8> is its
// length (u32) and its bytes, a list its count (u32) and its items, an option, enum, variant or result one byte of case
// and what the case carries, a record its fields. tests/support/kitchen.py does the same. Included by component.c only.
#ifndef WIRE_H
#define WIRE_H

#include "../../../sdk/c/airssys_guest.h"

// -- reading: traps where the message is too short -----------------------------------------------------------------------

static airssys_bytes_t input;

static const uint8_t *take(size_t size) {
    if (size > input.len) __builtin_trap();
    const uint8_t *at = input.ptr;
    input = airssys_skip(input, size);
    return at;
}

static uint8_t take_u8(void) { return *take(1); }

static uint32_t take_u32(void) {
    uint32_t value;
    __builtin_memcpy(&value, take(4), 4);
    return value;
}

static uint64_t take_u64(void) {
    uint64_t value;
    __builtin_memcpy(&value, take(8), 8);
    return value;
}

static airssys_bytes_t take_bytes(void) {
    size_t len = take_u32();
    return (airssys_bytes_t){take(len), len};
}

static airssys_component_id_t take_id(void) {
    airssys_component_id_t id;
    id.ns = take_bytes();
    id.name = take_bytes();
    id.instance = take_bytes();
    return id;
}

// -- writing: to the end of the arena, once the host has been called -----------------------------------------------------

static size_t start;

static void begin(void) { start = (size_t)airssys_alloc(0, 1); }

static void put(const void *from, size_t size) {
    uint8_t *to = airssys_alloc(size, 1);
    if (size) __builtin_memcpy(to, from, size);
}

static void put_u8(uint8_t value) { put(&value, 1); }
static void put_u32(uint32_t value) { put(&value, 4); }
static void put_u64(uint64_t value) { put(&value, 8); }

static void put_bytes(airssys_bytes_t bytes) {
    put_u32((uint32_t)bytes.len);
    put(bytes.ptr, bytes.len);
}

static void put_option(airssys_option_bytes_t option) {
    put_u8(option.some);
    if (option.some) put_bytes(option.value);
}

static void put_id(const airssys_component_id_t *id) {
    put_bytes(id->ns);
    put_bytes(id->name);
    put_bytes(id->instance);
}

static void put_message(const airssys_message_t *message) {
    put_id(&message->sender);
    put_bytes(message->payload);
    put_option(message->metadata.correlation_id);
    put_u8(message->metadata.reply_to.some);
    if (message->metadata.reply_to.some) put_id(&message->metadata.reply_to.value);
    put_u64(message->metadata.timestamp.seconds);
    put_u32(message->metadata.timestamp.nanoseconds);
    put_option(message->metadata.content_type);
}

// `bare` is the case that carries nothing, -1 without one.
static void put_error(airssys_error_t error, int bare) {
    put_u8(error.tag);
    if (error.tag != bare) put_bytes(error.text);
}

static void put_messaging_error(const airssys_messaging_error_t *error) {
    put_u8(error->tag);
    if (error->tag == AIRSSYS_TARGET_NOT_FOUND) put_id(&error->target);
    else if (error->tag != AIRSSYS_QUEUE_FULL) put_bytes(error->text);
}

static airssys_result_option_bytes_t *finish(void) {
    return airssys_reply((airssys_bytes_t){(const uint8_t *)start, airssys_top - start});
}

#endif
