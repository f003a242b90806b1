"""A trained network as a MONAI bundle: a folder that ``monai.bundle`` runs, without this library.

FOLDER/configs/metadata.json  configs/inference.json  models/model.pt2  docs/README.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai
import nibabel as nib
import numpy as np
import torch

from common.shipping import Parcel, to_torch

INFERENCE = "configs/inference.json"


def to_bundle(given: Parcel, folder: Path) -> Path:
    """Write a bundle that reads images as training did, and writes label maps on their grids.

    Returns:
        Its ``inference.json``.

    Raises:
        RunError: When the network cannot be traced, or answers differently afterwards.
    """
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    to_torch(given, folder / "models")
    _write(folder / "configs" / "metadata.json", _metadata(given))
    _write(folder / INFERENCE, _inference(given))
    (folder / "docs" / "README.md").write_text(_readme(given), encoding="utf-8")
    return folder / INFERENCE


def _metadata(given: Parcel) -> dict[str, Any]:
    facts, classes = given.facts, given.facts["classes"]
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": "written by " + facts["software"]},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": nib.__version__},
        "task": "segmentation of " + ", ".join(each["name"] for each in classes[1:]),
        "description": f"trained by {facts['software']}, method {facts['method']}",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": given.window[0],
                    "spatial_shape": [*given.window[1:]],
                    "dtype": "float32",
                    "is_patch_data": True,
                    "channel_def": dict(enumerate(facts["channels"])),
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(classes),
                    "spatial_shape": [*given.window[1:]],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": {i: each["name"] for i, each in enumerate(classes)},
                }
            },
        },
    }


def _inference(given: Parcel) -> dict[str, Any]:
    """Reading, sliding window and writing, step for step as :mod:`medseg_ssl` does them."""
    window = given.facts["window"]
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/predictions'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii*'))]",
        "program": "$torch.export.load(@bundle_root + '/models/model.pt2').module().to(@device)",
        "network": "$lambda image: @program(image.as_subclass(torch.Tensor))",
        "preprocessing": {"_target_": "Compose", "transforms": _to_grid(given.facts)},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": window["sides"],
            "sw_batch_size": window["windows_per_batch"],
            "overlap": window["overlap"],
            "mode": "gaussian",
            "sigma_scale": window["blend_sigma"],
        },
        "postprocessing": {"_target_": "Compose", "transforms": _to_file(given.facts)},
        "predict": "$lambda item: {**item, 'pred': "
        "@inferer(item['image'][None].to(@device), @network)[0].cpu()}",
        "run": [
            "$[@postprocessing(@predict(@preprocessing(item))) and None for item in @datalist]"
        ],
    }


def _to_grid(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    reading = {"reader": "NibabelReader", "ensure_channel_first": True}
    spacing = {"pixdim": facts["spacing_mm"], "mode": "bilinear", "padding_mode": "border"}
    return [
        {"_target_": "LoadImaged", "keys": "image", **reading},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        {"_target_": "Spacingd", "keys": "image", **spacing},
        _normalization(facts["normalize"]),
    ]


def _to_file(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    back = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False}
    values = [each["value"] for each in facts["classes"]]
    named = {"orig_labels": [*range(len(values))], "target_labels": values}
    writing = {
        "output_dir": "@output_dir",
        "output_postfix": "",
        "output_dtype": "$torch.int32",
        "separate_folder": False,
        "resample": False,
    }
    return [
        {"_target_": "Invertd", "keys": "pred", **back},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "MapLabelValued", "keys": "pred", **named},
        {"_target_": "SaveImaged", "keys": "pred", **writing},
    ]


def _normalization(normalize: dict[str, Any]) -> dict[str, Any]:
    if normalize["name"] != "window":
        nonzero = normalize["name"] == "zscore_nonzero"
        how = {"nonzero": nonzero, "channel_wise": True}
        return {"_target_": "NormalizeIntensityd", "keys": "image", **how}
    low, high = normalize["window_hu"]
    limits = {"a_min": low, "a_max": high, "b_min": -1.0, "b_max": 1.0, "clip": True}
    return {"_target_": "ScaleIntensityRanged", "keys": "image", **limits}


def _readme(given: Parcel) -> str:
    classes = ", ".join(f"{each['value']} {each['name']}" for each in given.facts["classes"])
    return f"""\
# {", ".join(each["name"] for each in given.facts["classes"][1:])}

Label values: {classes}. Trained by {given.facts["software"]}, method {given.facts["method"]}.

    pip install "monai[fire,nibabel]"
    python -m monai.bundle run --config_file {INFERENCE} --dataset_dir FOLDER_OF_NIFTI_IMAGES

run in this folder, writes a label map for each image into `predictions/`. An image of several
files, one per channel, is a list of paths in `datalist`. This is no medical device.
"""


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
