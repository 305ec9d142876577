//! test/counter-zig: counts messages in the stored value `n` and replies the count; no value counts as 0.

const airssys = @import("airssys");

extern "airssys:core/storage@1.0.0" fn get(key: [*]const u8, key_len: usize, result: *airssys.Reply) void;
extern "airssys:core/storage@1.0.0" fn set(
    key: [*]const u8,
    key_len: usize,
    value: [*]const u8,
    value_len: usize,
    result: *airssys.Result,
) void;

var digits: [20]u8 = undefined;

fn parsed(text: airssys.Bytes) u64 {
    var value: u64 = 0;
    for (text.ptr[0..text.len]) |c| {
        if (c < '0' or c > '9') break;
        value = value *% 10 +% (c - '0');
    }
    return value;
}

fn printed(value: u64) airssys.Bytes {
    var rest = value;
    var at: usize = digits.len;
    while (true) {
        at -= 1;
        digits[at] = '0' + @as(u8, @intCast(rest % 10));
        rest /= 10;
        if (rest == 0) return airssys.bytes(digits[at..]);
    }
}

export fn @"airssys:core/component-lifecycle@1.0.0#handle-message"(_: *const airssys.Message) *airssys.Reply {
    var was: airssys.Reply = undefined;
    get("n", 1, &was);
    if (was.is_error != 0) return airssys.refuse("storage.get");
    const count = printed((if (was.value.ok.some != 0) parsed(was.value.ok.value) else 0) +% 1);
    var stored: airssys.Result = undefined;
    set("n", 1, count.ptr, count.len, &stored);
    return if (stored.is_error != 0) airssys.refuse("storage.set") else airssys.reply(count);
}

var about: airssys.Metadata = undefined;

export fn @"airssys:core/component-lifecycle@1.0.0#metadata"() *airssys.Metadata {
    about = .{
        .name = airssys.bytes("test/counter-zig"),
        .version = airssys.bytes("1.0.0"),
        .description = airssys.bytes(""),
        .author = airssys.bytes(""),
        .license = airssys.bytes("Apache-2.0"),
        .operations = @ptrFromInt(4),
        .operation_count = 0,
        .stateful = 1,
    };
    return &about;
}
