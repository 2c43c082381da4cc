"""Writes `data/openapi.json`: what Firecracker's OpenAPI document says about paths, methods and fields.

Run by hand when the document changes, with PyYAML at hand; prose and licence stay with the document:
    python tests/clients/openapi_facts.py ../shared/data/firecracker-openapi.yaml
"""

import importlib
import json
import os
import sys
from typing import Any


def name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def field(schema: dict[str, Any]) -> dict[str, Any]:
    """Reduce a property to type, enumeration and reference."""
    if "$ref" in schema:
        return {"ref": name_of(schema["$ref"])}
    reduced: dict[str, Any] = {"type": schema["type"]}
    if "enum" in schema:
        reduced["enum"] = [str(value) for value in schema["enum"]]
    if schema["type"] == "array":
        reduced["items"] = field(schema["items"])
    return reduced


def operation(described: dict[str, Any]) -> dict[str, Any]:
    """Reduce an operation to its body and its good answer."""
    bodies = [part["schema"]["$ref"] for part in described.get("parameters", []) if part["in"] == "body"]
    good = 200 if 200 in described["responses"] else 204
    answer = described["responses"][good].get("schema", {}).get("$ref", "")
    return {"body": name_of(bodies[0]) if bodies else None, "status": good, "answer": name_of(answer) or None}


def definition(schema: dict[str, Any]) -> dict[str, Any]:
    """Reduce a definition to its fields, or to its enumeration."""
    if "enum" in schema:
        return {"enum": [str(value) for value in schema["enum"]]}
    properties = {name: field(each) for name, each in schema.get("properties", {}).items()}
    return {"required": sorted(schema.get("required", [])), "properties": properties}


def main(source: str) -> None:
    yaml: Any = importlib.import_module("yaml")
    with open(source, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    facts = {
        "version": document["info"]["version"],
        "paths": {
            path: {method.upper(): operation(each) for method, each in methods.items()}
            for path, methods in document["paths"].items()
        },
        "definitions": {name: definition(schema) for name, schema in document["definitions"].items()},
    }
    target = os.path.join(os.path.dirname(__file__), "data", "openapi.json")
    with open(target, "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
