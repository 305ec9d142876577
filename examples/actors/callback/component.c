// acme/callback: asks others, answers later, publishes, listens and reminds itself; what came of it can be asked for.
//
//   ask TARGET TEXT   request; answers the correlation id
//   last              what came of the last request: `reply TEXT`, or `failed REASON TEXT`
//   later             does not answer yet
//   give TEXT         gives the answer to the oldest `later`
//   say TOPIC TEXT    publishes; answers how many it goes to
//   follow PATTERN    subscribes
//   heard             the last publication: TOPIC SENDER TEXT
//   remind MS TEXT    sends itself TEXT in MS milliseconds
//   reminded          the last text it sent itself
//
// What cannot be done is answered with `failed: REASON`, a word of airssys:messaging.
#include "../../../sdk/c/airssys_guest.h"
#include "../../../sdk/c/airssys_messaging.h"

enum { TEXT = 512, TOKENS = 16, TOKEN = 32, TIMEOUT_MS = 2000 };

static const char *const REASONS[] = {
    "timeout", "target-not-found", "target-ended", "denied", "queue-full", "too-large",
    "guest-error", "stopping", "expired", "circuit-open", "rate-limited", "invalid",
};

static uint8_t last_buffer[TEXT], heard_buffer[TEXT], reminded_buffer[TEXT];
static airssys_text_t last = {last_buffer, 0, TEXT, 0}, heard = {heard_buffer, 0, TEXT, 0};
static airssys_text_t reminded = {reminded_buffer, 0, TEXT, 0};
static uint8_t tokens[TOKENS][TOKEN];
static size_t token_count;

static void put_word(airssys_text_t *to, const char *word) {
    size_t length = 0;
    while (word[length]) length++;
    airssys_put(to, (airssys_bytes_t){(const uint8_t *)word, length});
}

// The part of `text` up to the next space, which both lose.
static airssys_bytes_t word_of(airssys_bytes_t *text) {
    size_t length = 0;
    while (length < text->len && text->ptr[length] != ' ') length++;
    airssys_bytes_t word = {text->ptr, length};
    *text = airssys_skip(*text, length < text->len ? length + 1 : length);
    return word;
}

// `ns/name/instance`.
static airssys_component_id_t id_of(airssys_bytes_t text) {
    airssys_bytes_t parts[3] = {BYTES(""), BYTES(""), BYTES("0")};
    for (size_t part = 0; part < 3 && text.len; part++) {
        size_t length = 0;
        while (length < text.len && (text.ptr[length] != '/' || part == 2)) length++;
        parts[part] = (airssys_bytes_t){text.ptr, length};
        text = airssys_skip(text, length < text.len ? length + 1 : length);
    }
    return (airssys_component_id_t){parts[0], parts[1], parts[2]};
}

static airssys_result_option_bytes_t *failed(const airssys_failure_t *failure) {
    airssys_text_t text = {airssys_alloc(64, 1), 0, 64, 0};
    put_word(&text, "failed: ");
    put_word(&text, REASONS[failure->reason]);
    return airssys_reply(airssys_text(&text));
}

static airssys_result_option_bytes_t *ok_or(const airssys_failed_t *done) {
    return done->is_error ? failed(&done->error) : airssys_reply(BYTES("ok"));
}

static airssys_result_option_bytes_t *ask(airssys_bytes_t rest) {
    airssys_failed_text_t asked;
    airssys_component_id_t target = id_of(word_of(&rest));
    airssys_mail_request(SPREAD_ID(target), SPREAD(rest), TIMEOUT_MS, AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &asked);
    return asked.is_error ? failed(&asked.error) : airssys_reply(asked.ok);
}

static airssys_result_option_bytes_t *later(void) {
    airssys_failed_text_t token;
    if (token_count == TOKENS) return airssys_refuse(BYTES("too many wait for their answer"));
    airssys_defer(&token);
    if (token.is_error) return failed(&token.error);
    if (token.ok.len != TOKEN) __builtin_trap();
    __builtin_memcpy(tokens[token_count++], token.ok.ptr, TOKEN);
    return airssys_reply(BYTES("this is not the reply"));
}

static airssys_result_option_bytes_t *give(airssys_bytes_t rest) {
    airssys_failed_t done;
    if (!token_count) return airssys_refuse(BYTES("nobody waits"));
    airssys_reply_later(tokens[0], TOKEN, SPREAD(rest), &done);
    token_count--;
    __builtin_memmove(tokens[0], tokens[1], token_count * TOKEN);
    return ok_or(&done);
}

static airssys_result_option_bytes_t *say(airssys_bytes_t rest) {
    airssys_failed_count_t count;
    airssys_bytes_t topic = word_of(&rest);
    airssys_publish(SPREAD(topic), SPREAD(rest), AIRSSYS_OPTIONS(AIRSSYS_NORMAL), &count);
    if (count.is_error) return failed(&count.error);
    airssys_text_t text = {airssys_alloc(20, 1), 0, 20, 0};
    airssys_put_number(&text, count.ok);
    return airssys_reply(airssys_text(&text));
}

static airssys_result_option_bytes_t *follow(airssys_bytes_t rest) {
    airssys_failed_t done;
    airssys_subscribe(SPREAD(rest), &done);
    return ok_or(&done);
}

static airssys_result_option_bytes_t *remind(airssys_bytes_t rest) {
    airssys_failed_text_t timer;
    airssys_bytes_t number = word_of(&rest);
    uint64_t delay = 0;
    for (size_t i = 0; i < number.len; i++) delay = 10 * delay + (number.ptr[i] - '0');
    airssys_send_after(delay, SPREAD(rest), &timer);
    return timer.is_error ? failed(&timer.error) : airssys_reply(BYTES("ok"));
}

static int from_itself(const airssys_component_id_t *sender) {
    airssys_component_id_t self;
    airssys_self_id(&self);
    return airssys_equal(sender->ns, self.ns) && airssys_equal(sender->name, self.name) &&
           airssys_equal(sender->instance, self.instance);
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    static airssys_result_option_bytes_t nothing;
    airssys_bytes_t rest = message->payload;
    if (from_itself(&message->sender)) {
        reminded.len = 0;
        airssys_put(&reminded, rest);
        return &nothing;
    }
    airssys_bytes_t word = word_of(&rest);
    if (airssys_equal(word, BYTES("ask"))) return ask(rest);
    if (airssys_equal(word, BYTES("last"))) return airssys_reply(airssys_text(&last));
    if (airssys_equal(word, BYTES("later"))) return later();
    if (airssys_equal(word, BYTES("give"))) return give(rest);
    if (airssys_equal(word, BYTES("say"))) return say(rest);
    if (airssys_equal(word, BYTES("follow"))) return follow(rest);
    if (airssys_equal(word, BYTES("heard"))) return airssys_reply(airssys_text(&heard));
    if (airssys_equal(word, BYTES("remind"))) return remind(rest);
    if (airssys_equal(word, BYTES("reminded"))) return airssys_reply(airssys_text(&reminded));
    return airssys_refuse(BYTES("unknown word; see the top of component.c"));
}

// A reply, or why there is none: `current` has the reason as a value, so there is no JSON to be read.
AIRSSYS_EXPORT("handle-callback") airssys_result_t *handle_callback(const airssys_message_t *message) {
    airssys_current_t current;
    airssys_current(&current);
    last.len = 0;
    if (current.some && current.value.failure.some) {
        put_word(&last, "failed ");
        put_word(&last, REASONS[current.value.failure.value.reason]);
        put_word(&last, " ");
        airssys_put(&last, current.value.failure.value.text);
    } else {
        put_word(&last, "reply ");
        airssys_put(&last, message->payload);
    }
    return airssys_done();
}

AIRSSYS_TOPIC_HANDLER airssys_result_t *handle_topic(const airssys_publication_t *publication) {
    heard.len = 0;
    airssys_put(&heard, publication->topic);
    put_word(&heard, " ");
    airssys_put(&heard, publication->message.sender.name);
    put_word(&heard, " ");
    airssys_put(&heard, publication->message.payload);
    return airssys_done();
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("acme/callback"), BYTES("1.0.0"), BYTES("Asks, answers later, publishes and listens"), BYTES("ACME"),
        BYTES("Apache-2.0"), NULL, 0, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
