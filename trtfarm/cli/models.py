"""``trtfarm model``."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from trtfarm.cli.model_source import find_model, model_source
from trtfarm.cli.output import print_fields, print_json, print_table, say, size, stderr
from trtfarm.cli.run import exits, with_farm
from trtfarm.compose.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName, NameView, model_reference
from trtfarm.contract.profiles import TensorInfo
from trtfarm.contract.v1 import ModelView

app = typer.Typer(help="Models and their names: list, show, tag, untag.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Reference = Annotated[str, typer.Argument(help="A digest, or name:tag; without a tag, latest.")]


@app.command("list", epilog="Example: trtfarm model list --name detector")
def list_models(
    name: Annotated[str | None, typer.Option(help="Only models with a tag of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    as_json: Json = False,
) -> None:
    """Lists models and the names that stand for them, newest first."""
    with exits(as_json=as_json):
        page = with_farm(lambda farm: farm.models(limit=limit, name=name, cursor=cursor))
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        rows = [
            (model.digest, " ".join(model.names), size(model.size_bytes),
             f"{model.created_at:%Y-%m-%d %H:%M}")
            for model in page.models
        ]  # fmt: skip
        print_table(("model", "names", "size", "uploaded"), rows, empty="No models.")
        if page.next:
            stderr.print(f"More: trtfarm model list --cursor {quote(page.next)}", markup=False)


@app.command(epilog="Example: trtfarm model show detector:prod")
def show(model: Reference, as_json: Json = False) -> None:
    """Shows a model's inputs and outputs and its names; of a name, how it has moved."""
    with exits(as_json=as_json):
        reference = model_reference(model)

        def command(farm: Farm) -> tuple[ModelView | None, NameView | None, tuple[ModelName, ...]]:
            name = farm.name(reference) if isinstance(reference, ModelName) else None
            if name is not None and name.model is None:
                return None, name, ()
            view = farm.model(name.model if name and name.model else reference)
            names = farm.names(model=view.digest, limit=500).names
            return view, name, tuple(each.reference for each in names)

        view, name, names = with_farm(command)
        if as_json:
            document = view.model_dump(mode="json") if view else {}
            moves = name and name.model_dump(mode="json")["moves"]
            print_json({**document, "names": names, **({"moves": moves} if name else {})})
            return
        if view is not None:
            _print_model(view, names)
        for move in (name and name.moves) or ():
            moved = _moved(move.previous, move.model)
            say(f"{move.at:%Y-%m-%d %H:%M:%S} UTC  {moved}, by {move.by}")


@app.command(epilog="Example: trtfarm model tag model.onnx detector:prod")
def tag(
    model: Annotated[str, typer.Argument(help="The ONNX file, which is uploaded; or a digest, or name:tag.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME:TAG...", help="What to call it from now on.")],
    as_json: Json = False,
) -> None:
    """Makes names stand for a model, whatever they stood for before. Plans stay with their models."""
    with exits(as_json=as_json):
        source, wanted = model_source(model), [ModelName(name) for name in names]

        def command(farm: Farm) -> list[NameView]:
            digest = find_model(farm, source, quiet=as_json)
            return [farm.tag(digest, name) for name in wanted]

        tagged = with_farm(command)
        if as_json:
            print_json({"names": [each.model_dump(mode="json", exclude={"moves"}) for each in tagged]})
            return
        for each in tagged:
            before = each.moves[0].previous if each.moves else None
            stderr.print(f"{each.reference}  {_moved(before, each.model)}", markup=False)


@app.command(epilog="Example: trtfarm model untag detector:prod")
def untag(
    name: Annotated[str, typer.Argument(metavar="NAME:TAG", help="Without a tag, latest.")],
    as_json: Json = False,
) -> None:
    """Takes a name away. The model, its plans and the name's history stay."""
    with exits(as_json=as_json):
        reference = ModelName(name)
        with_farm(lambda farm: farm.untag(reference))
        if as_json:
            print_json({"reference": reference, "model": None})
        else:
            stderr.print(f"{reference} is taken away.", markup=False)


def _print_model(view: ModelView, names: tuple[ModelName, ...]) -> None:
    print_fields(
        {
            "model": view.digest,
            "names": ", ".join(names) or None,
            "size": f"{size(view.size_bytes)} ({view.size_bytes} bytes)",
            "nodes": view.node_count,
            "opsets": ", ".join(f"{domain} {version}" for domain, version in view.opsets.items()),
            "uploaded": f"{view.created_at:%Y-%m-%d %H:%M:%S} UTC",
            **{f"input {each.name}": _tensor(each) for each in view.inputs},
            **{f"output {each.name}": _tensor(each) for each in view.outputs},
        }
    )


def _moved(previous: Digest | None, model: Digest | None) -> str:
    if model is None:
        return f"taken away from {previous}"
    return f"{previous.short} → {model}" if previous else f"→ {model}"


def _tensor(each: TensorInfo) -> str:
    dims = each.shape
    shape = "?" if dims is None else "x".join("?" if dim < 0 else str(dim) for dim in dims)
    return f"{each.dtype} {shape}"
