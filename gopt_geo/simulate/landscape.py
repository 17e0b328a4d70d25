"""The ground itself: terrain, rivers and lakes, parcels, settlements, roads and forest, before any sensor sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from gopt_geo.simulate.fields import (
    cell_hash,
    fractal_field,
    jittered_points,
    nearest_points,
    smooth_field,
)
from gopt_geo.simulate.materials import LandCover, Material

__all__ = ["Landscape", "make_landscape"]

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Landscape:
    """One simulated landscape on its base grid; every array is [H, W].

    Attributes
    ----------
    label
        uint8, index of `LandCover`.
    material
        uint8, index of `Material`.
    height
        float32, terrain height in metres.
    building
        bool, walls that return a corner reflection.
    tone
        float32 around 0: brightness of the parcel, block or stand against its material's mean.
    pixel_size
        Pixel edge in metres.
    """

    label: NDArray[np.uint8]
    material: NDArray[np.uint8]
    height: Float
    building: Bool
    tone: Float
    pixel_size: float


@dataclass
class _Parcels:
    """Rectangular fields: every district has its own direction and field size."""

    district: NDArray[np.intp]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    edge: Float  # distance to the parcel's border in pixels

    def draw(self, seed: int) -> Float:
        """Draw one uniform number per parcel, [H, W]."""
        return cell_hash(seed, self.district, self.row, self.col)


class _Builder:
    """Builds the landscape layer by layer, later layers over earlier ones."""

    def __init__(self, shape: tuple[int, int], pixel_size: float, seed: int) -> None:
        self.shape = shape
        self.pixel_size = pixel_size
        self.seed = seed
        names = ("terrain", "water", "parcels", "forest", "settlements", "roads", "others", "texture")
        children = np.random.SeedSequence(seed).spawn(len(names))
        self.rng = {name: np.random.default_rng(child) for name, child in zip(names, children, strict=True)}
        self.rows, self.cols = (
            a.astype(np.float32) for a in np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
        )
        self.label = np.full(shape, LandCover.FARMLAND, dtype=np.uint8)
        self.material = np.full(shape, Material.CROP_GREEN, dtype=np.uint8)
        self.building = np.zeros(shape, dtype=bool)
        self.tone = np.zeros(shape, dtype=np.float32)

    def px(self, metres: float) -> float:
        """Convert metres to pixels."""
        return metres / self.pixel_size

    def put(self, where: Bool, label: LandCover, material: NDArray[np.uint8] | Material) -> None:
        """Lay a class over what is there; buildings below it are gone."""
        self.label[where] = label
        self.material[where] = material[where] if isinstance(material, np.ndarray) else material
        self.building[where] = False

    def mosaic(self, draw: Float, *shares: tuple[Material, float]) -> NDArray[np.uint8]:
        """Choose materials by a uniform draw and their shares, which sum to 1."""
        bounds = np.cumsum([share for _, share in shares])
        index = np.minimum(np.searchsorted(bounds, draw, side="right"), len(shares) - 1)
        return np.array([m for m, _ in shares], dtype=np.uint8)[index]

    def build(self) -> Landscape:
        """Run all steps, from the ground up."""
        self.terrain()
        self.parcels_layer()
        self.forest()
        self.bare_ground()
        self.water()
        self.settlements()
        self.roads()
        return Landscape(self.label, self.material, self.height, self.building, self.tone, self.pixel_size)

    def terrain(self) -> None:
        """Hills of a few hundred metres, with valleys where the rivers run."""
        rng = self.rng["terrain"]
        relief = fractal_field(rng, self.shape, self.px(2500), octaves=6, gain=0.42)
        self.relief = relief
        course = fractal_field(self.rng["water"], self.shape, self.px(3500), octaves=3, gain=0.35)
        gradient = np.hypot(*np.gradient(smooth_gradient_source(course)))
        self.river_distance = np.abs(course) / np.maximum(gradient, np.float32(0.15 / self.px(3500)))
        valley = np.exp(-((self.river_distance / self.px(500)) ** 2))
        self.height = np.asarray(60.0 * np.exp(0.75 * relief) * (1.0 - 0.85 * valley), dtype=np.float32)

    def parcels_layer(self) -> None:
        """Fields in districts; in wet districts some fields are ponds overgrown with floating plants."""
        rng = self.rng["parcels"]
        seeds = jittered_points(rng, self.shape, self.px(1100))
        wobble = self.px(60)
        rows = self.rows + wobble * smooth_field(rng, self.shape, self.px(300))
        cols = self.cols + wobble * smooth_field(rng, self.shape, self.px(300))
        _, district = nearest_points(seeds, rows, cols)
        n = len(seeds)
        angle, length, width = rng.uniform(0, np.pi, n), rng.uniform(180, 420, n), rng.uniform(90, 200, n)
        u = rows * np.cos(angle)[district] + cols * np.sin(angle)[district]
        v = -rows * np.sin(angle)[district] + cols * np.cos(angle)[district]
        row = np.floor(v / self.px(1) / width[district]).astype(np.int64)
        shift = cell_hash(self.seed, district, row) * length[district]
        along = (u / self.px(1) + shift) / length[district]
        col = np.floor(along).astype(np.int64)
        across = v / self.px(1) / width[district]
        edge = np.minimum(
            np.minimum(along - col, 1 - (along - col)) * length[district],
            np.minimum(across - row, 1 - (across - row)) * width[district],
        )
        self.parcels = _Parcels(district, row, col, np.asarray(edge * self.px(1), dtype=np.float32))
        season = rng.dirichlet((2.5, 1.5, 1.5, 1.0, 1.8))
        crops = (
            Material.CROP_GREEN,
            Material.CROP_RIPE,
            Material.SOIL,
            Material.SOIL_MOIST,
            Material.CROP_DARK,
        )
        material = self.mosaic(self.parcels.draw(1), *zip(crops, season, strict=True))
        wet_district = (rng.uniform(size=n) < 0.34)[district]
        # Wet districts grow green crops above all, so that the eye can't tell a pond from its neighbour.
        green = wet_district & (self.parcels.draw(2) < 0.75)
        material[green] = Material.CROP_GREEN
        self.material = material
        self.tone = (self.parcels.draw(3) - 0.5) * 0.36
        hedge = (self.parcels.edge < self.px(6)) & (self.parcels.draw(4) < 0.5)
        self.material[hedge] = Material.GRASS
        pond = wet_district & (self.parcels.draw(5) < 0.36) & (self.parcels.edge > self.px(7)) & (self.relief < 0.6)
        self.put(pond, LandCover.WATER, Material.FLOATING_PLANTS)
        self.gardens = (~wet_district) & (smooth_field(rng, self.shape, self.px(330)) > 1.15)
        mosaic = self.settlement_mosaic(6)
        garden = self.gardens & (self.relief < 0.5)
        self.material[garden] = mosaic[garden]
        self.tone[garden] = 0.0

    def settlement_mosaic(self, salt: int) -> NDArray[np.uint8]:
        """Trees, grass and small roofs or sheds in cells of about 25 m: villages and allotments look alike."""
        cell = max(self.px(25), 1.0)
        lean = self.rng["texture"].uniform(0, np.pi / 2)
        rows, cols = (
            np.floor(a / cell).astype(np.int64)
            for a in (
                self.rows * np.cos(lean) + self.cols * np.sin(lean),
                self.cols * np.cos(lean) - self.rows * np.sin(lean),
            )
        )
        draw = cell_hash(self.seed + salt, rows, cols)
        return self.mosaic(
            draw, (Material.TREE, 0.34), (Material.GRASS, 0.22), (Material.SHED, 0.32), (Material.SOIL, 0.12)
        )

    def forest(self) -> None:
        """Forest on the hills, and groves between the fields."""
        rng = self.rng["forest"]
        stand = 0.9 * self.relief + 0.55 * fractal_field(rng, self.shape, self.px(700), octaves=4)
        grove = smooth_field(rng, self.shape, self.px(160))
        where = (stand > 0.75) | ((grove > 2.0) & ~self.gardens)
        self.put(where, LandCover.FOREST, Material.TREE)
        self.tone[where] = 0.16 * smooth_field(rng, self.shape, self.px(250))[where]

    def bare_ground(self) -> None:
        """Class "others": quarries, sand and rock."""
        rng = self.rng["others"]
        bare = fractal_field(rng, self.shape, self.px(450), octaves=4)
        draw = np.clip(0.5 + 0.3 * smooth_field(rng, self.shape, self.px(90)), 0, 0.999)
        material = self.mosaic(draw, (Material.ROCK, 0.35), (Material.SAND, 0.3), (Material.SOIL, 0.35))
        where = bare > 1.85
        self.put(where, LandCover.OTHERS, material)
        self.tone[where] = 0.2 * smooth_field(rng, self.shape, self.px(40))[where]

    def water(self) -> None:
        """Rivers that meander, with sand banks, and lakes in the hollows."""
        rng = self.rng["water"]
        width = self.px(55) * np.exp(0.5 * smooth_field(rng, self.shape, self.px(2000)))
        bank_noise = smooth_field(rng, self.shape, self.px(180))
        bank = (self.river_distance < width * 1.7) & (bank_noise > 0.5)
        self.put(bank, LandCover.OTHERS, Material.SAND)
        lake_field = fractal_field(rng, self.shape, self.px(900), octaves=3, gain=0.4)
        lake = (lake_field > 1.9) & (self.relief < 0.9)
        self.open_water = (self.river_distance < width) | lake
        self.put(self.open_water, LandCover.WATER, Material.WATER)
        self.tone[bank | self.open_water] = 0.0
        self.height[lake] = np.minimum(self.height[lake], 20.0)

    def settlements(self) -> None:
        """Towns of blocks and streets, building land beside them, and villages among the fields."""
        rng = self.rng["settlements"]
        towns, villages = self.sites(rng, 2900, 0.62), self.sites(rng, 950, 0.62)
        edge = smooth_field(rng, self.shape, self.px(260))
        town_distance, town = nearest_points(towns, self.rows, self.cols)
        village_distance, village = nearest_points(villages, self.rows, self.cols)
        size = rng.uniform(420, 900, len(towns))[town]
        built = town_distance < self.px(1) * size * (1 + 0.22 * edge)
        hamlet = village_distance < self.px(1) * rng.uniform(110, 270, len(villages))[village] * (1 + 0.25 * edge)
        dry = ~self.open_water
        self.village(hamlet & dry & ~built)
        self.town(built & dry, rng.uniform(0, np.pi / 2, len(towns))[town])
        self.sites_for_roads = np.concatenate([towns, villages])

    def sites(self, rng: np.random.Generator, spacing: float, keep: float) -> NDArray[np.float64]:
        """Settlement centres (row, column): on gentle ground, off the water; at least one."""
        points = jittered_points(rng, self.shape, self.px(spacing))
        inside = np.clip(points.astype(int), 0, np.array(self.shape) - 1)
        relief = self.relief[inside[:, 0], inside[:, 1]]
        kept = (rng.uniform(size=len(points)) < keep) & (relief < 0.7)
        return points[kept] if kept.any() else points[:1]

    def village(self, where: Bool) -> None:
        """Scattered houses between trees and gardens."""
        mosaic = self.settlement_mosaic(8)
        self.put(where, LandCover.VILLAGE, mosaic)
        self.building |= where & (mosaic == Material.SHED)
        self.tone[where] = 0.0

    def town(self, where: Bool, angle: NDArray[np.float64]) -> None:
        """Blocks between streets; a block is built up (city) or cleared for building (others)."""
        u = self.rows * np.cos(angle) + self.cols * np.sin(angle)
        v = -self.rows * np.sin(angle) + self.cols * np.cos(angle)
        block_u, block_v = (np.floor(a / self.px(s)).astype(np.int64) for a, s in ((u, 210), (v, 160)))
        street = ((u / self.px(210) - block_u) * 210 < 14) | ((v / self.px(160) - block_v) * 160 < 14)
        # Building land comes in groups of blocks, as phases of a development do.
        cleared = cell_hash(self.seed + 11, np.floor_divide(block_u, 2), np.floor_divide(block_v, 2)) < 0.3
        plot_u, plot_v = (np.floor(a / max(self.px(27), 1.0)).astype(np.int64) for a in (u, v))
        draw = cell_hash(self.seed + 12, plot_u, plot_v)
        material = self.mosaic(
            draw,
            (Material.ROOF_BRIGHT, 0.16),
            (Material.ROOF_RED, 0.2),
            (Material.ROOF_GREY, 0.26),
            (Material.CONCRETE, 0.2),
            (Material.GRASS, 0.08),
            (Material.TREE, 0.1),
        )
        roofs = np.isin(material, (Material.ROOF_BRIGHT, Material.ROOF_RED, Material.ROOF_GREY))
        material[street] = Material.ASPHALT
        self.put(where & ~cleared, LandCover.CITY, material)
        self.put(where & cleared, LandCover.OTHERS, material)
        self.building |= where & ~cleared & roofs & ~street
        self.tone[where] = 0.25 * (cell_hash(self.seed + 13, plot_u, plot_v)[where] - 0.5)
        self.cleared = where & cleared

    def roads(self) -> None:
        """Highways that join neighbouring settlements, bending with the land; bridges cross the water."""
        sites = self.sites_for_roads
        if len(sites) < 2:
            return
        distance = cdist(sites, sites)
        tree = minimum_spanning_tree(distance).toarray() > 0
        nearest = np.argsort(distance, axis=1)[:, 1:3]
        tree[np.repeat(np.arange(len(sites)), nearest.shape[1]), nearest.ravel()] |= (
            self.rng["roads"].uniform(size=nearest.size) < 0.35
        )
        drawn = np.zeros(self.shape, dtype=bool)
        for a, b in np.argwhere(tree):
            self._draw_road(drawn, sites[a], sites[b])
        road = ndimage.distance_transform_edt(~drawn) <= max(self.px(16), 0.5)
        draw = self.rng["roads"].uniform(size=self.shape).astype(np.float32)
        self.put(road, LandCover.ROAD, self.mosaic(draw, (Material.ASPHALT, 0.7), (Material.CONCRETE, 0.3)))
        self.tone[road] = 0.0

    def _draw_road(self, drawn: Bool, start: NDArray[np.float64], stop: NDArray[np.float64]) -> None:
        """Mark the pixels of one bending line in place."""
        vector = stop - start
        length = float(np.hypot(*vector))
        t = np.linspace(0.0, 1.0, int(length * 2) + 2)
        bend = self.rng["roads"].normal(0, 0.07, 3)
        sideways = length * sum(b * np.sin(np.pi * (k + 1) * t) for k, b in enumerate(bend))
        normal = np.array([-vector[1], vector[0]]) / max(length, 1e-9)
        line = np.rint(start + t[:, None] * vector + sideways[:, None] * normal).astype(int)
        inside = ((line >= 0) & (line < np.array(self.shape))).all(axis=1)
        drawn[line[inside, 0], line[inside, 1]] = True


def smooth_gradient_source(field: Float) -> Float:
    """Smooth a field a little, so that its gradient is that of the course and not of its finest wiggles."""
    return np.asarray(ndimage.gaussian_filter(field, 2.0), dtype=np.float32)


def make_landscape(shape: tuple[int, int], pixel_size: float, seed: int) -> Landscape:
    """Make a landscape with the seven WHU-OPT-SAR classes.

    Parameters
    ----------
    shape
        Height and width in pixels of the base grid.
    pixel_size
        Pixel edge in metres; all features have sizes in metres, so a finer grid shows the same kind of land.
    seed
        The same seed, shape and pixel size give the same landscape.
    """
    return _Builder(shape, pixel_size, seed).build()
