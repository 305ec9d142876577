//! test/echo-zig: answers every message with its own payload.

const airssys = @import("airssys");

export fn @"airssys:core/component-lifecycle@1.0.0#handle-message"(message: *const airssys.Message) *airssys.Reply {
    return airssys.reply(message.payload);
}

var about: airssys.Metadata = undefined;

export fn @"airssys:core/component-lifecycle@1.0.0#metadata"() *airssys.Metadata {
    about = .{
        .name = airssys.bytes("test/echo-zig"),
        .version = airssys.bytes("1.0.0"),
        .description = airssys.bytes(""),
        .author = airssys.bytes(""),
        .license = airssys.bytes("Apache-2.0"),
        .operations = @ptrFromInt(4),
        .operation_count = 0,
        .stateful = 0,
    };
    return &about;
}
