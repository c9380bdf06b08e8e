"""As much of Bicep's compiler as a grammar gives: syntax, names, and what modules are handed."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

DECLARATIONS = (
    "parameter_declaration",
    "variable_declaration",
    "resource_declaration",
    "module_declaration",
)

BUILT_IN = {
    *("empty", "guid", "items", "join", "json", "last", "loadTextContent", "map", "replace"),
    *("resourceGroup", "split", "string", "subscriptionResourceId", "take", "tenant", "trim"),
    *("union", "uniqueString"),
}
"""The functions that are used; another one is to be looked up before it is added."""

DECORATORS = {
    "allowed",
    "batchSize",
    "description",
    "maxLength",
    "maxValue",
    "minLength",
    "minValue",
    "secure",
}


class Template:
    """One Bicep file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        parser = Parser(Language(tree_sitter_bicep.language()))
        self.root = parser.parse(file.read_bytes()).root_node

    def errors(self) -> list[str]:
        """Return what is no Bicep."""
        wrong = (node for node in walk(self.root) if node.type == "ERROR" or node.is_missing)
        return [f"{self.file.name}:{node.start_point.row + 1}: {text(node)!r}" for node in wrong]

    @cached_property
    def parameters(self) -> dict[str, Node]:
        """The parameters by name."""
        return {name_of(node): node for node in self.of_type("parameter_declaration")}

    @cached_property
    def required(self) -> set[str]:
        """The parameters without a default."""
        return {name for name, node in self.parameters.items() if "=" not in tokens(node)}

    @cached_property
    def outputs(self) -> set[str]:
        """The names of the outputs."""
        return {name_of(node) for node in self.of_type("output_declaration")}

    @cached_property
    def names(self) -> set[str]:
        """All that is declared, the variables of loops and lambdas included."""
        declaring = (*DECLARATIONS, "for_statement", "for_loop_parameters", "lambda_expression")
        nodes = (node for node in walk(self.root) if node.type in declaring)
        return {name for node in nodes for name in names_of(node)}

    def uses(self) -> dict[str, int]:
        """Return each name that is used as a value, and how often."""
        counts: dict[str, int] = {}
        for node in walk(self.root):
            if node.type in ("identifier", "variable_access") and is_value(node):
                counts[text(node)] = counts.get(text(node), 0) + 1
        return counts

    def modules(self) -> Iterator[tuple[str, Path, set[str]]]:
        """Yield symbol, file and the names of the parameters of each module."""
        for node in self.of_type("module_declaration"):
            (path,) = re.findall(r"'([^']+\.bicep)'", text(node))
            yield name_of(node), self.file.parent / path, set(handed_on(node))

    def of_type(self, kind: str) -> Iterator[Node]:
        """Yield the nodes of one type."""
        return (node for node in walk(self.root) if node.type == kind)


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    yield node
    for child in node.children:
        yield from walk(child)


def text(node: Node) -> str:
    """Return the source of a node."""
    assert node.text is not None
    return node.text.decode()


def tokens(node: Node) -> list[str]:
    """Return the sources of the children of a node."""
    return [text(child) for child in node.children]


def name_of(node: Node) -> str:
    """Return the symbol that a declaration declares."""
    return next(text(child) for child in node.children if child.type == "identifier")


def names_of(node: Node) -> list[str]:
    """Return what a node declares: one symbol, or the two of a loop that counts."""
    if node.type == "for_loop_parameters":
        return [text(child) for child in node.named_children]
    return [text(child) for child in node.children if child.type == "identifier"][:1]


def handed_on(module: Node) -> Iterator[str]:
    """Yield the names of the parameters in a module's `params`."""
    for node in walk(module):
        if node.type == "object_property" and text(node.children[0]) == "params":
            for value in node.children:
                if value.type == "object":
                    pairs = (it for it in value.children if it.type == "object_property")
                    yield from (text(pair.children[0]) for pair in pairs)


def is_value(node: Node) -> bool:
    """Tell whether an identifier stands for a value: no key, type, member or declared name."""
    parent = node.parent
    assert parent is not None
    match parent.type:
        case "object_property":
            return parent.children[0] != node
        case "member_expression" | "resource_expression" | "call_expression":
            return parent.children[0] == node
        case "for_statement":
            return "in" in tokens(parent)[: parent.children.index(node)]
        case "lambda_expression":
            return "=>" in tokens(parent)[: parent.children.index(node)]
        case kind if kind in (*DECLARATIONS, "output_declaration"):
            return "=" in tokens(parent)[: parent.children.index(node)]
        case _:
            return parent.type != "type"
