// test/wasi-go: Go's own runtime and library; does what a message names (see ../heavy.py).
//
// The canonical ABI by hand, as in sdk/c/airssys.h: on wasm32 its layouts are those of the structs below.
package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// Go's own pointers have eight bytes even here.
type text struct{ at, size uint32 }

type answer struct {
	isError uint8
	_       [3]byte
	some    uint8
	_       [3]byte
	value   text
}

type done struct {
	isError uint8
	_       [15]byte
}

type about struct {
	name, version, description, author, license, operations text
	stateful                                                uint8
}

// What the host was given or gives lies here until the call is over; Go's collector moves nothing.
var kept = map[uintptr][]byte{}
var reply answer
var fine done
var self about

func room(size uint32) unsafe.Pointer {
	bytes := make([]byte, size+16)
	at := unsafe.Pointer((uintptr(unsafe.Pointer(&bytes[0])) + 15) &^ 15)
	kept[uintptr(at)] = bytes
	return at
}

func as(s string) text {
	at := room(uint32(len(s)))
	copy(unsafe.Slice((*byte)(at), len(s)), s)
	return text{uint32(uintptr(at)), uint32(len(s))}
}

// Not under the name cabi_realloc: the adapter would call that before Go's runtime is up.
//
//go:wasmexport cabi_export_realloc
func exportRealloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer { return room(size) }

//go:wasmexport cabi_import_realloc
func importRealloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer { return room(size) }

//go:wasmexport airssys:core/component-lifecycle@1.0.0#initialize
func initialize(env unsafe.Pointer, count uint32, hasConfig int32, config unsafe.Pointer, size uint32,
	memory, ms uint64, hasFuel int32, fuel uint64) unsafe.Pointer {
	fmt.Println("initialized")
	return unsafe.Pointer(&fine)
}

//go:wasmexport airssys:core/component-lifecycle@1.0.0#handle-message
func handleMessage(message unsafe.Pointer) unsafe.Pointer {
	payload := (*text)(unsafe.Add(message, 24))
	asked := string(unsafe.Slice((*byte)(unsafe.Pointer(uintptr(payload.at))), payload.size))
	command, rest, _ := strings.Cut(asked, " ")
	reply = answer{some: 1, value: as(act(command, rest))}
	return unsafe.Pointer(&reply)
}

//go:wasmexport cabi_post_airssys:core/component-lifecycle@1.0.0#handle-message
func afterMessage(unsafe.Pointer) { kept = map[uintptr][]byte{} }

//go:wasmexport airssys:core/component-lifecycle@1.0.0#handle-callback
func handleCallback(unsafe.Pointer) unsafe.Pointer { return unsafe.Pointer(&fine) }

//go:wasmexport airssys:core/component-lifecycle@1.0.0#metadata
func metadata() unsafe.Pointer {
	self = about{name: as("test/wasi-go"), version: as("1.0.0"), description: as(""), author: as(""), license: as(""), operations: as("")}
	return unsafe.Pointer(&self)
}

//go:wasmexport airssys:core/component-lifecycle@1.0.0#health
func health() int32 { return 0 }

//go:wasmexport airssys:core/component-lifecycle@1.0.0#shutdown
func shutdown() unsafe.Pointer { return unsafe.Pointer(&fine) }

func failed(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func act(command, rest string) string {
	number, _ := strconv.Atoi(rest)
	switch command {
	case "print":
		fmt.Println(rest)
	case "eprint":
		fmt.Fprintln(os.Stderr, rest)
	case "sleep":
		before := time.Now()
		time.Sleep(time.Duration(number) * time.Millisecond)
		return strconv.FormatInt(time.Since(before).Milliseconds(), 10)
	case "poll": // two goroutines asleep at once
		before, first := time.Now(), make(chan int, 2)
		for _, ms := range []int{number, 10 * number} {
			go func() { time.Sleep(time.Duration(ms) * time.Millisecond); first <- ms }()
		}
		return fmt.Sprint(<-first, " ", time.Since(before).Milliseconds())
	case "clock":
		return strconv.FormatInt(int64(time.Since(start)), 10)
	case "time":
		return strconv.FormatInt(time.Now().Unix(), 10)
	case "random":
		bytes := make([]byte, number)
		rand.Read(bytes)
		return fmt.Sprintf("%x", bytes)
	case "env":
		if value, ok := os.LookupEnv(rest); ok {
			return value
		}
		return "(none)"
	case "args":
		return strings.Join(os.Args, "|")
	case "open":
		_, err := os.ReadFile(rest)
		return failed(err)
	case "connect":
		_, err := net.DialTimeout("tcp", "127.0.0.1:80", time.Second)
		return failed(err)
	case "fail":
		panic(rest)
	case "exit":
		os.Exit(number)
	default:
		return "unknown command"
	}
	return "ok"
}

var start = time.Now()

func main() {}
