"""``gazebench weights add|list|check|export|push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gazebench.cli.options import BoardsOption, RunsOption, command, places

app = typer.Typer(
    name="weights",
    help="Which weights are known by their digest: those of publishers, and your own.",
    epilog="Example: gazebench weights check dinov2_vitb14_pretrain.pth",
    no_args_is_help=True,
)
FileArgument = Annotated[Path, typer.Argument(help="A file, or a folder with *.safetensors.")]


@command(app, "add", "gazebench weights add gaze360.pt --name gaze360_resnet18.pt --standing published")
def add(
    file: FileArgument,
    name: Annotated[str, typer.Option(help="Its name in records; the file's by default.")] = "",
    standing: Annotated[
        Literal["published", "own"], typer.Option(help="Whether others published it, or you made it.")
    ] = "published",
    source: Annotated[str, typer.Option(help="Where it can be had, or how it was made.")] = "",
    clip_model: Annotated[
        list[str] | None, typer.Option(help="Of a CLIP: the model in open_clip that it belongs to.")
    ] = None,
) -> None:
    """Add weights to your own table, so that results with them are not marked as not verified."""
    from gazebench.core.files import file_digest
    from gazebench.core.known_weights import KnownWeights, user_table, weight_files
    from gazebench.core.known_weights import add as add_entry

    files = weight_files(file)
    for one in files:
        label = one.name if not name else name if len(files) == 1 else f"{name}/{one.name}"
        add_entry(KnownWeights(label, file_digest(one), standing, source, tuple(clip_model or ())))
        print(f"{label}: {standing}")
    print(f"in {user_table()}")


@command(app, "list", "gazebench weights list")
def show() -> None:
    """List all known weights: the package's table and your own."""
    from gazebench.core.known_weights import packaged, users

    for origin, entries in (("package", packaged()), ("user", users())):
        for entry in entries:
            model = f" ({', '.join(entry.clip)})" if entry.clip else ""
            print(f"{entry.sha256[:16]:<16}  {entry.standing:<9}  {origin:<7}  {entry.name}{model}  {entry.source}")


@command(app, "check", "gazebench weights check runs/gazefollow/gazelle/RUN/weights.pt")
def check(file: FileArgument, runs: RunsOption = None, boards: BoardsOption = None) -> int:
    """Tell what is known of a file of weights; the exit code is 1 if nothing is."""
    from gazebench.core.known_weights import digests, known
    from gazebench.engine.standing import of_files

    where, sha256 = places(runs, boards), digests(file)
    part = of_files("weights", file.name, sha256, [file.parent / "record.json", where.boards, where.runs])
    for digest in sha256.split("+"):
        entry = known(digest)
        print(f"sha256 {digest}" + (f"  {entry.name}  {entry.source}" if entry else ""))
    how = f"by the record of run {part.run} ({part.run_class})" if part.run else f"by {part.by}"
    if part.standing == "unverified":
        how = "nothing is known of it; `gazebench weights add` adds it to your table"
    print(f"{part.standing}: {how}")
    return 1 if part.standing == "unverified" else 0


RunArgument = Annotated[Path, typer.Argument(help="The folder of a finished run.")]


@command(app, "export", "gazebench weights export runs/gazefollow/gazelle/RUN exported")
def export(run: RunArgument, folder: Annotated[Path, typer.Argument(help="Is made.")]) -> None:
    """Write a run's weights as safetensors, with settings, record and a model card for the Hugging Face hub."""
    from gazebench.report.hub import export as write

    print(write(run, folder))


@command(app, "push", "gazebench weights push runs/gazefollow/gazelle/RUN me/gazelle-dinov3-l")
def push(
    run: RunArgument,
    repo: Annotated[str, typer.Argument(metavar="OWNER/REPOSITORY", help="Is made where it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Close a new repository to others.")] = False,
) -> None:
    """Upload such a folder to the Hugging Face hub; `--weights hf:OWNER/REPOSITORY` uses it from then on."""
    from gazebench.report.hub import push_to_hub

    print(push_to_hub(run, repo, private=private))
