;; The least component that keeps to airssys:core/component-lifecycle@1.0.0: it answers a message with its own payload
;; and is always healthy. build.py puts the guest's name in place of @NAME@ (@SIZE@ is its length, two hexadecimal
;; digits), and at each line `;; @imports@`, `;; @core@`, `;; @exports@` the file of that name from its directory.
(component
  ;; @imports@

  ;; A component of its own, because a type may only be used in an export once it has a name, which exporting gives it.
  (component $guest
    (core module $code
      ;; 0 result of handle-message   16 zeros: ok of the other results   32 component-metadata   96, 128 its strings
      (memory (export "memory") 8)
      (global $top (mut i32) (i32.const 1024))
      (data (i32.const 32) "\80\00\00\00\@SIZE@\00\00\00\60\00\00\00\05\00\00\00")
      (data (i32.const 96) "1.0.0")
      (data (i32.const 128) "@NAME@")

      ;; Never frees: a call's memory is given back at the next message's end. The host refuses what lies outside.
      (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
        (local $at i32)
        (local.set $at
          (i32.and
            (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.set $top (i32.add (local.get $at) (local.get $size)))
        (local.get $at))
      (func (export "reset") (param i32) (global.set $top (i32.const 1024)))

      (func (export "initialize") (param i32 i32 i32 i32 i32 i64 i64 i32 i64) (result i32) (i32.const 16))
      ;; ok(some(payload)); the payload stands behind the 24 bytes of the sender
      (func (export "handle-message") (param $message i32) (result i32)
        (i32.store8 offset=4 (i32.const 0) (i32.const 1))
        (i64.store offset=8 (i32.const 0) (i64.load offset=24 (local.get $message)))
        (i32.const 0))
      (func (export "handle-callback") (param i32) (result i32) (i32.const 16))
      (func (export "metadata") (result i32) (i32.const 32))
      (func (export "health") (result i32) (i32.const 0))
      (func (export "shutdown") (result i32) (i32.const 16))
      ;; @core@
    )
    (core instance $code (instantiate $code))
    (alias core export $code "memory" (core memory $memory))
    (alias core export $code "realloc" (core func $realloc))

    (type $component-id' (record (field "namespace" string) (field "name" string) (field "instance" string)))
    (export $component-id "component-id" (type $component-id'))
    (type $timestamp' (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export $timestamp "timestamp" (type $timestamp'))
    (type $message-metadata' (record
      (field "correlation-id" (option string))
      (field "reply-to" (option $component-id))
      (field "timestamp" $timestamp)
      (field "content-type" (option string))))
    (export $message-metadata "message-metadata" (type $message-metadata'))
    (type $component-message' (record
      (field "sender" $component-id) (field "payload" (list u8)) (field "metadata" $message-metadata)))
    (export $component-message "component-message" (type $component-message'))
    (type $resource-limits' (record
      (field "max-memory-bytes" u64) (field "max-execution-time-ms" u64) (field "max-fuel" (option u64))))
    (export $resource-limits "resource-limits" (type $resource-limits'))
    (type $component-config' (record
      (field "env-vars" (list (tuple string string)))
      (field "config-data" (option (list u8)))
      (field "resource-limits" $resource-limits)))
    (export $component-config "component-config" (type $component-config'))
    (type $health-status' (enum "healthy" "degraded" "unhealthy" "unknown"))
    (export $health-status "health-status" (type $health-status'))
    (type $component-metadata' (record
      (field "name" string) (field "version" string) (field "description" string) (field "author" string)
      (field "license" string) (field "supported-operations" (list string)) (field "stateful" bool)))
    (export $component-metadata "component-metadata" (type $component-metadata'))
    (type $wasm-error' (variant
      (case "component-not-found" string) (case "instantiation-failed" string) (case "export-not-found" string)
      (case "timeout") (case "resource-limit-exceeded" string) (case "invalid-component" string)
      (case "runtime-error" string)))
    (export $wasm-error "wasm-error" (type $wasm-error'))
    (type $component-error' (variant
      (case "initialization-failed" string) (case "already-initialized") (case "not-initialized")
      (case "shutdown-failed" string) (case "invalid-state" string)))
    (export $component-error "component-error" (type $component-error'))

    (func $initialize (param "config" $component-config) (result (result (error $component-error)))
      (canon lift (core func $code "initialize") (memory $memory) (realloc $realloc)))
    (func $handle-message (param "msg" $component-message) (result (result (option (list u8)) (error $wasm-error)))
      (canon lift (core func $code "handle-message") (memory $memory) (realloc $realloc)
        (post-return (core func $code "reset"))))
    (func $handle-callback (param "msg" $component-message) (result (result (error $wasm-error)))
      (canon lift (core func $code "handle-callback") (memory $memory) (realloc $realloc)))
    (func $metadata (result $component-metadata)
      (canon lift (core func $code "metadata") (memory $memory) (realloc $realloc)))
    (func $health (result $health-status) (canon lift (core func $code "health")))
    (func $shutdown (result (result (error $component-error)))
      (canon lift (core func $code "shutdown") (memory $memory) (realloc $realloc)))
    (export "initialize" (func $initialize))
    (export "handle-message" (func $handle-message))
    (export "handle-callback" (func $handle-callback))
    (export "metadata" (func $metadata))
    (export "health" (func $health))
    (export "shutdown" (func $shutdown)))

  (instance $lifecycle (instantiate $guest))
  (export "airssys:core/component-lifecycle@1.0.0" (instance $lifecycle))
  ;; @exports@
)
