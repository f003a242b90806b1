"""One picture of a scene for the report: image, truth, prediction, and where it errs."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.batch import IGNORE, most_probable
from common.domain import Task
from rsseg_ssl.cases import Grid, SceneCase, named
from rsseg_ssl.composites import Small, band_names, composites, shrink

MOST_PIXELS = 600  # of the scene, along its longer side
MOST_BYTES = 300_000
WIDTH_INCHES, TALLEST_INCHES = 12.0, 12.0
MARGIN, GAP, HEADER, TITLE, FOOTER = 0.1, 0.09, 0.36, 0.26, 0.42  # inches
INK, SOFT, LINE, PAPER, NOWHERE = "#22262b", "#666b73", "#b6bcc4", "#ffffff", "#e4e6e9"
WRONG = (209 / 255, 0.0, 115 / 255)

Colors = NDArray[np.uint8]
"""A picture ``(h, w, 4)``, transparent where there is nothing to show."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture and what it shows."""

    title: str
    colors: Colors


def draw_scene(predicted: Tensor, case: SceneCase, path: Path, *, task: Task) -> Path:
    """Draw a scene, its prediction, and, where it is annotated, its truth and the errors.

    Pixels without data are hatched, pixels that nobody annotated are left white. Large scenes are
    drawn smaller. The file is a PNG of at most :data:`MOST_BYTES`.

    Args:
        predicted: Class probabilities ``(K, H, W)``, in memory or on disk.
        case: The scene.
        path: The PNG to write.
        task: Names and colors of the classes.

    Returns:
        ``path``.

    Raises:
        DataError: When the scene cannot be read.
    """
    small = shrink(case, MOST_PIXELS)
    label = most_probable(predicted[:, :: small.step, :: small.step].float(), dim=0).cpu().numpy()
    truth = case.truth
    shown = None if truth is None else truth[:: small.step, :: small.step].numpy()
    panels = [
        Panel(each.title, _where(small.valid, each.rgb))
        for each in composites(small, band_names(case))
    ]
    panels += _maps(label, shown, panels[0].colors, task)
    figure = _figure(panels, case, small)
    _legend(figure, task, small, shown)
    _save(figure, path, task)
    return path


def _maps(
    label: NDArray[np.int64], truth: NDArray[np.int64] | None, image: Colors, task: Task
) -> list[Panel]:
    valid = image[..., 3] > 0
    palette = np.asarray(task.colors, dtype=np.float64) / 255
    prediction = Panel("Prediction", _where(valid, palette[label]))
    if truth is None:
        return [prediction]
    known = (truth != IGNORE) & valid
    painted = np.where(known[..., None], palette[np.where(known, truth, 0)], 1.0)
    wrong = known & (label != truth)
    pale = 0.72 + 0.25 / 255 * image[..., :3].mean(axis=-1, keepdims=True)
    errors = np.where(wrong[..., None], WRONG, np.where(known[..., None], pale, 1.0))
    share = f", {100 * wrong.sum() / known.sum():.1f} %" if known.any() else ""
    return [
        Panel("Truth", _where(valid, painted)),
        prediction,
        Panel(f"Errors{share}", _where(valid, errors)),
    ]


def _where(valid: NDArray[np.bool_], rgb: NDArray[np.float64]) -> Colors:
    """Colors as bytes: matplotlib cuts fractions off where it makes them."""
    opaque = valid[..., None].astype(np.float64)
    colors: Colors = np.rint(255 * np.concatenate([rgb, opaque], axis=-1)).astype(np.uint8)
    return colors


def _figure(panels: list[Panel], case: SceneCase, small: Small) -> Figure:
    """Panels side by side, or one below the other where the scene is very wide."""
    grid = case.grid
    height, width = small.valid.shape
    x_m, y_m = grid.resolution_xy_m
    ratio = (height * y_m) / (width * x_m)
    columns = len(panels) if ratio > 1 / 3 else 1
    rows = len(panels) // columns
    wide = (WIDTH_INCHES - 2 * MARGIN - (columns - 1) * GAP) / columns
    high = min(wide * ratio, TALLEST_INCHES)
    inches = HEADER + rows * (high + TITLE) + FOOTER
    figure = Figure(figsize=(WIDTH_INCHES, inches), facecolor=PAPER)
    axes = []
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        left, bottom = MARGIN + column * (wide + GAP), FOOTER + (rows - 1 - row) * (high + TITLE)
        place = (left / WIDTH_INCHES, bottom / inches, wide / WIDTH_INCHES, high / inches)
        axes.append(figure.add_axes(place))
        _draw(axes[-1], panel, aspect=y_m / x_m)
    _scale_bar(axes[0], grid, small)
    margin, top = MARGIN / WIDTH_INCHES, 1 - MARGIN / inches
    figure.text(margin, top, case.id, fontsize=12, weight="bold", va="top", color=INK)
    figure.text(1 - margin, top, _place(grid), fontsize=10, va="top", ha="right", color=SOFT)
    return figure


def _draw(ax: Axes, panel: Panel, *, aspect: float) -> None:
    ax.set_title(panel.title, fontsize=10, loc="left", color=INK, pad=4)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(color=LINE, linewidth=0.6)
    if not panel.colors[..., 3].all():
        nowhere = Rectangle(
            (0, 0),
            1,
            1,
            transform=ax.transAxes,
            facecolor=NOWHERE,
            edgecolor=LINE,
            hatch="////",
            linewidth=0,
            zorder=0,
        )
        ax.add_patch(nowhere)
    ax.imshow(panel.colors, interpolation="nearest", aspect=aspect, zorder=1)


def _scale_bar(ax: Axes, grid: Grid, small: Small) -> None:
    """A bar of a round length, about a quarter of the width of the scene."""
    height, width = small.valid.shape
    metres_per_pixel = grid.resolution_xy_m[0] * small.step
    length = round_length(width * metres_per_pixel / 4)
    bar = length / metres_per_pixel
    x, y = 0.05 * width, 0.94 * height
    for color, thickness in (("black", 5.0), ("white", 2.5)):
        ax.plot([x, x + bar], [y, y], color=color, linewidth=thickness, solid_capstyle="butt")
    ax.text(
        x + bar / 2,
        y - 0.02 * height,
        in_words(length, grid),
        color="white",
        fontsize=9,
        ha="center",
        va="bottom",
        path_effects=[withStroke(linewidth=2.2, foreground="black")],
    )
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def round_length(about: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50 ... that is not above ``about``."""
    power = 10.0 ** math.floor(math.log10(about))
    return power * max(digit for digit in (1, 2, 5) if digit * power <= about * (1 + 1e-9))


def in_words(length: float, grid: Grid) -> str:
    """A length as people write it: 50 m, 2 km; in pixels where there is no CRS."""
    if grid.crs is None:
        return f"{length:g} pixels"
    return f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"


def _place(grid: Grid) -> str:
    height, width = grid.shape_yx
    x_m, y_m = grid.resolution_xy_m
    if grid.crs is None:
        return f"no CRS  ·  {width} x {height} pixels"
    size = f"{x_m:.3g} m" if math.isclose(x_m, y_m, rel_tol=0.01) else f"{x_m:.3g} x {y_m:.3g} m"
    return f"{named(grid.crs)}  ·  {width} x {height} pixels of {size}"


def _legend(figure: Figure, task: Task, small: Small, truth: NDArray[np.int64] | None) -> None:
    handles = [
        Patch(
            facecolor=(color[0] / 255, color[1] / 255, color[2] / 255),
            edgecolor=SOFT,
            linewidth=0.5,
            label=name,
        )
        for name, color in zip(task.classes, task.colors, strict=True)
    ]
    if truth is not None:
        handles.append(Patch(facecolor=WRONG, label="wrong"))
        if ((truth == IGNORE) & small.valid).any():
            handles.append(Patch(facecolor=PAPER, edgecolor=SOFT, label="not annotated"))
    if not small.valid.all():
        handles.append(Patch(facecolor=NOWHERE, edgecolor=LINE, hatch="////", label="no data"))
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(len(handles), 10),
        frameon=False,
        prop=FontProperties(size=10),
        labelcolor=INK,
        handlelength=1.3,
        handleheight=1.3,
        borderaxespad=0.2,
        columnspacing=1.6,
    )


def _save(figure: Figure, path: Path, task: Task) -> None:
    """As many dots and colors as fit :data:`MOST_BYTES`; those of the classes stay exact."""
    exact = [*task.colors, (255, 255, 255), *(_bytes(color) for color in (INK, WRONG, NOWHERE))]
    for dots_per_inch in (150, 120, 96, 72, 48):
        figure.set_dpi(dots_per_inch)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
        content = io.BytesIO()
        _with_few_colors(drawn, exact).save(content, "PNG", optimize=True)
        if content.tell() <= MOST_BYTES:
            break
    path.write_bytes(content.getvalue())


def _with_few_colors(drawn: NDArray[np.uint8], exact: list[tuple[int, int, int]]) -> Image.Image:
    """``drawn (h, w, 3)`` in at most 256 colors, the ``exact`` ones untouched."""
    exact = exact[:128]
    picture = Image.fromarray(drawn).quantize(256 - len(exact), dither=Image.Dither.NONE)
    found = (picture.getpalette() or [])[: 3 * (256 - len(exact))]
    index = np.array(picture)
    red, green, blue = np.moveaxis(drawn.astype(np.uint32), -1, 0)
    code = red << 16 | green << 8 | blue
    for place, (r, g, b) in enumerate(exact, start=len(found) // 3):
        index[code == (r << 16 | g << 8 | b)] = place
    few = Image.fromarray(index, mode="P")
    few.putpalette([*found, *itertools.chain(*exact)])
    return few


def _bytes(color: str | tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(color))
    return red, green, blue
