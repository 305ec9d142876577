(core module $more (func (export "answer") (result i32) (i32.const 42)))
(core instance $more (instantiate $more))
(func $answer (result u32) (canon lift (core func $more "answer")))
(export "answer" (func $answer))
