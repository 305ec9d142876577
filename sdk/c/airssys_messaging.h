// The imports and exports of airssys:messaging@0.1.0 for components written in C: priorities, topics, replies that come
// later, timers, and failures with a type. Include it after airssys.h or airssys_guest.h; the layout rules are the same.
//
// Meaning, units and errors of every item: wit/airssys-messaging, or docs/reference/wit.md.
#ifndef AIRSSYS_MESSAGING_H
#define AIRSSYS_MESSAGING_H

#include "airssys.h"

enum { AIRSSYS_LOW, AIRSSYS_NORMAL, AIRSSYS_HIGH, AIRSSYS_CRITICAL };  // priority

enum {  // failure-reason
    AIRSSYS_FAILED_TIMEOUT, AIRSSYS_FAILED_TARGET_NOT_FOUND, AIRSSYS_FAILED_TARGET_ENDED, AIRSSYS_FAILED_DENIED,
    AIRSSYS_FAILED_QUEUE_FULL, AIRSSYS_FAILED_TOO_LARGE, AIRSSYS_FAILED_GUEST_ERROR, AIRSSYS_FAILED_STOPPING,
    AIRSSYS_FAILED_EXPIRED, AIRSSYS_FAILED_CIRCUIT_OPEN, AIRSSYS_FAILED_RATE_LIMITED, AIRSSYS_FAILED_INVALID,
};

typedef struct {
    uint8_t reason;
    airssys_bytes_t text;
} airssys_failure_t;

// `result<_, failure>`.
typedef struct {
    uint8_t is_error;
    airssys_failure_t error;
} airssys_failed_t;

// `result<string, failure>`: a correlation id, a token, a timer.
typedef struct {
    uint8_t is_error;
    union {
        airssys_bytes_t ok;
        airssys_failure_t error;
    };
} airssys_failed_text_t;

// `result<u32, failure>`.
typedef struct {
    uint8_t is_error;
    union {
        uint32_t ok;
        airssys_failure_t error;
    };
} airssys_failed_count_t;

typedef struct {
    uint64_t id;
    uint8_t priority;
    uint32_t deliveries;
    struct {
        uint8_t some;
        airssys_failure_t value;
    } failure;
} airssys_message_info_t;

// `option<message-info>`.
typedef struct {
    uint8_t some;
    airssys_message_info_t value;
} airssys_current_t;

_Static_assert(sizeof(airssys_failed_t) == 16, "result<_, failure>");
_Static_assert(sizeof(airssys_failed_text_t) == 16, "result<string, failure>");
_Static_assert(sizeof(airssys_failed_count_t) == 16, "result<u32, failure>");
_Static_assert(sizeof(airssys_message_info_t) == 32, "message-info");
_Static_assert(sizeof(airssys_current_t) == 40, "option<message-info>");

// -- imports --------------------------------------------------------------------------------------------------------

#define AIRSSYS_MAIL(function) AIRSSYS_IMPORT("airssys:messaging/messaging@0.1.0", function)
#define AIRSSYS_TIMERS(function) AIRSSYS_IMPORT("airssys:messaging/timers@0.1.0", function)

// The record `options`: priority, milliseconds to live (0: as the target has it), a key ("" for none), a content type.
#define AIRSSYS_OPTIONS_ARGS                                                                                         \
    int32_t priority, uint64_t ttl_ms, const uint8_t *key, size_t key_len, int32_t has_content_type,                 \
        const uint8_t *content_type, size_t content_type_len
// Nothing to say but the priority.
#define AIRSSYS_OPTIONS(priority) (priority), 0, NULL, 0, 0, NULL, 0

AIRSSYS_MAIL("send")
void airssys_mail_send(AIRSSYS_ID_ARGS, const uint8_t *payload, size_t payload_len, AIRSSYS_OPTIONS_ARGS,
                       airssys_failed_t *result);
AIRSSYS_MAIL("request")
void airssys_mail_request(AIRSSYS_ID_ARGS, const uint8_t *payload, size_t payload_len, uint64_t timeout_ms,
                          AIRSSYS_OPTIONS_ARGS, airssys_failed_text_t *result);
AIRSSYS_MAIL("publish")
void airssys_publish(const uint8_t *topic, size_t topic_len, const uint8_t *payload, size_t payload_len,
                     AIRSSYS_OPTIONS_ARGS, airssys_failed_count_t *result);
AIRSSYS_MAIL("subscribe")
void airssys_subscribe(const uint8_t *pattern, size_t pattern_len, airssys_failed_t *result);
AIRSSYS_MAIL("unsubscribe")
void airssys_unsubscribe(const uint8_t *pattern, size_t pattern_len, airssys_failed_t *result);
AIRSSYS_MAIL("defer")
void airssys_defer(airssys_failed_text_t *result);
AIRSSYS_MAIL("reply")
void airssys_reply_later(const uint8_t *token, size_t token_len, const uint8_t *payload, size_t payload_len,
                         airssys_failed_t *result);
AIRSSYS_MAIL("fail")
void airssys_fail_later(const uint8_t *token, size_t token_len, const uint8_t *message, size_t message_len,
                        airssys_failed_t *result);
AIRSSYS_MAIL("current")
void airssys_current(airssys_current_t *result);

AIRSSYS_TIMERS("send-after")
void airssys_send_after(uint64_t delay_ms, const uint8_t *payload, size_t payload_len, airssys_failed_text_t *result);
AIRSSYS_TIMERS("send-every")
void airssys_send_every(uint64_t interval_ms, const uint8_t *payload, size_t payload_len,
                        airssys_failed_text_t *result);
AIRSSYS_TIMERS("cancel")
void airssys_cancel_timer(const uint8_t *timer, size_t timer_len, airssys_failed_t *result);

// -- export: for components of the world topic-host -------------------------------------------------------------------

// The parameters of `handle-topic`, which are too many to travel one by one.
typedef struct {
    airssys_bytes_t topic;
    airssys_message_t message;
} airssys_publication_t;

_Static_assert(sizeof(airssys_publication_t) == 112, "topic and component-message");

// `airssys_result_t *handle_topic(const airssys_publication_t *publication)`.
#define AIRSSYS_TOPIC_HANDLER __attribute__((export_name("airssys:messaging/topic-handler@0.1.0#handle-topic")))

#endif
