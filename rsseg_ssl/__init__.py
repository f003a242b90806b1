"""Scenes: GeoTIFF in, GeoTIFF out, in metres and hectares, on torchgeo and rasterio."""
