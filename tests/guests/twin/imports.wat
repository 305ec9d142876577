  ;; Memories as the host's scratch memory is declared, before and after the one that counts: none of them is it.
  (core module $twin
    (memory (export "memory") 2 1021)
    (data (i32.const 0) "\01\00\00\00\00\00\00\00\00\00\00\00"))
  (core instance (instantiate $twin))
  (core instance (instantiate $twin))
