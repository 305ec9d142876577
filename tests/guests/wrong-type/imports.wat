;; The host's `get` has a result around the option.
(import "airssys:core/storage@1.0.0"
  (instance (export "get" (func (param "key" string) (result (option (list u8)))))))
