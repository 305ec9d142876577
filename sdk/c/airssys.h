// The imports and exports of airssys:core@1.0.0 and airssys:osl/filesystem@0.1.0 for components written in C.
//
// On wasm32 the canonical ABI lays records, options, results and variants out exactly as C lays out the structs
// below, so nothing is generated and nothing is converted: an import is an extern function, an export is a function
// with the right export name. The _Static_asserts hold the sizes that the Component Model specification gives
// (https://github.com/WebAssembly/component-model, CanonicalABI.md); a new field in the WIT shows up here first.
//
// Meaning, units and errors of every item: wit/airssys-core and wit/airssys-osl, or docs/reference/wit.md.
// What the host hands over (strings, lists, whole messages) lies in memory that it got from `cabi_realloc`; see
// airssys_guest.h for an allocator that fits.
#ifndef AIRSSYS_H
#define AIRSSYS_H

#include <stddef.h>
#include <stdint.h>

// -- values ---------------------------------------------------------------------------------------------------------

// `string` (UTF-8, no final zero) and `list<u8>`.
typedef struct {
    const uint8_t *ptr;
    size_t len;
} airssys_bytes_t;

// `option<string>` and `option<list<u8>>`; `some` is 0 or 1.
typedef struct {
    uint8_t some;
    airssys_bytes_t value;
} airssys_option_bytes_t;

// `tuple<string, string>`.
typedef struct {
    airssys_bytes_t key, value;
} airssys_pair_t;

typedef struct {
    airssys_bytes_t ns, name, instance;
} airssys_component_id_t;

typedef struct {
    uint8_t some;
    airssys_component_id_t value;
} airssys_option_component_id_t;

typedef struct {
    uint64_t seconds;
    uint32_t nanoseconds;
} airssys_timestamp_t;

typedef struct {
    airssys_option_bytes_t correlation_id;
    airssys_option_component_id_t reply_to;
    airssys_timestamp_t timestamp;
    airssys_option_bytes_t content_type;
} airssys_message_metadata_t;

typedef struct {
    airssys_component_id_t sender;
    airssys_bytes_t payload;
    airssys_message_metadata_t metadata;
} airssys_message_t;

typedef struct {
    airssys_bytes_t name, version, description, author, license;
    const airssys_bytes_t *operations;
    size_t operation_count;
    uint8_t stateful;
} airssys_component_metadata_t;

_Static_assert(sizeof(airssys_bytes_t) == 8, "string");
_Static_assert(sizeof(airssys_option_bytes_t) == 12, "option<string>");
_Static_assert(sizeof(airssys_component_id_t) == 24, "component-id");
_Static_assert(sizeof(airssys_option_component_id_t) == 28, "option<component-id>");
_Static_assert(sizeof(airssys_timestamp_t) == 16, "timestamp");
_Static_assert(sizeof(airssys_message_metadata_t) == 72, "message-metadata");
_Static_assert(sizeof(airssys_message_t) == 104, "component-message");
_Static_assert(sizeof(airssys_component_metadata_t) == 52, "component-metadata");

enum { AIRSSYS_TRACE, AIRSSYS_DEBUG, AIRSSYS_INFO, AIRSSYS_WARN, AIRSSYS_ERROR };                // log-level
enum { AIRSSYS_HEALTHY, AIRSSYS_DEGRADED, AIRSSYS_UNHEALTHY, AIRSSYS_UNKNOWN };                  // health-status

// -- errors ---------------------------------------------------------------------------------------------------------

// A variant whose cases carry a string or nothing: wasm-error, component-error, storage-error, filesystem-error.
typedef struct {
    uint8_t tag;
    airssys_bytes_t text;
} airssys_error_t;

// messaging-error; `target` belongs to target-not-found, `text` to the cases with a string.
typedef struct {
    uint8_t tag;
    union {
        airssys_bytes_t text;
        airssys_component_id_t target;
    };
} airssys_messaging_error_t;

_Static_assert(sizeof(airssys_error_t) == 12, "variant of strings");
_Static_assert(sizeof(airssys_messaging_error_t) == 28, "messaging-error");

enum {  // wasm-error
    AIRSSYS_COMPONENT_NOT_FOUND, AIRSSYS_INSTANTIATION_FAILED, AIRSSYS_EXPORT_NOT_FOUND, AIRSSYS_TIMEOUT,
    AIRSSYS_RESOURCE_LIMIT_EXCEEDED, AIRSSYS_INVALID_COMPONENT, AIRSSYS_RUNTIME_ERROR,
};
enum {  // component-error
    AIRSSYS_INITIALIZATION_FAILED, AIRSSYS_ALREADY_INITIALIZED, AIRSSYS_NOT_INITIALIZED, AIRSSYS_SHUTDOWN_FAILED,
    AIRSSYS_INVALID_STATE,
};
enum {  // messaging-error
    AIRSSYS_DELIVERY_FAILED, AIRSSYS_CORRELATION_TIMEOUT, AIRSSYS_INVALID_MESSAGE, AIRSSYS_QUEUE_FULL,
    AIRSSYS_TARGET_NOT_FOUND,
};
enum {  // storage-error
    AIRSSYS_STORAGE_NOT_FOUND, AIRSSYS_STORAGE_ALREADY_EXISTS, AIRSSYS_STORAGE_QUOTA_EXCEEDED,
    AIRSSYS_STORAGE_INVALID_KEY, AIRSSYS_STORAGE_IO_ERROR,
};
enum {  // filesystem-error
    AIRSSYS_FS_DENIED, AIRSSYS_FS_NOT_FOUND, AIRSSYS_FS_ALREADY_EXISTS, AIRSSYS_FS_NOT_A_DIRECTORY,
    AIRSSYS_FS_IS_A_DIRECTORY, AIRSSYS_FS_NOT_EMPTY, AIRSSYS_FS_READ_ONLY, AIRSSYS_FS_INVALID_PATH,
    AIRSSYS_FS_TOO_LARGE, AIRSSYS_FS_NO_SPACE, AIRSSYS_FS_IO_ERROR,
};

// -- results --------------------------------------------------------------------------------------------------------

// `result<_, E>` where E is one of the variants of strings.
typedef struct {
    uint8_t is_error;
    airssys_error_t error;
} airssys_result_t;

// `result<list<u8>, E>`, `result<string, E>`.
typedef struct {
    uint8_t is_error;
    union {
        airssys_bytes_t ok;
        airssys_error_t error;
    };
} airssys_result_bytes_t;

// `result<option<list<u8>>, E>`: handle-message's own result, and storage.get's.
typedef struct {
    uint8_t is_error;
    union {
        airssys_option_bytes_t ok;
        airssys_error_t error;
    };
} airssys_result_option_bytes_t;

// `result<bool, storage-error>`.
typedef struct {
    uint8_t is_error;
    union {
        uint8_t ok;
        airssys_error_t error;
    };
} airssys_result_bool_t;

typedef struct {
    const airssys_bytes_t *items;
    size_t count;
} airssys_list_bytes_t;

// `result<list<string>, storage-error>`.
typedef struct {
    uint8_t is_error;
    union {
        airssys_list_bytes_t ok;
        airssys_error_t error;
    };
} airssys_result_list_t;

typedef struct {
    uint64_t used_bytes, quota_bytes, key_count;
} airssys_storage_usage_t;

typedef struct {
    uint8_t is_error;
    union {
        airssys_storage_usage_t ok;
        airssys_error_t error;
    };
} airssys_result_usage_t;

// `result<_, messaging-error>`.
typedef struct {
    uint8_t is_error;
    airssys_messaging_error_t error;
} airssys_messaging_result_t;

// `result<correlation-id, messaging-error>`.
typedef struct {
    uint8_t is_error;
    union {
        airssys_bytes_t ok;
        airssys_messaging_error_t error;
    };
} airssys_result_correlation_t;

typedef struct {
    const airssys_component_id_t *items;
    size_t count;
} airssys_list_component_id_t;

typedef struct {
    airssys_component_id_t id;
    airssys_bytes_t name, version, health;
} airssys_component_info_t;

typedef struct {
    uint8_t is_error;
    union {
        airssys_component_info_t ok;
        airssys_error_t error;
    };
} airssys_result_info_t;

enum { AIRSSYS_FILE, AIRSSYS_DIRECTORY, AIRSSYS_OTHER };                                         // node-kind

typedef struct {
    airssys_bytes_t name;
    uint8_t kind;
    uint64_t size;
} airssys_dir_entry_t;

typedef struct {
    const airssys_dir_entry_t *items;
    size_t count;
} airssys_list_dir_entry_t;

typedef struct {
    uint8_t is_error;
    union {
        airssys_list_dir_entry_t ok;
        airssys_error_t error;
    };
} airssys_result_entries_t;

typedef struct {
    uint8_t kind;
    uint64_t size;
    uint64_t modified_seconds;
    uint32_t modified_nanoseconds;
} airssys_node_stat_t;

typedef struct {
    uint8_t is_error;
    union {
        airssys_node_stat_t ok;
        airssys_error_t error;
    };
} airssys_result_stat_t;

_Static_assert(sizeof(airssys_result_t) == 16, "result<_, variant of strings>");
_Static_assert(sizeof(airssys_result_bytes_t) == 16, "result<list<u8>, _>");
_Static_assert(sizeof(airssys_result_option_bytes_t) == 16, "result<option<list<u8>>, _>");
_Static_assert(sizeof(airssys_result_bool_t) == 16, "result<bool, _>");
_Static_assert(sizeof(airssys_result_list_t) == 16, "result<list<string>, _>");
_Static_assert(sizeof(airssys_result_usage_t) == 32, "result<storage-usage, _>");
_Static_assert(sizeof(airssys_messaging_result_t) == 32, "result<_, messaging-error>");
_Static_assert(sizeof(airssys_result_correlation_t) == 32, "result<correlation-id, messaging-error>");
_Static_assert(sizeof(airssys_result_info_t) == 52, "result<component-info, _>");
_Static_assert(sizeof(airssys_dir_entry_t) == 24, "dir-entry");
_Static_assert(sizeof(airssys_result_entries_t) == 16, "result<list<dir-entry>, _>");
_Static_assert(sizeof(airssys_node_stat_t) == 32, "node-stat");
_Static_assert(sizeof(airssys_result_stat_t) == 40, "result<node-stat, _>");

// -- imports: only those that are called end up in the module, and only those are listed in the component ------------

#define AIRSSYS_IMPORT(interface, function) __attribute__((import_module(interface), import_name(function))) extern
#define AIRSSYS_MESSAGING(function) AIRSSYS_IMPORT("airssys:core/host-messaging@1.0.0", function)
#define AIRSSYS_SERVICES(function) AIRSSYS_IMPORT("airssys:core/host-services@1.0.0", function)
#define AIRSSYS_STORAGE(function) AIRSSYS_IMPORT("airssys:core/storage@1.0.0", function)
#define AIRSSYS_FILESYSTEM(function) AIRSSYS_IMPORT("airssys:osl/filesystem@0.1.0", function)

// A component-id argument travels as its three strings; so does everything else that is small.
#define AIRSSYS_ID_ARGS                                                                                              \
    const uint8_t *ns, size_t ns_len, const uint8_t *name, size_t name_len, const uint8_t *instance, size_t instance_len

AIRSSYS_MESSAGING("send")
void airssys_send(AIRSSYS_ID_ARGS, const uint8_t *payload, size_t payload_len, airssys_messaging_result_t *result);
AIRSSYS_MESSAGING("request")
void airssys_request(AIRSSYS_ID_ARGS, const uint8_t *payload, size_t payload_len, uint64_t timeout_ms,
                     airssys_result_correlation_t *result);
AIRSSYS_MESSAGING("cancel-request")
void airssys_cancel_request(const uint8_t *id, size_t id_len, airssys_messaging_result_t *result);
AIRSSYS_MESSAGING("broadcast")
void airssys_broadcast(const airssys_component_id_t *targets, size_t target_count, const uint8_t *payload,
                       size_t payload_len, airssys_messaging_result_t *result);
AIRSSYS_MESSAGING("self-id")
void airssys_self_id(airssys_component_id_t *result);

AIRSSYS_SERVICES("log")
void airssys_log(int32_t level, const uint8_t *message, size_t message_len, int32_t has_context,
                 const airssys_pair_t *context, size_t context_count);
AIRSSYS_SERVICES("current-time")
void airssys_current_time(airssys_timestamp_t *result);
AIRSSYS_SERVICES("current-time-millis")
uint64_t airssys_current_time_millis(void);
AIRSSYS_SERVICES("sleep-millis")
void airssys_sleep_millis(uint64_t duration_ms);
AIRSSYS_SERVICES("list-components")
void airssys_list_components(airssys_list_component_id_t *result);
AIRSSYS_SERVICES("get-component-metadata")
void airssys_get_component_metadata(AIRSSYS_ID_ARGS, airssys_result_info_t *result);

AIRSSYS_STORAGE("get")
void airssys_storage_get(const uint8_t *key, size_t key_len, airssys_result_option_bytes_t *result);
AIRSSYS_STORAGE("set")
void airssys_storage_set(const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len,
                         airssys_result_t *result);
AIRSSYS_STORAGE("delete")
void airssys_storage_delete(const uint8_t *key, size_t key_len, airssys_result_t *result);
AIRSSYS_STORAGE("exists")
void airssys_storage_exists(const uint8_t *key, size_t key_len, airssys_result_bool_t *result);
AIRSSYS_STORAGE("list-keys")
void airssys_storage_list_keys(int32_t has_prefix, const uint8_t *prefix, size_t prefix_len,
                               airssys_result_list_t *result);
AIRSSYS_STORAGE("usage")
void airssys_storage_usage(airssys_result_usage_t *result);

AIRSSYS_FILESYSTEM("read")
void airssys_fs_read(const uint8_t *path, size_t path_len, airssys_result_bytes_t *result);
AIRSSYS_FILESYSTEM("read-range")
void airssys_fs_read_range(const uint8_t *path, size_t path_len, uint64_t offset, uint64_t length,
                           airssys_result_bytes_t *result);
AIRSSYS_FILESYSTEM("write")
void airssys_fs_write(const uint8_t *path, size_t path_len, const uint8_t *data, size_t data_len,
                      airssys_result_t *result);
AIRSSYS_FILESYSTEM("append")
void airssys_fs_append(const uint8_t *path, size_t path_len, const uint8_t *data, size_t data_len,
                       airssys_result_t *result);
AIRSSYS_FILESYSTEM("delete")
void airssys_fs_delete(const uint8_t *path, size_t path_len, airssys_result_t *result);
AIRSSYS_FILESYSTEM("make-directory")
void airssys_fs_make_directory(const uint8_t *path, size_t path_len, airssys_result_t *result);
AIRSSYS_FILESYSTEM("list")
void airssys_fs_list(const uint8_t *path, size_t path_len, airssys_result_entries_t *result);
AIRSSYS_FILESYSTEM("stat")
void airssys_fs_stat(const uint8_t *path, size_t path_len, airssys_result_stat_t *result);
AIRSSYS_FILESYSTEM("rename")
void airssys_fs_rename(const uint8_t *old_path, size_t old_len, const uint8_t *new_path, size_t new_len,
                       airssys_result_t *result);

// -- exports: all six must be there ----------------------------------------------------------------------------------

#define AIRSSYS_LIFECYCLE "airssys:core/component-lifecycle@1.0.0#"
#define AIRSSYS_EXPORT(function) __attribute__((export_name(AIRSSYS_LIFECYCLE function)))
// Called by the host once it has copied the result of `function`.
#define AIRSSYS_POST_RETURN(function) __attribute__((export_name("cabi_post_" AIRSSYS_LIFECYCLE function)))

#endif
