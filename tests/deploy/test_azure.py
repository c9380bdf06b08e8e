"""The Bicep files and policies, as far as they can be checked without Azure and its compiler."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from agentws.config.settings import OPTIONS
from agentws.daemon.server import CANCEL_TIME, CLOSING_TIME
from agentws.transports.http.probes import PROBES
from tests.deploy.bicep import BUILT_IN, DECORATORS, Template, text
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy/azure"
TEMPLATES = [Template(file) for file in sorted(FOLDER.glob("*.bicep"))]
POLICIES = sorted((FOLDER / "policies").glob("*.xml"))
APP = (FOLDER / "container-app.bicep").read_text()
GATEWAY = (FOLDER / "gateway.bicep").read_text()

each_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda it: it.file.stem)
each_policy = pytest.mark.parametrize("file", POLICIES, ids=lambda it: it.stem)


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


@each_policy
def test_a_policy_is_xml_with_the_sections_of_one(file: Path) -> None:
    root = ElementTree.parse(file).getroot()
    assert root.tag == "policies"
    assert [section.tag for section in root] == ["inbound", "backend", "outbound", "on-error"]


@each_policy
def test_the_values_that_a_policy_names_are_there(file: Path) -> None:
    names = set(re.findall(r"\{\{([\w-]+)\}\}", file.read_text()))
    assert names
    for name in names:
        assert f"'{name}'" in GATEWAY
    assert f"loadTextContent('policies/{file.name}')" in GATEWAY


@each_policy
def test_a_caller_cannot_name_itself(file: Path) -> None:
    inbound = ElementTree.parse(file).getroot()[0]
    tags = [policy.tag for policy in inbound]
    assert tags.index("validate-jwt") < tags.index("rate-limit-by-key") < tags.index("set-header")
    actions = {
        policy.get("name"): policy.get("exists-action") for policy in inbound.findall("set-header")
    }
    assert actions["x-agent-user-id"] == actions["api-key"] == "override"


def test_event_streams_are_not_buffered() -> None:
    root = ElementTree.parse(FOLDER / "policies/http.xml").getroot()
    forward = root.find("backend/forward-request")
    assert forward is not None
    assert forward.get("buffer-response") == "false"


def test_the_app_has_more_time_to_end_than_the_daemon_takes() -> None:
    (ours,) = re.findall(r"var shutdownGrace = (\d+)", APP)
    (theirs,) = re.findall(r"var terminationGrace = (\d+)", APP)
    assert int(theirs) > int(ours) + CANCEL_TIME + CLOSING_TIME


def test_its_variables_are_settings() -> None:
    known = {name for option in OPTIONS.values() for name in (option.variable, option.platform)}
    names = set(re.findall(r"name: '([A-Z_]+)'", APP))
    assert names - {"AZURE_CLIENT_ID"} <= known
    secrets = set(re.findall(r"secretRef: '([\w-]+)'", APP))
    assert secrets == {"store-url", "connection-string", "gateway-key"}
    for secret in secrets:
        assert f"name: '{secret}'" in APP


def test_it_asks_where_the_daemon_answers() -> None:
    routes = set(PROBES)
    assert set(re.findall(r"path: '(\S+)'", APP)) <= routes
    assert f"var port = {OPTIONS['server.port'].field.default}\n" in APP
