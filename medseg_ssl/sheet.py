"""The sheet that a case is drawn on: panels at one scale, letters, scale bar, legends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from skimage.measure import find_contours

from common.batch import IGNORE
from common.domain import Task
from medseg_ssl.view import MISTAKES, PLANES, Plane, View, mistakes

DPI = 110
INK, QUIET = "#e6edf3", "#8b949e"
LEFT, RIGHT, TOP, GAP, LINE = 0.3, 0.12, 0.8, 0.06, 0.19  # inches around the panels
BESIDE_TRUTH, ALONE = 2.12, 3.2  # inches a panel is wide
TALLEST, FLATTEST = 7.5, 0.6  # inches: all rows together at most, one row at least
NARROWEST, MISTAKES_WIDTH = 0.7, 2.12  # of the widest panel; inches of their legend
MOST_NAMES, LONGEST_NAME = 12, 32

Color = tuple[int, int, int]
Key = tuple[str, Color]  # of a legend: what a color means

COLORS: tuple[Color, ...] = ((61, 165, 255), (255, 122, 26), (250, 235, 110), (125, 125, 135))
"""Of the mistakes, told apart with any color vision: blue, orange, light yellow, gray."""


PAPER_RGB: Color = (13, 17, 23)


class Layout(NamedTuple):
    """Where everything goes, in inches."""

    columns: tuple[str, ...]
    width: float  # of a panel
    heights: tuple[float, ...]  # of the rows
    per_mm: float
    legend: float  # its height

    @property
    def sheet(self) -> tuple[float, float]:
        """Width and height of everything."""
        count = len(self.columns)
        width = LEFT + count * self.width + (count - 1) * GAP + RIGHT
        return width, TOP + sum(self.heights) + 2 * GAP + self.legend


def picture(view: View, task: Task, title: str) -> np.ndarray:
    """The whole sheet, RGB ``(height, width, 3)`` uint8."""
    classes = _classes(view, task)
    layout = _lay_out(view, classes)
    figure = Figure(figsize=layout.sheet, dpi=DPI, facecolor=_mpl(PAPER_RGB))
    canvas = FigureCanvasAgg(figure)
    for column, kind in enumerate(layout.columns):
        for row, plane in enumerate(PLANES):
            axes = _panel(figure, layout, row, column)
            _show(axes, view, plane, kind, task)
            _center(axes, view.size_mm(plane), layout, row)
            if column == 0:
                _write_letters(axes, plane)
            if row == 0:
                axes.set_title(kind, color=INK, fontsize=9, pad=5)
    _draw_scale_bar(figure.axes[0], layout)
    _write_head(figure, view, title)
    _draw_legends(figure, view, classes, layout)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(drawn)[..., :3].copy()


def _lay_out(view: View, classes: Sequence[Key]) -> Layout:
    """One scale for all panels: the widest fills its column, and the rows stay on the page."""
    columns: tuple[str, ...] = ("image", "prediction")
    widest = ALONE
    if view.truth is not None:
        columns, widest = ("image", "truth", "prediction", "errors"), BESIDE_TRUTH
    sizes_mm = [view.size_mm(plane) for plane in PLANES]
    most_mm = max(float(width) for width, _ in sizes_mm)
    per_mm = min(widest / most_mm, TALLEST / sum(float(height) for _, height in sizes_mm))
    width = max(most_mm * per_mm, NARROWEST * widest)
    heights = tuple(max(FLATTEST, float(height) * per_mm) for _, height in sizes_mm)
    beside = len(columns) * width - (MISTAKES_WIDTH if view.truth is not None else 0)
    lines = math.ceil(len(classes) / _per_line(classes, beside))
    if view.truth is not None:
        lines = max(lines, math.ceil(_kinds(view) / 2))
    return Layout(columns, width, heights, per_mm, lines * LINE + 0.2)


def _panel(figure: Figure, layout: Layout, row: int, column: int) -> Axes:
    sheet_width, sheet_height = layout.sheet
    left = LEFT + column * (layout.width + GAP)
    bottom = sheet_height - TOP - sum(layout.heights[: row + 1]) - row * GAP
    place = (
        left / sheet_width,
        bottom / sheet_height,
        layout.width / sheet_width,
        layout.heights[row] / sheet_height,
    )
    axes = figure.add_axes(place, facecolor="black", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _show(axes: Axes, view: View, plane: Plane, kind: str, task: Task) -> None:
    """The gray image, and on it what ``kind`` says."""
    width_mm, height_mm = view.size_mm(plane)
    extent = (0.0, width_mm, height_mm, 0.0)
    gray = view.cut(view.image, plane)
    dim = 0.6 if kind == "errors" else 1.0
    axes.imshow(gray * dim, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    if kind == "prediction":
        _outline(axes, view.cut(view.predicted, plane), view.voxel_mm(plane), task)
    if view.truth is None:
        return
    truth = view.cut(view.truth, plane)
    if kind == "truth":
        _outline(axes, truth, view.voxel_mm(plane), task)
        axes.imshow(_paint(np.where(truth == IGNORE, 4, 0)), extent=extent)
    if kind == "errors":
        errors = mistakes(view.cut(view.predicted, plane), truth)
        _trace(axes, (truth > 0) & (truth != IGNORE), view.voxel_mm(plane), "white", width=0.6)
        axes.imshow(_paint(errors), extent=extent, interpolation="nearest", zorder=3)


def _paint(kinds: np.ndarray) -> np.ndarray:
    """RGBA of a map of mistakes; what nobody annotated can be seen through."""
    colors = np.array([(0, 0, 0), *COLORS]) / 255
    alpha = np.select([kinds == 4, kinds > 0], [0.45, 1.0], 0.0)
    return np.dstack([colors[kinds], alpha])


def _outline(axes: Axes, labels: np.ndarray, voxel_mm: np.ndarray, task: Task) -> None:
    height_mm, width_mm = np.array(labels.shape) * voxel_mm[::-1]
    for index, color in enumerate(task.colors):
        mask = labels == index
        if index == 0 or not mask.any():
            continue
        rgb = np.array(color) / 255
        tint = np.dstack([np.broadcast_to(rgb, (*mask.shape, 3)), 0.22 * mask])
        axes.imshow(tint, extent=(0.0, width_mm, height_mm, 0.0), interpolation="nearest")
        _trace(axes, mask, voxel_mm, tuple(rgb), width=1.3)


def _trace(
    axes: Axes,
    mask: np.ndarray,
    voxel_mm: np.ndarray,
    color: str | tuple[float, ...],
    *,
    width: float,
) -> None:
    """The border of ``mask``, closed where it meets the border of the image."""
    lines = find_contours(np.pad(mask, 1).astype(float), 0.5)
    if not lines:
        return
    gap = np.full((1, 2), np.nan)  # one artist for all: a noisy prediction has thousands
    down, right = (np.concatenate([part for line in lines for part in (line, gap)]) - 0.5).T
    (drawn,) = axes.plot(right * voxel_mm[0], down * voxel_mm[1], color=color, linewidth=width)
    drawn.set_path_effects([withStroke(linewidth=width + 1, foreground=_contrast(color))])


def _contrast(color: str | tuple[float, ...]) -> tuple[float, ...]:
    """A rim on which ``color`` stands out: black, or white around dark colors."""
    if isinstance(color, str) or sum(color) > 0.7:
        return (0.0, 0.0, 0.0, 0.6)
    return (1.0, 1.0, 1.0, 0.8)


def _center(axes: Axes, size_mm: np.ndarray, layout: Layout, row: int) -> None:
    width_mm, height_mm = layout.width / layout.per_mm, layout.heights[row] / layout.per_mm
    middle_x, middle_y = size_mm / 2
    axes.set_xlim(middle_x - width_mm / 2, middle_x + width_mm / 2)
    axes.set_ylim(middle_y + height_mm / 2, middle_y - height_mm / 2)


def _write_letters(axes: Axes, plane: Plane) -> None:
    places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.97), (0.5, 0.03))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, (x, y), (across, along) in zip(plane.letters, places, sides, strict=True):
        written = axes.text(
            x, y, letter, transform=axes.transAxes, ha=across, va=along, color=INK, fontsize=7.5
        )
        written.set_path_effects([withStroke(linewidth=1.8, foreground="black")])
    axes.set_ylabel(plane.name, color=QUIET, fontsize=9, labelpad=4)


def _draw_scale_bar(axes: Axes, layout: Layout) -> None:
    """A round length, at most a third of a panel."""
    most_mm = layout.width / layout.per_mm / 3
    power = 10.0 ** math.floor(math.log10(most_mm))
    bar_mm = next(step * power for step in (5, 2, 1) if step * power <= most_mm)
    share = bar_mm * layout.per_mm / layout.width
    rim = [withStroke(linewidth=3.6, foreground="black")]
    (bar,) = axes.plot(
        (0.96 - share, 0.96), (0.05, 0.05), transform=axes.transAxes, color="white", linewidth=2
    )
    bar.set(path_effects=rim, solid_capstyle="butt")
    above = 0.05 + 0.05 / layout.heights[0]
    label = axes.text(0.96 - share / 2, above, f"{bar_mm:g} mm", transform=axes.transAxes)
    label.set(color="white", fontsize=7.5, ha="center", va="bottom")
    label.set_path_effects([withStroke(linewidth=1.8, foreground="black")])


def _write_head(figure: Figure, view: View, title: str) -> None:
    width, height = figure.get_size_inches()
    short = _short(title, int(width / 0.115))
    named = figure.text(LEFT / width, 1 - 0.1 / height, short, color=INK, fontsize=11, va="top")
    named.set(weight="bold", parse_math=False)
    place = ", ".join(f"{mm:.0f}" for mm in np.round(view.place_mm) + 0.0)
    where = f"planes meet at ({place}) mm"
    figure.text(LEFT / width, 1 - 0.34 / height, where, color=QUIET, fontsize=8, va="top")


def _classes(view: View, task: Task) -> list[Key]:
    """The classes in this picture but for the background, and their colors."""
    known = view.predicted if view.truth is None else np.stack([view.predicted, view.truth])
    keys = [
        (_short(name, LONGEST_NAME), color)
        for index, (name, color) in enumerate(zip(task.classes, task.colors, strict=True))
        if index > 0 and (known == index).any()
    ]
    if len(keys) > MOST_NAMES:
        keys = [*keys[:MOST_NAMES], (f"and {len(keys) - MOST_NAMES} more", PAPER_RGB)]
    return keys or [("nothing found", PAPER_RGB)]


def _kinds(view: View) -> int:
    """How many kinds of mistakes need a legend."""
    return 4 if view.truth is not None and bool((view.truth == IGNORE).any()) else 3


def _per_line(keys: Sequence[Key], room: float) -> int:
    """How many keys of a legend fit side by side in ``room`` inches."""
    longest = max(len(name) for name, _ in keys)
    return min(len(keys), max(1, int(room / (0.45 + 0.072 * longest))))


def _draw_legends(figure: Figure, view: View, classes: Sequence[Key], layout: Layout) -> None:
    """Classes on the left; mistakes on the right, below their column."""
    width, height = layout.sheet
    top = (layout.legend - 0.12) / height
    room = width - LEFT - RIGHT
    if view.truth is not None:
        room -= MISTAKES_WIDTH
        kinds = [*zip(MISTAKES, COLORS, strict=True)][: _kinds(view)]
        corner = ((width - RIGHT - MISTAKES_WIDTH) / width, top)
        _draw_legend(figure, kinds, corner, per_line=2)
    corner = (LEFT / width, top)
    _draw_legend(figure, classes, corner, per_line=_per_line(classes, room))


def _draw_legend(
    figure: Figure, keys: Sequence[Key], corner: tuple[float, float], *, per_line: int
) -> None:
    patches = [Patch(color=_mpl(color)) for _, color in keys]
    legend = figure.legend(
        patches,
        ["x" * len(name) for name, _ in keys],
        loc="upper left",
        bbox_to_anchor=corner,
        ncols=per_line,
        frameon=False,
        fontsize=8,
        handlelength=1.0,
        handleheight=1.0,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.4,
    )
    for text, (name, _) in zip(legend.get_texts(), keys, strict=True):
        text.set(text=name, color=INK, parse_math=False)


def _short(text: str, longest: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else f"{flat[: longest - 1]}…"


def _mpl(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255
