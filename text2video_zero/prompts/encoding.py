"""Prompts to embeddings: by diffusers' own way where they are plain, else chunk by chunk."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from text2video_zero.device.offload import send_away
from text2video_zero.errors import ran_out_of_memory
from text2video_zero.models.additions.textual_inversion import Inversions
from text2video_zero.prompts.chunks import chunks_of, needs_chunks
from text2video_zero.prompts.syntax import read_prompt

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    from text2video_zero.prompts.chunks import Chunk
    from text2video_zero.prompts.syntax import Prompt

NOWHERE = Inversions(None)


def encoded_prompts(
    components: StableDiffusionPipeline | StableDiffusionXLPipeline,
    prompt: str,
    negative_prompt: str | None,
    inversions: Inversions = NOWHERE,
) -> torch.Tensor:
    """Text embeddings (branches, tokens, channels), the negative prompt before the prompt.

    negative_prompt: None leaves its branch out, for sampling without guidance.
    """
    # Stable Diffusion XL has summaries too, which `sdxl` adds.
    return encoded_texts(components, prompt, negative_prompt, inversions)[0].to(components.unet.dtype)


def encoded_alike(
    components: StableDiffusionPipeline | StableDiffusionXLPipeline,
    prompts: Sequence[str],
    negative_prompt: str | None,
    inversions: Inversions = NOWHERE,
) -> list[torch.Tensor]:
    """The embeddings of several prompts, as `encoded_prompts` returns them, all of as many tokens as the longest."""
    encoded = [encoded_prompts(components, prompt, negative_prompt, inversions) for prompt in prompts]
    longest = max(embeddings.shape[1] for embeddings in encoded)
    chunks = longest // components.tokenizer.model_max_length
    return [
        embeddings
        if embeddings.shape[1] == longest
        else encoded_texts(components, prompt, negative_prompt, inversions, chunks)[0].to(embeddings)
        for prompt, embeddings in zip(prompts, encoded, strict=True)
    ]


def encoded_texts(
    components: StableDiffusionPipeline | StableDiffusionXLPipeline,
    prompt: str,
    negative_prompt: str | None,
    inversions: Inversions = NOWHERE,
    least_chunks: int = 1,
) -> tuple[torch.Tensor, ...]:
    """What the model's text encoders make of a prompt: embeddings (branches, tokens, channels).

    For XL also summaries (branches, channels). The branch of the negative prompt comes before that of the prompt.

    Plain prompts that one chunk holds give what diffusers' pipelines make of them, bit for bit; others are encoded in
    chunks, so that nothing is lost. They work where their weights are, and on the CPU where the device's memory is
    too small for them.
    negative_prompt: None leaves it out; to Stable Diffusion XL a blank stands for zeros.
    inversions: where textual inversions are looked up. Raises UserError for one that does not fit the model.
    least_chunks: that the embeddings hold, empty ones behind those of the text.
    """
    encoders = [part for name, part in components.components.items() if name.startswith("text_encoder") and part]
    for _ in range(2):
        try:
            pairs = _encoded(components, prompt, negative_prompt, inversions, least_chunks)
            return tuple(
                positive if negative is None else torch.cat([negative, positive]) for positive, negative in pairs
            )
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
        send_away(encoders, encoders[0].device)
    raise torch.OutOfMemoryError("out of memory in the text encoder")


def _encoded(
    components: StableDiffusionPipeline | StableDiffusionXLPipeline,
    prompt: str,
    negative_prompt: str | None,
    inversions: Inversions,
    least_chunks: int,
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Embeddings of the prompt and of the negative prompt, for XL their summaries next."""
    texts = [read_prompt(text) for text in (prompt, negative_prompt) if text is not None]
    if least_chunks > 1 or any(needs_chunks(text, components.tokenizer, inversions) for text in texts):
        return _in_chunks(components, texts, inversions, least_chunks)
    positive, *negative = (text.text for text in texts)
    encoded: tuple[Any, ...] = components.encode_prompt(
        prompt=positive,
        negative_prompt=negative[0] or None if negative else None,
        device=components.text_encoder.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=bool(negative),
    )
    return list(zip(encoded[::2], encoded[1::2], strict=True))


def _in_chunks(
    components: StableDiffusionPipeline | StableDiffusionXLPipeline,
    texts: Sequence[Prompt],
    inversions: Inversions,
    least: int,
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """The same of texts in chunks, all of as many as the longest of them takes."""
    parts = components.components
    second = parts.get("text_encoder_2") is not None
    encoders = [_Encoder(components.tokenizer, components.text_encoder, 0, penultimate=second)]
    if second:
        encoders.append(_Encoder(parts["tokenizer_2"], parts["text_encoder_2"], 1, penultimate=True))
    chunked = [[encoder.chunks(text, inversions) for encoder in encoders] for text in texts]
    longest = max(least, *(len(chunks) for of_text in chunked for chunks in of_text))
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for number, (text, of_text) in enumerate(zip(texts, chunked, strict=True)):
        encoded = [encoder.encode(chunks, longest) for encoder, chunks in zip(encoders, of_text, strict=True)]
        zeros = number and second and not text.text and components.config.get("force_zeros_for_empty_prompt")
        kept = 0 if zeros else 1
        pairs.append((kept * torch.cat([part for part, _ in encoded], dim=-1), kept * encoded[-1][1]))
    both = zip(pairs[0], pairs[1] if len(texts) > 1 else (None, None), strict=True)
    return list(both)[: 1 + second]


@dataclass(frozen=True)
class _Encoder:
    """A text encoder with its tokenizer.

    number: 0, or 1 for Stable Diffusion XL's second.  penultimate: whether its last layer but one counts, as XL has it.
    """

    tokenizer: CLIPTokenizer
    network: CLIPTextModel
    number: int
    penultimate: bool

    def chunks(self, text: Prompt, inversions: Inversions) -> tuple[Chunk, ...]:
        """The chunks of a text, textual inversions among its tokens."""
        width = self.network.config.hidden_size
        return chunks_of(text, self.tokenizer, inversions.named_in(text.text), self.number, width)

    def encode(self, chunks: tuple[Chunk, ...], count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (1, count·window, channels) of chunks, empty ones behind them, and the first chunk's summary.

        The summary (1, channels) is blank where the network makes none.
        """
        empty: tuple[Chunk, ...] = ((),)
        rows = [*chunks, *empty * (count - len(chunks))]
        weights = torch.ones(count, self.tokenizer.model_max_length)
        for row, chunk in enumerate(rows):
            for column, token in enumerate(chunk, start=1):
                weights[row, column] = token.weight
        embeddings, summaries = self._run(rows)
        if (weights != 1).any():
            # What a word says beyond what nothing says at its place, more or less of it.
            nothing, _ = self._run([()])
            scaled = nothing + weights[..., None].to(embeddings) * (embeddings - nothing)
            embeddings = torch.where(weights[..., None].to(embeddings.device) == 1, embeddings, scaled)
        return embeddings.flatten(0, 1)[None], summaries[:1]

    def _run(self, chunks: Sequence[Chunk]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (chunks, window, channels), and summaries (chunks, channels) where the network makes some."""
        tokenizer, window = self.tokenizer, self.tokenizer.model_max_length
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        numbers = [[begin, *(token.number for token in chunk), end] for chunk in chunks]
        padded = [row + [tokenizer.pad_token_id] * (window - len(row)) for row in numbers]
        # Stable Diffusion looks at the padding too, but for models that say they do not.
        device, mask = self.network.device, None
        if getattr(self.network.config, "use_attention_mask", False):
            shown = [[int(column < len(row)) for column in range(window)] for row in numbers]
            mask = torch.tensor(shown, device=device)
        with self._inverted(chunks):
            encoded = self.network(
                torch.tensor(padded, device=device),
                attention_mask=mask,
                output_hidden_states=self.penultimate,
            )
        embeddings = encoded.hidden_states[-2] if self.penultimate else encoded[0]
        return embeddings, encoded.get("text_embeds", embeddings.new_empty(len(chunks), 0))

    @contextmanager
    def _inverted(self, chunks: Sequence[Chunk]) -> Generator[None]:
        """While this is open, tokens of textual inversions have the embeddings of their own."""
        placed = [
            (row, column, token.embedding)
            for row, chunk in enumerate(chunks)
            for column, token in enumerate(chunk, start=1)
            if token.embedding is not None
        ]

        def put(_module: torch.nn.Module, _inputs: tuple[Any, ...], embedded: torch.Tensor) -> torch.Tensor:
            embedded = embedded.clone()
            for row, column, embedding in placed:
                embedded[row, column] = embedding.to(embedded)
            return embedded

        hook = self.network.get_input_embeddings().register_forward_hook(put)
        try:
            yield
        finally:
            hook.remove()
