;; Runs while the component is instantiated, before any function of it is called.
(func $forever (loop $again (br $again)))
(start $forever)
