//! What the guests in Zig share: the records of airssys:core@1.0.0 as the canonical ABI lays them out on wasm32, an
//! arena that is emptied when a call is over, and the lifecycle exports that are the same in both. See sdk/c/airssys.h.

pub const Bytes = extern struct { ptr: [*]const u8, len: usize };
pub const OptionBytes = extern struct { some: u8, value: Bytes };
pub const Id = extern struct { namespace: Bytes, name: Bytes, instance: Bytes };
pub const OptionId = extern struct { some: u8, value: Id };
pub const Timestamp = extern struct { seconds: u64, nanoseconds: u32 };
pub const Message = extern struct {
    sender: Id,
    payload: Bytes,
    correlation_id: OptionBytes,
    reply_to: OptionId,
    timestamp: Timestamp,
    content_type: OptionBytes,
};
pub const Error = extern struct { case: u8, text: Bytes };
pub const Result = extern struct { is_error: u8, err: Error };
pub const Reply = extern struct { is_error: u8, value: extern union { ok: OptionBytes, err: Error } };
pub const Metadata = extern struct {
    name: Bytes,
    version: Bytes,
    description: Bytes,
    author: Bytes,
    license: Bytes,
    operations: [*]const Bytes,
    operation_count: usize,
    stateful: u8,
};

comptime {
    if (@sizeOf(Message) != 104 or @sizeOf(Reply) != 16 or @sizeOf(Metadata) != 52) @compileError("layout");
}

const runtime_error = 6;

var top: usize = 0;
extern var __heap_base: u8;

fn reset() void {
    top = @intFromPtr(&__heap_base);
}

export fn cabi_realloc(old: usize, old_size: usize, alignment: usize, size: usize) usize {
    if (top == 0) reset();
    const at = (top + alignment - 1) & ~(alignment - 1);
    const end = at + size;
    const pages = (end + 65535) / 65536;
    const have = @wasmMemorySize(0);
    if (pages > have and @wasmMemoryGrow(0, pages - have) < 0) @trap();
    top = end;
    const from: [*]const u8 = @ptrFromInt(if (old == 0) at else old);
    const to: [*]u8 = @ptrFromInt(at);
    for (0..@min(old_size, size)) |i| to[i] = from[i];
    return at;
}

pub fn bytes(text: []const u8) Bytes {
    return .{ .ptr = text.ptr, .len = text.len };
}

var answer: Reply = undefined;
var done: Result = undefined;

pub fn reply(value: Bytes) *Reply {
    answer = .{ .is_error = 0, .value = .{ .ok = .{ .some = 1, .value = value } } };
    return &answer;
}

pub fn refuse(text: []const u8) *Reply {
    answer = .{ .is_error = 1, .value = .{ .err = .{ .case = runtime_error, .text = bytes(text) } } };
    return &answer;
}

fn fine() *Result {
    reset();
    done.is_error = 0;
    return &done;
}

export fn @"cabi_post_airssys:core/component-lifecycle@1.0.0#handle-message"(_: *Reply) void {
    reset();
}

export fn @"airssys:core/component-lifecycle@1.0.0#initialize"(
    _: usize,
    _: usize,
    _: i32,
    _: usize,
    _: usize,
    _: u64,
    _: u64,
    _: i32,
    _: u64,
) *Result {
    return fine();
}

export fn @"airssys:core/component-lifecycle@1.0.0#handle-callback"(_: *const Message) *Result {
    return fine();
}

export fn @"airssys:core/component-lifecycle@1.0.0#health"() i32 {
    return 0;
}

export fn @"airssys:core/component-lifecycle@1.0.0#shutdown"() *Result {
    return fine();
}
