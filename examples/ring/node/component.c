// acme/ring: one of many actors in a ring; instance N hands the token to instance N + 1, the last one to the first.
//
//   go SIZE LAPS   start the token on LAPS rounds of a ring of SIZE instances
//   report         {"passed": N, "back": N}: tokens handed on, and tokens that ended here
//
// A token is `token HOPS SIZE`; with no hops left it has come to its end.
#include "../../../sdk/c/airssys_guest.h"

static uint64_t passed, back;

static uint64_t number_of(airssys_bytes_t *text) {
    uint64_t number = 0;
    while (text->len && text->ptr[0] == ' ') *text = airssys_skip(*text, 1);
    while (text->len && text->ptr[0] >= '0' && text->ptr[0] <= '9') {
        number = 10 * number + (text->ptr[0] - '0');
        *text = airssys_skip(*text, 1);
    }
    return number;
}

// Hand a token to the next; NULL, or what went wrong.
static const char *hand_on(uint64_t hops, uint64_t size) {
    airssys_component_id_t self;
    airssys_messaging_result_t sent;
    airssys_self_id(&self);
    airssys_bytes_t own = self.instance;
    airssys_text_t next = {airssys_alloc(20, 1), 0, 20, 0}, token = {airssys_alloc(64, 1), 0, 64, 0};
    airssys_put_number(&next, (number_of(&own) + 1) % size);
    airssys_put(&token, BYTES("token "));
    airssys_put_number(&token, hops);
    airssys_put(&token, BYTES(" "));
    airssys_put_number(&token, size);
    airssys_bytes_t to = airssys_text(&next), what = airssys_text(&token);
    airssys_send(SPREAD(self.ns), SPREAD(self.name), SPREAD(to), SPREAD(what), &sent);
    return sent.is_error ? "the next one did not take the token" : NULL;
}

static airssys_result_option_bytes_t *report(void) {
    airssys_text_t text = {airssys_alloc(80, 1), 0, 80, 0};
    airssys_put(&text, BYTES("{\"passed\": "));
    airssys_put_number(&text, passed);
    airssys_put(&text, BYTES(", \"back\": "));
    airssys_put_number(&text, back);
    airssys_put(&text, BYTES("}"));
    return airssys_reply(airssys_text(&text));
}

AIRSSYS_EXPORT("handle-message") airssys_result_option_bytes_t *handle_message(const airssys_message_t *message) {
    airssys_bytes_t text = message->payload;
    if (airssys_equal(text, BYTES("report"))) return report();
    int going = airssys_starts_with(text, BYTES("token "));
    if (!going && !airssys_starts_with(text, BYTES("go "))) return airssys_refuse(BYTES("expected: go SIZE LAPS, report"));
    text = airssys_skip(text, going ? 6 : 3);
    uint64_t first = number_of(&text), second = number_of(&text);
    uint64_t size = going ? second : first, hops = going ? first : first * second;
    if (!size) return airssys_refuse(BYTES("a ring has one member at least"));
    if (!hops) {
        back++;
        return airssys_reply(BYTES("back"));
    }
    if (hand_on(hops - 1, size)) return airssys_refuse(BYTES("the next one did not take the token"));
    passed++;
    return airssys_reply(BYTES("on its way"));
}

AIRSSYS_EXPORT("metadata") airssys_component_metadata_t *metadata(void) {
    static airssys_component_metadata_t about;
    about = (airssys_component_metadata_t){
        BYTES("acme/ring"), BYTES("1.0.0"), BYTES("Hands a token to the next of a ring"), BYTES("ACME"),
        BYTES("Apache-2.0"), NULL, 0, 1,
    };
    return &about;
}

AIRSSYS_PLAIN_LIFECYCLE
AIRSSYS_NO_CALLBACKS
