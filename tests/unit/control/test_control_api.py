"""The API: who may call, what it takes, what it answers, and that nothing sent to it ends control."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from sandbox.wire import router_frames as bus
from sandbox.wire import supervisor_frames as sup
from supervisor.control.endpoints import ENDPOINTS
from supervisor.control.openapi import document

pytestmark = pytest.mark.block7_lifecycle

FILES = '{ path = "/logs/**", access = ["read", "list"] }'


async def refused(play, directory, code, **request):
    answer = await play.install(directory, **request)
    assert code == answer.json()["error"]["code"], answer.text
    assert [] == play.order
    return answer.json()["error"]


def test_plan_tells_what_would_be_granted(playground):
    """The plan names publisher, digest, capabilities with risk, roots to bind, and what the component imports."""

    async def main():
        async with playground() as play:
            play.trust(level="review")
            plan = (await play.upload(play.package(files=FILES))).json()
            assert ["acme/echo", "acme", "review", True, ["/logs"]] == [
                plan[key] for key in ("name", "publisher", "level", "consent-needed", "roots")
            ]
            assert ["files /logs/**: list, read"] == [line["text"] for line in plan["capabilities"]]
            assert {"airssys:core/types": ["x"]} == plan["imports"]
            assert [] == play.asked(sup.StartWorker)

    asyncio.run(main())


def test_consent(playground):
    """Level review needs consent; trusted does not; an update that widens rights needs it anew; deny refuses."""

    async def main():
        async with playground() as play:
            play.trust(level="review")
            await refused(play, play.package(), "E_CONSENT", consent=False)
            assert 200 == (await play.install(play.package(), consent=True)).status_code
            assert 200 == (await play.install(play.package(release=2), consent=False)).status_code
            wider = play.package(release=3, files=FILES)
            plan = (await play.upload(wider)).json()
            assert ["files /logs/**: list, read"] == plan["widened"]
            answer = await play.install(wider, consent=False, bindings={"/logs": play.place()})
            assert [403, "E_CONSENT"] == [answer.status_code, answer.json()["error"]["code"]]
            assert 2 == (await play.state_of())["release"], "the old one still runs"
            answer = await play.install(wider, consent=True, bindings={"/logs": play.place()})
            assert 3 == answer.json()["release"]
            assert "api.refused" in [record.event for record in play.records]

    asyncio.run(main())


def test_denied_publisher(playground):
    """Nothing of a denied publisher is planned, let alone compiled."""

    async def main():
        async with playground() as play:
            play.trust(level="deny")
            answer = await play.upload(play.package())
            assert "E_DENIED" == answer.json()["error"]["code"]
            assert 0 == play.compiles

    asyncio.run(main())


def test_bindings(playground, tmp_path):
    """Every guest root is bound to a real, permitted directory by a plain absolute path, and to nothing else."""

    async def main():
        async with playground() as play:
            play.trust()
            directory = play.package(files=FILES)
            place = play.root / "place"
            place.mkdir()
            (play.root / "file").write_text("")
            (play.root / "link").symlink_to("/etc")
            for bindings, code in (
                ({}, "E_BINDING"),
                ({"/logs": str(place), "/other": str(place)}, "E_BINDING"),
                ({"/logs": "relative"}, "E_BINDING"),
                ({"/logs": f"{place}/../place"}, "E_BINDING"),
                ({"/logs": str(play.root / "file")}, "E_BINDING"),
                ({"/logs": "/etc"}, "E_FORBIDDEN_PATH"),
                ({"/logs": "/"}, "E_FORBIDDEN_PATH"),
                ({"/logs": str(play.root / "link")}, "E_FORBIDDEN_PATH"),
                ({"/logs": str(play.state)}, "E_FORBIDDEN_PATH"),
            ):
                await refused(play, directory, code, bindings=bindings)
            answer = await play.install(directory, bindings={"/logs": str(place)})
            assert "running" == answer.json()["state"], "the positive control"
            (policy,) = play.asked(sup.SetPolicy)
            assert [sup.MountSpec("/logs", str(place), False)] == policy.mounts
            answer = await play.install(play.package(release=2, files=FILES))
            assert "running" == answer.json()["state"], "an update keeps the bindings"

    asyncio.run(main())


def test_writing_rules_make_the_mount_writable(playground):
    """A mount is writable only if a rule below its root writes or deletes."""

    async def main():
        async with playground() as play:
            play.trust()
            files = '{ path = "/in/**", access = ["read"] }, { path = "/out/*", access = ["write"] }'
            bindings = {"/in": play.place(), "/out": play.place()}
            await play.install(play.package(files=files), bindings=bindings)
            (policy,) = play.asked(sup.SetPolicy)
            assert [("/in", False), ("/out", True)] == [(mount.guest, mount.writable) for mount in policy.mounts]

    asyncio.run(main())


def test_hostile_packages(playground):
    """Changed bytes, a missing envelope, a stranger's signature, another manifest, rubbish: refused by code."""

    async def main():
        async with playground() as play:
            play.trust()
            directory = play.package()
            wasm, envelope, manifest = (
                (directory / name).read_bytes() for name in ("component.wasm", "component.dsse.json", "component.toml")
            )
            for files, code in (
                ({"wasm": wasm + b"\0\1\0", "envelope": envelope}, "E_DIGEST"),
                ({"wasm": wasm}, "E_NO_ENVELOPE"),
                ({"wasm": wasm, "envelope": b"{}"}, "E_THRESHOLD"),
                ({"wasm": b"", "envelope": envelope}, "E_DIGEST"),
                ({"wasm": wasm, "envelope": envelope, "manifest": manifest + b"#\n[limits2]\n"}, "E_MANIFEST"),
                ({"envelope": envelope}, "E_VALIDATION"),
                ({"wasm": wasm, "evil": b""}, "E_VALIDATION"),
                ({"wasm": wasm, "envelope": b"x" * (300 << 10)}, "E_SIZE"),
            ):
                answer = await play.client.post("/v1/packages", files=files)
                error = answer.json()["error"]
                if code == "E_DIGEST":
                    assert error["code"] in ("E_DIGEST", "E_SIZE", "E_LAYER"), answer.text
                else:
                    assert code == error["code"], answer.text
            assert 0 == play.compiles
            answer = await play.client.post("/v1/packages", files={"wasm": wasm, "envelope": envelope})
            assert 200 == answer.status_code, "the positive control"

    asyncio.run(main())


def test_compile_refusals(playground):
    """What the compiler refuses is told with its code, and not kept."""

    async def main():
        async with playground() as play:
            play.trust()
            play.compile_error = ("E_IMPORTS", "imports wasi:sockets/tcp", "acme/echo")
            error = (await play.upload(play.package())).json()["error"]
            assert ["E_IMPORTS", "imports wasi:sockets/tcp"] == [error["code"], error["message"]]
            play.compile_error = ("E_AUTHORIZATION", "a lie", "")
            assert "E_COMPILE" == (await play.upload(play.package())).json()["error"]["code"]
            assert [] == list((play.state / "packages").iterdir())

    asyncio.run(main())


def test_world_is_held_to(playground):
    """A component that imports functions outside the world its manifest names is refused; types alone are not."""

    async def main():
        async with playground() as play:
            play.trust()
            play.compiled_imports = {"airssys:osl/filesystem@0.1.0": ["read"]}
            assert "E_WORLD" == (await play.upload(play.package())).json()["error"]["code"]
            assert [] == list((play.state / "packages").iterdir())
            play.compiled_imports = {"airssys:osl/filesystem@0.1.0": []}
            answer = await play.upload(play.package("acme/types", extra=b"\0\1\0"))
            assert 200 == answer.status_code, answer.text

    asyncio.run(main())


def test_subscriptions_want_a_handler(playground):
    """A manifest that subscribes a component without a topic-handler is refused; with one (control) it is taken."""
    lines = ']\nmessaging = [{ topic = "a.>", access = ["subscribe"] }]\n[messaging]\nsubscribe = ["a.b"]\n#'

    async def main():
        async with playground() as play:
            play.trust()
            error = (await play.upload(play.package(files=lines))).json()["error"]
            assert ("E_WORLD", True) == (error["code"], "gets no publications" in error["message"])
            play.compiled_exports = ["airssys:messaging/topic-handler@0.1.0"]
            answer = await play.upload(play.package("acme/topics", files=lines, extra=b"\0\1\0"))
            assert 200 == answer.status_code, answer.text

    asyncio.run(main())


def test_the_router_is_told_the_settings_first(playground):
    """Before every route, and with the operators among the clients."""

    async def main():
        async with playground() as play:
            await play.client.post("/v1/messages?target=acme/echo", content=b"")
            first = next(frame for frame in play.log if isinstance(frame, bus.ToRouter))
            assert isinstance(first, bus.Settings), first
            assert {0, os.geteuid()} <= {client.uid for client in first.clients}

    asyncio.run(main())


def test_options_of_messages(playground):
    """Priority, time to live, key, content type and groups reach the router; what is out of bounds does not."""

    async def main():
        async with playground() as play:
            answer = await play.client.post(
                "/v1/messages?target=acme/echo/*&priority=high&ttl=700&key=k",
                content=b"x",
                headers={"Content-Type": "text/x"},
            )
            assert 200 == answer.status_code, answer.text
            (submit,) = play.asked(bus.Submit)
            assert ["acme/echo/*", bus.Options(2, 700, "k", "text/x")] == [str(submit.target), submit.options]
            for query in ("priority=urgent", "ttl=-1", f"ttl={31 * 86_400_000}", "key=" + "k" * 257):
                answer = await play.client.post(f"/v1/messages?target=acme/echo&{query}", content=b"")
                assert "E_VALIDATION" == answer.json()["error"]["code"], query
            long = await play.client.post(
                "/v1/messages?target=acme/echo", content=b"", headers={"Content-Type": "x" * 129}
            )
            assert "E_VALIDATION" == long.json()["error"]["code"]
            assert 1 == len(play.asked(bus.Submit))

    asyncio.run(main())


def test_publications(playground):
    """A publication says how many subscribers take it; what is no topic is refused."""

    async def main():
        async with playground() as play:
            answer = await play.client.post("/v1/publications?topic=a.b&priority=low", content=b"x")
            assert {"topic": "a.b", "subscribers": 3} == answer.json()
            (frame,) = play.asked(bus.SubmitTopic)
            assert ["a.b", 0] == [frame.topic, frame.options.priority]
            for topic in ("a..b", "a.*", "", "a%20b"):
                answer = await play.client.post(f"/v1/publications?topic={topic}", content=b"")
                assert "E_VALIDATION" == answer.json()["error"]["code"], topic

    asyncio.run(main())


def test_dead_letters_and_traces(playground):
    """What the router says of them as JSON; changes are in the audit log before they are made."""

    async def main():
        async with playground() as play:
            listed = (await play.client.get("/v1/deadletters?component=acme/*&limit=5")).json()
            assert [1, 5, "expired", "normal"] == [
                listed["count"],
                *(listed["letters"][0][key] for key in ("id", "reason", "priority")),
            ]
            shown = (await play.client.get("/v1/deadletters/5")).json()
            assert ["YWJj", "why"] == [shown["payload"], shown["text"]]
            for path in ("/v1/deadletters/6", "/v1/deadletters/x", "/v1/deadletters/" + "9" * 30, "/v1/trace/8"):
                assert 404 == (await play.client.get(path)).status_code, path
            for query in ("limit=4001", "limit=-1", "component=acme"):
                assert 400 == (await play.client.get(f"/v1/deadletters?{query}")).status_code, query
            done = await play.client.post("/v1/deadletters/replay", json={"letter": 5})
            assert {"count": 1, "error": ""} == done.json()
            done = await play.client.post("/v1/deadletters/purge", json={"component": "*"})
            assert 1 == done.json()["count"]
            assert ["5", "*"] == [
                record.object for event in ("replay", "purge") for record in play.events(f"deadletters.{event}")
            ]
            for body in ({}, {"letter": 5, "component": "*"}, {"letter": -1}, {"component": "acme"}, {"other": 1}):
                assert 400 == (await play.client.post("/v1/deadletters/purge", json=body)).status_code, body
            assert 404 == (await play.client.post("/v1/deadletters/replay", json={"letter": 6})).status_code
            trace = (await play.client.get("/v1/trace/7")).json()
            assert {"what": "sent", "at": 1.5, "component": "host/client/ann", "text": ""} == trace["steps"][0]

    asyncio.run(main())


def test_messages(playground):
    """The body's bytes go in as they are, the reply's come out; failures have codes; limits hold."""

    async def main():
        async with playground() as play:
            data = bytes(range(256))
            answer = await play.client.post("/v1/messages?target=acme/echo&kind=request&timeout=700", content=data)
            assert [200, data] == [answer.status_code, answer.content]
            (submit,) = play.asked(bus.Submit)
            assert ["acme/echo/0", True, 700] == [str(submit.target), submit.request, submit.timeout_ms]
            for word, status, code in (
                ("timeout", 504, "E_TIMEOUT"),
                ("target-not-found", 404, "E_TARGET_NOT_FOUND"),
                ("denied", 403, "E_AUTHORIZATION"),
                ("queue-full", 429, "E_QUEUE_FULL"),
                ("guest-error", 502, "E_GUEST_ERROR"),
                ("nonsense", 422, "E_MESSAGE"),
            ):
                play.reply = lambda submit, _, word=word: (bus.Submitted(submit.id, word, "why"), b"")
                answer = await play.client.post("/v1/messages?target=acme/echo", content=b"")
                assert [status, code] == [answer.status_code, answer.json()["error"]["code"]]
            for query in ("", "?target=Acme", "?target=a/b&kind=x", "?target=a/b&timeout=0", "?target=a/b&target=a/b"):
                answer = await play.client.post(f"/v1/messages{query}", content=b"")
                assert "E_VALIDATION" == answer.json()["error"]["code"], query
            answer = await play.client.post("/v1/messages?target=a/b", content=b"x" * ((8 << 20) + 1))
            assert "E_TOO_LARGE" == answer.json()["error"]["code"]

    asyncio.run(main())


def test_nonsense_is_answered(playground):
    """Unknown paths, wrong methods, unknown keys, broken JSON and bad ids get an error with a code; control lives."""

    async def main():
        async with playground() as play:
            for method, path, body, code in (
                ("GET", "/", None, "E_NOT_FOUND"),
                ("PUT", "/v1/status", None, "E_VALIDATION"),
                ("GET", "/v1/status?x=1", None, "E_VALIDATION"),
                ("POST", "/v1/install", b"{", "E_VALIDATION"),
                ("POST", "/v1/install", b"[" * 100_000, "E_VALIDATION"),
                ("POST", "/v1/install", b'{"plan": "x"}', "E_VALIDATION"),
                ("POST", "/v1/install", b'{"plan": "' + b"0" * 64 + b'"}', "E_NOT_FOUND"),
                ("POST", "/v1/install", b'{"plan": "../../etc", "y": 1}', "E_VALIDATION"),
                ("POST", "/v1/install", b"x" * ((1 << 20) + 1), "E_TOO_LARGE"),
                ("POST", "/v1/packages", b"x", "E_VALIDATION"),
                ("GET", "/v1/components/a/b/c%2f..%2f", None, "E_VALIDATION"),
                ("GET", "/v1/components/a/b/0", None, "E_NOT_FOUND"),
                ("POST", "/v1/components/a/b/0/start", None, "E_NOT_FOUND"),
                ("DELETE", "/v1/components/a/b/0?purge=maybe", None, "E_VALIDATION"),
                ("POST", "/v1/trust", b'{"name": "a", "keys": ["x"], "scopes": ["a/*"]}', "E_KEY"),
                ("POST", "/v1/trust/revoke", b"{}", "E_VALIDATION"),
                ("DELETE", "/v1/trust/..", None, "E_NOT_FOUND"),
                ("GET", "/v1/audit?limit=0", None, "E_VALIDATION"),
                ("GET", "/v1/logs?component=!", None, "E_VALIDATION"),
            ):
                answer = await play.client.request(method, path, content=body)
                assert code == answer.json()["error"]["code"], (method, path, answer.text)
                assert answer.status_code >= 400
            boundary = {"Content-Type": "multipart/form-data; boundary=b"}
            for body in (b"", b"--b", b"--b\r\n\r\n", b"--b\r\nContent-Disposition: form-data; name=wasm\r\n\r\nx"):
                answer = await play.client.post("/v1/packages", content=body, headers=boundary)
                assert 400 == answer.status_code, (body, answer.text)
            reader, writer = await asyncio.open_unix_connection(play.api_path)
            writer.write(b"\0\1\2 nonsense\r\n\r\n")
            await reader.read()
            writer.close()
            assert 200 == (await play.client.get("/v1/status")).status_code

    asyncio.run(main())


def test_status_and_doctor(playground):
    """status names processes, lost walls and components; doctor every wall."""

    async def main():
        async with playground() as play:
            status = (await play.client.get("/v1/status")).json()
            assert {"cgroups": "not delegated"} == status["host"]["walls-lost"]
            assert ["ready", [], "router"] == [
                status["host"]["state"],
                status["components"],
                status["host"]["processes"][0]["name"],
            ]
            doctor = (await play.client.get("/v1/doctor")).json()
            assert {"seccomp": "on", "cgroups": "not delegated"} == doctor["walls"]
            (router,) = doctor["confinement"]
            wanted = {"name": "router", "filters": 2, "namespaces": ["mnt"], "limits": {"Max open files": 4}}
            assert wanted == {key: router[key] for key in wanted}
            assert ("0000000000000000", "0000010000000000") == (router["capabilities"], router["bounding"])

    asyncio.run(main())


def test_lines_follow(playground):
    """logs and audit are JSON lines; follow goes on until the caller hangs up."""

    async def main():
        async with playground() as play:
            answer = await play.client.get("/v1/audit?denied=true&limit=5")
            assert "{}\n" == answer.text
            play.lines["logs"] = ['{"n":1}']
            async with play.client.stream("GET", "/v1/logs?follow=true") as stream:
                lines = stream.aiter_lines()
                assert '{"n":1}' == await anext(lines)
            assert 200 == (await play.client.get("/v1/status")).status_code

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another uid to call with")
def test_other_users_are_refused(playground):
    """A uid that is neither root, owner nor admin gets 403 and a record; made an admin, the same call works."""

    async def main():
        for admins, expected in (((), 403), ((65534,), 200)):
            async with playground() as play:
                await play.stop_control()
                play.config = type(play.config)(
                    play.config.config_dir, play.config.state_dir, play.config.run_dir, admins=admins
                )
                await play.start_control()
                os.chmod(play.api_path, 0o777)
                for parent in (play.root, *play.root.parents):
                    if parent.stat().st_uid == os.geteuid() and parent != parent.parent:
                        os.chmod(parent, os.stat(parent).st_mode | 0o011)
                status, code = await asyncio.to_thread(_as_nobody, play.api_path)
                assert expected == status
                if expected == 403:
                    assert "E_AUTHORIZATION" == code
                    (record,) = play.events("api.denied")
                    assert ["denied", 65534] == [record.decision, record.detail["uid"]]

    asyncio.run(main())


_NOBODY = """
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
s.connect(sys.argv[1]); s.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
data = b""
while part := s.recv(65536): data += part
head, _, body = data.partition(b"\\r\\n\\r\\n")
print(json.dumps([int(head.split()[1]), json.loads(body).get("error", {}).get("code", "")]))
"""


def _as_nobody(path):
    done = subprocess.run([sys.executable, "-c", _NOBODY, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_openapi_is_in_step(playground):
    """The document names exactly the routes that are served, each with a summary, and every reference resolves."""

    async def main():
        async with playground() as play:
            served = (await play.client.get("/v1/openapi.json")).json()
            assert json.loads(json.dumps(document())) == served
            named = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
            assert {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS} == named
            for methods in served["paths"].values():
                for operation in methods.values():
                    assert operation["summary"].endswith("."), operation
            text = json.dumps(served)
            references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
            assert references <= set(served["components"]["schemas"])

    asyncio.run(main())


def test_concurrent_commands_keep_one_worker(playground):
    """Starts, stops and restarts from many callers leave at most one worker and a true state."""

    async def main():
        async with playground() as play:
            play.trust()
            await play.install(play.package())
            words = ["start", "stop", "restart", "restart", "start", "stop", "start"] * 3
            answers = await asyncio.gather(*(play.client.post(f"/v1/components/acme/echo/0/{word}") for word in words))
            assert {200} == {answer.status_code for answer in answers}
            await play.client.post("/v1/components/acme/echo/0/start")
            assert "running" == (await play.state_of())["state"]
            assert 1 == len(play.workers)

    asyncio.run(main())
