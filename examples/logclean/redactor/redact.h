// Finding and replacing what points at people in log lines. One pass, each byte looked at a bounded number of times.
//
// In doubt it redacts: any number like 120.0.0.0 counts as an address, any word@word as e-mail. What it replaces:
//
//   IPv4 and IPv6 addresses                                          [ip]
//   e-mail addresses, also with the @ as %40                         [email]
//   Bearer VALUE; JSON web tokens; runs of 32 and more characters
//     of hex or base64; values of token=, api_key=, password=,
//     passwd=, secret= (and `:` instead of `=`)                       [token]
//   the query string of a path                                       ?[query]
#ifndef REDACT_H
#define REDACT_H

#include "../../../sdk/c/airssys_guest.h"

enum { FILES, LINES, IPS, EMAILS, TOKENS, QUERIES, KINDS };

// -- characters ------------------------------------------------------------------------------------------------------

enum { DIGIT = 1, UPPER = 2, LOWER = 4, HEX = 8, SPACE = 16, LOCAL = 32, DOMAIN = 64, SECRET = 128 };
enum { ALNUM = DIGIT | UPPER | LOWER };

static uint8_t kinds[256];  // what each byte may be part of; filled by the first call

static void learn_kinds(void) {
    for (int c = 0; c < 256; c++) {
        uint8_t kind = 0;
        if (c >= '0' && c <= '9') kind = DIGIT | HEX;
        if (c >= 'A' && c <= 'Z') kind = UPPER;
        if (c >= 'a' && c <= 'z') kind = LOWER;
        if ((c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f')) kind |= HEX;
        if (kind || c >= 0x80) kind |= LOCAL | DOMAIN;  // names in other scripts count as letters
        if (kind && c < 0x80) kind |= SECRET;
        kinds[c] = kind;
    }
    kinds['-'] = LOCAL | DOMAIN | SECRET;
    kinds['_'] = LOCAL | DOMAIN | SECRET;
    kinds['+'] = LOCAL | SECRET;
    kinds['.'] = LOCAL | DOMAIN;
    kinds['%'] = LOCAL;
    kinds[' '] = kinds['\t'] = kinds['\r'] = kinds['\n'] = SPACE;
}

static int is(uint8_t c, uint8_t kind) { return kinds[c] & kind; }
static uint8_t lower(uint8_t c) { return is(c, UPPER) ? (uint8_t)(c + 32) : c; }

// The byte at `i`, or a newline past the end: no match goes over a line's end.
static uint8_t at(airssys_bytes_t s, size_t i) { return i < s.len ? s.ptr[i] : '\n'; }

static int has_word(airssys_bytes_t s, size_t i, airssys_bytes_t word) {
    for (size_t k = 0; k < word.len; k++)
        if (lower(at(s, i + k)) != word.ptr[k]) return 0;
    return 1;
}

// -- matchers: the end of the match that starts at `i`, or `i` when there is none -------------------------------------

// Sets `*barren` to where the scan ended when no address begins before that: what is found in between (an IPv4 address
// in a run of letters) must not lead to looking at the rest of the run again and again.
static size_t match_email(airssys_bytes_t s, size_t i, size_t *barren) {
    size_t k = i;
    while (is(at(s, k), LOCAL) && !has_word(s, k, BYTES("%40"))) k++;
    *barren = k;
    if (k == i) return i;
    if (at(s, k) == '@') k++;
    else if (has_word(s, k, BYTES("%40"))) k += 3;
    else return i;
    size_t domain = k;
    if (at(s, k) == '.') return i;
    while (is(at(s, k), DOMAIN)) k++;
    while (k > domain && (at(s, k - 1) == '.' || at(s, k - 1) == '-')) k--;  // a sentence's end, not the name's
    return k > domain ? k : i;
}

static size_t match_ipv4(airssys_bytes_t s, size_t i) {
    size_t k = i;
    for (int part = 0; part < 4; part++) {
        size_t start = k;
        if (part && at(s, k++) != '.') return i;
        for (start = k; is(at(s, k), DIGIT) && k - start < 4;) k++;
        if (k == start || k - start > 3) return i;
    }
    return k;
}

// RFC 4291 section 2.2: eight groups, or fewer around one `::`, the last two perhaps as IPv4. The longest prefix that
// is an address and does not end inside a word.
static size_t match_ipv6(airssys_bytes_t s, size_t i) {
    size_t k = i, end = i;
    int groups = 0, gap = 0;
    if (at(s, k) == ':') {
        if (at(s, k + 1) != ':') return i;
        gap = 1;
        k += 2;
    }
    while (groups < 8) {
        size_t dotted = groups && groups <= 6 ? match_ipv4(s, k) : k;
        if (dotted != k && (gap || groups == 6)) return dotted;
        size_t start = k;
        while (is(at(s, k), HEX) && k - start < 4) k++;
        if (k == start || is(at(s, k), ALNUM)) break;
        groups++;
        if (groups == 8 || gap) end = k;
        if (at(s, k) != ':') break;
        if (at(s, k + 1) == ':') {
            if (gap) break;
            gap = 1;
            k += 2;
            if (groups < 8) end = k;
        } else
            k++;
    }
    if (end != i && at(s, end) == '%' && has_word(s, i, BYTES("fe80")))  // an interface: fe80::1%eth0
        for (end++; is(at(s, end), ALNUM);) end++;
    return end;
}

// Three base64url parts with dots between, the last perhaps empty, as JSON web tokens have.
static size_t match_jwt(airssys_bytes_t s, size_t i) {
    size_t k = i, parts = 0, shortest = 1000, digits = 0, capitals = 0;
    for (; parts < 3; parts++) {
        size_t start = k;
        if (parts && at(s, k++) != '.') return i;
        for (start = k; is(at(s, k), ALNUM) || at(s, k) == '_' || at(s, k) == '-'; k++) {
            digits += !!is(at(s, k), DIGIT);
            capitals += !!is(at(s, k), UPPER);
        }
        if (parts < 2 && k - start < shortest) shortest = k - start;
    }
    return shortest >= 10 && (has_word(s, i, BYTES("eyj")) || (k - i >= 34 && digits && capitals)) ? k : i;
}

// 32 and more characters of a key or hash. With `/` it may be a path, so base64 with `/` must show all three kinds.
static size_t match_run(airssys_bytes_t s, size_t i, uint8_t before) {
    size_t k = i, small = 0, capitals = 0, digits = 0;
    for (; is(at(s, k), SECRET); k++) {
        small += !!is(at(s, k), LOWER);
        capitals += !!is(at(s, k), UPPER);
        digits += !!is(at(s, k), DIGIT);
    }
    if (before != '/' && before != '.' && before != ':') {
        size_t wide = k, wide_small = small, wide_capitals = capitals, wide_digits = digits;
        for (; is(at(s, wide), SECRET) || at(s, wide) == '/'; wide++) {
            wide_small += !!is(at(s, wide), LOWER);
            wide_capitals += !!is(at(s, wide), UPPER);
            wide_digits += !!is(at(s, wide), DIGIT);
        }
        if (wide - i >= 32 && wide_small && wide_capitals && wide_digits) {
            k = wide;
            digits = wide_digits;
        }
    }
    if (k - i < 32 || !(digits || (small && capitals))) return i;
    while (at(s, k) == '=') k++;
    return k;
}

// The value behind `Bearer`; sets where it starts.
static size_t match_bearer(airssys_bytes_t s, size_t i, size_t *value) {
    size_t k = i + 6;
    if (!has_word(s, i, BYTES("bearer")) || at(s, k) != ' ') return i;
    while (at(s, k) == ' ') k++;
    *value = k;
    while (!is(at(s, k), SPACE) && at(s, k) != '"' && at(s, k) != '\'' && at(s, k) != ',') k++;
    return k - *value >= 6 ? k : i;
}

static int is_secret_key(airssys_bytes_t s, size_t end) {
    static const airssys_bytes_t keys[] = {
        {(const uint8_t *)"token", 5},    {(const uint8_t *)"api_key", 7}, {(const uint8_t *)"api-key", 7},
        {(const uint8_t *)"apikey", 6},   {(const uint8_t *)"secret", 6},  {(const uint8_t *)"password", 8},
        {(const uint8_t *)"passwd", 6},
    };
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        if (end >= keys[k].len && has_word(s, end - keys[k].len, keys[k])) return 1;
    return 0;
}

// The value behind the `=` or `:` at `i`, when a secret's name stands before it; sets where it starts.
static size_t match_value(airssys_bytes_t s, size_t i, size_t *value) {
    size_t key_end = i && (at(s, i - 1) == '"' || at(s, i - 1) == '\'') ? i - 1 : i, k = i + 1;
    if (!is_secret_key(s, key_end)) return i;
    while (at(s, i) == ':' && at(s, k) == ' ') k++;
    uint8_t quote = at(s, k);
    if (quote != '"' && quote != '\'') quote = 0;
    else k++;
    if (has_word(s, k, BYTES("bearer "))) return i;  // match_bearer takes it
    *value = k;
    if (quote)
        while (at(s, k) != '\n' && (at(s, k) != quote || at(s, k - 1) == '\\')) k++;
    else
        while (!is(at(s, k), SPACE) && at(s, k) != '&' && at(s, k) != ';' && at(s, k) != ',' && at(s, k) != '"' &&
               at(s, k) != '\'' && at(s, k) != '}')
            k++;
    return k > *value ? k : i;
}

// From the `?` at `i` to the next space or quote; a quote behind a backslash belongs to the query.
static size_t match_query(airssys_bytes_t s, size_t i) {
    size_t k = i + 1;
    while (!is(at(s, k), SPACE) && (at(s, k) != '"' || at(s, k - 1) == '\\')) k++;
    return k > i + 1 ? k : i;
}

// -- the pass --------------------------------------------------------------------------------------------------------

// What begins at `i`: its kind, where it ends, and how many bytes of it stay in front of the replacement. KINDS where
// nothing does. `before` is the byte before `i`.
static int find(airssys_bytes_t s, size_t i, uint8_t before, int in_path, size_t *barren, size_t *end, size_t *keep) {
    uint8_t c = s.ptr[i], begins = kinds[c] & ~kinds[before];
    size_t value = i;
    *keep = 0;
    if ((begins & LOCAL) && i >= *barren && (*end = match_email(s, i, barren)) != i) return EMAILS;
    if ((c == 'b' || c == 'B') && !is(before, ALNUM) && (*end = match_bearer(s, i, &value)) != i) {
        *keep = value - i;
        return TOKENS;
    }
    if (begins & SECRET) {
        if (is(c, ALNUM) && (*end = match_jwt(s, i)) != i) return TOKENS;
        if ((*end = match_run(s, i, before)) != i) return TOKENS;
    }
    if ((is(c, HEX) || c == ':') && !is(before, ALNUM) && (*end = match_ipv6(s, i)) != i) return IPS;
    if ((begins & DIGIT) && (*end = match_ipv4(s, i)) != i) return IPS;
    if ((c == '=' || c == ':') && (*end = match_value(s, i, &value)) != i) {
        *keep = value - i;
        return TOKENS;
    }
    if (c == '?' && in_path && (*end = match_query(s, i)) != i) {
        *keep = 1;
        return QUERIES;
    }
    return KINDS;
}

// What stands before `i` when that is the end of an escape like %20: `@` for %40, else `%`; a word may begin here. Only
// %40 begins a new e-mail address: scanning for one at every escape would look at a line of escapes again and again.
static uint8_t behind_escape(airssys_bytes_t s, size_t i, size_t copied, uint8_t before) {
    if (i < copied + 3 || s.ptr[i - 3] != '%' || !is(s.ptr[i - 2], HEX) || !is(before, HEX)) return before;
    return s.ptr[i - 2] == '4' && before == '0' ? '@' : '%';
}

// The lines of `s` without what is listed above; adds to `counts`. In the arena.
static airssys_text_t redact(airssys_bytes_t s, uint64_t counts[KINDS]) {
    static const airssys_bytes_t replacements[KINDS] = {
        [IPS] = {(const uint8_t *)"[ip]", 4},
        [EMAILS] = {(const uint8_t *)"[email]", 7},
        [TOKENS] = {(const uint8_t *)"[token]", 7},
        [QUERIES] = {(const uint8_t *)"[query]", 7},
    };
    size_t room = s.len * 5 + 16;  // what grows most is a query, from two bytes to eight
    airssys_text_t out = {airssys_alloc(room, 1), 0, room, 0};
    size_t i = 0, copied = 0, barren = 0;
    int in_path = 0;        // a slash came since the last space or quote
    uint8_t before = '\n';  // the byte before `i`, or a bracket behind a replacement
    if (!kinds['0']) learn_kinds();
    while (i < s.len) {
        uint8_t c = s.ptr[i];
        size_t end, keep;
        before = behind_escape(s, i, copied, before);
        // Inside a word nothing begins but what a letter that is no part of the word before can begin.
        int kind = (kinds[c] & ~kinds[before] & ~SPACE) || c == ':' || c == '=' || c == '?'
                       ? find(s, i, before, in_path, &barren, &end, &keep)
                       : KINDS;
        if (kind == KINDS) {
            if (is(c, SPACE) || c == '"') in_path = 0;
            else if (c == '/') in_path = 1;
            counts[LINES] += c == '\n';
            before = c;
            i++;
            continue;
        }
        counts[kind]++;
        airssys_put(&out, (airssys_bytes_t){s.ptr + copied, i + keep - copied});
        airssys_put(&out, replacements[kind]);
        before = ']';
        copied = i = end;
    }
    airssys_put(&out, airssys_skip(s, copied));
    return out;
}

#endif
