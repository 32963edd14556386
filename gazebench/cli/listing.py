"""``gazebench list``: methods, data sets, protocols, tasks and backbones."""

from __future__ import annotations

import typer

from gazebench.cli.options import command

app = typer.Typer()


@command(app, "list", "gazebench list")
def listing() -> int:
    """List methods, data sets, tasks and backbones.

    Data sets come with their protocol and its metrics. Exit code 1 if a plug-in is broken.
    """
    from gazebench.core.plugins import PluginError, embedded
    from gazebench.engine.registry import KINDS, usable
    from gazebench.nn.backbones import BACKBONES

    broken = 0
    for kind in (*KINDS, "tasks"):
        print(f"\n{kind}")
        for entry, found in usable(kind):
            notes = "" if entry.ours else f"  [from {entry.origin}]"
            if isinstance(found, PluginError):
                broken += 1
                about = f"BROKEN: {found}"
            elif kind == "methods":
                about = f"{found.card.title}: {found.card.family}; {', '.join(sorted(found.capabilities))}"
                about += f"; {found.card.blind}" if found.card.blind else ""
            elif kind == "datasets":
                names = ", ".join(column.name for column in found.protocol.metrics)
                about = f"{found.card.title}: protocol {found.protocol.id} ({names})"
            else:
                names = ", ".join(column.name for column in found.metrics)
                about = f"{found.name}: {found().describe()['id']} ({names})"
            newer = getattr(found, "superseded_by", "")
            notes += f"  [superseded by {newer}]" if newer else ""
            print(f"  {entry.name:<16} {about}{notes}")
    print("\nbackbones (--model.backbone; any other plain ViT of timm as timm:NAME)")
    for name in embedded("BACKBONES"):
        print(f"  {name}")
    for name, backbone in BACKBONES.items():
        print(f"  {name:<26} weights from {', '.join(backbone.files)}; also {', '.join(backbone.others)}")
    return 1 if broken else 0
