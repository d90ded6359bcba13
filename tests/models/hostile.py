"""Checkpoints made to hurt whoever opens them; run as a script, examines them all and reports what each one cost."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tests.models.broken import EMBEDDING, HEAD, PEFT, edit_json, save, whole

ROWS = 10**9


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


class Huge:
    """Unpickling it would take 100 GB."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**11,)


def header(path: Path, tensors: dict[str, Any], data: int) -> None:
    """A safetensors file with this header and so many bytes of hole behind it."""
    text = json.dumps(tensors).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + data)


def claim(rows: int) -> dict[str, Any]:
    """A header entry for an embedding of so many rows, one number wide."""
    return {EMBEDDING: {"dtype": "F16", "shape": [rows, 1], "data_offsets": [0, rows * 2]}}


def zipped(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> None:
    """A zip that looks like torch.save's, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.comment = comment


def write_all(root: Path, marker: Path) -> list[str]:
    """Writes one folder per attack, each with a sound config and tokenizer; returns their names."""
    made: dict[str, Callable[[Path], object]] = {}

    def attack(name: str) -> Callable[[Callable[[Path], object]], None]:
        def keep(write: Callable[[Path], object]) -> None:
            made[name] = write

        return keep

    safe, torch_file = "model.safetensors", "pytorch_model.bin"

    @attack("header of 2^60 bytes")
    def _(f: Path) -> None:
        (f / safe).write_bytes(struct.pack("<Q", 1 << 60) + b"{}")

    @attack("header of 90 MB")
    def _(f: Path) -> None:
        with (f / safe).open("wb") as file:
            file.write(struct.pack("<Q", 90_000_000) + b"{")
            file.truncate(100_000_000)

    @attack("10^9 rows without bytes")
    def _(f: Path) -> None:
        header(f / safe, claim(ROWS), 1000)

    @attack("10^9 rows of hole")
    def _(f: Path) -> None:
        header(f / safe, claim(ROWS), ROWS * 2)
        edit_json("config.json", vocab_size=ROWS - 3)(f)

    @attack("10^9 rows over one number")
    def _(f: Path) -> None:
        state = whole() | {name: torch.zeros(1, 1).expand(ROWS, 48) for name in (EMBEDDING, HEAD)}
        torch.save(state, f / torch_file)

    @attack("10^9 rows on no device")
    def _(f: Path) -> None:
        torch.save(whole() | {EMBEDDING: torch.empty(ROWS, 48, device="meta")}, f / torch_file)

    @attack("10^13 numbers in the older format")
    def _(f: Path) -> None:
        torch.save({"codi.x": torch.ones(12345)}, f / torch_file, _use_new_zipfile_serialization=False)
        content = (f / torch_file).read_bytes()
        (f / torch_file).write_bytes(content.replace(b"M90", b"\x8a\x06" + (10**13).to_bytes(6, "little")))

    @attack("layer 10^9")
    def _(f: Path) -> None:
        save_file(whole() | {f"{PEFT}model.layers.999999999.x": torch.ones(1)}, f / safe)

    @attack("10^9 labels")
    def _(f: Path) -> None:
        save_file({"codi.x": torch.ones(1)}, f / safe)
        edit_json("config.json", num_labels=ROWS)(f)

    @attack("zip bomb")
    def _(f: Path) -> None:
        zipped(f / torch_file, b"\0" * 300_000_000, zipfile.ZIP_DEFLATED)

    @attack("zip with a comment")
    def _(f: Path) -> None:
        zipped(f / torch_file, pickle.dumps({}), comment=b"PK\x05\x06" + b"\0" * 18)

    @attack("zip directory of 1 GB")
    def _(f: Path) -> None:
        with (f / torch_file).open("wb") as file:
            file.write(b"PK\x03\x04")
            file.seek(1_000_000_000)
            file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 1_000_000_000, 4, 0))

    @attack("pickle of 50 MB")
    def _(f: Path) -> None:
        zipped(f / torch_file, b"\x80\x02" + b"}0" * 25_000_000 + b"N.")

    @attack("pickle nested as deep as is let through")
    def _(f: Path) -> None:
        zipped(f / torch_file, b"\x80\x02" + b"(" * 500_000 + b"l" * 500_000 + b".")

    @attack("older format with a pickle of 50 MB")
    def _(f: Path) -> None:
        start = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02"
        (f / torch_file).write_bytes(start + b"}0" * 25_000_000 + b"N.")

    @attack("100 GB by a constructor")
    def _(f: Path) -> None:
        torch.save({"codi.x": Huge()}, f / torch_file)

    for style in ("a zip file", "an older file", "a bare pickle"):

        @attack(f"code in {style}")
        def _(f: Path, style: str = style) -> None:
            if style == "a bare pickle":
                (f / torch_file).write_bytes(pickle.dumps({"codi.x": Hostile(marker)}, protocol=2))
            else:
                torch.save(
                    {"codi.x": Hostile(marker)}, f / torch_file, _use_new_zipfile_serialization=style == "a zip file"
                )

    @attack("code in an adapter")
    def _(f: Path) -> None:
        torch.save({"lora_A.weight": Hostile(marker)}, f / "adapter_model.bin")

    @attack("code beside the tokenizer")
    def _(f: Path) -> None:
        save_file({k: v for k, v in whole().items() if "norm" not in k}, f / safe)
        (f / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
        edit_json("tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})(f)
        edit_json("config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})(f)

    @attack("nested config")
    def _(f: Path) -> None:
        save_file({k: v for k, v in whole().items() if "norm" not in k}, f / safe)
        (f / "config.json").write_text("[" * 2_000_000)

    @attack("nested index")
    def _(f: Path) -> None:
        (f / f"{safe}.index.json").write_text('{"weight_map":' + "[" * 2_000_000)

    @attack("index of other files")
    def _(f: Path) -> None:
        (f / f"{safe}.index.json").write_text('{"weight_map": {"a": "../../../../etc/passwd"}}')

    @attack("link to a device")
    def _(f: Path) -> None:
        (f / torch_file).symlink_to("/dev/zero")

    @attack("link to another folder")
    def _(f: Path) -> None:
        (f / torch_file).symlink_to("/etc/passwd")

    @attack("names that write on the terminal")
    def _(f: Path) -> None:
        save_file({"codi.\x1b[2J": torch.ones(1)}, f / safe)

    @attack("a name of 1 MB")
    def _(f: Path) -> None:
        save_file({"codi." + "x" * 1_000_000: torch.ones(1)}, f / safe)

    for place, (_name, write) in enumerate(made.items()):
        folder = save(root / str(place), {})
        (folder / torch_file).unlink()
        write(folder)
    return list(made)


def examine_all(root: Path, count: int) -> list[dict[str, Any]]:
    """Diagnoses every folder; CPU seconds, those of a sound one, peak resident megabytes so far, verdict and words."""
    from thoughtgraft.models.doctor.examine import diagnose

    diagnose("tiny-codi")  # imports and first-use costs are not the attack's
    start = time.process_time()
    diagnose("tiny-codi")
    sound = time.process_time() - start
    results = []
    for place in range(count):
        start = time.process_time()
        try:
            diagnosis = diagnose(root / str(place)).to_json()
        except Exception as error:  # reported, so that one failure does not hide the others
            diagnosis = {"loads": None, "findings": repr(error)}
        seconds = time.process_time() - start
        # Not getrusage: a new process starts from the peak of the one that started it.
        peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
        words = json.dumps(diagnosis["findings"])
        results.append(
            {"seconds": seconds, "sound": sound, "peak_mb": peak, "loads": diagnosis["loads"], "words": words}
        )
    return results


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))  # a bomb must not take the machine with it
    print(json.dumps(examine_all(Path(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201
