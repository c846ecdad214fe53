"""A small Llama to try memories on: python -m edge_pretrain.posthoc.small -o FOLDER

Trained on the built-in texts of another seed than memories are trained on: the same language and elements, other people
and places. Saved as transformers saves models, with a tokenizer of its own.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from edge_pretrain.corpus.documents import DataConfig, build_corpus
from edge_pretrain.embed import quiet_imports
from edge_pretrain.posthoc.recipe import load_posthoc_recipe
from edge_pretrain.tokenizer import BOS_ID, EOS_ID, train_tokenizer
from edge_pretrain.train import BETAS, CLIP, Schedule

SEED, VOCABULARY, LENGTH, BATCH, RATE = 1, 1024, 128, 16, 3e-3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.posthoc.small", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    quiet_imports()
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    torch.manual_seed(SEED)
    corpus = load_posthoc_recipe(None).to_json()["corpus"]
    texts = [document.text for document in build_corpus(DataConfig(seed=SEED, **corpus)).documents]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "tokenizer.json"
    train_tokenizer(texts, VOCABULARY, path)
    encoded = Tokenizer.from_file(str(path)).encode_batch(texts, add_special_tokens=False)
    order = torch.randperm(len(encoded)).tolist()
    stream = torch.tensor([token for i in order for token in (BOS_ID, *encoded[i].ids, EOS_ID)])
    windows = stream[: len(stream) // LENGTH * LENGTH].view(-1, LENGTH)

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2 * LENGTH,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS)
    schedule, loss = Schedule(RATE, RATE / 10), torch.tensor(0.0)
    console = Console(stderr=True, highlight=False)
    for step in track(range(options.steps), "training", console=console):
        batch = windows[torch.randint(len(windows), (BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.param_groups[0]["lr"] = schedule.at(step, options.steps, options.steps // 10)
        optimizer.step()
    model.save_pretrained(options.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"wrote {options.out}: a Llama of {parameters:,} parameters, loss {loss.item():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
