"""Files of shapes: what is read, and what is said of what cannot be."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio.warp
import shapely
from affine import Affine
from rasterio.crs import CRS

from common.errors import DataError
from rsseg_ssl.cases import Grid, point
from rsseg_ssl.vectors import Legend, read_features
from tests.rsseg_ssl.scenes import UTM, north_up

LEGEND = Legend(("land", "water", "roof"), (0, 10, 20))
AREAS = ("Polygon", "MultiPolygon")
CORNER = (500_000, 5_400_000)
GRID = Grid(CRS.from_user_input(UTM), north_up(), (16, 16))


def square(column: float = 2, row: float = 3, side: float = 4) -> shapely.Polygon:
    """In pixels of ``GRID``, as a shape of its CRS."""
    x, y = point(GRID.transform, column, row)
    return shapely.box(x, y - 2 * side, x + 2 * side, y)


def saved(path, classes, shapes=None, *, crs=UTM, column="class", **more):
    shapes = [square()] * len(classes) if shapes is None else shapes
    table = gpd.GeoDataFrame({column: classes}, geometry=shapes, crs=crs)
    table.to_file(path, **more)
    return path


def features(path, kinds=AREAS, column="class"):
    return read_features(path, kinds, column=column, legend=LEGEND)


def message(path, **more) -> str:
    with pytest.raises(DataError) as error:
        features(path, **more)
    return str(error.value)


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.fgb"])
def test_every_usual_format_is_read(tmp_path, name):
    crs = "EPSG:4326" if name == "a.geojson" else UTM
    table = gpd.GeoSeries([square()], crs=UTM).to_crs(crs)
    found = features(saved(tmp_path / name, ["roof"], [*table], crs=crs)).on(GRID)
    assert found.labels.tolist() == [2]
    assert found.sources == (f"{name}, feature 1",)
    np.testing.assert_allclose(shapely.bounds(found.geometries), [[2, 3, 6, 7]], atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "labels"),
    [(["land", " water "], [0, 1]), ([20, 0], [2, 0]), (["10", "roof"], [1, 2]), ([20.0], [2])],
)
def test_a_class_is_told_by_its_name_or_its_mask_value(tmp_path, classes, labels):
    path = saved(tmp_path / "a.gpkg", classes, column="kind")
    assert features(path, column="kind").labels.tolist() == labels


def test_a_class_named_like_a_number_is_that_class(tmp_path):
    path = saved(tmp_path / "a.gpkg", ["20", "10", "30"])
    legend = Legend(("20", "10"), (10, 30))
    found = read_features(path, AREAS, column="class", legend=legend)
    assert found.labels.tolist() == [0, 1, 1]


def test_every_feature_that_cannot_be_used_is_told_with_all_the_others(tmp_path):
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    path = saved(
        tmp_path / "a.gpkg",
        ["watr", "roof", None, "roof", "watr", "roof", "30"],
        [square(), None, square(), bow, square(), shapely.Point(1, 1), square()],
    )
    assert message(path) == "\n".join(
        [
            f"{path}: 6 problems",
            "  feature 1, 5: there is no class 'watr'. Did you mean 'water'?",
            "  feature 2: has no shape.",
            "  feature 3: has no class.",
            "  feature 4: its outline is not valid (Self-intersection). Mend it (QGIS: Fix "
            "geometries).",
            "  feature 6: is a Point, expected Polygon or MultiPolygon.",
            "  feature 7: there is no class '30'.",
        ]
    )


def test_an_attribute_that_is_not_there_is_named(tmp_path):
    path = saved(tmp_path / "a.gpkg", ["roof"], column="clas")
    assert message(path) == (
        f"{path} has no attribute 'class' that names the class; it has clas. Did you mean 'clas'? "
        "Set domain.weak_labels.class_column."
    )


def test_a_file_without_crs_is_refused(tmp_path):
    path = saved(tmp_path / "a.shp", ["roof"])
    path.with_suffix(".prj").unlink()
    assert message(path) == (
        f"{path} has no CRS, so it is unknown where its shapes lie. Assign one: ogr2ogr -a_srs "
        "EPSG:..."
    )


def test_a_file_of_several_layers_is_refused(tmp_path):
    path = saved(tmp_path / "a.gpkg", ["roof"], layer="one")
    saved(path, ["roof"], layer="two")
    assert message(path) == (
        f"{path} holds 2 layers (one, two). Save the one that is meant as a file of its own."
    )


def test_a_file_that_is_none_of_shapes_is_refused(tmp_path):
    path = tmp_path / "a.gpkg"
    path.write_text("hello")
    text = message(path)
    assert text.startswith(f"{path} cannot be read as shapes: ")
    assert text.endswith("Give a file such as GeoPackage or GeoJSON, or a .csv in pixels.")


def test_features_elsewhere_and_in_unknown_height_do_no_harm(tmp_path):
    high = shapely.force_3d(square(), 7.0)
    far = shapely.box(0, 0, 1, 1)
    found = features(saved(tmp_path / "a.gpkg", ["roof", "water", "land"], [far, high, far]))
    assert found.on(GRID).sources == ("a.gpkg, feature 2",)
    assert found.on(GRID).labels.tolist() == [1]
    assert not found.on(GRID).geometries[0].has_z


def test_a_margin_takes_in_what_lies_beside_the_scene(tmp_path):
    path = saved(tmp_path / "a.gpkg", ["roof"], [square(18, 3, side=1)])
    assert len(features(path).on(GRID)) == 0
    assert len(features(path).on(GRID, (0, 1.5))) == 0
    assert len(features(path).on(GRID, (0, 2.5))) == 1


def test_long_edges_bend_as_the_map_does(tmp_path):
    """A strip along a parallel: in UTM, its middle lies hundreds of metres off the chord."""
    strip = shapely.box(7, 48.7, 11, 48.8)
    scene = Grid(CRS.from_user_input(UTM), Affine(20, 0, 420_000, 0, -20, 5_410_000), (900, 8000))
    found = features(saved(tmp_path / "a.gpkg", ["roof"], [strip], crs="EPSG:4326")).on(scene)
    for column in (100, 4000, 7900):
        x, y = point(scene.transform, column, 450)
        (longitude,), _ = rasterio.warp.transform(UTM, "EPSG:4326", [x], [y])
        _, (edge,) = rasterio.warp.transform("EPSG:4326", UTM, [longitude], [48.7])
        row = (5_410_000 - edge) / 20
        line = shapely.LineString([(column, 0), (column, 899)])
        touched = shapely.intersection(found.geometries[0], line)
        assert abs(touched.bounds[3] - min(row, 899)) < 0.2


def test_a_shape_that_the_crs_of_the_scene_does_not_know_is_told(tmp_path):
    """A scene at the edge of the world meets a band around all of it."""
    crs = CRS.from_proj4("+proj=gnom +lat_0=48 +lon_0=9")
    scene = Grid(crs, Affine(1e5, 0, -4e7, 0, -1e5, 4e7), (800, 800))
    band = shapely.box(-180, 40, 180, 50)
    path = saved(tmp_path / "a.gpkg", ["roof"], [band], crs="EPSG:4326")
    with pytest.raises(DataError) as error:
        features(path).on(scene)
    assert str(error.value).startswith("a.gpkg, feature 1: cannot be brought to ")
    assert str(error.value).endswith("Save the file in the CRS of the scenes (ogr2ogr -t_srs).")
