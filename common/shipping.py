"""A trained network for programs that know nothing of this one: PyTorch's own format, and ONNX.

FOLDER/
model.pt2 or model.onnx   images (B, C, *S) float32 to class probabilities (B, K, *S)
model.json                what the image must be like, and what the classes are
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import ConfigError, RunError

CLOSE = 1e-4
"""How much a probability may differ from the one of the network that was trained."""

INPUT, OUTPUT = "image", "probabilities"


class Probabilities(nn.Module):
    """A network that answers with class probabilities instead of logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return logits.float().softmax(dim=1)


class Parcel(NamedTuple):
    """What is shipped."""

    network: Probabilities
    window: tuple[int, ...]  # C, and sides in pixels: what one input is like
    facts: Mapping[str, Any]  # about it, as JSON has it

    def example(self, count: int) -> Tensor:
        """So many random inputs, the same each time."""
        rng = torch.Generator().manual_seed(count)
        return torch.randn(count, *self.window, generator=rng)


Ship = Callable[[Parcel, Path], Path]
"""Writes a parcel into a folder, and says which file is to be opened."""


class Cargo(NamedTuple):
    """What a domain says of a network that was trained in it."""

    sides: tuple[int, ...]  # of a window, in pixels
    facts: Mapping[str, Any]  # of input and output, as JSON has it
    formats: Mapping[str, Ship]  # that it can be shipped in


def to_torch(given: Parcel, folder: Path) -> Path:
    """``model.pt2``, for ``torch.export.load(...).module()``; it needs PyTorch and nothing else.

    Raises:
        RunError: When the network cannot be traced, or answers differently afterwards.
    """
    path = folder / "model.pt2"
    with _quietly(), _traceable("torch"):
        program = torch.export.export(
            given.network, (given.example(2),), dynamic_shapes={INPUT: {0: _any_batch()}}
        )
        torch.export.save(program, path)
        reloaded = torch.export.load(path).module()
    _compare(given, reloaded, path)
    _write_facts(given, folder)
    return path


def to_onnx(given: Parcel, folder: Path) -> Path:
    """``model.onnx``, for ONNX Runtime and whatever else reads ONNX.

    What is known of the input stands in its metadata, too.

    Raises:
        ConfigError: When the packages of the extra ``export`` are missing.
        RunError: When the network cannot be traced, or answers differently afterwards.
    """
    _require("onnx", "onnxscript", "onnxruntime")
    import onnx
    import onnxruntime

    path = folder / "model.onnx"
    with _quietly(), _traceable("onnx"):
        made = torch.onnx.export(
            given.network,
            (given.example(2),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: _any_batch()}},
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        model = made.model_proto
    onnx.helper.set_model_props(model, _in_words(given.facts))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(image: Tensor) -> Tensor:
        (probs,) = session.run([OUTPUT], {INPUT: image.numpy()})
        return torch.from_numpy(np.asarray(probs))

    _compare(given, answer, path)
    _write_facts(given, folder)
    return path


FORMATS: Mapping[str, Ship] = {"onnx": to_onnx, "torch": to_torch}
"""What every domain can ship."""


def _any_batch() -> Any:  # noqa: ANN401
    return torch.export.Dim("batch", min=1)


def _compare(given: Parcel, shipped: Callable[[Tensor], Tensor], path: Path) -> None:
    """Hold what was written against the network itself, for one image and for several."""
    for count in (1, 3):
        image = given.example(count)
        with torch.no_grad():
            apart = float((shipped(image) - given.network(image)).abs().max())
        if not apart <= CLOSE:
            path.unlink()
            raise RunError(
                f"{path.name} answers differently than the trained network, by up to {apart:.2g}, "
                f"where {CLOSE:g} is allowed. It was removed. Choose another --to."
            )


def _write_facts(given: Parcel, folder: Path) -> None:
    text = json.dumps(given.facts, indent=2, ensure_ascii=False)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")


def _in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in facts.items()
    }


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--to onnx needs {', '.join(missing)}. Install them: pip install 'seg-ssl[export]'."
        )


@contextlib.contextmanager
def _traceable(kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a compiler stumbles over
        first = " ".join(str(error).split())[:300]
        raise RunError(
            f"the network cannot be written for {kind}: {type(error).__name__}: {first} A network "
            "of your own must not choose its operations by the values of an image."
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Compilers speak of themselves, on every channel there is."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
