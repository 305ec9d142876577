"""The file system: a worker sees none of it."""

from __future__ import annotations

from airssys.testing import Program

AGAINST_FILES = ("seccomp", "Landlock", "empty root", "NOFILE")
"""Walls each of which stops reading by itself."""


def reading(path: bytes) -> Program:
    """Open a file and read its beginning."""
    program = Program()
    file = program.syscall("openat", -100, program.data(path + b"\0"), 0, 0, until="or-give-up")
    buffer = program.room(64)
    program.syscall("read", file, buffer, 64)
    program.answer(buffer, 64)
    return program


def test_read_a_file(hostile_worker):
    """/etc/passwd stays unread, and is read as soon as four walls are gone."""
    worker = hostile_worker()
    program = reading(b"/etc/passwd")
    worker.run(program).assert_stopped_by("policy")
    assert b"root:" in worker.assert_works_without(program, *AGAINST_FILES).data
    assert b"root:" in worker.assert_works_without(program).data


def test_each_wall_alone_stops_reading(hostile_worker):
    """Four walls stop it, each without the help of any other: three may fall."""
    alone = hostile_worker().alone(reading(b"/etc/passwd"))
    assert {wall for wall, what in alone.items() if what == "stops"} == set(AGAINST_FILES)


def test_a_directory_below_proc(hostile_worker):
    """/proc of the machine, where other processes are found."""
    worker = hostile_worker()
    program = reading(b"/proc/1/comm")
    worker.run(program).assert_stopped_by("policy")
    worker.assert_works_without(program, unless={"ENOENT": "this machine hides processes of others"})


def test_the_bridge_opens_nothing_that_was_not_granted(hostile_worker):
    """Asked by the book, the bridge refuses, and says so in the audit log. Stored values are granted: it answers."""
    worker = hostile_worker()
    result = worker.frames(3, *worker.bridge("fs-read", "/etc/passwd"), answers=1).assert_answered()
    _, (case, text) = worker.bridge_answer(result.frames[0])
    assert (case, "/etc/passwd" in text, result.denied()) == (1, True, ["fs.read"])
    result = worker.frames(3, *worker.bridge("storage-get", "nothing"), answers=1).assert_answered()
    assert worker.bridge_answer(result.frames[0])[1] == [0, None]
    assert result.denied() == []


def test_a_grant_is_no_way_out(hostile_worker, airssys_host, tmp_path):
    """With a directory granted, a link in it and two dots lead nowhere else; a file in it is read."""
    tmp_path.joinpath("mine").write_text("mine")
    tmp_path.joinpath("link").symlink_to("/etc/passwd")
    worker = hostile_worker(
        manifest={"filesystem": '[{ path = "/data/**", access = ["read"] }]'}, binds={"/data": str(tmp_path)}
    )

    def read(path: str) -> tuple[int, object]:
        result = worker.frames(3, *worker.bridge("fs-read", path), answers=1).assert_answered()
        return worker.bridge_answer(result.frames[0])[1]

    assert read("/data/mine") == [0, "bWluZQ=="]  # base64, as JSON has it
    assert read("/data/link")[0] != 0
    assert read("/data/../etc/passwd")[0] != 0
