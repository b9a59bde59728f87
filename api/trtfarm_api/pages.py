"""The API's description of itself as one page for people: no script, nothing fetched, fit to be saved."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { background: #8881; overflow-x: auto; padding: 1rem }
summary { cursor: pointer; padding: .3rem 0 }
summary b { display: inline-block; font-family: ui-monospace, monospace; width: 5rem }
th, td { padding: .1rem 1rem .1rem 0; text-align: left; vertical-align: top }
"""
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"


def docs_page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    info = document["info"]
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
            *_operations(document["paths"]),
            "<h2>Documents</h2>",
            *_schemas(document["components"]["schemas"]),
            "</html>",
        ]
    )


def _operations(paths: dict[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code></summary>"
            yield f"<p>{escape(operation.get('description', ''))}</p>"
            if parameters := operation.get("parameters"):
                yield "<table><tr><th>parameter<th>in<th>"
                for each in parameters:
                    needed = " (required)" if each.get("required") else ""
                    yield f"<tr><td><code>{escape(each['name'])}</code>{needed}<td>{escape(each['in'])}"
                    yield f"<td>{escape(each.get('description', ''))}"
                yield "</table>"
            if body := operation.get("requestBody"):
                yield f"<p>Body: {_names(body)}</p>"
            for status, response in operation["responses"].items():
                yield f"<p>{escape(status)}: {escape(response['description'])} {_names(response)}</p>"
            yield "</details>"


def _names(holder: dict[str, Any]) -> str:
    """Kinds of content, with links to the documents that they hold."""
    found = []
    for kind, content in holder.get("content", {}).items():
        reference = content.get("schema", {}).get("$ref", "")
        name = escape(reference.rpartition("/")[2])
        found.append(f'<a href="#{name}">{name}</a>' if name else f"<code>{escape(kind)}</code>")
    return ", ".join(found)


def _schemas(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield f"<pre>{text}</pre></details>"
