"""What Azure's resources are made of, by the models of its own SDK, and what a template puts in."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple

from azure.core.credentials import AccessToken
from azure.mgmt import apimanagement, appcontainers, redisenterprise
from tree_sitter import Node

from tests.deploy.bicep import Template, name_of, text

MODELS: dict[str, tuple[ModuleType, str]] = {
    "Microsoft.ApiManagement/service": (apimanagement, "ApiManagementServiceResource"),
    "Microsoft.ApiManagement/service/apis": (apimanagement, "ApiCreateOrUpdateParameter"),
    "Microsoft.ApiManagement/service/apis/diagnostics": (apimanagement, "DiagnosticContract"),
    "Microsoft.ApiManagement/service/apis/operations": (apimanagement, "OperationContract"),
    "Microsoft.ApiManagement/service/apis/operations/policies": (apimanagement, "PolicyContract"),
    "Microsoft.ApiManagement/service/apis/policies": (apimanagement, "PolicyContract"),
    "Microsoft.ApiManagement/service/loggers": (apimanagement, "LoggerContract"),
    "Microsoft.ApiManagement/service/namedValues": (apimanagement, "NamedValueCreateContract"),
    "Microsoft.App/containerApps": (appcontainers, "ContainerApp"),
    "Microsoft.App/managedEnvironments": (appcontainers, "ManagedEnvironment"),
    "Microsoft.Cache/redisEnterprise": (redisenterprise, "Cluster"),
    "Microsoft.Cache/redisEnterprise/databases": (redisenterprise, "Database"),
    "Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments": (
        redisenterprise,
        "AccessPolicyAssignment",
    ),
}
"""Which model of which package describes a type of resource; others are in no package here."""

OF_BICEP = {"dependsOn", "name", "parent", "scope"}
"""What stands in a resource and is not sent as its body."""


class Nobody:
    """A credential that is never asked for a token."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        raise AssertionError


class Resource(NamedTuple):
    """A resource that a template declares."""

    type: str
    version: str
    is_there: bool
    """Whether it is `existing`, and only looked at."""
    body: Node


Shape = dict[str, Any]
"""What may be in an object: by its name, the shape of an object below; None where it may be any."""


def resources(template: Template) -> Iterator[Resource]:
    """Yield all resources of a template, those that stand in others included."""
    for node in template.of_type("resource_declaration"):
        symbol, _, version = resource_type(node).partition("@")
        body = next(objects(node, {}))
        yield Resource(symbol, version, "existing" in [text(it) for it in node.children], body)


def resource_type(node: Node) -> str:
    """Return type and version of a resource; one that stands in another has its version."""
    own = text(next(child for child in node.children if child.type == "string")).strip("'")
    outer = node.parent
    while outer is not None and outer.type != "resource_declaration":
        outer = outer.parent
    if outer is None:
        return own
    kind, _, version = resource_type(outer).partition("@")
    return f"{kind}/{own}@{version}"


def version_of(package: ModuleType) -> str:
    """Return the version of the interface that a package of the SDK speaks."""
    (client,) = (vars(package)[name] for name in package.__all__ if name.endswith("Client"))
    config = client(credential=Nobody(), subscription_id="none")._config  # noqa: SLF001 - it is told nowhere else
    return str(config.api_version)


def unknown(template: Template, resource: Resource) -> list[str]:
    """Return the paths of all properties that Azure does not know."""
    package, model = MODELS[resource.type]
    shape = dict.fromkeys(OF_BICEP) | shape_of(package, model)
    variables = {
        name_of(node): node.named_children[-1] for node in template.of_type("variable_declaration")
    }
    return list(strangers(resource.body, shape, variables))


def strangers(body: Node, shape: Shape, variables: Mapping[str, Node]) -> Iterator[str]:
    """Yield the paths of the properties of an object that its shape does not have."""
    for pair in body.named_children:
        if pair.type != "object_property" or pair.named_child_count < 2:
            continue  # a comment, or a resource that stands in this one
        key, value = pair.named_children
        name = text(key).strip("'")
        if name not in shape:
            yield name
        elif shape[name] is not None:
            for inner in objects(value, variables):
                yield from (f"{name}.{it}" for it in strangers(inner, shape[name], variables))


def objects(value: Node, variables: Mapping[str, Node]) -> Iterator[Node]:
    """Yield the objects that a value may be, or hold in its arrays."""
    if value.type == "object":
        yield value
    elif text(value) in variables:
        yield from objects(variables[text(value)], variables)
    elif value.type != "member_expression":
        for child in value.named_children:
            yield from objects(child, variables)


def shape_of(package: ModuleType, model: str) -> Shape:
    """Return the shape of a model, whichever of the two generators of the SDK made it."""
    cls = getattr(package.models, model)
    if hasattr(cls, "_attribute_map"):
        return _flattened(package, cls._attribute_map.values())
    return {
        field._rest_name_input or attribute: _shape_in(package, str(annotation))  # noqa: SLF001 - the same
        for base in cls.__mro__
        for attribute, annotation in vars(base).get("__annotations__", {}).items()
        if hasattr(field := vars(base).get(attribute), "_rest_name_input")
    }


def _flattened(package: ModuleType, entries: Iterable[Mapping[str, str]]) -> Shape:
    """Return the shape of keys that lead through several objects, such as `properties.port`."""
    shape: Shape = {}
    for entry in entries:
        *above, name = entry["key"].split(".")
        inner = shape
        for step in above:
            inner = inner.setdefault(step, {})
        inner[name] = _shape_in(package, entry["type"])
    return shape


def _shape_in(package: ModuleType, kind: str) -> Shape | None:
    """Return the shape of the model that a type names; None for text, numbers and free keys."""
    if kind.startswith("{") or "dict[" in kind:
        return None
    named = [getattr(package.models, word, None) for word in re.findall(r"\w+", kind)]
    found = [cls.__name__ for cls in named if isinstance(cls, type) and not issubclass(cls, Enum)]
    return shape_of(package, found[0]) if found else None
