// acme/chat: one member of a chat; each instance is a person, each room the topic `chat.ROOM`.
//
//   join ROOM, leave ROOM   subscribe and unsubscribe; everybody is in the lobby by the manifest
//   say ROOM TEXT           publish; answers how many members it goes to
//   read                    what was said since the last time, a line each: ROOM MEMBER: TEXT
//
// What was not read is kept up to 4 KiB; then the oldest lines go.
#include "../../../sdk/c/airssys_guest.h"
#include "../../../sdk/c/airssys_messaging.h"

enum { KEPT = 4096 };

static uint8_t lines[KEPT];
static size_t kept;

static airssys_bytes_t word_of(airssys_bytes_t *text) {
    size_t length = 0;
    while (length < text->len && text->ptr[length] != ' ') length++;
    airssys_bytes_t word = {text->ptr, length};
    *text = airssys_skip(*text, length < text->len ? length + 1 : length);
    return word;
}

static airssys_bytes_t topic_of(airssys_bytes_t room) {
    airssys_text_t topic = {airssys_alloc(room.len + 5, 1), 0, room.len + 5, 0};
    airssys_put(&topic, BYTES("chat."));
    airssys_put(&topic, room);
    return airssys_text(&topic);
}

static airssys_result_option_bytes_t *told(const airssys_failed_t *done) {
    return done->is_error ? airssys_refuse(done->error.text) : airssys_reply(BYTES("ok"));
}

static airssys_result_option_bytes_t *say(airssys_bytes_t rest) {
    airssys_failed_count_t count;
    airssys_bytes_t topic = topic_of(word_of(&rest));
    airssys_publish(SPREAD(topic), SPREAD(rest), AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &count);
    if (count.is_error) return airssys_refuse(count.error.text);
    airssys_text_t text = {airssys_alloc(20, 1), 0, 20, 0};
    airssys_put_number(&text, count.ok);
    return airssys_reply(airssys_text(&text));
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_failed_t done;
    airssys_bytes_t rest = message->payload, word = word_of(&rest);
    if (airssys_equal(word, BYTES("say"))) return say(rest);
    if (airssys_equal(word, BYTES("read"))) {
        size_t length = kept;
        kept = 0;
        return airssys_reply((airssys_bytes_t){lines, length});
    }
    airssys_bytes_t topic = topic_of(rest);
    if (airssys_equal(word, BYTES("join"))) {
        airssys_subscribe(SPREAD(topic), &done);
        return told(&done);
    }
    if (airssys_equal(word, BYTES("leave"))) {
        airssys_unsubscribe(SPREAD(topic), &done);
        return told(&done);
    }
    return airssys_refuse(BYTES("expected: join ROOM, leave ROOM, say ROOM TEXT, read"));
}

// Room for `length` bytes at the end: the oldest lines go.
static void make_room(size_t length) {
    size_t gone = 0;
    while (kept - gone + length > KEPT) {
        while (lines[gone] != '\n') gone++;
        gone++;
    }
    kept -= gone;
    __builtin_memmove(lines, lines + gone, kept);
}

AIRSSYS_TOPIC_HANDLER airssys_result_t *handle_topic(const airssys_publication_t *publication) {
    airssys_bytes_t room = airssys_skip(publication->topic, 5), who = publication->message.sender.instance;
    airssys_bytes_t text = publication->message.payload;
    size_t length = room.len + who.len + text.len + 4;
    if (length > KEPT) return airssys_done();
    make_room(length);
    airssys_text_t line = {lines + kept, 0, length, 0};
    airssys_put(&line, room);
    airssys_put(&line, BYTES(" "));
    airssys_put(&line, who);
    airssys_put(&line, BYTES(": "));
    airssys_put(&line, text);
    airssys_put(&line, BYTES("\n"));
    kept += line.len;
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("acme/chat"), BYTES("1.0.0"), BYTES("A member of a chat"), BYTES("ACME"), BYTES("Apache-2.0"), NULL, 0, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
