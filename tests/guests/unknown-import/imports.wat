(import "acme:custom/thing@1.0.0" (instance (export "do-it" (func))))
