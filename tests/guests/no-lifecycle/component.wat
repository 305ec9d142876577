;; A valid component with a function of its own and nothing that the host would call.
(component
  (core module $code (func (export "answer") (result i32) (i32.const 42)))
  (core instance $code (instantiate $code))
  (func $answer (result u32) (canon lift (core func $code "answer")))
  (export "answer" (func $answer)))
