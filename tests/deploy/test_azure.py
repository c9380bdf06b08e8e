"""The Bicep files and policies, as far as they can be checked without Azure and its compiler."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from agentws import Agent
from agentws.config.options import OPTIONS
from agentws.daemon.parts import FRAMED_PATH, RAW_PATH
from agentws.daemon.server import CANCEL_TIME, CLOSING_TIME
from agentws.transports.http.probes import PROBES
from tests.conftest import Serve
from tests.deploy.arm import MODELS, resources, unknown, version_of
from tests.deploy.bicep import BUILT_IN, DECORATORS, Template, text
from tests.docs.conftest import not_built
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy/azure"
TEMPLATES = [Template(file) for file in sorted(FOLDER.glob("*.bicep"))]
POLICIES = sorted((FOLDER / "policies").glob("*.xml"))
APP = (FOLDER / "container-app.bicep").read_text()
GATEWAY = (FOLDER / "gateway.bicep").read_text()
MAIN = (FOLDER / "main.bicep").read_text()
MONITORING = (FOLDER / "monitoring.bicep").read_text()
REDIS = (FOLDER / "redis.bicep").read_text()
HTTP_POLICY = FOLDER / "policies/http.xml"
INVOKE_POLICY = FOLDER / "policies/invoke.xml"

ROUTES = {
    *("/invocations", "/invocations/{id}", "/invocations/{id}/inputs", "/invocations/{id}/cancel"),
    *("/invocations/docs/openapi.json", "/invocations/docs/asyncapi.json"),
}
"""Those of §1 of the protocol."""

each_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda it: it.file.stem)
each_policy = pytest.mark.parametrize("file", POLICIES, ids=lambda it: it.stem)
each_asking_policy = pytest.mark.parametrize(
    "file", [it for it in POLICIES if "validate-jwt" in it.read_text()], ids=lambda it: it.stem
)


@each_template
def test_it_is_bicep(template: Template) -> None:
    assert template.errors() == []


@each_template
def test_every_name_that_it_uses_is_declared(template: Template) -> None:
    assert template.uses().keys() <= template.names | BUILT_IN | DECORATORS


@each_template
def test_every_parameter_is_used_and_described(template: Template) -> None:
    assert template.parameters.keys() <= template.uses().keys()
    described = len(re.findall(r"^@description\(", template.file.read_text(), re.M))
    assert described == len(template.parameters) + len(template.outputs)


@each_template
def test_modules_get_what_they_ask_for(template: Template) -> None:
    for symbol, file, given in template.modules():
        module = Template(file)
        assert module.required <= given <= module.parameters.keys()
        for output in re.findall(rf"\b{symbol}!?\.outputs\.(\w+)", template.file.read_text()):
            assert output in module.outputs


@each_template
def test_secrets_are_marked_as_such(template: Template) -> None:
    for name, node in template.parameters.items():
        if re.search("key|connectionstring|storeurl", name.lower()):
            before = node.prev_named_sibling
            assert before is not None
            assert "@secure()" in text(before)


def test_a_mistake_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "wrong.bicep"
    file.write_text("param name string\nvar other = nmae\nresource {\n")
    wrong = Template(file)
    assert wrong.errors()
    assert "nmae" in wrong.uses()
    assert "nmae" not in wrong.names


@each_template
def test_azure_knows_all_that_is_in_its_resources(template: Template) -> None:
    for resource in resources(template):
        if resource.type in MODELS:
            assert resource.version <= version_of(MODELS[resource.type][0])
            assert unknown(template, resource) == []


@pytest.mark.parametrize(
    ("file", "name", "path"),
    [
        ("container-app", "identity: identityId\n    metadata", "template.scale.rules.custom."),
        ("container-app", "failureThreshold: 10", "template.containers.probes."),
        ("environment", "sharedKey:", "appLogsConfiguration.logAnalyticsConfiguration."),
        ("gateway", "mode: 'Hide'", "frontend.request.dataMasking.queryParams."),
        ("gateway", "urlTemplate: operation", ""),
        ("redis", "objectId:", "user."),
    ],
)
def test_what_azure_does_not_know_would_be_found(
    tmp_path: Path, file: str, name: str, path: str
) -> None:
    wrong = tmp_path / "wrong.bicep"
    wrong.write_text((FOLDER / f"{file}.bicep").read_text().replace(name, f"un{name}"))
    template = Template(wrong)
    found = [
        it for each in resources(template) if each.type in MODELS for it in unknown(template, each)
    ]
    assert f"properties.{path}un{name.split(':')[0]}" in found


# --- the gateway ------------------------------------------------------------------------------


def text_of(name: str) -> str:
    """Return a text that gateway.bicep puts into policies, its variables left as they are."""
    (found,) = re.findall(rf"^var {name} = '(.*)'$", GATEWAY, re.M)
    return str(found)


def filled(file: Path) -> str:
    """Return a policy with all that parameters may put into it."""
    claim = '<claim name="scp" match="any" separator=" "><value>a</value></claim>'
    policy = file.read_text()
    for mark, content in (
        ("<!-- [claims] -->", f"<required-claims>{claim}</required-claims>"),
        ("<!-- [query] -->", text_of("withoutQuery")),
        ("<!-- [pages] -->", text_of("pages")),
        (text_of("inHeader"), text_of("inHeaderOrQuery")),
    ):
        policy = policy.replace(mark, content)
    assert "[" not in re.sub(r"\w\[&quot;|&quot;\]", "", policy), "a mark that nothing fills"
    return policy


@each_policy
@pytest.mark.parametrize("fill", [Path.read_text, filled], ids=["none", "all"])
def test_a_policy_is_xml_with_the_sections_of_one(file: Path, fill: Callable[[Path], str]) -> None:
    root = ElementTree.fromstring(fill(file))
    assert root.tag == "policies"
    assert [section.tag for section in root] == ["inbound", "backend", "outbound", "on-error"]


@each_policy
def test_the_values_that_a_policy_names_are_there(file: Path) -> None:
    names = set(re.findall(r"\{\{agentws-([\w-]+)\}\}", file.read_text()))
    assert names or file == INVOKE_POLICY
    assert names <= {*re.findall(r"^  '?([\w-]+)'?: ", GATEWAY, re.M), "gateway-key"}
    assert f"loadTextContent('policies/{file.name}')" in GATEWAY


@each_asking_policy
def test_a_caller_cannot_name_itself(file: Path) -> None:
    inbound = inbound_of(file.read_text())
    tags = [policy.tag for policy in inbound]
    assert tags.index("validate-jwt") < tags.index("choose") < tags.index("set-header")
    actions = {
        policy.get("name"): policy.get("exists-action") for policy in inbound.findall("set-header")
    }
    assert actions["x-agent-user-id"] == actions["api-key"] == "override"


@each_asking_policy
def test_addresses_are_counted_before_tokens_are_verified_and_users_after(file: Path) -> None:
    tags = [policy.tag for policy in inbound_of(file.read_text())]
    first, second = (index for index, tag in enumerate(tags) if tag == "rate-limit-by-key")
    assert first < tags.index("validate-jwt") < second


def test_the_counts_of_a_gateway_are_apart() -> None:
    keys = [
        policy.get("counter-key", "").split(":")[0]
        for file in POLICIES
        for policy in ElementTree.parse(file).iter("rate-limit-by-key")
    ]
    assert sorted(key.removeprefix('@("agentws-') for key in keys) == [
        *("address", "address", "calls", "handshakes", "readiness"),
    ]


def inbound_of(policy: str) -> ElementTree.Element:
    return ElementTree.fromstring(policy)[0]


def test_pages_are_asked_for_their_origin_before_anything_else() -> None:
    tags = [policy.tag for policy in inbound_of(filled(HTTP_POLICY))]
    assert tags[:3] == ["base", "cors", "set-header"]


def test_the_token_of_a_query_goes_no_further() -> None:
    inbound = inbound_of(filled(FOLDER / "policies/handshake.xml"))
    verify, drop = inbound.find("validate-jwt"), inbound.find("set-query-parameter")
    assert verify is not None
    assert drop is not None
    assert verify.get("header-name") is None
    assert f'Query.GetValueOrDefault("{drop.get("name")}"' in verify.get("token-value", "")


async def test_a_handshake_that_keeps_its_token_is_let_in_by_the_key(serve: Serve) -> None:
    replica = await serve(Agent(), auth={"api_keys": ("the-gateway's",)})
    passed_on = {"Authorization": "Bearer not.our.own", "x-agent-user-id": "somebody"}
    async with replica.connect(headers={**passed_on, "api-key": "the-gateway's"}) as client:
        assert (await client.ask(action="ping"))["type"] == "pong"


def test_event_streams_are_not_buffered() -> None:
    for file in (HTTP_POLICY, INVOKE_POLICY):
        (forward,) = ElementTree.parse(file).iter("forward-request")  # no policy may have two
        assert forward.get("buffer-response") == "false"
    assert set(re.findall(r"^    bytes: (\d+)", GATEWAY, re.M)) == {"0"}


def test_only_a_post_that_carries_a_key_is_repeated() -> None:
    for file in POLICIES:
        assert (file == INVOKE_POLICY) == ("<retry " in file.read_text())
    (retry,) = ElementTree.parse(INVOKE_POLICY).iter("retry")
    condition = retry.get("condition", "")
    assert "StatusCode == 503" in condition
    assert 'ContainsKey("Idempotency-Key")' in condition
    assert "||" not in condition
    assert re.search(
        r"operation: 'invoke'\n  text: loadTextContent\('policies/invoke.xml'\)", GATEWAY
    )


def test_the_operations_are_routes_of_the_daemon() -> None:
    templates = re.findall(r"urlTemplate: '(\S+)'", GATEWAY)
    assert len(templates) == 8
    for template in templates:
        assert not template.endswith("/")
        assert template in {*PROBES, *ROUTES}
    paths = re.findall(r"path: '(\w\S*)'", GATEWAY)
    assert [f"/{path}" for path in paths] == [FRAMED_PATH, RAW_PATH]


# --- the app ----------------------------------------------------------------------------------


def test_the_app_has_more_time_to_end_than_the_daemon_takes() -> None:
    (closing,) = re.findall(r"var closing = (\d+)", APP)
    assert "terminationGracePeriodSeconds: shutdownGrace + closing\n" in APP
    assert int(closing) > CANCEL_TIME + CLOSING_TIME
    (most,) = re.findall(r"@maxValue\((\d+)\)\nparam shutdownGrace", APP)
    assert int(most) + int(closing) <= 600  # ten minutes, which the platform is known to wait


def test_its_variables_are_settings() -> None:
    known = {name for option in OPTIONS.values() for name in (option.variable, option.platform)}
    promised = not_built((ROOT / "docs/protocol.md").read_text())
    known |= {f"AGENTWS_{name.replace('.', '__').upper()}" for name in promised}
    names = set(re.findall(r"name: '([A-Z_]+)'", APP))
    assert names - {"AZURE_CLIENT_ID", "SECRETS_VERSION"} <= known
    secrets = set(re.findall(r"secretRef: '([\w-]+)'", APP))
    assert secrets == {"store-url", "connection-string", "gateway-keys"}
    for secret in secrets:
        assert f"name: '{secret}'" in APP


def test_it_asks_where_the_daemon_answers() -> None:
    routes = set(PROBES)
    assert set(re.findall(r"path: '(\S+)'", APP)) <= routes
    assert f"var port = {OPTIONS['server.port'].field.default}\n" in APP


def test_probes_are_within_the_bounds_of_the_platform() -> None:
    for key, most in (("failureThreshold", 10), ("periodSeconds", 240), ("timeoutSeconds", 240)):
        values = [int(value) for value in re.findall(rf"{key}: (\d+)", APP)]
        assert len(values) == 3
        assert all(1 <= value <= most for value in values)


def test_it_scales_by_what_open_sockets_leave_in_the_metrics() -> None:
    assert "concurrentRequests" not in APP
    (metric,) = re.findall(r'Name == "([a-z_.]+)"', APP)
    assert f"`{metric} " in (ROOT / "docs/telemetry.md").read_text()
    (rule,) = re.findall(r"var socketsRule = {\n(.*?)\n}", APP, re.S)
    assert "identity: identityId" in rule


# --- the store, and what is looked at ---------------------------------------------------------


def test_redis_is_of_a_size_that_may_be_in_one_piece() -> None:
    sizes = re.findall(r"^  '\w+_[BMX](\d+)'$", REDIS, re.M)
    assert sizes
    assert all(int(size) <= 25 for size in sizes)
    assert "clusteringPolicy: 'NoCluster'" in REDIS
    assert re.search(r"^param storeSize string = '(\w+)'", MAIN, re.M)[1] in REDIS  # type: ignore[index]


def test_an_alert_looks_for_what_the_daemon_writes() -> None:
    code = "".join(file.read_text() for file in sorted((ROOT / "agentws").rglob("*.py")))
    for words in re.findall(r'message startswith "([^"]+)"', MONITORING):
        assert f'"{words}' in code
    for name in re.findall(r'(?:logger|error) == "([^"]+)"', MONITORING):
        assert f'"{name}"' in code


def test_an_alert_is_told_to_somebody_and_means_something() -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    (alerts,) = re.findall(r"^var alerts = \[(.*?)^\]", MONITORING, re.M | re.S)
    names = re.findall(r"name: '([\w-]+)'", alerts)
    assert names
    for name in names:
        assert f"*{name}*" in guide
    assert "actionGroups: [" in MONITORING
