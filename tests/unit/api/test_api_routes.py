"""From a request's words to its answer."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.api import routes
from hibana.api.endpoints import ENDPOINTS, Endpoint, Fork
from hibana.api.http import Request, Response
from hibana.api.routes import Dispatcher, understand
from hibana.config.balloon import StartHintingCmd
from hibana.config.drive import BlockDeviceConfig
from hibana.errors import DriveError, InvalidDriveConfig, MmdsDoesNotFit, MmdsLimitError, RequestError
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS, Metrics
from hibana.vmm.verbs import Call


class Recorder:
    """A controller that writes down what it is asked and gives a prepared answer."""

    def __init__(self, answer: object = None) -> None:
        self.calls: list[Call] = []
        self.answer = answer

    def perform(self, call: Call, /) -> object:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is logged, with its level."""
    written: list[tuple[str, str]] = []

    def note(level: str) -> Callable[[str], None]:
        return lambda text: written.append((level, text))

    for level in ("error", "warn", "info", "debug"):
        monkeypatch.setattr(log, level, note(level))
    return written


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    """The process's counters, as they were again afterwards."""
    groups = (*routes._COUNTERS.values(), METRICS.deprecated_api, METRICS.latencies_us)
    before = {group: dict(vars(group)) for group in groups}
    yield METRICS
    for group, values in before.items():
        for name, value in values.items():
            setattr(group, name, value)


def ask(method: str, path: str, body: bytes | None = None, answer: object = None) -> tuple[Response, list[Call]]:
    recorder = Recorder(answer)
    return Dispatcher(recorder).handle(Request(method, path, body)), recorder.calls


def sentence(method: str, path: str, body: bytes | None = None) -> str:
    response, calls = ask(method, path, body)
    assert response.status == 400
    assert calls == [], "nobody is asked to act on a request that is refused"
    assert response.body is not None
    return str(msgspec.json.decode(response.body)["fault_message"])


# --- finding the verb -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/", "get_instance_info"),
        ("", "get_instance_info"),
        ("///", "get_instance_info"),
        ("/balloon", "get_balloon"),
        ("/balloon/", "get_balloon"),
        ("/balloon/statistics", "get_balloon_statistics"),
        ("/balloon/statistics/more", "get_balloon_statistics"),
        ("/balloon/hinting/status", "get_balloon_hinting"),
        ("/version", "get_version"),
        ("/version/x", "get_version"),
        ("/vm/config", "get_vm_config"),
        ("/machine-config", "get_machine_config"),
        ("//machine-config", "get_machine_config"),
        ("/mmds", "get_mmds"),
        ("/mmds/config", "get_mmds"),
        ("/hotplug/memory", "get_memory_hotplug"),
    ],
)
def test_a_get_finds_its_verb(path: str, verb: str) -> None:
    assert understand(Request("GET", path)).call == Call(verb)


@pytest.mark.parametrize(
    ("method", "path", "body", "verb"),
    [
        ("PUT", "/actions", b'{"action_type":"InstanceStart"}', "start_instance"),
        ("PUT", "/actions", b'{"action_type":"FlushMetrics"}', "flush_metrics"),
        ("PUT", "/actions", b'{"action_type":"SendCtrlAltDel"}', "send_ctrl_alt_del"),
        ("PUT", "/balloon", b'{"amount_mib":1,"deflate_on_oom":true}', "put_balloon"),
        ("PUT", "/balloon/statistics", b'{"amount_mib":1,"deflate_on_oom":true}', "put_balloon"),
        ("PUT", "/boot-source", b'{"kernel_image_path":"k"}', "put_boot_source"),
        ("PUT", "/cpu-config", b"{}", "put_cpu_config"),
        ("PUT", "/drives/a", b'{"drive_id":"a","is_root_device":true}', "put_drive"),
        ("PUT", "/drives/a/b", b'{"drive_id":"a","is_root_device":true}', "put_drive"),
        ("PUT", "/entropy", b"{}", "put_entropy"),
        ("PUT", "/hotplug/memory", b'{"total_size_mib":1}', "put_memory_hotplug"),
        ("PUT", "/logger", b"{}", "put_logger"),
        ("PUT", "/machine-config", b'{"vcpu_count":1,"mem_size_mib":1}', "put_machine_config"),
        ("PUT", "/metrics", b'{"metrics_path":"m"}', "put_metrics"),
        ("PUT", "/mmds", b"[1]", "put_mmds"),
        ("PUT", "/mmds/config", b'{"network_interfaces":[]}', "put_mmds_config"),
        ("PUT", "/network-interfaces/a", b'{"iface_id":"a","host_dev_name":"t"}', "put_network_interface"),
        ("PUT", "/pmem/a", b'{"id":"a","path_on_host":"p"}', "put_pmem"),
        ("PUT", "/serial", b"{}", "put_serial"),
        ("PUT", "/snapshot/create", b'{"snapshot_path":"s","mem_file_path":"m"}', "create_snapshot"),
        ("PUT", "/snapshot/load", b'{"snapshot_path":"s","mem_file_path":"m"}', "load_snapshot"),
        ("PUT", "/vsock", b'{"guest_cid":3,"uds_path":"v"}', "put_vsock"),
        ("PUT", "/vsock/root", b'{"guest_cid":3,"uds_path":"v"}', "put_vsock"),
        ("PATCH", "/balloon", b'{"amount_mib":1}', "patch_balloon"),
        ("PATCH", "/balloon/anything", b'{"amount_mib":1}', "patch_balloon"),
        ("PATCH", "/balloon/statistics", b'{"stats_polling_interval_s":1}', "patch_balloon_statistics"),
        ("PATCH", "/balloon/hinting/start", b"{}", "start_balloon_hinting"),
        ("PATCH", "/balloon/hinting/start", None, "start_balloon_hinting"),
        ("PATCH", "/balloon/hinting/stop", b"not even JSON", "stop_balloon_hinting"),
        ("PATCH", "/balloon/hinting/stop", None, "stop_balloon_hinting"),
        ("PATCH", "/drives/a", b'{"drive_id":"a"}', "patch_drive"),
        ("PATCH", "/hotplug/memory", b'{"requested_size_mib":1}', "patch_memory_hotplug"),
        ("PATCH", "/machine-config", b'{"smt":true}', "patch_machine_config"),
        ("PATCH", "/mmds", b"null", "patch_mmds"),
        ("PATCH", "/network-interfaces/a", b'{"iface_id":"a"}', "patch_network_interface"),
        ("PATCH", "/pmem/a", b'{"id":"a"}', "patch_pmem"),
        ("PATCH", "/vm", b'{"state":"Paused"}', "pause_vm"),
        ("PATCH", "/vm", b'{"state":"Resumed"}', "resume_vm"),
        ("DELETE", "/drives/a", None, "delete_drive"),
        ("DELETE", "/network-interfaces/a", None, "delete_network_interface"),
        ("DELETE", "/pmem/a", None, "delete_pmem"),
    ],
)
def test_a_request_finds_its_verb(method: str, path: str, body: bytes | None, verb: str) -> None:
    response, calls = ask(method, path, body)
    assert response.status == 204
    assert response.body is None
    assert [call.verb for call in calls] == [verb]


def test_the_body_becomes_the_verbs_argument() -> None:
    body = b'{"drive_id":"a_1","is_root_device":true,"path_on_host":"p"}'
    assert understand(Request("PUT", "/drives/a_1", body)).call.arguments == (
        BlockDeviceConfig(drive_id="a_1", is_root_device=True, path_on_host="p"),
    )
    assert understand(Request("DELETE", "/drives/a_1")).call.arguments == ("a_1",)
    assert understand(Request("PUT", "/mmds", b"null")).call.arguments == (None,)
    assert understand(Request("PATCH", "/balloon/hinting/start")).call.arguments == (StartHintingCmd(),)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("GET", "/", b"{}", "GET request cannot have a body."),
        ("GET", "/nowhere", b"{}", "GET request cannot have a body."),
        ("PUT", "/boot-source", None, "Empty PUT request."),
        ("PUT", "/nowhere", None, "Empty PUT request."),
        ("PATCH", "/vm", None, "Empty PATCH request."),
        ("PATCH", "/nowhere", None, "Empty PATCH request."),
        ("PATCH", "/balloon", None, "Empty PATCH request."),
        ("PATCH", "/balloon/statistics", None, "Empty PATCH request."),
        ("PATCH", "/machine-config", b"{}", "Empty PATCH request."),
        ("PATCH", "/machine-config", b'{"smt":null,"huge_pages":null}', "Empty PATCH request."),
        ("DELETE", "/drives/a", b"{}", "Empty Delete request."),
        ("GET", "/nowhere", None, "Invalid request method and/or path: GET nowhere."),
        ("GET", "/nowhere/at/all", None, "Invalid request method and/or path: GET nowhere."),
        ("GET", "/Machine-config", None, "Invalid request method and/or path: GET Machine-config."),
        ("GET", "/vm", None, "Invalid request method and/or path: GET vm."),
        ("GET", "/vm/x", None, "Invalid request method and/or path: GET vm."),
        ("GET", "/hotplug", None, "Invalid request method and/or path: GET hotplug."),
        ("GET", "/drives/a", None, "Invalid request method and/or path: GET drives."),
        ("PUT", "/vm", b"{}", "Invalid request method and/or path: PUT vm."),
        ("PUT", "/", b"{}", "Invalid request method and/or path: PUT ."),
        ("PUT", "/hotplug/disk", b"{}", "Invalid request method and/or path: PUT hotplug."),
        ("PUT", "/snapshot/rename", b"{}", "Invalid request method and/or path: PUT /snapshot/rename."),
        ("PATCH", "/logger", b"{}", "Invalid request method and/or path: PATCH logger."),
        ("DELETE", "/vsock", None, "Invalid request method and/or path: DELETE vsock."),
        ("GET", "/balloon/x", None, "Unrecognized GET request path `x`."),
        ("GET", "/balloon/hinting", None, "Unrecognized GET request path `/hinting/`."),
        ("GET", "/balloon/hinting/x", None, "Unrecognized GET request path `/hinting/x`."),
        ("PATCH", "/balloon/hinting", None, "Unrecognized PATCH request path `/hinting/`."),
        ("PATCH", "/balloon/hinting/x", b"{}", "Unrecognized PATCH request path `/hinting/x`."),
        ("PUT", "/mmds/x", b"{}", "Unrecognized PUT request path `x`."),
        ("PUT", "/snapshot", b"{}", "Missing snapshot operation type."),
        ("PUT", "/drives", b"{", "The ID cannot be empty."),
        ("PUT", "/drives//a", b"{}", "The ID cannot be empty."),
        ("DELETE", "/pmem/", None, "The ID cannot be empty."),
        (
            "PUT",
            "/network-interfaces/a-b",
            b"{",
            "API Resource IDs can only contain alphanumeric characters and underscores.",
        ),
        ("PATCH", "/drives/a", b'{"drive_id":"b"}', "The id from the path does not match the id from the body!"),
        (
            "PUT",
            "/pmem/a",
            b'{"id":"b","path_on_host":"p"}',
            "The id from the path does not match the id from the body!",
        ),
        (
            "PATCH",
            "/network-interfaces/a",
            b'{"iface_id":"b"}',
            "The id from the path [a] does not match the id from the body [b]!",
        ),
        (
            "PUT",
            "/machine-config",
            b'{"vcpu_count": 2}',
            "An error occurred when deserializing the json body of a request: "
            "missing field `mem_size_mib` at line 1 column 17.",
        ),
        (
            "PUT",
            "/mmds",
            b"{",
            "An error occurred when deserializing the json body of a request: "
            "EOF while parsing an object at line 1 column 1.",
        ),
        (
            "PUT",
            "/snapshot/load",
            b'{"snapshot_path":"s"}',
            "An error occurred when deserializing the json body of a request: "
            "missing field: either `mem_backend` or `mem_file_path` is required.",
        ),
    ],
)
def test_a_refused_request_gets_its_sentence(method: str, path: str, body: bytes | None, text: str) -> None:
    assert sentence(method, path, body) == text


def test_ids_may_have_letters_of_any_script() -> None:
    assert understand(Request("DELETE", "/drives/Ωmega_7")).call.arguments == ("Ωmega_7",)


WORDS = ["", "balloon", "hinting", "start", "mmds", "config", "drives", "a", "vm", "snapshot", "load", "-", "hotplug"]


@given(
    st.sampled_from(["GET", "PUT", "PATCH", "DELETE"]),
    st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=4).map("/".join),
    st.none() | st.sampled_from([b"{}", b"null", b"[]", b"{", b'{"drive_id":"a"}']) | st.binary(min_size=1, max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_every_request_is_understood_or_refused(method: str, path: str, body: bytes | None) -> None:
    try:
        understand(Request(method, path, body))
    except RequestError as error:
        assert error.status == 400


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_compact_json() -> None:
    response, _ = ask("GET", "/version", answer={"a": [1, None]})
    assert response == Response(200, b'{"a":[1,null]}')


def test_a_failure_is_the_sentence_and_its_status() -> None:
    failure = DriveError(cause=InvalidDriveConfig())
    response, _ = ask("PATCH", "/drives/a", b'{"drive_id":"a"}', answer=failure)
    assert response == Response(400, b'{"fault_message":"Drive config error: Invalid block config."}')
    response, _ = ask("PUT", "/mmds", b"1", answer=MmdsLimitError(cause=MmdsDoesNotFit()))
    assert response == Response(
        413, b'{"fault_message":"MMDS limit exceeded error: The MMDS patch request doesn\'t fit."}'
    )


# --- deprecation ------------------------------------------------------------------------------------------------------

OLD = [
    (
        "PUT",
        "/machine-config",
        b'{"vcpu_count":1,"mem_size_mib":1,"cpu_template":"None"}',
        "PUT /machine-config: cpu_template field is deprecated.",
    ),
    (
        "PATCH",
        "/machine-config",
        b'{"cpu_template":"T2"}',
        "PATCH /machine-config: cpu_template field is deprecated.",
    ),
    ("PUT", "/mmds/config", b'{"network_interfaces":[]}', "PUT /mmds/config: V1 is deprecated. Use V2 instead."),
    (
        "PUT",
        "/snapshot/load",
        b'{"snapshot_path":"s","mem_file_path":"m"}',
        "PUT /snapshot/load: mem_file_path and enable_diff_snapshots fields are deprecated.",
    ),
    (
        "PUT",
        "/vsock",
        b'{"vsock_id":"v","guest_cid":3,"uds_path":"u"}',
        "PUT /vsock: vsock_id field is deprecated.",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "notice"), OLD)
@pytest.mark.parametrize("answer", [None, DriveError(cause="x")])
def test_a_field_on_its_way_out_is_announced_even_with_an_error(
    method: str, path: str, body: bytes, notice: str, answer: object, lines: list[tuple[str, str]], metrics: Metrics
) -> None:
    before = metrics.deprecated_api.deprecated_http_api_calls
    response, _ = ask(method, path, body, answer)
    assert response.deprecation
    assert ("warn", notice) in lines
    assert metrics.deprecated_api.deprecated_http_api_calls == before + 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/machine-config", b'{"vcpu_count":1,"mem_size_mib":1}'),
        ("PUT", "/machine-config", b'{"vcpu_count":1,"mem_size_mib":1,"cpu_template":null}'),
        ("PUT", "/mmds/config", b'{"version":"V2","network_interfaces":[]}'),
        ("PUT", "/vsock", b'{"vsock_id":null,"guest_cid":3,"uds_path":"u"}'),
        (
            "PUT",
            "/snapshot/load",
            b'{"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"track_dirty_pages":true}',
        ),
        ("PUT", "/vsock", b'{"vsock_id":"v"}'),
    ],
)
def test_nothing_else_is_announced(method: str, path: str, body: bytes) -> None:
    response, _ = ask(method, path, body)
    assert not response.deprecation


# --- the log ----------------------------------------------------------------------------------------------------------


def test_a_request_its_end_and_its_duration_are_logged(lines: list[tuple[str, str]]) -> None:
    ask("PUT", "/boot-source", b'{"kernel_image_path":\n"a"}')
    assert lines[:2] == [
        (
            "info",
            'The API server received a Put request on "/boot-source" with body "{\\"kernel_image_path\\":\\n\\"a\\"}".',
        ),
        ("info", "The request was executed successfully. Status code: 204 No Content."),
    ]
    assert lines[2][0] == "debug"
    assert lines[2][1].startswith("Total previous API call duration: ")
    assert lines[2][1].endswith(" us.")


def test_a_get_has_no_body_to_log(lines: list[tuple[str, str]]) -> None:
    ask("GET", "/mmds", answer={})
    assert lines[0] == ("info", 'The API server received a Get request on "/mmds".')
    assert lines[1] == ("info", "The request was executed successfully. Status code: 200 OK.")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_metadata_is_not_logged(method: str, lines: list[tuple[str, str]]) -> None:
    ask(method, "/mmds", b'{"secret":1}')
    assert lines[0] == ("info", f'The API server received a {method.capitalize()} request on "/mmds".')


def test_a_cpu_template_is_logged_for_developers_only(
    lines: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "enabled", lambda level: level <= log.INFO)
    ask("PUT", "/cpu-config", b"{}")
    monkeypatch.setattr(log, "enabled", lambda level: True)
    ask("PUT", "/cpu-config", b"{}")
    received = [text for _, text in lines if "received" in text]
    assert received == [
        'The API server received a Put request on "/cpu-config".'
        " To view the CPU template received by the API, configure log-level to DEBUG.",
        'The API server received a Put request on "/cpu-config" with body "{}".',
    ]


def test_a_body_that_is_no_text_is_said_to_be_none(lines: list[tuple[str, str]]) -> None:
    ask("PUT", "/vsock", b"\xff")
    assert lines[0][1].endswith('on "/vsock" with body "inconvertible to UTF-8".')


@pytest.mark.parametrize(
    ("method", "path", "body", "form"),
    [
        ("GET", "/foo", None, 'InvalidPathMethod("foo", Get)'),
        ("PUT", "/foo", None, 'Generic(BadRequest, "Empty PUT request.")'),
        ("PUT", "/drives", b"{}", "EmptyID"),
        ("PUT", "/drives/-", b"{}", "InvalidID"),
        ("PATCH", "/vm", b"{}", 'SerdeJson(Error("missing field `state`", line: 1, column: 2))'),
    ],
)
def test_a_refused_request_is_logged_in_its_debug_form(
    method: str, path: str, body: bytes | None, form: str, lines: list[tuple[str, str]]
) -> None:
    ask(method, path, body)
    assert lines[1] == ("error", form)
    assert lines[2][0] == "debug", "even then the duration is logged"


def test_a_failure_is_logged_with_its_sentence(lines: list[tuple[str, str]]) -> None:
    ask("PATCH", "/drives/a", b'{"drive_id":"a"}', answer=DriveError(cause="x"))
    assert lines[1] == ("error", "Received Error. Status code: 400 Bad Request. Message: Drive config error: x")
    ask("PUT", "/mmds", b"1", answer=MmdsLimitError(cause=MmdsDoesNotFit()))
    assert (
        "error",
        "Received Error. Status code: 413 Payload too large. Message: "
        "MMDS limit exceeded error: The MMDS patch request doesn't fit.",
    ) in lines


@pytest.mark.parametrize(
    ("method", "path", "body", "action", "metric"),
    [
        ("PATCH", "/vm", b'{"state":"Paused"}', "pause vm", "pause_vm"),
        ("PATCH", "/vm", b'{"state":"Resumed"}', "resume vm", "resume_vm"),
        (
            "PUT",
            "/snapshot/create",
            b'{"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}',
            "create diff snapshot",
            "diff_create_snapshot",
        ),
        (
            "PUT",
            "/snapshot/create",
            b'{"snapshot_path":"s","mem_file_path":"m"}',
            "create full snapshot",
            "full_create_snapshot",
        ),
        ("PUT", "/snapshot/load", b'{"snapshot_path":"s","mem_file_path":"m"}', "load snapshot", "load_snapshot"),
    ],
)
def test_the_duration_of_pauses_and_snapshots_is_kept(
    method: str,
    path: str,
    body: bytes,
    action: str,
    metric: str,
    lines: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = iter(range(0, 100_000_000, 7_000_000))
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(now_ns))
    setattr(METRICS.latencies_us, metric, 0)
    ask(method, path, body, answer=DriveError(cause="x"))
    assert getattr(METRICS.latencies_us, metric) == 0, "a failure is not kept"
    ask(method, path, body)
    assert ("info", f"'{action}' API request took 7000 us.") in lines
    assert getattr(METRICS.latencies_us, metric) == 7000


# --- counters ---------------------------------------------------------------------------------------------------------


def counted(method: str, path: str, body: bytes | None = None) -> dict[str, int]:
    """Tell which API counters a request changes, and by how much."""
    groups = routes._COUNTERS.values()
    before = [dict(vars(group)) for group in groups]
    ask(method, path, body)
    changes: dict[str, Any] = {}
    for group, old in zip(groups, before, strict=True):
        changes |= {name: value - old[name] for name, value in vars(group).items() if value != old.get(name, value)}
    return changes


@pytest.mark.parametrize(
    ("method", "path", "body", "changes"),
    [
        ("GET", "/", None, {"instance_info_count": 1}),
        ("GET", "/version", None, {"vmm_version_count": 1}),
        ("GET", "/balloon", None, {}),
        ("GET", "/vm/config", None, {}),
        ("PUT", "/vsock", b'{"guest_cid":3,"uds_path":"u"}', {"vsock_count": 1}),
        ("PUT", "/vsock", b"{}", {"vsock_count": 1, "vsock_fails": 1}),
        ("PUT", "/mmds/x", b"{}", {"mmds_count": 1, "mmds_fails": 1}),
        ("PUT", "/drives", b"{}", {"drive_count": 1, "drive_fails": 1}),
        ("PUT", "/drives/", b"{}", {"drive_count": 1, "drive_fails": 1}),
        ("PUT", "/drives//", b"{}", {"drive_count": 1}),
        ("PUT", "/drives/-", b"{}", {"drive_count": 1}),
        ("PATCH", "/drives/a", b'{"drive_id":"b"}', {"drive_count": 1, "drive_fails": 1}),
        ("PATCH", "/network-interfaces/a", b'{"iface_id":"b"}', {"network_count": 2}),
        ("PATCH", "/network-interfaces", b"{}", {"network_count": 2}),
        ("PATCH", "/network-interfaces/a", b"{", {"network_count": 1, "network_fails": 1}),
        (
            "PUT",
            "/network-interfaces/a",
            b'{"iface_id":"b","host_dev_name":"t"}',
            {"network_count": 1, "network_fails": 1},
        ),
        ("PATCH", "/machine-config", b"{}", {"machine_cfg_count": 1}),
        ("DELETE", "/drives/a", None, {}),
        ("PUT", "/entropy", b"{", {}),
    ],
)
def test_requests_are_counted(method: str, path: str, body: bytes | None, changes: dict[str, int]) -> None:
    assert counted(method, path, body) == changes


def test_every_counter_of_the_table_exists() -> None:
    def counters(place: Endpoint | Fork) -> set[str]:
        found = {place.counter}
        if isinstance(place, Fork):
            for way in place.ways.values():
                found |= counters(way)
        return found - {""}

    for method, group in routes._COUNTERS.items():
        for place in ENDPOINTS[method].values():
            for counter in counters(place):
                assert getattr(group, f"{counter}_count") >= 0
                assert method == "GET" or getattr(group, f"{counter}_fails") >= 0
