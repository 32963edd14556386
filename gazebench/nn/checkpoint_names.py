"""State dicts of ViTs under the names of torch.hub, transformers, open_clip or timm, renamed to timm's.

All names of a checkpoint are rewritten by one table, since no name of one source means something else in another. What
sources split differently (query, key and value; the gate of a gated MLP) is then joined or cut as the model wants it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

PATCH_EMBEDDING: Final = r"(?:patch_embed\.proj|embeddings\.patch_embeddings?(?:\.projection)?|conv1)\.weight"
"""The name that every source has once; what stands before it is the prefix of the tower."""

RENAMED: Final = {
    r"^(?:embeddings\.patch_embeddings?(?:\.projection)?|conv1)\.": "patch_embed.proj.",
    r"^(?:embeddings\.)?(?:cls_token|class_embedding)$": "cls_token",
    r"^(?:embeddings\.)?(?:register_tokens|storage_tokens)$": "reg_token",
    r"^embeddings\.position_embeddings?(?:\.weight)?$|^positional_embedding$": "pos_embed",
    r"^(?:pre_layrnorm|ln_pre)\.": "norm_pre.",
    r"^(?:layernorm|post_layernorm|ln_post)\.": "norm.",
    r"^(?:encoder\.layers?|model\.layer|layer|transformer\.resblocks)\.(?=\d)": "blocks.",
    r"\.(?:layer_norm|ln_)(?=\d\.)": ".norm",
    r"\.layer_scale(\d)\.lambda1$": r".ls\1.gamma",
    r"\.(?:attention\.output\.dense|(?:attention|self_attn|attn)\.o(?:ut)?_proj)\.": ".attn.proj.",
    r"\.(?:attention\.attention|attention|self_attn)\.(q|k|v)(?:uery|ey|alue|_proj)\.": r".attn.\1_proj.",
    r"\.attn\.in_proj_": ".attn.qkv.",
    r"\.mlp\.(?:c_fc|weights_in|w12)\.": ".mlp.fc1.",
    r"\.mlp\.(?:c_proj|weights_out|w3|down_proj)\.": ".mlp.fc2.",
    r"\.mlp\.w1\.": ".mlp.gate_proj.",
    r"\.mlp\.w2\.": ".mlp.up_proj.",
}
JOINED: Final = {
    "attn.qkv": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "mlp.fc1_g": ("mlp.gate_proj",),
    "mlp.fc1_x": ("mlp.up_proj",),
}
"""timm's names of joined tensors, and those that are joined along the first axis."""
UNUSED: Final = re.compile(
    r"^(?:head|attn_pool|fc_norm|pooler|proj|local_cls_norm|rope|rope_embed)\b|mask_token$|bias_mask$|position_ids$"
)
"""Parts of a checkpoint that patch features do not depend on, or that are computed."""


def to_timm(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A checkpoint with timm's names, for a given model of timm; what does not fit keeps the name it has by then.

    Args:
        state: of the whole model, or of anything that holds it: what lies outside the tower is left out.
        model: has the names and shapes that are wanted.
    """
    own = model.state_dict()
    found = (re.search(PATCH_EMBEDDING + "$", name) for name in state)
    prefix = next((match.string[: match.start()] for match in found if match), "")
    given = {_renamed(name.removeprefix(prefix)): value for name, value in state.items() if name.startswith(prefix)}
    given = {name: value for name, value in given.items() if name in own or not UNUSED.search(name)}
    both = {"reg_token", "pos_embed"} <= own.keys() & given.keys()
    if both and given["pos_embed"].shape[1] == own["pos_embed"].shape[1] + 1:
        # timm adds the position of the class token to it once and for all.
        given["cls_token"] = given["cls_token"] + given["pos_embed"][:, :1]
        given["pos_embed"] = given["pos_embed"][:, 1:]
    for name, wanted in own.items():
        if name not in given:
            _make(name, wanted, given)
        elif given[name].shape != wanted.shape and given[name].squeeze().shape == wanted.squeeze().shape:
            given[name] = given[name].reshape(wanted.shape)  # class token and positions have axes of length 1 or not
    return given


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def _make(name: str, wanted: Tensor, given: dict[str, Tensor]) -> None:
    """Adds a tensor that the source splits or joins otherwise, and takes out what it is made of."""
    place, _, last = name.rpartition(".")  # a module and weight or bias
    block, _, layer = place.rpartition(".")
    if last in ("q_bias", "v_bias"):  # place is blocks.N.attn; DINOv3's keys have no bias
        whole, part = f"{place}.qkv.bias", f"{place}.{last[0]}_proj.bias"
        if whole in given:
            query, _, value = given.pop(whole).chunk(3)
            given |= {f"{place}.q_bias": query, f"{place}.v_bias": value}
        else:  # timm's own files leave out biases that are zero
            given[name] = given.pop(part) if part in given else torch.zeros_like(wanted)
    elif re.fullmatch(r"gamma_\d", last) and f"{place}.ls{last[-1]}.gamma" in given:
        given[name] = given.pop(f"{place}.ls{last[-1]}.gamma")
    elif layer == "fc1" and f"{block}.up_proj.{last}" in given:
        gate = [given.pop(f"{block}.gate_proj.{last}")] if f"{block}.gate_proj.{last}" in given else []
        given[name] = torch.cat([*gate, given.pop(f"{block}.up_proj.{last}")])
    else:
        for joined, parts in JOINED.items():
            if not place.endswith(joined):
                continue
            names = [f"{place.removesuffix(joined)}{part}.{last}" for part in parts]
            if all(part in given for part in names):
                given[name] = torch.cat([given.pop(part) for part in names])
