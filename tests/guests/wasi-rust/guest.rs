// test/wasi-rust: Rust with std; does what a message names (see ../heavy.py).
//
// The canonical ABI by hand, as in sdk/c/airssys.h: on wasm32 its layouts are those of the structs below.
use std::alloc::{alloc, realloc, Layout};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, process, thread};

#[repr(C)]
pub struct Text(*const u8, usize);

#[repr(C)]
pub struct Answer {
    is_error: u8,
    some: u32,
    value: Text,
}

#[repr(C)]
pub struct About {
    texts: [Text; 5],
    operations: Text,
    stateful: u8,
}

static FINE: [u32; 8] = [0; 8];

fn given(text: &'static str) -> Text {
    Text(text.as_ptr(), text.len())
}

#[no_mangle]
pub unsafe extern "C" fn cabi_realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return align as *mut u8;
    }
    let at = if old_size == 0 {
        alloc(Layout::from_size_align_unchecked(size, align))
    } else {
        realloc(old, Layout::from_size_align_unchecked(old_size, align), size)
    };
    if at.is_null() {
        process::abort()
    }
    at
}

#[export_name = "airssys:core/component-lifecycle@1.0.0#initialize"]
pub extern "C" fn initialize(_: i32, _: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32, _: i64) -> *const u32 {
    println!("initialized");
    FINE.as_ptr()
}

#[export_name = "airssys:core/component-lifecycle@1.0.0#handle-message"]
pub unsafe extern "C" fn handle_message(message: *const u8) -> *mut Answer {
    let payload = &*(message.add(24) as *const Text);
    let asked = String::from_utf8_lossy(std::slice::from_raw_parts(payload.0, payload.1)).into_owned();
    let (command, rest) = asked.split_once(' ').unwrap_or((&asked, ""));
    let reply = Box::leak(act(command, rest).into_boxed_str());
    Box::into_raw(Box::new(Answer { is_error: 0, some: 1, value: Text(reply.as_ptr(), reply.len()) }))
}

#[export_name = "cabi_post_airssys:core/component-lifecycle@1.0.0#handle-message"]
pub unsafe extern "C" fn after_message(answer: *mut Answer) {
    let answer = Box::from_raw(answer);
    drop(Vec::from_raw_parts(answer.value.0 as *mut u8, answer.value.1, answer.value.1));
}

#[export_name = "airssys:core/component-lifecycle@1.0.0#handle-callback"]
pub extern "C" fn handle_callback(_: i32) -> *const u32 {
    FINE.as_ptr()
}

#[export_name = "airssys:core/component-lifecycle@1.0.0#metadata"]
pub extern "C" fn metadata() -> *mut About {
    let texts = [given("test/wasi-rust"), given("1.0.0"), given(""), given(""), given("")];
    Box::into_raw(Box::new(About { texts, operations: given(""), stateful: 0 }))
}

#[export_name = "airssys:core/component-lifecycle@1.0.0#health"]
pub extern "C" fn health() -> i32 {
    0
}

#[export_name = "airssys:core/component-lifecycle@1.0.0#shutdown"]
pub extern "C" fn shutdown() -> *const u32 {
    FINE.as_ptr()
}

fn act(command: &str, rest: &str) -> String {
    let number: u64 = rest.parse().unwrap_or(0);
    match command {
        "print" => println!("{}", rest),
        "eprint" => eprintln!("{}", rest),
        "sleep" => {
            let before = Instant::now();
            thread::sleep(Duration::from_millis(number));
            return before.elapsed().as_millis().to_string();
        }
        "clock" => {
            let first = Instant::now();
            return (Instant::now() >= first).to_string();
        }
        "time" => return SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().to_string(),
        // The library's own use of randomness: the keys of a hash map.
        "random" => {
            use std::collections::hash_map::RandomState;
            use std::hash::{BuildHasher, Hasher};
            return format!("{:016x}", RandomState::new().build_hasher().finish());
        }
        "env" => return env::var(rest).unwrap_or_else(|_| "(none)".into()),
        "args" => return env::args().collect::<Vec<_>>().join("|"),
        "open" => return fs::read(rest).map(|_| "opened".to_string()).unwrap_or_else(|e| e.to_string()),
        "fail" => panic!("{}", rest),
        "exit" => process::exit(number as i32),
        _ => return "unknown command".into(),
    }
    "ok".into()
}
