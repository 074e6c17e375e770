"""LoRAs of all kinds, added to the weights themselves, so that sampling knows nothing of them."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers  # it has no public way
from safetensors.torch import load_file

from text2video_zero.errors import UserError
from text2video_zero.models.checkpoints import short_name
from text2video_zero.models.compatibility import check_adapter, errors_in_one_sentence
from text2video_zero.models.weights import is_lycoris, read_shapes

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    from text2video_zero.models.checkpoints import Adapter

    _Components = StableDiffusionPipeline | StableDiffusionXLPipeline

# The networks that LoRAs change, with what trainers put before the names of their layers
PREFIXES = {
    "unet": ("lora_unet_", "lycoris_"),
    "text_encoder": ("lora_te_text_model_", "lora_te1_text_model_"),
    "text_encoder_2": ("lora_te2_text_model_",),
}
FACTORS = ("lora_down.weight", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")  # whose rows are an adapter's rank
CARRIERS = ("lora_up.weight", "hada_w1_a", "lokr_w1", "lokr_w1_a")  # that are multiplied by its scale
# Inside of blocks and around them, in the original code's words -> in diffusers' own, with trainers' underscores
ORIGINAL_LAYERS = {
    "_in_layers_0": "_norm1",
    "_in_layers_2": "_conv1",
    "_emb_layers_1": "_time_emb_proj",
    "_out_layers_0": "_norm2",
    "_out_layers_3": "_conv2",
    "_skip_connection": "_conv_shortcut",
    "_op": "_conv",
    "lora_unet_input_blocks_0_0": "lora_unet_conv_in",
    "lora_unet_out_0": "lora_unet_conv_norm_out",
    "lora_unet_out_2": "lora_unet_conv_out",
    "lora_unet_time_embed_0": "lora_unet_time_embedding_linear_1",
    "lora_unet_time_embed_2": "lora_unet_time_embedding_linear_2",
    "lora_unet_label_emb_0_0": "lora_unet_add_embedding_linear_1",
    "lora_unet_label_emb_0_2": "lora_unet_add_embedding_linear_2",
}
ORIGINAL_LAYER = re.compile(rf"(?:{'|'.join(ORIGINAL_LAYERS)})$")
ORIGINAL_BLOCKS = {"_input_blocks_": "_down_blocks_", "_middle_block_": "_mid_block_", "_output_blocks_": "_up_blocks_"}
ORIGINAL_BLOCK = re.compile("|".join(ORIGINAL_BLOCKS))


def add_lora(components: _Components, adapter: Adapter, file: Path) -> None:
    """Add the LoRA in a file to the weights of a model's UNet and text encoders, for good.

    Raises UserError where the file is no LoRA, one of another base, or one whose kind is not known.
    """
    shapes = read_shapes(file)
    check_adapter(adapter.source, file, shapes, components.unet)
    tensors, quantized = _checked_tensors(adapter.source, file)
    with errors_in_one_sentence(adapter.source):
        if is_lycoris(shapes):
            _merge(components, adapter, tensors)
            return
        # The file's own way in knows its metadata, but not how to reckon with eight bits.
        named: dict[str, Any] = {} if quantized else {"weight_name": file.name}
        with _of_some_networks():
            components.load_lora_weights(tensors if quantized else str(file.parent), adapter_name="lora", **named)
        if not any(components.get_list_adapters().values()):
            raise UserError(
                f"The LoRA {short_name(adapter.source)!r} has nothing for any layer of the model: choose one that was "
                "made for the model's own family."
            )
        components.set_adapters("lora", adapter.weight)
        components.fuse_lora(adapter_names=["lora"])
        components.unload_lora_weights()


@contextmanager
def _of_some_networks() -> Generator[None]:
    """A LoRA that leaves a network as it is, most often the text encoder, is no fault. diffusers warns of each."""

    def tells_more(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No LoRA keys associated to")

    loggers = [logging.getLogger(f"diffusers.loaders.{module}") for module in ("lora_base", "peft")]
    for logger in loggers:
        logger.addFilter(tells_more)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(tells_more)


def _checked_tensors(source: str, file: Path) -> tuple[dict[str, torch.Tensor], bool]:
    """The tensors of a LoRA, and whether they were in eight bits, which are float32 here.

    Raises UserError for weights that would make every picture black, and for layers without any.
    """
    with errors_in_one_sentence(source):
        tensors = load_file(file)
    quantized = any(tensor.is_floating_point() and tensor.itemsize == 1 for tensor in tensors.values())
    if quantized:
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    if hollow := next((name for name, tensor in tensors.items() if not tensor.numel()), None):
        raise UserError(f"The LoRA {short_name(source)!r} has nothing in {hollow}: download it again.")
    spoilt = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    if spoilt is not None:
        raise UserError(
            f"The LoRA {short_name(source)!r} has numbers that are not finite in {spoilt}: download it again."
        )
    return tensors, quantized


def _merge(components: _Components, adapter: Adapter, tensors: dict[str, torch.Tensor]) -> None:
    """Add what LyCORIS knows how to read: DoRA, LoHa, LoKr, full differences and others, layer by layer."""
    name = short_name(adapter.source)
    tensors = _under_diffusers_names(tensors, components)
    layers = _layers(components)
    for key in dict.fromkeys(key.partition(".")[0] for key in tensors):
        if key not in layers:
            raise UserError(
                f"The LoRA {name!r} is for a layer {key!r}, which the model does not have: choose one that was made "
                "for the model's own family."
            )
        if not _merged(layers[key], key, tensors, adapter.weight):
            raise UserError(
                f"The LoRA {name!r} changes {key!r} in a way that is not known here: choose one of the kinds LoRA, "
                "DoRA, LoHa, LoKr or full."
            )


def _merged(layer: torch.nn.Module, name: str, tensors: dict[str, torch.Tensor], strength: float) -> bool:
    """Move the weights of a layer towards where an adapter takes them, all the way at a strength of 1.

    Returns whether it is known how.
    """
    # Imported here because few need it, and it brings kernels along.
    from lycoris.modules import get_module, make_module

    kind, values = get_module(_scaled(name, tensors), name)
    if kind is None:
        return False
    own = {which: weight.dtype for which, weight in layer.named_parameters(recurse=False)}
    layer.float()  # half precision would round twice
    before = {which: weight.detach().clone() for which, weight in layer.named_parameters(recurse=False)}
    adapter = cast("Any", make_module(cast("Any", kind), values, name, layer))
    if known := not getattr(adapter, "not_supported", True):  # None has no such thing
        adapter.merge_to(1.0)
        # LyCORIS' own way of doing less scales the rows of a DoRA apart from what is added to them.
        for which, weight in layer.named_parameters(recurse=False):
            weight.data = torch.lerp(before.get(which, torch.zeros_like(weight)), weight.data, strength)
    for which, weight in layer.named_parameters(recurse=False):
        weight.data = weight.data.to(own.get(which, next(iter(own.values()))))
    return known


def _scaled(name: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a layer with the scale, alpha over the rank, in one of its factors, and alpha such that it is 1.

    An adapter that does not tell its alpha is as it stands. LyCORIS 4.1 multiplies LoHa and LoKr by their scale twice.
    """
    own = {key: tensor for key, tensor in tensors.items() if key.partition(".")[0] == name}
    rank = next((float(own[key].shape[0]) for factor in FACTORS if (key := f"{name}.{factor}") in own), None)
    if rank is None:
        return own
    scale = own.get(f"{name}.alpha", torch.tensor(rank)).float() / rank
    carrier = next((key for factor in CARRIERS if (key := f"{name}.{factor}") in own), None)
    scaled = {carrier: own[carrier].float() * scale} if carrier else {}
    return own | scaled | {f"{name}.alpha": torch.tensor(rank)}


def _layers(components: _Components) -> dict[str, torch.nn.Module]:
    """The layers of UNet and text encoders under the names that trainers give them."""
    layers: dict[str, torch.nn.Module] = {}
    for component, prefixes in PREFIXES.items():
        network = components.components.get(component)
        for path, layer in network.named_modules() if network is not None else ():
            name = path.removeprefix("text_model.").replace(".", "_")
            layers |= {prefix + name: layer for prefix in prefixes}
            if path == "text_projection":
                layers["lora_te2_text_projection"] = layer
    return layers


def _under_diffusers_names(tensors: dict[str, torch.Tensor], components: _Components) -> dict[str, torch.Tensor]:
    """Tensors whose layers are named by the original code's blocks, as XL's mostly are, under diffusers' names."""
    if not any(ORIGINAL_BLOCK.search(name) for name in tensors):
        return tensors
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in _maybe_map_sgm_blocks_to_diffusers(dict(tensors), components.unet.config).items():
        layer, dot, what = key.partition(".")
        layer = ORIGINAL_LAYER.sub(lambda found: ORIGINAL_LAYERS[found[0]], layer)
        layer = ORIGINAL_BLOCK.sub(lambda found: ORIGINAL_BLOCKS[found[0]], layer)
        renamed[layer + dot + what] = tensor
    return renamed
