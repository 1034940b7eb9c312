"""Weight files, harmed at random: what the readers make of them must be an error or what the reference reader sees.

python tests/fuzzing.py 60        # seconds for each format; `make fuzz`
"""

from __future__ import annotations

import io
import json
import random
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save

from llmprobe.errors import ProbeError
from llmprobe.weights.byte_source import LocalFile
from llmprobe.weights.gguf import GgufFile
from llmprobe.weights.safetensors import SafetensorsFile
from llmprobe.weights.torch_zip import TorchZipFile

NUMBERS = (0, 1, 2, 7, 8, 127, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    "null", "true", "-1", "1e999", "NaN", "[]", "{}", "[[[[[[", '""', "0.5", "1.0", "99999999999999999999", '"F32"',
    '"\\ud800"', '"__metadata__"', "[8,8,0]", '"data_offsets"', "[0,256]", "Infinity", '"a":1,"a":2', "\\u0000",
)  # fmt: skip
SECONDS, BYTES = 10.0, 2 << 30  # what one file may take
UNDERSTATED = "does not match expected size"  # torch's word on a record longer than the pickle says at first


@dataclass
class Found:
    """What came of the inputs of one format."""

    inputs: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(12, 8, generator=generator)
    return {"lm_head.weight": W, "model.norm.weight": torch.ones(8), "half": W.half()[:4].clone()}


def safetensors_seed() -> bytes:
    return save(tensors(), {"format": "pt"})


def torch_seed() -> bytes:
    W = tensors()["lm_head.weight"]
    buffer = io.BytesIO()
    torch.save({**tensors(), "tied": W[:3], "turned": W.T, "step": 3}, buffer)
    return buffer.getvalue()


def gguf_seed() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint32("llama.block_count", 2)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b", "longer"])
        writer.add_array("tokenizer.ggml.scores", [0.5, 1.0, 2.0])
        for name, tensor in tensors().items():
            writer.add_tensor(name, tensor.numpy())
        W = torch.randn(4, 32, generator=torch.Generator().manual_seed(1)).numpy()
        blocks = gguf.quants.quantize(W, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor("token_embd.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def harmed(data: bytes, dice: random.Random) -> bytes:
    """A copy with one to three faults: in bytes, in numbers, in texts, in what lies where."""
    harm = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        at = dice.randrange(len(harm) + 1) if dice.random() < 0.3 else dice.randrange(min(len(harm), 700) + 1)
        stop = min(len(harm), at + dice.choice((1, 2, 4, 8, 16, 64, 300)))
        match dice.randrange(8):
            case 0 if at < len(harm):
                harm[at] ^= 1 << dice.randrange(8)
            case 1:
                size = dice.choice((1, 2, 4, 8))
                harm[at : at + size] = (dice.choice(NUMBERS) % 256**size).to_bytes(size, "little")
            case 2:
                del harm[at:stop]
            case 3:
                harm[at:at] = harm[at:stop]
            case 4:
                harm[at:stop] = dice.choice(TEXTS).encode()
            case 5:
                del harm[at + 8 :]
            case 6:
                there = dice.randrange(len(harm) + 1)
                harm[there:there] = harm[at:stop]
            case _:
                harm += bytes(dice.choice((1, 4, 64)))
    return bytes(harm)


def harmed_header(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file whose header is JSON still, and says something else."""
    size = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + size])
    entry = table[dice.choice([name for name in table if name != "__metadata__"])]
    value = json.loads(dice.choice(("-1", "0", "1", "12", "8", "384", "1e30", "null", "[]", "2.0", "true", '"8"')))
    match dice.randrange(4):
        case 0:
            entry["shape"][dice.randrange(len(entry["shape"]))] = value
        case 1:
            entry["data_offsets"][dice.randrange(2)] = value
        case 2:
            entry["dtype"] = dice.choice(("F64", "F16", "I8", "F8_E4M3", "X", "BF16"))
        case _:
            entry["shape"] = entry["shape"][::-1] if dice.random() < 0.5 else [*entry["shape"], 1]
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def harmed_zip(data: bytes, dice: random.Random) -> bytes:
    """A torch zip that is a zip still: a member is harmed, twice there, missing, compressed, or another."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        members = old.infolist()
        chosen = dice.choice(members)
        how = dice.randrange(5)
        for member in members:
            content = old.read(member)
            if member is chosen and how == 0:
                continue
            if member is chosen and how == 1 and content:
                content = harmed(content, dice)
            if member is chosen and how == 4:
                content = dice.choice((b"", b"0", b"big", b"little", bytes(len(content))))
            kind = zipfile.ZIP_DEFLATED if member is chosen and how == 2 else zipfile.ZIP_STORED
            new.writestr(zipfile.ZipInfo(member.filename), content, compress_type=kind)
            if member is chosen and how == 3:
                new.writestr(zipfile.ZipInfo(member.filename[:-1] + "_"), content)
    return buffer.getvalue()


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal bit for bit, NaN included."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    return torch.equal(*(tensor.contiguous().flatten().view(torch.uint8) for tensor in (ours, theirs)))


def from_gguf(path: Path) -> dict[str, torch.Tensor]:
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        with suppress(NotImplementedError):  # of a type that neither reads
            values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            found[tensor.name] = torch.from_numpy(values).reshape(tuple(int(n) for n in reversed(tensor.shape)))
    return found


def from_torch(path: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(path, weights_only=True)
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, torch.Tensor)}


Harm = Callable[[bytes, random.Random], bytes]
FORMATS: dict[
    str, tuple[Callable[[], bytes], Callable, Callable[[Path], dict[str, torch.Tensor]], tuple[Harm, ...]]
] = {
    "safetensors": (safetensors_seed, lambda p: SafetensorsFile(LocalFile(p)), load_file, (harmed, harmed_header)),
    "torch": (torch_seed, lambda p: TorchZipFile(LocalFile(p)), from_torch, (harmed, harmed_zip, harmed_zip)),
    "gguf": (gguf_seed, GgufFile, from_gguf, (harmed,)),
}


def tried(path: Path, kind: str, found: Found, unharmed: dict[str, torch.Tensor]) -> None:
    """Read every tensor of one file, and judge.

    The reference reader takes a file whole or not at all. Where it refuses one of which we refuse a part too, the rest
    must be what it was before the harm.
    """
    _, reader, reference, _ = FORMATS[kind]
    began, ours, whole = time.perf_counter(), {}, True
    try:
        file = reader(path)
        for name in file.names():
            try:
                ours[name] = file.read(name).values
            except ProbeError as error:
                whole = False
                found.refused[type(error).__name__] += 1
    except ProbeError as error:
        found.refused[type(error).__name__] += 1
        if "\n" in str(error):
            found.wrong.append(f"more than a line: {error}")
    except BaseException:
        found.wrong.append(traceback.format_exc())
    seconds = time.perf_counter() - began
    found.slowest = max(found.slowest, seconds)
    if seconds > SECONDS:
        found.wrong.append(f"{seconds:.1f} s")
    if ours:
        found.read += 1
        try:
            theirs = reference(path)
        except Exception as error:
            if whole and UNDERSTATED not in str(error):
                found.wrong.append(f"read what the reference reader refuses: {error!r}")
                return
            theirs = unharmed
        for name, values in ours.items():
            if name not in theirs or not same(values, theirs[name]):
                found.wrong.append(f"{name} is not what the reference reader gives")


def fuzz(kind: str, folder: Path, *, inputs: int | None = None, seconds: float = 1e9, seed: int = 0) -> Found:
    """Harm the seed of a format again and again."""
    make, _, reference, harms = FORMATS[kind]
    data, dice, found, path = make(), random.Random(seed), Found(), folder / f"fuzz.{kind}"
    path.write_bytes(data)
    unharmed = reference(path)
    before, began = peak(), time.perf_counter()
    while found.inputs != inputs and time.perf_counter() - began < seconds:
        path.write_bytes(bad := dice.choice(harms)(data, dice))
        count = len(found.wrong)
        tried(path, kind, found, unharmed)
        if len(found.wrong) > count:
            (folder / f"wrong-{kind}-{found.inputs}").write_bytes(bad)
        found.inputs += 1
    if peak() - before > BYTES:
        found.wrong.append(f"{(peak() - before) / 1e9:.1f} GB of memory")
    return found


def peak() -> int:
    """Most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(seconds: float) -> int:
    folder, bad = Path(tempfile.mkdtemp(prefix="fuzz-")), 0
    for kind in FORMATS:
        found = fuzz(kind, folder, seconds=seconds, seed=time.time_ns())
        bad += len(found.wrong)
        sys.stdout.write(
            f"{kind}: {found.inputs} inputs, {found.read} read, {sum(found.refused.values())} errors, "
            f"slowest {found.slowest:.2f} s, {len(found.wrong)} wrong\n"
        )
        for text in found.wrong[:5]:
            sys.stdout.write(f"  {text}\n")
    sys.stdout.write(f"peak memory {peak() / 1e9:.2f} GB; wrong files in {folder}\n" if bad else "nothing wrong\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0))
